"""The tables' networks: locks that keep the function, blocks that are the right ones, and bounds in order."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from random_matrices import EPS
from torch import Tensor

from experiments.theory import record, table9, table10, table11, table29
from experiments.theory.networks import Locked, block_of, full_hessian
from experiments.theory.record import loglog_slope

SEEDS = range(4)
BUILDS = table11.AS_PRINTED | table11.COMPENSATED | table11.FOLDED


def outputs(net: Locked) -> Tensor:
    return torch.stack([net.output({n: w[i] for n, w in net.weights.items()}, net.x[i]) for i in range(len(SEEDS))])


@pytest.mark.parametrize("name", BUILDS)
def test_bounds_are_ordered_and_blocks_are_blocks_of_the_hessian(name: str) -> None:
    net = BUILDS[name](SEEDS, 8.0)
    assert table11.measure(net)["ordered"].all()
    hessian = full_hessian(net)
    largest = torch.linalg.matrix_norm(hessian)
    assert (torch.linalg.matrix_norm(block_of(hessian, net) - net.block.block) <= 1e-10 * largest).all()


@pytest.mark.parametrize("name", [*table11.FOLDED, *list(table11.COMPENSATED)[:2]])
def test_locks_keep_the_function(name: str) -> None:
    build: Callable[[range, float], Locked] = BUILDS[name]
    before, after = outputs(build(SEEDS, 1.0)), outputs(build(SEEDS, 2.0**10))
    if name in table11.FOLDED:
        assert torch.equal(before, after)  # powers of two
    else:
        assert ((before - after).abs() <= 2.0**10 * 100 * EPS).all()


def test_slope() -> None:
    assert abs(loglog_slope([1.0, 10.0, 100.0], [3.0, 30.0, 300.0]) - 1) <= 16 * EPS
    assert abs(loglog_slope([1.0, 10.0], [2.0, 2.0])) <= 16 * EPS


@pytest.mark.parametrize("module", [table9, table10, table11, table29])
def test_tables_are_written(module: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "HERE", tmp_path)
    if hasattr(module, "SEEDS"):
        monkeypatch.setattr(module, "SEEDS", range(3))
    name = module.__name__.rpartition(".")[2]
    written = module.run(name).read_text()
    stored = json.loads((tmp_path / "results" / f"{name}.json").read_text())
    assert {"command", "environment", "seeds", "tables", "per_seed"} <= set(stored)
    assert f"make experiment NAME={name}" in written
    assert written.count("\n## ") == len(stored["tables"])
