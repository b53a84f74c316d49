"""Grids of cells on the toy model, and workers that misbehave, importable by worker processes."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specdef.certify.cell import Cell, cell_from_json
from specdef.certify.cell_result import FinishedCell
from specdef.certify.executors.local import LocalExecutor
from specdef.certify.run_cell import measure_cell, run_cell
from specdef.certify.store import Store
from specdef.certify.study import Study, make_study
from specdef.certify.sweep import sweep
from specdef.core.folders import scratch_folder
from specdef.core.processes import on_this_machine
from specdef.errors import SpecdefError
from specdef.tasks.base import TaskSpec
from specdef.training.engines import is_sharded
from specdef.training.recipe import Recipe


def study(folder: Path, steps: int = 6) -> Study:
    return make_study(folder, folder, TaskSpec("facts"), recipe=Recipe(steps=steps, eval_every=3))


def cells(folder: Path, count: int = 5, steps: int = 6) -> list[Cell]:
    made = study(folder, steps)
    return [made.cell(made.locked, lr=1e-3 / 2**index) for index in range(count)]


def misbehave(data: Mapping[str, Any], listen: Any = None) -> FinishedCell:
    """Die of a signal with a scratch folder open, raise, find the disk full, or work, depending on the seed."""
    seed = data["attack"]["recipe"]["seed"]
    if seed == 1:
        with scratch_folder(None) as scratch:
            (scratch / "rewritten.safetensors").write_bytes(b"large")
            os.kill(os.getpid(), signal.SIGKILL)
    if seed == 2:
        raise RuntimeError("no such luck")
    if seed == 3:
        with scratch_folder(None):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return run_cell(data, listen)


def lose(folder: str, data: Mapping[str, Any], listen: Any = None) -> FinishedCell:
    """Lose the worker under the cell, once with seed 0 and always with another; a file counts the attempts."""
    seed = data["attack"]["recipe"]["seed"]
    with (Path(folder) / str(seed)).open("a") as attempts:
        attempts.write("x")
        first = attempts.tell() == 1
    if first or seed:
        os.kill(os.getpid(), signal.SIGKILL)
    return run_cell(data, listen)


def hang_once(folder: str, data: Mapping[str, Any], listen: Any = None) -> FinishedCell:
    """The first attempt at seed 0 stops in the middle of its training and waits to be killed; every attempt's process,
    the worker that started it and the node's raylet are noted."""
    seed = data["attack"]["recipe"]["seed"]
    tries = Path(folder) / f"tries-{seed}"
    with tries.open("a") as noted:
        first = noted.tell() == 0
        worker = multiprocessing.parent_process()
        noted.write(f"{os.getpid()} {worker and worker.pid} {os.environ['RAY_RAYLET_PID']}\n")
    if seed or not first:
        return run_cell(data, listen)

    def stop(step: int, loss: float) -> None:
        if step == 2:
            (Path(folder) / "in-the-middle").touch()
            time.sleep(3600)

    return measure_cell(cell_from_json(data), on_step=stop)


def part_misbehaves(data: Mapping[str, Any], listen: Any = None) -> FinishedCell:
    """In one of several processes: the second dies of a signal after two steps (seed 1), raises (2), refuses (3)."""
    seed, second = data["attack"]["recipe"]["seed"], os.environ["RANK"] == "1"
    if second and seed == 2:
        raise RuntimeError("no such luck")
    if second and seed == 3:
        raise SpecdefError("`model` must be another.")

    def stop(step: int, loss: float) -> None:
        if second and step == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    return measure_cell(cell_from_json(data), on_step=stop)


def part_tells(data: Mapping[str, Any], listen: Any = None) -> FinishedCell:
    """In one of several processes: fail with what it was told; the first waits, so that the second is heard alone."""
    if os.environ["RANK"] == "0":
        time.sleep(3600)
    names = ("LOCAL_RANK", "GLOO_SOCKET_IFNAME", "FSDP_ACTIVATION_CHECKPOINTING", "FSDP_OFFLOAD_PARAMS")
    told = [f"sharded={is_sharded()}", f"here={on_this_machine()}", *(os.environ.get(name, "-") for name in names)]
    raise RuntimeError(" ".join(told))


def the_first_never_ends(data: Mapping[str, Any], listen: Any = None) -> FinishedCell:
    """As usual, but the first cell of `cells` waits to be killed."""
    if data["attack"]["recipe"]["lr"] == 1e-3:
        time.sleep(3600)
    return run_cell(data, listen)


def forked(data: Mapping[str, Any], listen: Any = None) -> dict[str, Any]:
    """Threads of the process a cell is forked from, whether a GPU was asked for there, and what the cell imports."""
    import torch

    threads = len(list(Path(f"/proc/{os.getppid()}/task").iterdir()))
    before, asked = set(sys.modules), torch.cuda._is_in_bad_fork()
    run_cell(data)
    return {"threads": threads, "gpu": asked, "imported": sorted({*sys.modules} - before)}


if __name__ == "__main__":
    # A sweep in a process of its own, to be killed: MODEL OUT COUNT STEPS.
    model, out, count, steps = sys.argv[1:]
    print("ready", flush=True)
    sweep(cells(Path(model), int(count), int(steps)), Store(Path(out)), LocalExecutor(2, the_first_never_ends))
