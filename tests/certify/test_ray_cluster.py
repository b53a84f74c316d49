"""Cells on a real cluster of Ray with two machines, both here: lost workers and lost machines cost an attempt."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import grids
import pytest

from specdef.certify.executors.local import LocalExecutor
from specdef.certify.executors.ray import RayExecutor
from specdef.certify.resources import Resources
from specdef.certify.store import Store
from specdef.certify.sweep import sweep
from specdef.errors import SpecdefError
from specdef.training.outcome import Outcome

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Two machines of one CPU each beside a head without, as `ray start --head` and `ray start --address` make them."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")]))
    head = {"num_cpus": 0, "include_dashboard": False}
    made = Cluster(initialize_head=True, head_node_args=head)
    for _ in range(2):
        made.add_node(num_cpus=1)
    made.wait_for_nodes()
    yield made
    made.shutdown()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)


def noted(folder: Path) -> list[list[int]]:
    """Of every attempt at seed 0: the cell's process, its worker, its machine's raylet."""
    return [[int(number) for number in line.split()] for line in (folder / "tries-0").read_text().splitlines()]


def test_a_worker_killed_in_the_middle_of_a_cell_is_made_good(cluster: Any, toy_model: Path, tmp_path: Path) -> None:
    made = grids.study(toy_model)
    cells = [made.cell(made.locked, seed=seed) for seed in (0, 1, 2)]

    def kill() -> None:
        wait_for(tmp_path / "in-the-middle")
        os.kill(noted(tmp_path)[0][1], signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    executor = RayExecutor(cluster.address, function=partial(grids.hang_once, str(tmp_path)))
    on_ray = sweep(cells, Store(tmp_path / "ray"), executor)
    killer.join()
    local = sweep(cells, Store(tmp_path / "local"), LocalExecutor(1))
    assert [cell.result for cell in on_ray] == [cell.result for cell in local]
    assert {cell.result.outcome for cell in on_ray} == {Outcome.STALL}
    (cell, worker, _), (_, another, _) = noted(tmp_path)
    assert worker != another, "by another worker"
    deadline = time.monotonic() + 60
    while Path(f"/proc/{cell}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{cell}").exists(), "a cell's process leaves with its worker"
    assert len((tmp_path / "tries-1").read_text().splitlines()) == 1, "what was not killed runs once"


def test_cells_of_one_worker_have_a_process_each(cluster: Any, toy_model: Path, tmp_path: Path) -> None:
    """What a cell leaves behind in its process meets no other."""
    made = grids.study(toy_model)
    cells = [made.cell(made.locked, seed=seed) for seed in (1, 2, 3, 4)]
    sweep(
        cells, Store(tmp_path / "ray"), RayExecutor(cluster.address, function=partial(grids.hang_once, str(tmp_path)))
    )
    tries = [(tmp_path / f"tries-{seed}").read_text().split() for seed in (1, 2, 3, 4)]
    assert len({cell for cell, _, _ in tries}) == 4
    assert len({worker for _, worker, _ in tries}) < 4, "a worker serves several"


def test_workers_serve_one_batch_after_another(cluster: Any, toy_model: Path, tmp_path: Path) -> None:
    """Whoever connects for every batch meets workers that import everything again."""
    import ray

    made = grids.study(toy_model)
    with RayExecutor(cluster.address, function=partial(grids.hang_once, str(tmp_path))).staying() as executor:
        assert not ray.is_initialized(), "where every cell is done, no cluster is needed"
        for seeds in ((1, 2), (3, 4)):
            sweep([made.cell(made.locked, seed=seed) for seed in seeds], Store(tmp_path / "ray"), executor)
    assert not ray.is_initialized()
    workers = {seed: (tmp_path / f"tries-{seed}").read_text().split()[1] for seed in (1, 2, 3, 4)}
    assert {workers[3], workers[4]} <= {workers[1], workers[2]}


def test_a_machine_lost_in_the_middle_of_a_cell_is_made_good(cluster: Any, toy_model: Path, tmp_path: Path) -> None:
    made = grids.study(toy_model)

    def lose() -> None:
        wait_for(tmp_path / "in-the-middle")
        ((_, _, raylet),) = noted(tmp_path)
        (lost,) = [node for node in cluster.list_all_nodes() if raylet_of(node) == raylet]
        cluster.remove_node(lost, allow_graceful=False)

    loser = threading.Thread(target=lose)
    loser.start()
    executor = RayExecutor(cluster.address, function=partial(grids.hang_once, str(tmp_path)))
    found = sweep([made.cell(made.locked, seed=seed) for seed in (0, 1)], Store(tmp_path / "ray"), executor)
    loser.join()
    assert [cell.result.outcome for cell in found] == [Outcome.STALL, Outcome.STALL]
    (_, _, first), (_, _, again) = noted(tmp_path)
    assert first != again, "on the other machine"


def raylet_of(node: Any) -> int:
    return int(node.all_processes["raylet"][0].process.pid)


def test_cells_that_no_machine_has_room_for_are_refused(cluster: Any, toy_model: Path, tmp_path: Path) -> None:
    made = grids.study(toy_model)
    cells = [made.cell(made.locked)]
    with pytest.raises(
        SpecdefError, match="`gpus_per_cell` must be what one machine of the Ray cluster has, at most 0"
    ):
        list(RayExecutor(cluster.address, gpus=1).run(cells))


def test_a_cell_of_two_processes_needs_a_machine_of_two(cluster: Any, toy_model: Path) -> None:
    given = [grids.study(toy_model).cell(grids.study(toy_model).locked)]
    resources = Resources(threads=1, device="cpu", ray=cluster.address, devices_per_cell=2)
    with pytest.raises(SpecdefError, match="`devices_per_cell` must be what one machine of the Ray cluster has, at mo"):
        list(resources.executor().run(given))
    cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    ((_, found),) = resources.executor().run(given)
    assert (found.result.outcome, found.measured.processes) == (Outcome.STALL, 2)
