"""What is being certified: two models, a task, general text, and the recipe everything varies from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from specdef.attacks.lora import AdapterSpec
from specdef.attacks.rewrites.apply import Rewriting
from specdef.attacks.run import Attack
from specdef.certify.cell import Cell, Subject, digest_of, subject_of
from specdef.certify.resources import Machine
from specdef.errors import SpecdefError
from specdef.locks.manifest import MANIFEST, read_manifest
from specdef.tasks.base import Task, TaskSpec, make_task
from specdef.tasks.text.prose import bundled_prose, read_text
from specdef.training.outcome import StopRule
from specdef.training.recipe import Recipe

SERIAL = Machine(1, 1, "cpu")
WINDOW = (3e-5, 1e-4, 3e-4, 1e-3)
"""Learning rates of an ordinary fine-tuning run with Adam."""
UNKNOWN_MULTIPLIER = 2.0**20
"""How far below the ordinary window learning rates are searched when nothing says what the multiplier is."""


@dataclass(frozen=True)
class Study:
    """One certificate's subject matter.

    Attributes:
        original: the undefended model.
        locked: the model under test; the same as `original` to certify an unlocked model.
        method: ``fold``, ``inject`` or ``none`` from the manifest, ``unknown`` without one.
        multiplier: alpha; learning rates are searched down to the ordinary ones divided by it.
        multiplier_source: ``manifest`` (the defender's word), ``option``, ``default`` or ``no lock``.
        locked_modules: modules the lock replaced, where the manifest names them.
        task: description, digest and the task itself.
        text: path of the general text, None for the bundled prose.
        recipe: steps, batch size and so on of an ordinary attack.
        window: the ordinary learning rates, ascending.
        machine: where cells run; its threads and device are part of every cell's identity.
    """

    original: Subject
    locked: Subject
    method: str
    multiplier: float
    multiplier_source: str
    locked_modules: tuple[str, ...]
    spec: TaskSpec
    task: Task
    task_digest: str
    text: str | None
    text_digest: str
    recipe: Recipe
    window: tuple[float, ...] = WINDOW
    utility_factor: float = 2.0
    machine: Machine = SERIAL

    def cell(
        self,
        subject: Subject,
        *,
        adapter: AdapterSpec | None = None,
        freeze: str | None = None,
        reference: float | None = None,
        stop: StopRule = "budget",
        rewrite: Rewriting | None = None,
        channel_rates: bool = False,
        **changes: Any,
    ) -> Cell:
        """One attack: the ordinary recipe with some changes."""
        recipe = replace(self.recipe, **changes)
        return Cell(
            subject=subject,
            task=self.spec,
            task_digest=self.task_digest,
            text=self.text,
            text_digest=self.text_digest,
            attack=Attack(recipe, adapter, freeze, stop, self.utility_factor, rewrite, channel_rates),
            reference_perplexity=reference,
            threads=self.machine.threads or 1,
            device=self.machine.device or "cpu",
        )

    def identity(self) -> dict[str, Any]:
        """What all cells of one results folder have in common."""
        return {
            "original": self.original.digest,
            "locked": self.locked.digest,
            "task": self.spec.name,
            "task_digest": self.task_digest,
            "text_digest": self.text_digest,
        }


def make_study(
    locked: Path,
    original: Path,
    task: TaskSpec,
    *,
    text: Path | None = None,
    multiplier: float | None = None,
    recipe: Recipe | None = None,
    window: Sequence[float] = WINDOW,
    utility_factor: float = 2.0,
    machine: Machine = SERIAL,
) -> Study:
    """Read the models' manifests and digests, the task and the text.

    Raises:
        SpecdefError: a file is missing or malformed, or the multiplier is not above 1.
    """
    made = make_task(task)
    content = bundled_prose() if text is None else read_text(text)
    if multiplier is not None and not 1 <= multiplier <= 2.0**60:
        raise SpecdefError(f"`multiplier` must lie between 1 and 2^60; got {multiplier:g}.")
    if len(set(window)) < 2 or min(window) <= 0:
        raise SpecdefError(f"`window` must be two or more learning rates above 0; got {', '.join(map(str, window))}.")
    method, found, modules = _lock_of(locked)
    first, second = subject_of(original), subject_of(locked)
    source = "default" if method == "unknown" else "manifest"
    if first.digest == second.digest:
        method, found, source = "none", 1.0, "no lock"
    if multiplier is not None:
        found, source = multiplier, "option"
    return Study(
        original=first,
        locked=second,
        method=method,
        multiplier=found,
        multiplier_source=source,
        locked_modules=modules,
        spec=task,
        task=made,
        task_digest=digest_of(made.fingerprint()),
        text=None if text is None else str(text),
        text_digest=blake3(content.encode()).hexdigest(),
        recipe=recipe or Recipe(),
        window=tuple(sorted(set(window))),
        utility_factor=utility_factor,
        machine=machine.for_model(original),
    )


def _lock_of(folder: Path) -> tuple[str, float, tuple[str, ...]]:
    if not (folder / MANIFEST).is_file():
        return "unknown", UNKNOWN_MULTIPLIER, ()
    manifest = read_manifest(folder)
    if manifest.method == "fold":
        return "fold", 2.0 ** manifest.strength["exponent"], ()
    return "inject", float(manifest.strength["multiplier"]), tuple(manifest.strength["matrices"])
