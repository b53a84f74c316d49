"""`attack` and `certify_model`: the verbs that measure whether a defence holds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.core.folders import scratch_folder
from specdef.core.processes import from_first, is_first, joined, launched
from specdef.errors import SpecdefError
from specdef.models.base import kind_of
from specdef.models.sources import find_model

if TYPE_CHECKING:
    from accelerate.tracking import GeneralTracker
    from torch import nn

    from specdef.attacks.base import Intervention, RewriteReport
    from specdef.certify.certificate import Certificate
    from specdef.certify.events import CellEvent
    from specdef.certify.resources import Resources
    from specdef.certify.result import StoredCell
    from specdef.tasks.base import TaskSpec
    from specdef.training.outcome import Evaluation
    from specdef.training.recipe import Recipe


def attack(
    model: Path | str | nn.Module,
    out: Path | str | None = None,
    *,
    tokenizer: Any = None,
    task: TaskSpec | str | None = None,
    recipe: Recipe | None = None,
    interventions: Sequence[Intervention | str] = (),
    early_stop: bool = False,
    utility_factor: float = 2.0,
    original: Path | str | nn.Module | None = None,
    text: Path | str | None = None,
    utility: str | None = None,
    target: float | None = None,
    scorer: str | None = None,
    task_seed: int = 0,
    threads: int | None = None,
    device: str | None = None,
    track: str | GeneralTracker | None = None,
    images: bool = False,
    progress: Callable[[Evaluation], None] | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> StoredCell:
    """Fine-tune a model once, as an attacker would, and store what came out.

    Started by torchrun or accelerate launch, all processes make this one attack together: see `docs/scale.md`.

    Args:
        model: a model folder, a hub id, or ``smollm2-135m``; or a transformers model in memory. A copy of it is
            attacked, written to a scratch folder, so that the result is the folder's; the model stays as it is.
        out: folder for results; finished attacks in it are kept, the same attack is not run twice. None keeps no file.
        tokenizer: of a model in memory.
        task: such as ``biographies`` or ``mcqa:FILE``, or a `TaskSpec`; the ordinary one for this kind of model when
            None.
        recipe: optimizer, learning rate, steps and so on; ``Recipe()`` when None.
        interventions: what is done besides training, such as ``lora:rank=8``, ``rebalance:form=svd`` or
            ``channel-rates``; any of `specdef.attacks.base.INTERVENTIONS`.
        early_stop: stop when the utility budget is left; otherwise go on.
        utility_factor: how much of its utility a useful model may lose; of perplexity, how often the start's it may be.
        original: the undefended model, likewise a folder or in memory; step 0 is checked against it.
        text: general data, a file as the utility reads it; what ships with the package when None.
        utility: ``perplexity`` or ``accuracy``; the ordinary one for this kind of model when None.
        target: score to reach; the task's own when None. This and the next two belong in a `TaskSpec`, where there is
            one.
        scorer: what counts as success in task sft, such as ``any:REGEX``.
        task_seed: decides the task's draws.
        threads: CPU threads; all cores when None.
        device: ``cpu`` or ``cuda``; the GPU where there is one when None.
        track: ``tensorboard`` or ``wandb``, with its files in ``tracking`` of `out`; or a tracker of accelerate's made
            in code. Told score, utility, loss and learning rate of every evaluation; no part of a cell's identity.
        images: write what a pipeline draws at every evaluation into ``drawn`` of `out`, as PNG; no part of it either.
        progress: called after every evaluation.
        on_step: called after every step with the number of steps done and that step's loss.

    Returns:
        The stored result.

    Raises:
        SpecdefError: bad input; finished results are kept.
        MachineFault: the machine ran out of memory or disk; nothing is stored.
    """
    from specdef.attacks.base import Attack, parse_intervention
    from specdef.certify.attack_once import attack_once
    from specdef.certify.drawn_images import refuse_images
    from specdef.certify.early import asked_task, refuse_utility
    from specdef.certify.resources import Resources
    from specdef.certify.run_cell import check_readable
    from specdef.certify.store import Store, refuse_file
    from specdef.certify.study import make_study
    from specdef.certify.together import refuse_unshared
    from specdef.tasks.base import parse_task
    from specdef.training.outcome import stop_rule
    from specdef.training.recipe import Recipe
    from specdef.training.tracking import refuse_track

    done = tuple(parse_intervention(one) if isinstance(one, str) else one for one in interventions)
    made = Attack(recipe or Recipe(), done, stop_rule(early_stop), utility_factor)
    resources = Resources(workers=1, threads=threads, device=device, processes=launched())
    asked = asked_task(task, seed=task_seed, target=target, scorer=scorer)
    refuse_utility(asked, utility=utility, text=text, utility_factor=utility_factor)
    if out is not None:
        refuse_file(out)
    if track is not None:
        refuse_track(track)
        if out is None and isinstance(track, str):
            raise SpecdefError(f"`out` must be given where {track} keeps track: its files lie there.")
    if images and out is None:
        raise SpecdefError("`out` must be given with `images`: they are written there.")
    with ExitStack() as stack:
        stack.enter_context(joined(device))
        folder, undefended = _folders(model, original, tokenizer, stack)
        refuse_unshared(made, kind_of(folder))
        spec = asked or parse_task(kind_of(folder).default_task, seed=task_seed, target=target, scorer=scorer)
        study = make_study(
            folder,
            undefended,
            spec,
            text=None if text is None else Path(text),
            utility=utility,
            resources=resources,
        )
        check_readable(study.cell(study.locked))
        if images and out is not None:
            refuse_images(study.task, Path(out))
        store = from_first(lambda: Store(stack.enter_context(scratch_folder(None)) if out is None else Path(out)))
        if not is_first():
            track = progress = on_step = None
        return attack_once(study, made, store, track, progress, on_step, images)


def _folders(
    model: Path | str | nn.Module, original: Path | str | nn.Module | None, tokenizer: Any, stack: ExitStack
) -> tuple[Path, Path]:
    """Folders of the model and of the undefended one; those in memory are written to scratch folders of `stack`."""
    from specdef.models.memory import is_module, save_module

    given = {"model": model} if original is None else {"model": model, "original": original}
    in_memory = [name for name, one in given.items() if is_module(one, argument=name)]
    if tokenizer is not None and not in_memory:
        raise SpecdefError("`tokenizer` must be left out for a folder, which holds its own.")
    found = []
    for name, one in given.items():
        if isinstance(one, str | Path):
            found.append(find_model(str(one), argument=name))
        else:
            scratch = stack.enter_context(scratch_folder(None))
            found.append(save_module(one, tokenizer, scratch / type(one).__name__, argument=name))
    return found[0], found[-1]


def undo(kind: str, locked: Path | str, out: Path | str) -> RewriteReport:
    """Undo a lock in the weights without its key, as an attacker would.

    Args:
        kind: an intervention that takes a lock out of the weights, with its options: ``merge``, ``rebalance:form=svd``.
        locked: the published folder; nothing else is used.
        out: the folder to create.

    Raises:
        SpecdefError: another kind, an option it does not take, nothing to undo, or a folder is not usable; nothing is
            left behind.
    """
    from specdef.attacks.base import INTERVENTIONS, parse_intervention
    from specdef.core.folders import refuse_target

    undoing, name = [one.name for one in INTERVENTIONS if one.undoes], kind.partition(":")[0]
    if name not in undoing:
        raise SpecdefError(f"`kind` must be one of {', '.join(undoing)}; got {name!r}.")
    intervention = parse_intervention(kind)
    refuse_target(Path(out), None)
    report = intervention.rewrite(find_model(str(locked)), Path(out))
    if report is None:
        raise SpecdefError(f"`kind` must rewrite weights; {name} does not.")
    return report


def certify_model(
    locked: Path | str,
    out: Path | str,
    *,
    original: Path | str,
    task: TaskSpec | str | None = None,
    threats: Sequence[str] | None = None,
    recipe: Recipe | None = None,
    window: Sequence[float] | None = None,
    multiplier: float | None = None,
    text: Path | str | None = None,
    utility: str | None = None,
    target: float | None = None,
    scorer: str | None = None,
    task_seed: int = 0,
    utility_factor: float = 2.0,
    effort: str = "standard",
    minutes: float | None = None,
    resources: Resources | None = None,
    cells: Path | str | None = None,
    also: Path | str | None = None,
    base: Path | str | None = None,
    on_cell: Callable[[StoredCell, int, int], None] | None = None,
    on_stage: Callable[[str], None] | None = None,
    on_event: Callable[[CellEvent], None] | None = None,
    command: str | None = None,
) -> Certificate:
    """Attack a model under named threat models and write ``certificate.json``: what held and what did not.

    `write_report` turns the folder into tables, pictures and a page.

    Args:
        locked: the model under test: locked by specdef or defended in any other way. The original itself certifies
            that the task is learnable.
        out: results folder; a finished cell in it is not run again.
        original: the undefended model.
        task: such as ``biographies`` or ``mcqa:FILE``, or a `TaskSpec`; the ordinary one for this kind of model when
            None.
        threats: those tried by default (T0, T1) when None; any of T0 (default recipes), T1 (learning-rate search in
            both directions), T2 (other optimizers, clipping, batches), T3 (LoRA and freezing), T4 (undoing the lock in
            the weights, or training around it); on request T5 (with the public base weights) and T6 (adapters and
            rates adapted to a lock).
        recipe: steps, batch size and so on of the ordinary attack everything varies from.
        window: ordinary learning rates.
        multiplier: alpha, where no manifest names it.
        text: general data, a file as the utility reads it; what ships with the package when None.
        utility: ``perplexity`` or ``accuracy``; the ordinary one for this kind of model when None.
        target: score to reach; the task's own when None.
        scorer: what counts as success in task sft, such as ``any:REGEX``.
        task_seed: decides the task's draws.
        utility_factor: how much of its utility a useful model may lose; of perplexity, how often the start's it may be.
        effort: how closely, widely and long is searched: ``quick``, ``standard`` or ``thorough``.
        minutes: how long new cells are begun. Cells under way then are finished; a threat model whose search is not
            done is left out, which the certificate says. The same command goes on.
        resources: where cells run; as many at once as cores and memory allow when None.
        cells: folder of finished cells shared by several certificates; inside `out` when None.
        also: a YAML file of further attacks, in the form of a study's ``attacks``; a threat model of their own.
        base: the public base weights, for a threat model whose attacker holds them (T5); `original` when None and the
            model under test has a lock.
        on_cell: called after every finished cell.
        on_stage: called with the name of every stage.
        on_event: told where every cell is while it runs; called from other threads.
        command: noted in the certificate.

    Raises:
        SpecdefError: bad input, or a task that the undefended model does not learn; finished cells are kept.
    """
    from specdef.certify.certify_study import certify_study, check_threats
    from specdef.certify.early import asked_task, refuse_utility
    from specdef.certify.effort import effort_of
    from specdef.certify.own_attacks import read_attacks
    from specdef.certify.resources import Resources
    from specdef.certify.run_cell import check_readable
    from specdef.certify.store import Store, refuse_file, refuse_foreign
    from specdef.certify.study import WINDOW, base_of, check_multiplier, check_window, make_study
    from specdef.certify.threat_model import default_threats, named_threats, needing_base
    from specdef.tasks.base import parse_task
    from specdef.training.recipe import Recipe

    threats = default_threats() if threats is None else threats
    check_threats(threats)
    if base is not None and not needing_base(threats):
        known = ", ".join(needing_base(named_threats()))
        raise SpecdefError(f"`base` must be given with threat model {known}, which uses it; got {', '.join(threats)}.")
    effort_of(effort)
    if minutes is not None and not minutes > 0:
        raise SpecdefError(f"`minutes` must be a number above 0; got {minutes:g}.")
    check_window(WINDOW if window is None else window)
    check_multiplier(multiplier)
    own = () if also is None else read_attacks(also, recipe or Recipe())
    spec = asked_task(task, seed=task_seed, target=target, scorer=scorer)
    refuse_utility(spec, utility=utility, text=text, utility_factor=utility_factor)
    refuse_foreign(Path(out))
    if cells is not None:
        refuse_file(cells, "cells")
    original_folder, folder = find_model(str(original), argument="original"), find_model(str(locked))
    spec = spec or parse_task(kind_of(folder).default_task, seed=task_seed, target=target, scorer=scorer)
    study = make_study(
        folder,
        original_folder,
        spec,
        text=None if text is None else Path(text),
        utility=utility,
        multiplier=multiplier,
        recipe=recipe,
        window=WINDOW if window is None else window,
        utility_factor=utility_factor,
        effort=effort,
        resources=resources or Resources(),
    )
    study = replace(study, also=tuple(one.bound() for one in own))
    if needing_base(threats):
        given = None if base is None else find_model(str(base), argument="base")
        study = replace(study, base=base_of(study, given))
    check_readable(study.cell(study.locked))
    store = Store(Path(out), study.identity(), cells=None if cells is None else Path(cells))
    executor = study.resources.executor(on_event)
    return certify_study(
        study,
        store,
        executor,
        threats=threats,
        minutes=minutes,
        on_cell=on_cell,
        on_stage=on_stage,
        command=command,
    )
