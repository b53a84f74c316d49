"""Sweeps: pure cells, resumable after kill -9, crashes recorded, the same on every executor."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import grids
import pytest

from specdef.attacks.base import Attack
from specdef.attacks.interventions.freeze import Freeze
from specdef.attacks.interventions.lora import Lora
from specdef.certify.cell import Cell, cell_from_json, subject_of
from specdef.certify.executors.local import LocalExecutor
from specdef.certify.executors.ray import RayExecutor
from specdef.certify.resources import Resources
from specdef.certify.run_cell import measure_cell
from specdef.certify.store import Store, StoreError, stored_cells
from specdef.certify.sweep import sweep
from specdef.errors import SpecdefError
from specdef.training.outcome import Outcome
from specdef.training.recipe import Recipe

HERE = Path(__file__).parent


def facts_of(folder: Path) -> dict[str, Any]:
    """Every result file without its times."""
    found = {path.name: json.loads(path.read_text()) for path in (folder / "cells").glob("*.json")}
    for content in found.values():
        content["measured"] = sorted(content["measured"])
    return found


def start(model: Path, out: Path, count: int, steps: int) -> subprocess.Popen[str]:
    command = [sys.executable, str(HERE / "grids.py"), str(model), str(out), str(count), str(steps)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent), *sys.path])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("kills", [(2,), pytest.param((1, 3, 5), marks=pytest.mark.slow)])
def test_kill_9_then_resume(kills: tuple[int, ...], toy_model: Path, tmp_path: Path) -> None:
    """The same files as an uninterrupted run; nothing finished runs twice; no worker outlives its parent."""
    count, steps = kills[-1] + 2, 10
    cells = grids.cells(toy_model, count, steps)
    killed = tmp_path / "killed"
    for wanted in kills:
        process = start(toy_model, killed, count, steps)
        while len(list((killed / "cells").glob("*.json"))) < wanted and process.poll() is None:
            time.sleep(0.01)
        workers = children(process.pid)
        process.send_signal(signal.SIGKILL)
        process.wait()
        deadline = time.monotonic() + 60
        while any(map(is_running, workers)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert workers
        assert not any(map(is_running, workers)), "one of them would run for an hour"
    finished = {path: path.stat().st_mtime_ns for path in (killed / "cells").glob("*.json")}
    assert kills[-1] <= len(finished) < count, "it was killed among its cells"
    sweep(cells, Store(killed), LocalExecutor(2))
    sweep(cells, Store(tmp_path / "whole"), LocalExecutor(2))
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert len(facts_of(killed)) == count
    assert facts_of(killed) == facts_of(tmp_path / "whole")
    assert not [path for path in (killed / "cells").iterdir() if path.suffix != ".json"]


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-eo", "pid,ppid"], capture_output=True, text=True, check=True).stdout.split()[2:]
    parents = dict(zip(map(int, found[::2]), map(int, found[1::2]), strict=True))
    family = {pid}
    while more := {child for child, parent in parents.items() if parent in family} - family:
        family |= more
    return sorted(family - {pid})


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
def test_local_and_ray_give_the_same_cells(toy_model: Path, tmp_path: Path) -> None:
    cells = grids.cells(toy_model, 3)
    local = sweep(cells, Store(tmp_path / "local"), LocalExecutor(2))
    on_ray = sweep(cells, Store(tmp_path / "ray"), RayExecutor(workers=2))
    assert [cell.result for cell in local] == [cell.result for cell in on_ray]
    assert facts_of(tmp_path / "local") == facts_of(tmp_path / "ray")
    here = measure_cell(cells[0])
    assert here.result == local[0].result


@pytest.mark.slow
def test_a_lost_worker_is_made_good_and_one_that_is_always_lost_is_recorded(
    toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{HERE}:{os.environ.get('PYTHONPATH', '')}")  # where workers find `grids`
    made = grids.study(toy_model)
    cells = [made.cell(made.locked, seed=seed) for seed in (0, 1)]
    lost_once, lost = sweep(cells, Store(tmp_path / "out"), RayExecutor(function=partial(grids.lose, str(tmp_path))))
    assert lost_once.result.outcome is Outcome.STALL
    assert (tmp_path / "0").read_text() == "xx"
    assert lost.result.outcome is Outcome.CRASHED
    assert lost.result.note == "the cell's process ended with signal 9 (often: out of memory)"
    assert (tmp_path / "1").read_text() == "xxx"


@pytest.mark.parametrize("given", ["2", "8"])
def test_one_of_several_processes_of_a_launcher_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", given)
    with pytest.raises(
        SpecdefError, match=f"`WORLD_SIZE` must be 1, since this command runs many attacks .*; got {given}"
    ):
        Resources().for_model(Path("nowhere"))
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert Resources().for_model(Path("nowhere")).workers


def test_a_crash_is_a_recorded_outcome_and_the_others_go_on(toy_model: Path, tmp_path: Path) -> None:
    before = set(Path(tempfile.gettempdir()).glob(".specdef-*/rewritten.safetensors"))
    made = grids.study(toy_model)
    cells = [made.cell(made.locked, seed=seed) for seed in (0, 1, 2)]
    worked, killed, raised = sweep(cells, Store(tmp_path), LocalExecutor(2, grids.misbehave))
    assert worked.result.outcome is Outcome.STALL
    assert killed.result.outcome is raised.result.outcome is Outcome.CRASHED
    assert "signal 9 (often: out of memory)" in killed.result.note
    assert raised.result.note == "RuntimeError: no such luck"
    assert set(Path(tempfile.gettempdir()).glob(".specdef-*/rewritten.safetensors")) <= before


def test_what_every_cell_imports_is_there_when_it_is_forked(toy_model: Path) -> None:
    """Cells took five times as long as they train. Forks of a process with threads may hang."""
    (_, found), *_ = LocalExecutor(1, grids.forked).run(grids.cells(toy_model, 1))  # type: ignore[arg-type]
    facts: Any = found
    assert facts["threads"] == 1
    assert not facts["gpu"]
    light = ("specdef.", "transformers.models.llama.", "importlib.", "torch.profiler.")
    assert [name for name in facts["imported"] if not name.startswith(light)] == []


def test_a_finished_cell_is_not_run_again_and_a_grid_can_be_extended(toy_model: Path, tmp_path: Path) -> None:
    cells = grids.cells(toy_model, 3)
    ran: list[str] = []

    class Counting(LocalExecutor):
        def run(self, chosen: Any) -> Any:
            ran.extend(cell.key for cell in chosen)
            return super().run(chosen)

    sweep(cells[:2], Store(tmp_path), Counting(2))
    sweep(cells, Store(tmp_path), Counting(2))
    assert ran == [cell.key for cell in cells]


def test_a_cell_survives_the_way_to_its_process_and_back(toy_model: Path) -> None:
    made = grids.study(toy_model)
    adapter = Lora(rank=4, targets=("q_proj",), arguments={"lora_alpha": 8})
    for extra in ({"interventions": (adapter,)}, {"interventions": (Freeze("x"),), "stop": "paper"}):
        cell = made.cell(made.locked, reference=1.5, max_grad_norm=None, optimizer="lion", **extra)
        assert cell_from_json(json.loads(json.dumps(cell.to_json()))) == cell


def test_the_key_names_everything_the_result_depends_on_and_no_path(toy_model: Path) -> None:
    made = grids.study(toy_model)
    cell = made.cell(made.locked)
    variants: list[Cell] = [
        cell,
        replace(cell, attack=Attack(Recipe(lr=2e-5))),
        replace(cell, attack=Attack(cell.attack.recipe, (Lora(),))),
        replace(cell, attack=Attack(cell.attack.recipe, (Freeze("x"),))),
        replace(cell, attack=Attack(cell.attack.recipe, stop="paper")),
        replace(cell, task_digest="0"),
        replace(cell, text_digest="0"),
        replace(cell, reference=2.0),
        replace(cell, threads=2),
        replace(cell, subject=replace(cell.subject, digest="0")),
    ]
    assert len({variant.key for variant in variants}) == len(variants)
    assert replace(cell, subject=replace(cell.subject, path="elsewhere")).key == cell.key
    assert replace(cell, text="elsewhere").key == cell.key


def test_the_digest_of_a_model_follows_its_weights_and_config_only(toy_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in toy_model.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    (copy / "README.md").write_text("words")
    assert subject_of(copy).digest == subject_of(toy_model).digest
    weights = copy / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert subject_of(copy).digest != subject_of(toy_model).digest


def test_a_folder_of_another_grid_is_refused(tmp_path: Path) -> None:
    Store(tmp_path / "out", {"task": "facts", "locked": "a"})
    Store(tmp_path / "out", {"task": "facts", "locked": "a"})
    with pytest.raises(StoreError, match=r"holds another's \(locked differ\). Give another folder"):
        Store(tmp_path / "out", {"task": "facts", "locked": "b"})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="must be a new folder or one that specdef wrote"):
        Store(tmp_path / "other", {"task": "facts"})


def test_a_full_disk_ends_the_sweep_in_one_sentence_and_keeps_what_was_finished(
    toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    cells = grids.cells(toy_model, 2)
    sweep(cells[:1], Store(tmp_path), LocalExecutor(1))
    before = facts_of(tmp_path)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StoreError, match=r"failed \(No space left on device\). Finished cells are kept"):
        sweep(cells, Store(tmp_path), LocalExecutor(1))
    assert facts_of(tmp_path) == before
    assert [path.suffix for path in (tmp_path / "cells").iterdir()] == [".json"]


def test_results_that_cannot_be_read_name_the_file(toy_model: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"`folder` must hold results of .* holds none"):
        stored_cells(tmp_path)
    cell = grids.cells(toy_model, 1)[0]
    store = Store(tmp_path)
    (store.cells / f"{cell.key}.json").write_text('{"cell": "x"')
    with pytest.raises(StoreError, match=rf"{cell.key}.json cannot be read .* Delete it; its cell runs again"):
        store.read(cell)
    (store.cells / f"{cell.key}.json").write_text('{"cell": "x"}')
    with pytest.raises(StoreError, match=r"must be a finished cell; it is not .*missing required field `config`"):
        store.read(cell)


def test_a_cell_says_nothing_of_libraries_that_call_each_other_by_old_names(
    toy_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """peft and transformers warn of names that go away; on the screen it would cross the progress of others."""
    made = grids.study(toy_model)
    given = replace(made.cell(made.locked), attack=Attack(Recipe(steps=2), (Lora(),)))
    (found,) = sweep([given], Store(tmp_path), LocalExecutor(1))
    assert found.result.outcome is Outcome.STALL
    assert "Warning" not in capfd.readouterr().err
