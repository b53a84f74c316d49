"""Every test draws the same pictures, whichever ran before it."""

from __future__ import annotations

import numpy as np
import pico_judge
import pytest


@pytest.fixture(autouse=True)
def _same_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pico_judge, "DRAW", np.random.default_rng(0))
