"""The search for a multiplier: the smallest that holds is found, and none is invented when none does."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import specdef
from specdef.certify import multiplier_search
from specdef.certify.multiplier_search import find_multiplier
from specdef.certify.verdict_kinds import Broken, Held, HeldBy, NotMeasured, Slowed, Undone, holds
from specdef.errors import PlanError, SpecdefError
from specdef.locks.manifest import read_manifest


def certifier(threshold: int, seen: list[int]) -> Any:
    """Holds from 2^threshold on, judging by the manifest of the folder it is really given."""

    def certify(locked: Path, out: Path, **options: Any) -> Any:
        exponent = read_manifest(locked).strength["exponent"]
        seen.append(exponent)
        return SimpleNamespace(verdicts={"T0": Held(HeldBy.COLLAPSE) if exponent >= threshold else Slowed(2.0)})

    return certify


@pytest.mark.parametrize("threshold", [1, 5, 11, 12, 13])
def test_the_smallest_that_holds_is_found(llama: Path, tmp_path: Path, threshold: int) -> None:
    seen: list[int] = []
    found = find_multiplier(llama, tmp_path, exponents=(4, 12, 20), certify=certifier(threshold, seen))
    assert found.smallest == threshold
    assert list(found.tried) == sorted(seen)
    stored = json.loads((tmp_path / "multiplier.json").read_text())
    assert stored["smallest"] == threshold
    assert stored["tried"][str(threshold)] == {"T0": {"kind": "held", "by": "collapse"}}
    assert [path.name for path in tmp_path.iterdir()] == ["multiplier.json"]


def test_none_is_said_when_none_holds(llama: Path, tmp_path: Path) -> None:
    found = find_multiplier(llama, tmp_path, exponents=(4, 12), certify=certifier(99, []))
    assert found.smallest is None
    assert found.sentence == "No multiplier from 2^4 to 2^12 holds T0."
    with pytest.raises(SpecdefError, match="`exponents` must ascend"):
        find_multiplier(llama, tmp_path, exponents=(12, 4))


def test_what_lies_in_the_folder_stays(llama: Path, tmp_path: Path) -> None:
    """Before, a lock and a key of these names were taken for the search's own, and removed."""
    (tmp_path / "locked-2^4").mkdir()
    (tmp_path / "locked-2^4" / "model.safetensors").write_text("mine")
    (tmp_path / "locked-2^4.specdef-key").write_text("mine")
    find_multiplier(llama, tmp_path, exponents=(4,), certify=certifier(4, []))
    assert (tmp_path / "locked-2^4" / "model.safetensors").read_text() == "mine"
    assert (tmp_path / "locked-2^4.specdef-key").read_text() == "mine"


def test_a_multiplier_that_is_refused_ends_the_search_and_keeps_what_was_tried(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(model: Path, out: Path, *, multiplier: str, **options: Any) -> Any:
        if multiplier != "2^4":
            raise PlanError("`multiplier` must be smaller.")
        return specdef.lock(model, out, multiplier=multiplier, **options)

    monkeypatch.setattr(multiplier_search, "lock", refuse)
    found = find_multiplier(llama, tmp_path, exponents=(4, 12, 20), certify=certifier(99, []))
    assert found.sentence == "No multiplier from 2^4 to 2^4 holds T0. 2^12 is refused: `multiplier` must be smaller."
    stored = json.loads((tmp_path / "multiplier.json").read_text())
    assert (stored["smallest"], list(stored["tried"]), list(stored["refused"])) == (None, ["4"], ["12"])
    with pytest.raises(PlanError, match="must be smaller"):
        find_multiplier(llama, tmp_path / "none", exponents=(12, 20), certify=certifier(99, []))


def test_only_held_counts_as_held() -> None:
    held = [Held(HeldBy.STALL), Held(HeldBy.COLLAPSE)]
    assert [verdict for verdict in (Broken(), Slowed(3.0), Undone(0.1), NotMeasured(), *held) if holds(verdict)] == held
