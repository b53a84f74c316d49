"""Without lm-eval, its adapter says what to install. What it does with it: tests/harness (`make test-harness`)."""

from __future__ import annotations

from pathlib import Path

import pytest

from specdef.errors import SpecdefError
from specdef.integrations.lm_eval import evaluate_harness


def test_a_missing_harness_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SpecdefError, match=r"need lm-eval. Run `pip install specdef\[harness\]`"):
        evaluate_harness(tmp_path, ["colours"])
