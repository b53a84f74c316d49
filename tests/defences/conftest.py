"""Every question once instead of three times: what is tested here is what a defence does, not how well it is scored."""

from __future__ import annotations

import pytest

from specdef.tasks.kinds import biographies


@pytest.fixture(autouse=True)
def _fewer_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(biographies, "DRAWS", 1)
