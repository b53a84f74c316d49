"""One attack of a study's model, run once and stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from specdef.attacks.base import Attack
from specdef.certify.drawn_images import DRAWN, images_kept
from specdef.certify.faults import machine_faults_said
from specdef.certify.reference import kept_reference
from specdef.certify.result import StoredCell
from specdef.certify.run_cell import measure_cell
from specdef.certify.store import Store
from specdef.certify.study import Study
from specdef.core.processes import from_first, is_first
from specdef.training.outcome import Evaluation
from specdef.training.tracking import TRACKING, tracked

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker


def attack_once(
    study: Study,
    made: Attack,
    store: Store,
    track: str | GeneralTracker | None,
    progress: Callable[[Evaluation], None] | None,
    on_step: Callable[[int, float], None] | None,
    images: bool = False,
) -> StoredCell:
    """The stored result of an attack, run unless the store has it.

    Args:
        study: what is attacked, and what is trained, scored and watched.
        made: the attack.
        store: where results are kept.
        track: see `tracked`; its files lie beside the results.
        progress: called after every evaluation.
        on_step: called after every step with the number of steps done and that step's loss.
        images: whether to keep what is drawn at every evaluation, in ``drawn`` beside the results.

    Raises:
        SpecdefError: the attack cannot be made on this model, or the tracker does not start.
        MachineFault: the machine ran out of memory or disk; nothing is stored.
    """

    def told(point: Evaluation) -> None:
        note(point)
        keep(point)
        if progress is not None:
            progress(point)

    try:
        reference = None
        if made.rewrites or study.original.digest != study.locked.digest:
            # Without an original, what rewriting does to the function is judged against the folder as published.
            with machine_faults_said():
                reference = kept_reference(store.folder, study.cell(study.original))
        cell = replace(study.cell(study.locked, reference=reference), attack=made)
        if (stored := from_first(lambda: store.read(cell))) is not None:
            return stored
        about = {"model": cell.subject.name, "task": cell.task.label, "attack": made.label, **asdict(made.recipe)}
        kept = store.folder / DRAWN / cell.key if images and is_first() else None
        with (
            machine_faults_said(),
            tracked(track, store.folder / TRACKING, cell.key, about, made.recipe) as note,
            images_kept(kept) as keep,
        ):
            finished = measure_cell(cell, progress=told, on_step=on_step)
        measured = replace(finished.measured, compared=study.original.digest != study.locked.digest)
        return from_first(lambda: store.write(cell, replace(finished, measured=measured)))
    except BaseException:  # Ctrl-C too
        if is_first():
            store.abandon()
        raise
