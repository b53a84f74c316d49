"""`specdef attack` by several processes: the same cell and the same verdict as by one, written once."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import together

from specdef.attacks.base import Attack, parse_intervention
from specdef.certify import together as certified
from specdef.certify.api import attack
from specdef.certify.cell_result import CellResult
from specdef.certify.together import refuse_unshared
from specdef.errors import SpecdefError
from specdef.locks.lock import lock
from specdef.models.base import MODEL_KINDS
from specdef.training import engines
from specdef.training.outcome import Outcome
from specdef.training.recipe import Recipe

RECIPE = Recipe(lr=1e-2, steps=40, retain_weight=0.1)
LAUNCHERS = {
    "torchrun": ("torch.distributed.run", "--nproc-per-node", "2"),
    "accelerate": ("accelerate.commands.launch", "--use_fsdp", "--fsdp_version", "2", "--num_processes", "2"),
}


def locked(name: str, toy_model: Path, folder: Path) -> Path:
    if name == "unlocked":
        return toy_model
    options: dict[str, Any] = {"num_matrices": 2, "rank": 4} if name == "paper" else {}
    lock(toy_model, folder / name, preset=name, multiplier=2.0**20, key=folder / "key", **options)
    return folder / name


@pytest.mark.parametrize("environment", [{}, together.SHARDED], ids=["replicas", "shards"])
@pytest.mark.parametrize(
    ("name", "outcome"),
    [
        ("unlocked", Outcome.BROKEN),
        pytest.param("exact", Outcome.COLLAPSE, marks=pytest.mark.slow),
        pytest.param("paper", Outcome.BROKEN, marks=pytest.mark.slow),
    ],
)
def test_two_processes_reach_the_verdict_of_one(
    name: str, outcome: Outcome, environment: dict[str, str], toy_model: Path, tmp_path: Path
) -> None:
    model = locked(name, toy_model, tmp_path)
    alone = attack(model, original=toy_model, task="facts", recipe=RECIPE, threads=2, target=0.4)
    arguments = (model, toy_model, tmp_path / "out", environment)
    first, second = together.run(together.attacked, *arguments, RECIPE)
    assert first == second, "all processes return what the first one stored"
    key, result = first
    assert key == alone.key
    assert result.outcome is alone.result.outcome is outcome
    assert losses(result) == pytest.approx(losses(alone.result), rel=1e-3, nan_ok=True)
    assert [path.name for path in (tmp_path / "out" / "cells").iterdir()] == [f"{key}.json"]
    assert together.run(together.attacked, *arguments, RECIPE)[1] == second, "it is not run twice"


def losses(result: CellResult) -> list[float]:
    return [math.nan if point.loss is None else point.loss for point in result.evaluations]


def launch(launcher: str, *arguments: object) -> subprocess.Popen[str]:
    module, *options = LAUNCHERS[launcher]
    extra = ["--master-port" if launcher == "torchrun" else "--main_process_port", str(together.free_port())]
    command = [sys.executable, "-m", module, *options, *extra, "-m", "specdef", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "COLUMNS": "200"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def typed(model: Path, original: Path, out: Path, steps: int) -> tuple[object, ...]:
    options = ("--task", "facts", "--target", "0.4", "--lr", "1e-2", "--steps", steps, "--retain-weight", "0.1")
    return ("attack", model, "--original", original, "--out", out, "--threads", 2, *options)


@pytest.mark.slow
@pytest.mark.parametrize(("launcher", "name"), [("torchrun", "exact"), ("accelerate", "paper")])
def test_a_launcher_changes_no_verdict(launcher: str, name: str, toy_model: Path, tmp_path: Path) -> None:
    model = locked(name, toy_model, tmp_path)
    alone = attack(model, original=toy_model, task="facts", recipe=replace(RECIPE, steps=10), threads=2, target=0.4)
    process = launch(launcher, *typed(model, toy_model, tmp_path / "out", 10), "--json")
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    stored = json.loads(said)  # once, of two processes
    assert stored["cell"] == alone.key
    assert stored["result"]["outcome"] == alone.result.outcome.value
    assert "step 10/10" not in errors, "--json is quiet"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_killed_process_ends_all_and_loses_nothing(launcher: str, toy_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kept = attack(toy_model, out, task="facts", recipe=Recipe(steps=2, warmup=0.0), threads=2)
    process = launch(launcher, *typed(toy_model, toy_model, out, 100000), "--target", "0.99")
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("step 10/"):
            break
    second = [pid for pid in children(process.pid) if b"RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
    started = time.monotonic()
    os.kill(second[0], signal.SIGKILL)
    errors = process.stderr.read()
    assert process.wait(60) != 0
    assert time.monotonic() - started < 60
    assert "Signal 9 (SIGKILL)" in errors or "lost another" in errors
    assert [path.name for path in (out / "cells").iterdir()] == [f"{kept.key}.json"]


def children(pid: int) -> list[int]:
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(one) for one in found.stdout.split()]


def test_what_several_processes_cannot_share_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    text, images = MODEL_KINDS.get("causal-lm"), MODEL_KINDS.get("image-classifier")
    plain, rated = Attack(Recipe()), Attack(Recipe(), (parse_intervention("channel-rates"),))
    refuse_unshared(rated, images)
    for module in (certified, engines):
        monkeypatch.setattr(module, "size", lambda: 2)
    refuse_unshared(rated, text)
    with pytest.raises(SpecdefError, match=r"`model` must be of a kind whose batches 2 processes can share.*image-cl"):
        refuse_unshared(plain, images)
    for name, value in together.SHARDED.items():
        monkeypatch.setenv(name, value)
    refuse_unshared(plain, text)
    with pytest.raises(SpecdefError, match="`channel-rates` must be left out where a model is sharded"):
        refuse_unshared(rated, text)
    with pytest.raises(SpecdefError, match="`optimizer` must be one that works on parts of tensors"):
        refuse_unshared(Attack(Recipe("soap")), text)
