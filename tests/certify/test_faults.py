"""Faults of the machine: told from bad input, never a result, tried again, said in one sentence."""

from __future__ import annotations

import errno
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import grids
import pytest
import torch

from specdef.attacks.base import Attack
from specdef.attacks.interventions.lora import Lora
from specdef.certify import run_cell
from specdef.certify.api import attack
from specdef.certify.executors.local import LocalExecutor, safely
from specdef.certify.faults import MachineFault, is_machine_fault
from specdef.certify.store import Store
from specdef.certify.sweep import sweep
from specdef.errors import CheckpointError, SpecdefError
from specdef.training.outcome import Outcome
from specdef.training.recipe import Recipe

FULL = OSError(errno.ENOSPC, "No space left on device")
MACHINE = [
    FULL,
    OSError(errno.EMFILE, "Too many open files"),
    MemoryError(),
    torch.OutOfMemoryError("no more"),
    RuntimeError("CUDA error: out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"),
]
INPUT = [
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    PermissionError(errno.EACCES, "Permission denied"),
    OSError("model.safetensors is not in this folder"),
    RuntimeError("shapes differ"),
    ValueError("out of memory"),
]


def wrapped(cause: BaseException, times: int = 2) -> SpecdefError:
    """An error as the library makes it of another one."""
    for _ in range(times):
        try:
            raise CheckpointError("Writing /tmp/x failed.") from cause
        except CheckpointError as error:
            cause = error
    assert isinstance(cause, SpecdefError)
    return cause


@pytest.mark.parametrize("error", MACHINE, ids=repr)
def test_a_fault_of_the_machine_is_one_however_deep(error: Exception) -> None:
    assert is_machine_fault(error)
    assert is_machine_fault(wrapped(error))


@pytest.mark.parametrize("error", INPUT, ids=repr)
def test_bad_input_is_none(error: Exception) -> None:
    assert not is_machine_fault(error)
    assert not is_machine_fault(wrapped(error))


@pytest.mark.parametrize(
    ("error", "kind"),
    [*((wrapped(error), "failed") for error in MACHINE), *((wrapped(error), "refused") for error in INPUT)],
)
def test_a_cell_is_refused_for_bad_input_alone(error: Exception, kind: str) -> None:
    """Before, an attack that met a full disk was stored as one that this model cannot be given."""

    def fail(data: Mapping[str, Any]) -> Any:
        raise error

    assert safely(fail, {"subject": {"path": "model"}})[0] == kind


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (Attack(interventions=(Lora(),)), "LoRA and other adapters need peft. Run `pip install specdef[attack]`."),
        (Attack(Recipe(optimizer="kfac")), "Optimizer kfac needs singd. Run `pip install specdef[attack]`."),
        (
            Attack(Recipe(optimizer="soap")),
            "Optimizer SOAP needs pytorch-optimizer. Run `pip install specdef[attack]`.",
        ),
    ],
)
def test_what_is_not_installed_is_no_result(
    toy_model: Path, monkeypatch: pytest.MonkeyPatch, given: Attack, said: str
) -> None:
    """Before, such a cell never ran again, whatever was installed."""
    find = importlib.util.find_spec
    missing = ("peft", "singd", "pytorch_optimizer")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in missing else find(name, *rest))
    cell = replace(grids.cells(toy_model, 1)[0], attack=given)
    assert safely(run_cell.run_settled, cell.to_json()) == ("failed", said)


def test_a_file_that_changed_since_the_plan_is_no_result(toy_model: Path) -> None:
    cell = grids.cells(toy_model, 1)[0]
    for changed, name in ((replace(cell, task_digest="0"), "Task file"), (replace(cell, text_digest="0"), "`text`")):
        kind, said = safely(run_cell.run_settled, changed.to_json())
        assert kind == "failed"
        assert said.startswith(name)
        assert said.endswith("changed. Start again.")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/somebody/models/locked", "`model` must hold a lock; locked has none."),
        ("locked", "`model` must hold a lock; locked has none."),
        (".", "`model` must hold a lock; . has none."),
    ],
)
def test_a_refusal_says_nothing_of_where_the_model_lies(path: str, said: str) -> None:
    """It is a result, the same on every machine."""

    def fail(data: Mapping[str, Any]) -> Any:
        raise SpecdefError(f"`model` must hold a lock; {data['subject']['path']} has none.")

    assert safely(fail, {"subject": {"path": path}}) == ("refused", said)


def test_a_full_disk_is_a_crash_and_is_tried_again(toy_model: Path, tmp_path: Path) -> None:
    cell = grids.cells(toy_model, 1)[0]
    cell = replace(cell, attack=replace(cell.attack, recipe=replace(cell.attack.recipe, seed=3)))
    store = Store(tmp_path)
    (found,) = sweep([cell], store, LocalExecutor(1, grids.misbehave))
    assert found.result.outcome is Outcome.CRASHED
    assert "No space left on device" in found.result.note
    assert store.read(cell) is None


@pytest.mark.parametrize("error", [FULL, wrapped(FULL), MemoryError()], ids=repr)
def test_an_attack_in_this_process_says_it_and_stores_nothing(
    toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(run_cell, "attack_cell", fail)
    with pytest.raises(MachineFault, match=re.escape("must have memory and disk enough")) as caught:
        attack(toy_model, tmp_path / "runs", threads=1, device="cpu")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "runs").exists()


def test_bad_input_of_an_attack_in_this_process_stays_what_it_is(
    toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise wrapped(FileNotFoundError(errno.ENOENT, "No such file or directory"))

    monkeypatch.setattr(run_cell, "attack_cell", fail)
    with pytest.raises(CheckpointError, match="Writing"):
        attack(toy_model, tmp_path / "runs", threads=1, device="cpu")
