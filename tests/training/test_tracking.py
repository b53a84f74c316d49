"""Trackers: every evaluation reaches them, the learning rate is the one trained with, and no result depends on them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pico_text
import pytest
from accelerate.tracking import GeneralTracker

import specdef
from specdef.errors import SpecdefError
from specdef.models.base import MODEL_KINDS
from specdef.tasks.kinds.facts import facts
from specdef.training.loop import make_trainer
from specdef.training.recipe import Recipe
from specdef.training.tracking import learning_rate

HOW: dict[str, Any] = {"task": "facts", "utility": "perplexity", "threads": 1, "device": "cpu"}


class Noted(GeneralTracker):
    """A user's own tracker; `fails` names a method that raises."""

    name = "noted"
    requires_logging_directory = False

    def __init__(self, fails: str = "") -> None:
        super().__init__()
        self.fails, self.about, self.rows, self.ended = fails, {}, [], False  # type: ignore[var-annotated]

    @property
    def tracker(self) -> list[Any]:
        return self.rows

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self._fail("store")
        self.about = values

    def log(self, values: dict[str, Any], step: int | None = None, **_: Any) -> None:
        self._fail("log")
        self.rows.append((step, values))

    def finish(self) -> None:
        self._fail("finish")
        self.ended = True

    def _fail(self, name: str) -> None:
        if name == self.fails:
            raise RuntimeError(f"no {name}")


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_learning_rate_is_the_one_trained_with(toy_model: Path, schedule: Any) -> None:
    loaded = pico_text.loaded(toy_model)
    recipe = Recipe(lr=1e-3, steps=5, batch_size=2, warmup=0.4, schedule=schedule)
    trainer = make_trainer(loaded, recipe, MODEL_KINDS.get("causal-lm").encode(facts().samples[:4], loaded), None)
    for step in range(1, 6):
        used = trainer.optimizer.param_groups[0]["lr"]
        trainer.step()
        assert learning_rate(recipe, step) == pytest.approx(used, rel=1e-12)


def test_every_evaluation_is_tracked_and_the_cell_is_the_same(toy_model: Path) -> None:
    recipe, watch = Recipe(lr=1e-2, steps=3, eval_every=2), Noted()
    cell = specdef.attack(toy_model, recipe=recipe, track=watch, **HOW)
    points = cell.result.evaluations
    assert [step for step, _ in watch.rows] == [point.step for point in points] == [0, 2, 3]
    assert watch.rows[0][1] == {"score": points[0].score, "utility": points[0].utility}
    for (step, values), point in list(zip(watch.rows, points, strict=True))[1:]:
        assert values == {
            "score": point.score,
            "utility": point.utility,
            "loss": point.loss,
            "learning_rate": learning_rate(recipe, step),
        }
    assert watch.ended
    assert (watch.about["lr"], watch.about["optimizer_options"]) == (1e-2, "()")
    untold = specdef.attack(toy_model, recipe=recipe, **HOW)
    assert (untold.key, untold.result) == (cell.key, cell.result)


def test_a_tracker_that_does_not_start_is_said_and_one_that_breaks_later_fails_no_run(toy_model: Path) -> None:
    recipe = Recipe(steps=1, warmup=0)
    with pytest.raises(SpecdefError, match=r"`track` must be a tracker that starts; noted did not \(no store\)"):
        specdef.attack(toy_model, recipe=recipe, track=Noted("store"), **HOW)
    for name in ("log", "finish"):
        assert specdef.attack(toy_model, recipe=recipe, track=Noted(name), **HOW).result.counts


def test_tensorboards_files_lie_beside_the_results(
    toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in for the package: it weighs 60 MB and is an extra."""
    written: list[tuple[str, float, int]] = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            self.folder = folder
            Path(folder).mkdir(parents=True)

        def add_hparams(self, values: dict[str, Any], metric_dict: dict[str, Any]) -> None:
            (Path(self.folder) / "hparams").write_text(values["attack"])

        def add_scalar(self, name: str, value: float, global_step: int, **_: Any) -> None:
            written.append((name, value, global_step))

        def flush(self) -> None:
            pass

        def close(self) -> None:
            written.append(("closed", 0, 0))

    stand_in = ModuleType("torch.utils.tensorboard")
    stand_in.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", stand_in)
    monkeypatch.setattr("torch.utils.tensorboard", stand_in, raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    recipe = Recipe(steps=1, warmup=0)
    cell = specdef.attack(toy_model, tmp_path / "runs", recipe=recipe, track="tensorboard", **HOW)
    assert (tmp_path / "runs" / "tracking" / cell.key / "hparams").read_text().startswith("adamw, lr 1e-4")
    assert [name for name, _, step in written if step == 1] == ["score", "utility", "loss", "learning_rate"]
    assert written[-1][0] == "closed"


def test_what_cannot_be_tracked_is_refused_before_a_model_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name, package in (("tensorboard", "specdef[track]"), ("wandb", "wandb")):
        with pytest.raises(SpecdefError) as caught:
            specdef.attack("none", tmp_path / "runs", track=name)
        assert str(caught.value) == (
            f"`track` must name a tracker that is installed; {name} needs the package {name}. "
            f"Run `pip install {package}`."
        )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(SpecdefError, match="`out` must be given where tensorboard keeps track"):
        specdef.attack("none", track="tensorboard")
    with pytest.raises(SpecdefError, match=r"`track` must be one of tensorboard, wandb; got 'tensorbored'"):
        specdef.attack("none", tmp_path / "runs", track="tensorbored")
