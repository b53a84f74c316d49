"""The loop of objectives: what is kept, what a number that is not finite does, and going on after a kill."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from unlearning import Make

from specdef.defences import unfinished as unfinished_file
from specdef.defences.base import Given
from specdef.defences.defend import defend
from specdef.defences.descent import descend
from specdef.defences.objective import Objective, Rows, TrainingOptions
from specdef.defences.unfinished import Unfinished
from specdef.errors import SpecdefError
from specdef.tasks.utilities.perplexity_growth import PerplexityGrowth

NOISE = 1e-2


class Noisy(Objective):
    """Draws from torch's generator in every step, as methods with noise do; may fail at a step."""

    def __init__(self, given: Given, *, nan_at: int | None = None, killed_at: int | None = None) -> None:
        self.model, self.kind = given.loaded.model, given.loaded.kind
        self.nan_at, self.killed_at, self.seen = nan_at, killed_at, list[tuple[int, ...]]()

    def loss(self, step: int, forget: Rows, retain: Rows) -> torch.Tensor:
        if step == self.killed_at:
            raise KeyboardInterrupt
        self.seen.append((*forget.chosen, *retain.chosen))
        loss = self.kind.loss(self.model, retain.batch) + NOISE * torch.randn(()) * self.model.lm_head.weight.sum()
        return loss * (float("nan") if step == self.nan_at else 1.0)


def weights(given: Given) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in given.loaded.model.state_dict().items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


OPTIONS = TrainingOptions(steps=7, lr=1e-3, batch_size=2, eval_every=2, utility_factor=10.0)


def test_a_run_that_was_killed_goes_on_to_the_same_bits(
    toy_model: Path, given_for: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unfinished_file, "SECONDS", 0.0)
    whole = given_for(toy_model)
    descend(Noisy(whole), whole, OPTIONS)
    place = Unfinished(tmp_path / "out", "a" * 64)
    first = replace(given_for(toy_model), unfinished=place)
    with pytest.raises(KeyboardInterrupt):
        descend(Noisy(first, killed_at=5), first, OPTIONS)
    assert place.path.is_file()
    stages: list[str] = []
    second = replace(given_for(toy_model), unfinished=place, progress=lambda stage, point: stages.append(stage))
    objective = Noisy(second)
    applied = descend(objective, second, OPTIONS)
    assert stages == ["resumed", "defend", "defend"]
    assert len(objective.seen) == 3
    assert [point.step for point in applied.evaluations["defend"]] == [0, 2, 4, 6, 7]
    assert same(weights(whole), weights(second))
    other = replace(given_for(toy_model), unfinished=Unfinished(tmp_path / "out", "b" * 64))
    fresh = Noisy(other)
    descend(fresh, other, OPTIONS)
    assert len(fresh.seen) == 7


def test_a_damaged_state_is_no_state(toy_model: Path, given_for: Make, tmp_path: Path) -> None:
    place = Unfinished(tmp_path / "out", "a" * 64)
    place.path.write_bytes(b"not a state")
    given = replace(given_for(toy_model), unfinished=place)
    objective = Noisy(given)
    descend(objective, given, OPTIONS)
    assert len(objective.seen) == 7


def test_a_loss_that_is_not_finite_ends_it_in_the_last_good_state(toy_model: Path, given_for: Make) -> None:
    given, reference = given_for(toy_model), given_for(toy_model)
    applied = descend(Noisy(given, nan_at=5), given, OPTIONS)
    assert applied.ended == "the loss was not finite at step 6; the state after 4 steps is kept"
    assert applied.steps == {"defend": 4}
    descend(Noisy(reference), reference, replace(OPTIONS, steps=4))
    assert same(weights(given), weights(reference))


def test_states_are_written_once_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    place = Unfinished(tmp_path / "out", "a" * 64)
    for second, written in ((59.0, False), (60.0, True)):
        now[0] = second
        place.save({"step": 1})
        assert place.path.exists() is written


def test_the_finished_folder_leaves_no_state(toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unfinished_file, "SECONDS", 0.0)
    (tmp_path / ".out.unfinished-of-other-options").write_text("old")
    (tmp_path / ".out2.unfinished-other").write_text("another folder's")
    report = defend(
        "grad-diff", toy_model, tmp_path / "out", options={"steps": 2, "eval_every": 1}, data={"task": "facts"}
    )
    assert report.applied.steps == {"defend": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == [".out2.unfinished-other", "out"]


def test_the_given_model_is_measured_once(toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, after each of two steps, and of what is written: four, where step 0 of training is the given model."""
    measure, calls = PerplexityGrowth.measure, list[float]()
    monkeypatch.setattr(
        PerplexityGrowth, "measure", lambda self, *given: calls.append(measure(self, *given)) or calls[-1]
    )
    options = {"steps": 2, "eval_every": 1, "lr": 1e-6}
    report = defend("grad-diff", toy_model, tmp_path / "out", options=options, data={"task": "facts"})
    assert len(calls) == 4
    assert [point.utility for point in report.applied.evaluations["defend"]] == calls[:3]
    assert report.utility.after == calls[3]


def test_a_budget_spent_before_the_first_evaluation_is_refused(toy_model: Path, tmp_path: Path) -> None:
    options = {"steps": 6, "eval_every": 2, "lr": 10.0}
    wanted = r"`lr` must be small enough that perplexity-growth stays within a factor of 1\.3 at one "
    with pytest.raises(SpecdefError, match=wanted):
        defend("grad-diff", toy_model, tmp_path / "out", options=options, data={"task": "facts"})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_process_killed_at_any_instant_goes_on(toy_model: Path, tmp_path: Path) -> None:
    """The same with `kill -9` and another process, at three instants."""
    script = (
        "import sys; from specdef.defences import unfinished; unfinished.SECONDS = 0.0\n"
        "from specdef.defences.defend import defend\n"
        "defend('npo', sys.argv[1], sys.argv[2], options={'steps': 40, 'eval_every': 2, 'lr': 1e-5},\n"
        "       data={'task': 'facts'}, progress=lambda stage, point: print(stage, point.step, flush=True))\n"
    )
    command = [sys.executable, "-c", script, str(toy_model)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "whole")], check=True, env=environment, capture_output=True)
    for seen in (2, 3, 2):
        process = subprocess.Popen(
            [*command, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True, env=environment
        )
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(seen + 1)]
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lines[-1]
        assert not (tmp_path / "out").exists()
    done = subprocess.run(
        [*command, str(tmp_path / "out")], check=True, env=environment, capture_output=True, text=True
    )
    assert done.stdout.startswith("resumed ")
    a, b = (load_file(tmp_path / name / "model.safetensors") for name in ("whole", "out"))
    assert same(a, b)
