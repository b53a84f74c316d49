"""`attack` and `certify_model`: the verbs that measure whether a defence holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.errors import SpecdefError
from specdef.models.sources import find_model

if TYPE_CHECKING:
    from specdef.attacks.rewrites.apply import RewriteReport
    from specdef.certify.certificate import Certificate
    from specdef.certify.resources import Machine
    from specdef.certify.result import StoredCell
    from specdef.training.outcome import Evaluation, StopRule
    from specdef.training.recipe import Recipe


def attack(
    model: Path | str,
    out: Path | str,
    *,
    task: str = "facts",
    recipe: Recipe | None = None,
    lora: str | None = None,
    freeze: str | None = None,
    rewrite: str | None = None,
    channel_rates: bool = False,
    stop: StopRule = "budget",
    utility_factor: float = 2.0,
    original: Path | str | None = None,
    text: Path | str | None = None,
    target: float | None = None,
    scorer: str | None = None,
    task_seed: int = 0,
    threads: int | None = None,
    device: str | None = None,
    progress: Callable[[Evaluation], None] | None = None,
) -> StoredCell:
    """Fine-tune a model once, as an attacker would, and store what came out.

    Args:
        model: a model folder, a hub id, or ``smollm2-135m``.
        out: folder for results; finished attacks in it are kept, the same attack is not run twice.
        task: ``facts``, or another task, such as ``mcqa:FILE``.
        recipe: optimizer, learning rate, steps and so on.
        lora: adapters instead of full fine-tuning, such as ``r=8,targets=all``.
        freeze: regular expression of parameters that are not trained; ``gradients:0.5`` trains the half of the tensors
            with the smallest gradients.
        rewrite: how the weights are rewritten first: ``merge``, ``rebalance``, ``inject-layers:factors=2``, ``prune``
            or ``sharpen:multiplier=4``.
        channel_rates: learning rates in proportion to the channel scales found in the weights.
        stop: ``budget`` goes on after divergence, ``paper`` stops when perplexity has doubled.
        utility_factor: how often the starting perplexity still counts as useful.
        original: the undefended model; step 0 is checked against it.
        text: general text; the bundled prose when None.
        target: score to reach; the task's own when None.
        scorer: what counts as success in task sft, such as ``any:REGEX``.
        task_seed: decides the task's draws.
        threads: CPU threads; all cores when None.
        device: ``cpu`` or ``cuda``; the GPU where there is one when None.
        progress: called after every evaluation.

    Returns:
        The stored result.

    Raises:
        SpecdefError: bad input; finished results are kept.
    """
    from specdef.attacks.lora import parse_adapter
    from specdef.attacks.rewrites.apply import parse_rewriting
    from specdef.attacks.run import Attack
    from specdef.certify.resources import Machine
    from specdef.certify.run_cell import check_readable, measure_cell, reference_perplexity
    from specdef.certify.store import Store
    from specdef.certify.study import make_study
    from specdef.tasks.base import parse_task
    from specdef.training.recipe import Recipe

    adapter = None if lora is None else parse_adapter(lora)
    rewriting = None if rewrite is None else parse_rewriting(rewrite)
    made = Attack(recipe or Recipe(), adapter, freeze, stop, utility_factor, rewriting, channel_rates)
    spec = parse_task(task, seed=task_seed, target=target, scorer=scorer)
    folder = find_model(str(model))
    study = make_study(
        folder,
        folder if original is None else find_model(str(original), argument="original"),
        spec,
        text=None if text is None else Path(text),
        machine=Machine(workers=1, threads=threads, device=device),
    )
    check_readable(study.cell(study.locked))
    store = Store(Path(out))
    try:
        reference = None
        if made.rewrite is not None or study.original.digest != study.locked.digest:
            # Without an original, what rewriting does to the function is judged against the folder as published.
            reference = reference_perplexity(study.cell(study.original))
        cell = replace(study.cell(study.locked, reference=reference), attack=made)
        return store.read(cell) or store.write(cell, measure_cell(cell, progress=progress))
    except BaseException:  # Ctrl-C too
        store.abandon()
        raise


def undo(kind: str, locked: Path | str, out: Path | str, **options: Any) -> RewriteReport:
    """Undo a lock in the weights without its key, as an attacker would.

    Args:
        kind: ``merge`` (inject lock), ``rebalance`` (fold lock) or ``inject-layers`` (Theorem 8, inject lock).
        locked: the published folder; nothing else is used.
        out: the folder to create.
        **options: inject-layers: factors, order, dtype. rebalance: form.

    Raises:
        SpecdefError: another kind, nothing to undo, or a folder is not usable; nothing is left behind.
    """
    from specdef.attacks.rewrites.apply import UNDOING, Rewriting, rewrite
    from specdef.core.folders import refuse_target

    if kind not in UNDOING:
        raise SpecdefError(f"`kind` must be one of {', '.join(UNDOING)}; got {kind!r}.")
    rewriting = Rewriting(kind, options)
    refuse_target(Path(out), None)
    return rewrite(find_model(str(locked)), Path(out), rewriting)


def certify_model(
    locked: Path | str,
    out: Path | str,
    *,
    original: Path | str,
    task: str = "facts",
    threats: Sequence[str] = ("T0", "T1"),
    recipe: Recipe | None = None,
    window: Sequence[float] | None = None,
    multiplier: float | None = None,
    text: Path | str | None = None,
    target: float | None = None,
    scorer: str | None = None,
    task_seed: int = 0,
    utility_factor: float = 2.0,
    machine: Machine | None = None,
    cells: Path | str | None = None,
    on_cell: Callable[[StoredCell, int, int], None] | None = None,
    on_stage: Callable[[str], None] | None = None,
    command: str | None = None,
) -> Certificate:
    """Attack a model under named threat models and write ``certificate.json``: what held and what did not.

    `write_report` turns the folder into tables, pictures and a page.

    Args:
        locked: the model under test: locked by specdef or defended in any other way. The original itself certifies
            that the task is learnable.
        out: results folder; a finished cell in it is not run again.
        original: the undefended model.
        task: ``facts``, or another task, such as ``mcqa:FILE``.
        threats: any of T0 (default recipes), T1 (learning-rate search in both directions), T2 (other optimizers,
            clipping, batches), T3 (LoRA and freezing), T4 (undoing the lock in the weights, or training around it).
        recipe: steps, batch size and so on of the ordinary attack everything varies from.
        window: ordinary learning rates.
        multiplier: alpha, where no manifest names it.
        text: general text; the bundled prose when None.
        target: score to reach; the task's own when None.
        scorer: what counts as success in task sft, such as ``any:REGEX``.
        task_seed: decides the task's draws.
        utility_factor: how often the starting perplexity still counts as useful.
        machine: where cells run; as many at once as cores and memory allow when None.
        cells: folder of finished cells shared by several certificates; inside `out` when None.
        on_cell: called after every finished cell.
        on_stage: called with the name of every stage.
        command: noted in the certificate.

    Raises:
        SpecdefError: bad input, or a task that the undefended model does not learn; finished cells are kept.
    """
    from specdef.certify.certificate import certify_study, check_threats
    from specdef.certify.resources import Machine
    from specdef.certify.run_cell import check_readable
    from specdef.certify.store import Store
    from specdef.certify.study import WINDOW, make_study
    from specdef.tasks.base import parse_task

    spec = parse_task(task, seed=task_seed, target=target, scorer=scorer)
    check_threats(threats)
    original_folder, folder = find_model(str(original), argument="original"), find_model(str(locked))
    study = make_study(
        folder,
        original_folder,
        spec,
        text=None if text is None else Path(text),
        multiplier=multiplier,
        recipe=recipe,
        window=WINDOW if window is None else window,
        utility_factor=utility_factor,
        machine=machine or Machine(),
    )
    check_readable(study.cell(study.locked))
    store = Store(Path(out), study.identity(), cells=None if cells is None else Path(cells))
    return certify_study(
        study, store, study.machine.executor(), threats=threats, on_cell=on_cell, on_stage=on_stage, command=command
    )
