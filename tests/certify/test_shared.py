"""Cells that several processes make together: the same cell as one makes, and a fault of one is no result."""

from __future__ import annotations

import math
import multiprocessing
import os
import re
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import grids
import pytest
import torch

from specdef.attacks.base import Attack, parse_intervention
from specdef.certify.cell import Cell
from specdef.certify.events import CellEvent, Phase
from specdef.certify.executors import shared
from specdef.certify.executors.local import LocalExecutor
from specdef.certify.executors.ray import RayExecutor
from specdef.certify.executors.shared import PartLost, run_shared
from specdef.certify.resources import Resources
from specdef.certify.result import StoredCell
from specdef.certify.run_cell import run_cell
from specdef.certify.store import Store
from specdef.certify.study_run import run_study
from specdef.certify.sweep import sweep
from specdef.certify.together import Sharing, sharing_of
from specdef.errors import SpecdefError
from specdef.models.base import MODEL_KINDS
from specdef.training.outcome import Outcome
from specdef.training.recipe import Recipe


def cell(model: Path, seed: int = 0, **recipe: object) -> Cell:
    made = replace(grids.study(model).cell(grids.study(model).locked), threads=2)
    return replace(made, attack=Attack(replace(made.attack.recipe, seed=seed, **recipe)))  # type: ignore[arg-type]


def losses(found: StoredCell) -> list[float]:
    return [math.nan if point.loss is None else point.loss for point in found.result.evaluations]


@pytest.mark.parametrize("optimizer", ["adamw", "soap"])  # soap needs whole tensors: copies
def test_two_processes_make_the_cell_of_one(optimizer: str, toy_model: Path, tmp_path: Path) -> None:
    given = cell(toy_model, optimizer=optimizer)
    heard: list[CellEvent] = []
    (alone,) = sweep([given], Store(tmp_path / "one"), LocalExecutor(1))
    together = Resources(workers=1, threads=2, device="cpu", devices_per_cell=2).executor(heard.append)
    (found,) = sweep([given], Store(tmp_path / "two"), together)
    assert found.key == alone.key
    assert found.result.outcome is alone.result.outcome
    assert losses(found) == pytest.approx(losses(alone), rel=1e-3, nan_ok=True)
    assert losses(found) != losses(alone), "sums in another order: it was shared"
    assert (alone.measured.processes, found.measured.processes) == (None, 2)
    steps = [event.step for event in heard if event.phase is Phase.TRAINING]
    assert sorted(set(steps)) == steps, "the first of them alone is heard"


def test_what_cannot_be_shared_is_left_to_one(toy_model: Path) -> None:
    text, images = MODEL_KINDS.get("causal-lm"), MODEL_KINDS.get("image-classifier")
    rates = parse_intervention("channel-rates")
    assert sharing_of(Attack(Recipe()), text) is Sharing.SHARDS
    assert sharing_of(Attack(Recipe(), (parse_intervention("lora"),)), text) is Sharing.SHARDS
    assert sharing_of(Attack(Recipe(), (rates,)), text) is Sharing.REPLICAS
    assert sharing_of(Attack(Recipe("soap")), text) is Sharing.REPLICAS
    assert sharing_of(Attack(Recipe("kfac")), text) is Sharing.ALONE
    assert sharing_of(Attack(Recipe()), images) is Sharing.ALONE


