"""Figures of a run for tensorboard or wandb, through accelerate's trackers. No result depends on it."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.core.text import did_you_mean
from specdef.errors import SpecdefError
from specdef.models.loading import reason
from specdef.training.outcome import Evaluation
from specdef.training.recipe import Recipe

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker

TRACKING = "tracking"
"""The folder beside the results."""
PROJECT = "specdef"
_PACKAGES = {"tensorboard": ("tensorboard", "specdef[track]"), "wandb": ("wandb", "wandb")}
"""Tracker -> the package it needs, and what pip installs it by."""


def refuse_track(track: str | GeneralTracker) -> None:
    """Raise SpecdefError unless a tracker is known and its package is installed; a tracker made in code is."""
    if not isinstance(track, str):
        return
    if track not in _PACKAGES:
        hint = did_you_mean(track, _PACKAGES)
        raise SpecdefError(f"`track` must be one of {', '.join(_PACKAGES)}; got {track!r}.{hint}")
    package, install = _PACKAGES[track]
    if importlib.util.find_spec(package) is None:
        raise SpecdefError(
            f"`track` must name a tracker that is installed; {track} needs the package {package}. "
            f"Run `pip install {install}`."
        )


@contextmanager
def tracked(
    track: str | GeneralTracker | None, folder: Path, run: str, about: Mapping[str, Any], recipe: Recipe
) -> Iterator[Callable[[Evaluation], None]]:
    """Yield what notes an evaluation: score, utility, loss and learning rate of its step.

    Args:
        track: ``tensorboard``, ``wandb``, or a tracker made in code, which is started and ended here; None notes
            nothing.
        folder: of the tracker's files.
        run: names the run among others of the folder.
        about: what the run is, kept beside its figures.
        recipe: says the learning rate of every step.

    Raises:
        SpecdefError: the tracker does not start. What it raises later is lost: a listener must not fail a run.
    """
    if track is None:
        yield lambda point: None
        return
    tracker = _started(track, folder, run, about)

    def note(point: Evaluation) -> None:
        values = {"score": point.score, "utility": point.utility, "loss": point.loss}
        if point.step:
            values["learning_rate"] = learning_rate(recipe, point.step)
        with suppress(Exception):
            tracker.log({name: value for name, value in values.items() if value is not None}, step=point.step)

    try:
        yield note
    finally:
        with suppress(Exception):
            tracker.finish()


def _started(track: str | GeneralTracker, folder: Path, run: str, about: Mapping[str, Any]) -> GeneralTracker:
    from accelerate.tracking import TensorBoardTracker, WandBTracker

    name = track if isinstance(track, str) else track.name
    try:
        if isinstance(track, str):
            folder.mkdir(parents=True, exist_ok=True)
        if track == "tensorboard":
            tracker = TensorBoardTracker(run, folder)
        elif track == "wandb":
            tracker = WandBTracker(PROJECT, name=run, dir=str(folder))
        else:
            tracker = track
        tracker.start()
        tracker.store_init_configuration({key: _plain(value) for key, value in about.items()})
    except Exception as error:  # whatever a tracker's package raises where it cannot write or log in
        raise SpecdefError(f"`track` must be a tracker that starts; {name} did not ({reason(error)}).") from error
    return tracker


def _plain(value: Any) -> Any:
    """A value as every tracker takes it."""
    return value if isinstance(value, bool | int | float | str) else str(value)


def learning_rate(recipe: Recipe, step: int) -> float:
    """The schedule's learning rate of a step.

    Args:
        recipe: how is trained.
        step: from 1 on.
    """
    import torch

    from specdef.training.loop import scheduled

    schedule = scheduled(torch.optim.SGD([torch.zeros(1)], lr=recipe.lr), recipe)
    return float(recipe.lr * schedule.lr_lambdas[0](step - 1))
