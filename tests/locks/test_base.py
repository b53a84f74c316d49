"""A lock of one's own: one object that knows itself; lock, verify, inspect, certify and unlock only ask it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from specdef import inspect_model, lock, unlock, verify
from specdef.architectures.resolve import ResolvedModel
from specdef.checkpoint.edits import ShardEdits
from specdef.checkpoint.reader import Checkpoint
from specdef.errors import PlanError
from specdef.locks.base import LOCKS, Check, Evidence, LockFacts, LockKind, ModuleLock, PreparedLock, Sign
from specdef.locks.edits import Edit, inverse, shard_edits
from specdef.locks.key import Key

NORM = "model.layers.0.input_layernorm.weight"


@dataclass(frozen=True)
class ToyOptions:
    multiplier: float = 4.0


class Toy(LockKind):
    """Scales one number of one norm; no lock at all, which is why its name is toy."""

    name = "toy"
    Options = ToyOptions

    def check_options(self, options: ToyOptions) -> None:
        if options.multiplier != 4.0:
            raise PlanError("`multiplier` must be 4.")

    def prepare(self, checkpoint: Checkpoint, model: ResolvedModel, options: Any, spool: Path) -> PreparedLock:
        edits = (Edit(NORM, 0, (0,), 2),)
        exactness = {
            "bit_exact": False, "closeness": "roughly", "exact_in": ["float32"], "not_claimed_in": [],
            "kv_cache": "any", "quantisation": "any",
        }  # fmt: skip
        return PreparedLock(
            strength={"multiplier": "4"},
            exactness=exactness,
            checked=("nothing",),
            num_values=1,
            edits=shard_edits(edits, checkpoint.locate()),
            key_edits=tuple(edit.to_json() for edit in edits),
        )

    def claims_hold(self, strength: Mapping[str, Any]) -> bool:
        return bool(strength["multiplier"] == "4")

    def check(self, checkpoint: Checkpoint, strength: Mapping[str, Any], original: Checkpoint | None) -> Check:
        return Check("lock", self._first(checkpoint) > 1.5, "first number of the first norm")

    def recognise(self, evidence: Evidence) -> Sign | None:
        return Sign(self.name, 2, "a large first number") if self._first(evidence.checkpoint) > 1.5 else None

    def invert(self, checkpoint: Checkpoint, key: Key) -> dict[str, ShardEdits]:
        edits = [Edit(**{**edit, "indices": tuple(edit["indices"])}) for edit in key.edits]
        return shard_edits(inverse(edits), checkpoint.locate())

    def facts(self, strength: Mapping[str, Any]) -> LockFacts:
        return LockFacts(4.0)

    def promise(self, exactness: Mapping[str, Any]) -> str:
        return "Its function is roughly the original's."

    def lock_module(self, module: nn.Module, given: Mapping[str, Any]) -> ModuleLock:
        raise PlanError("`module` cannot be locked by a toy.")

    def unlock_module(self, module: Any, originals: Mapping[str, Any]) -> None:
        raise NotImplementedError

    @staticmethod
    def _first(checkpoint: Checkpoint) -> float:
        return float(np.asarray(checkpoint.map_tensor(*checkpoint.locate()[NORM]))[0])


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = {"toy": Toy(), **{name: LOCKS.get(name) for name in LOCKS.names()}}
    monkeypatch.setattr(LOCKS, "names", lambda: tuple(kinds))
    monkeypatch.setattr(LOCKS, "get", kinds.__getitem__)


@pytest.mark.usefixtures("toy")
def test_a_third_lock_is_one_object(llama: Path, tmp_path: Path) -> None:
    report = lock(llama, tmp_path / "locked", preset="toy")
    assert report.lock == "toy"
    assert verify(tmp_path / "locked").passed
    sign = inspect_model(tmp_path / "locked", spectra=False).verdict.sign
    assert sign is not None
    assert sign.lock == "toy"
    assert "roughly the original's" in (tmp_path / "locked" / "SPECDEF_LOCK.md").read_text()
    assert report.key is not None
    unlock(tmp_path / "locked", tmp_path / "back", report.key)
    assert (tmp_path / "back/model.safetensors").read_bytes() == (llama / "model.safetensors").read_bytes()


@pytest.mark.usefixtures("toy")
def test_options_of_another_lock_are_refused(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="`rank` is no option of lock toy, which has multiplier"):
        lock(llama, tmp_path / "locked", preset="toy", rank=3)


def test_a_lock_may_be_asked_by_its_own_name(llama: Path, tmp_path: Path) -> None:
    assert lock(llama, tmp_path / "a", preset=LOCKS.names()[0], dry_run=True).lock == LOCKS.names()[0]
    with pytest.raises(PlanError, match="`preset` must be one of exact, paper"):
        lock(llama, tmp_path / "b", preset="magic")