def test_one_process_makes_its_cell_to_the_bit(toy_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = cell(toy_model, steps=2).to_json()
    monkeypatch.setattr(shared, "sharing_of", lambda *_: Sharing.ALONE)
    found = run_shared(given, devices=2)
    assert found.result == run_cell(given).result
    assert found.measured.processes is None


@pytest.mark.parametrize(
    ("seed", "note"),
    [
        (1, "PartLost: process 1 of 2: ended with exit code -9"),
        (2, "PartLost: process 1 of 2: RuntimeError: no such luck"),
    ],
)
def test_a_process_that_dies_or_fails_ends_the_cell_and_is_no_result(
    seed: int, note: str, toy_model: Path, tmp_path: Path
) -> None:
    run = partial(run_shared, devices=2, function=grids.part_misbehaves)
    store, given = Store(tmp_path / "cells"), cell(toy_model, seed)
    (found,) = sweep([given], store, LocalExecutor(1, run))
    assert found.result.outcome is Outcome.CRASHED
    assert re.search(note, found.result.note), found.result.note
    assert store.read(given) is None, "it runs again next time"


def test_the_others_do_not_live_on(toy_model: Path) -> None:
    with pytest.raises(PartLost, match="process 1 of 2: RuntimeError: no such luck"):
        run_shared(cell(toy_model, 2).to_json(), devices=2, function=grids.part_misbehaves)
    assert not multiprocessing.active_children()


@pytest.mark.parametrize(("optimizer", "sharded", "checkpoints"), [("adamw", True, "true"), ("soap", False, "-")])
def test_what_each_process_is_told(
    optimizer: str,
    sharded: bool,
    checkpoints: str,
    toy_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its device, the loopback address, how to share; nothing of a launcher around it. They meet at any path."""
    odd = tmp_path / "a b%20ä"
    odd.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(odd))
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    told = f"sharded={sharded} here=2 1 lo {checkpoints} -"
    with pytest.raises(PartLost, match=f"process 1 of 2: RuntimeError: {told}"):
        run_shared(cell(toy_model, optimizer=optimizer).to_json(), devices=2, function=grids.part_tells)
    assert not list(odd.iterdir())


def test_a_message_that_is_cut_off_is_a_loss(toy_model: Path, tmp_path: Path) -> None:
    """A process that dies while it sends."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    os.write(sender.fileno(), b"\x00\x00\x10\x00half")  # says 4096 bytes
    sender.close()
    ended = multiprocessing.get_context("spawn").Process(target=print)
    ended.start()
    with pytest.raises(PartLost, match="process 0 of 1: ended with exit code 0"):
        shared._first_of([(ended, receiver)], None)


@pytest.mark.parametrize(
    ("said", "wanted"),
    [
        ([("lost", "lost another"), ("failed", "OutOfMemoryError: no")], "process 1 of 2: OutOfMemoryError: no"),
        ([("failed", "RuntimeError: x"), ("refused", "`model` must be another.")], "^`model` must be another.$"),
        ([("lost", "lost another"), ("done", None)], "process 0 of 2: lost another"),
    ],
)
def test_the_cause_is_said_and_not_who_noticed_first(said: list[tuple[str, object]], wanted: str) -> None:
    parts = []
    for one in said:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        sender.send(one)
        parts.append((None, receiver))
    with pytest.raises((PartLost, SpecdefError), match=wanted):
        shared._first_of(parts, None)


def test_a_refusal_of_one_is_the_cells(toy_model: Path, tmp_path: Path) -> None:
    run = partial(run_shared, devices=2, function=grids.part_misbehaves)
    (found,) = sweep([cell(toy_model, 3)], Store(tmp_path), LocalExecutor(1, run))
    assert (found.result.outcome, found.result.note) == (Outcome.INVALID, "`model` must be another.")


def test_the_number_is_checked_before_anything_runs(toy_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecdefError, match="`devices_per_cell` must be at least 1; got 0"):
        Resources(devices_per_cell=0)
    with pytest.raises(SpecdefError, match="`gpus_per_cell` must be left out with `devices_per_cell`"):
        Resources(ray="local", gpus_per_cell=1.0, devices_per_cell=2)
    monkeypatch.setattr(os, "cpu_count", lambda: 16)
    for devices, workers in ((1, 16), (4, 4), (16, 1)):
        found = Resources(device="cpu", devices_per_cell=devices).for_model(toy_model)
        assert (found.workers, found.threads) == (workers, 1), "threads are part of what a cell is"
    for where in (None, "local"):
        with pytest.raises(
            SpecdefError, match="`devices_per_cell` must be at most 16, the cores of this machine; got 17"
        ):
            Resources(device="cpu", devices_per_cell=17, ray=where).for_model(toy_model)
    Resources(device="cpu", devices_per_cell=17, ray="auto").check()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(SpecdefError, match="`devices_per_cell` must be at most 4, the GPUs of this machine; got 8"):
        Resources(device="cuda", devices_per_cell=8).for_model(toy_model)
    with pytest.raises(SpecdefError, match="`devices_per_cell` must be at most 4"):
        Resources(device="cuda", devices_per_cell=8, ray="local").check()
    Resources(2, device="cuda", devices_per_cell=2, ray="local").check()
    with pytest.raises(SpecdefError, match=r"`workers` must be 1 where 2 GPUs share a cell; got 2.*--ray local"):
        Resources(2, device="cuda", devices_per_cell=2).for_model(toy_model)


def test_a_study_says_it_before_a_defence_is_made(toy_model: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(
        f"specdef_study: 1\ntitle: x\nmodels: [{{model: {toy_model}}}]\ntasks: [facts]\n"
        "defences: [none, {preset: exact}]\nattacks: [{lr: 1.0e-4}]\n"
    )
    for wrong, said in (
        ({"devices_per_cell": 99}, "^`devices_per_cell` must be at most"),
        ({"device": "cuda"}, "^`device` must be cpu on this machine"),
    ):
        if "device" in wrong and torch.cuda.is_available():
            continue
        with pytest.raises(SpecdefError, match=said):
            run_study(study, tmp_path / "out", resources=Resources(**wrong))  # type: ignore[arg-type]
        assert not (tmp_path / "out").exists()


def test_ray_gives_a_cell_what_its_processes_need() -> None:
    on_gpus = Resources(ray="local", threads=1, device="cuda", devices_per_cell=4).executor()
    assert isinstance(on_gpus, RayExecutor)
    assert (on_gpus.gpus, on_gpus.processes) == (4.0, 4)
    nodes = [{"Alive": True, "Resources": {"CPU": 2.0, "GPU": 2.0}}]
    with pytest.raises(SpecdefError, match="`devices_per_cell` must be what one machine of the Ray cluster has, at mo"):
        on_gpus._check_room(nodes, 4)
    with pytest.raises(SpecdefError, match="`threads` must be what one machine of the Ray cluster has, at most 2; got"):
        on_gpus._check_room(nodes, 8)
