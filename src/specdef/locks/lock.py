"""`lock`: from a model folder to a locked one and a private key; `unlock.py` is the way back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from specdef.core.results import Result
from specdef.errors import PlanError
from specdef.locks.presets import default_preset, lock_options

if TYPE_CHECKING:
    from torch import nn

    from specdef.architectures.written import WrittenMap
    from specdef.checkpoint.blocks import Progress
    from specdef.checkpoint.reader import Checkpoint
    from specdef.locks.base import LockKind, ModuleLock, PreparedLock


@dataclass(frozen=True, repr=False)
class LockReport(Result):
    """What `lock` did, or with ``dry_run`` would do.

    Attributes:
        out: the locked folder; None for a dry run.
        key: the private key file; None for a dry run.
        lock: the kind of lock.
        strength: multiplier, channels or rank, layers, counts per pair kind.
        exactness: in which dtypes the function is the original's, and how closely.
        num_values: weights that change.
        left_out: pair id -> why it could not be locked exactly (only kinds the user did not ask for by name).
        remarks: how strong it is and where it runs, in sentences.
    """

    out: Path | None
    key: Path | None
    lock: str
    strength: Mapping[str, Any]
    exactness: Mapping[str, Any]
    num_values: int
    left_out: Mapping[str, str]
    remarks: tuple[str, ...] = ()


@overload
def lock(
    model: Path | str,
    out: Path | str,
    *,
    preset: str | None = None,
    multiplier: str | float | None = None,
    layers: Sequence[int] | None = None,
    seed: int | None = None,
    key: Path | str | None = None,
    card: bool = False,
    exclude: Sequence[str] = (),
    map: str | None = None,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> LockReport: ...


@overload
def lock(
    model: nn.Module,
    *,
    preset: str | None = None,
    multiplier: str | float | None = None,
    layers: Sequence[int] | None = None,
    seed: int | None = None,
    **options: Any,
) -> ModuleLock: ...


def lock(
    model: Path | str | nn.Module,
    out: Path | str | None = None,
    *,
    preset: str | None = None,
    multiplier: str | float | None = None,
    layers: Sequence[int] | None = None,
    seed: int | None = None,
    key: Path | str | None = None,
    card: bool = False,
    exclude: Sequence[str] | str = (),
    map: str | None = None,
    dry_run: bool = False,
    progress: Callable[[int], None] | None = None,
    **options: Any,
) -> LockReport | ModuleLock:
    """Write a locked copy of a model folder and the private key that undoes it; or lock a model in memory, in place.

    Args:
        model: a model folder, a hub id, or ``smollm2-135m``; or a model in memory, which goes to `lock_module`.
        out: the folder to create; a model in memory takes none.
        preset: ``exact`` (power-of-two channel scaling, bit-identical function), ``ladder`` (the same, each layer with
            a factor of its own; loads the model to plan), ``paper`` (Construction 1 of the main paper, needs
            ``import specdef`` to load), or a kind of lock by its own name, such as ``trained`` (Algorithm 1 of the
            workshop paper, which moves the function). None: ``ladder`` for a folder of a causal language model, where
            it is the one that certificates favour, else ``exact``.
        multiplier: alpha, for example ``"2^20"``; the preset's default (2^20, 2^58, 1e4) when None.
        layers: layer numbers to touch; all (``exact``) or five drawn matrices (``paper``) when None.
        seed: decides every random draw; 0 when None.
        key: where the private key goes; ``OUT.specdef-key`` when None. This and the rest of the named: folders only.
        card: write the lock into README.md too: metadata for the hub and a section; `unlock` restores the original.
        exclude: shell patterns of files to leave out of the locked folder, such as ``*.bin``; `unlock` does not
            restore them.
        map: ``auto`` finds the pairs of an undeclared family by itself (`map_model`), and compares this model's outputs
            with the original's before the locked folder is put in its place; the family's declared map when None.
        dry_run: plan and check only, write nothing.
        progress: called with the number of bytes just read.
        **options: ``exact``: channels, pairs, direction, num_layers, runtimes (what it must run in, of
            `locks.runtimes.RULES`). ``ladder``: margin, calibration, pairs. ``paper``: rank, components, basis, form,
            num_matrices. ``trained``: rank, components, num_matrices, retain, retain_weight, text, lr, steps,
            batch_size, eval_every, utility_factor. A model in memory: those of `lock_module`.

    Returns:
        What was done; of a model in memory with the key that `unlock` needs.

    Raises:
        SpecdefError: bad input; nothing is left behind.
    """
    from specdef.models.memory import is_module

    if is_module(model):
        _refuse_files(
            out=out,
            key=key,
            card=card or None,
            exclude=exclude or None,
            map=map,
            dry_run=dry_run or None,
            progress=progress,
        )
        from specdef.locks.in_memory import lock_module

        given = {"layers": layers, "seed": seed}
        options |= {name: value for name, value in given.items() if value is not None}
        return lock_module(model, preset=preset, multiplier=multiplier, **options)
    if out is None:
        raise PlanError("`out` must be given with a folder: the locked folder to create. A folder is never changed.")
    from specdef.locks.with_map import refuse_map
    from specdef.models.sources import find_model

    if preset is None:  # the kind of model decides; else a typing mistake is answered before anything is downloaded
        model = find_model(str(model))
        preset = default_preset(model)
    kind, chosen = lock_options(preset, {"multiplier": multiplier, "layers": layers, "seed": seed, **options})
    refuse_map(map, kind)
    return lock_folder(
        find_model(str(model)),
        Path(out),
        kind,
        chosen,
        key=None if key is None else Path(key),
        card=card,
        exclude=(exclude,) if isinstance(exclude, str) else exclude,
        map=map,
        dry_run=dry_run,
        progress=progress,
    )


def _refuse_files(**given: object) -> None:
    """Refuse what has a meaning for folders only."""
    for name, value in given.items():
        if value is not None:
            raise PlanError(
                f"`{name}` must be left out for a model in memory, which is locked in place. Write it afterwards with "
                "`save_pretrained`, or give a folder as `model`."
            )


def lock_folder(
    model: Path,
    out: Path,
    kind: LockKind,
    options: Any,
    *,
    key: Path | None = None,
    card: bool = False,
    exclude: Sequence[str] = (),
    map: str | WrittenMap | None = None,
    compared: bool = True,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> LockReport:
    """Write a locked copy of a model folder and its private key.

    Args:
        model: a Hugging Face folder with safetensors weights.
        out: the folder to create.
        kind: the lock to apply.
        options: its options, checked.
        key: where the private key goes; `default_key_path` unless given.
        card: write the lock into README.md too.
        exclude: shell patterns of files to leave out.
        map: ``auto``, an automatic map, or None for the family's declared map.
        compared: with a `map`, refuse to write a model whose outputs are not the original's.
        dry_run: plan and check only, write nothing that stays.
        progress: called with the number of bytes just read.

    Raises:
        SpecdefError: the model, the options, `out` or `key` are not usable; nothing is left behind.
    """
    from specdef.architectures.resolve import resolve
    from specdef.architectures.written import architecture_from
    from specdef.checkpoint.reader import open_checkpoint
    from specdef.core.folders import refuse_target, scratch_folder
    from specdef.errors import CheckpointError
    from specdef.locks.key import default_key_path, refuse_key_path
    from specdef.locks.manifest import CARD, MANIFEST
    from specdef.locks.with_map import refuse_inexact, refuse_map, said_of_map
    from specdef.mapping.automatic import map_checkpoint

    refuse_map(map, kind)
    key = default_key_path(out) if key is None else key
    if not dry_run:
        refuse_target(out, model)
        refuse_key_path(key, out, model)
    checkpoint = open_checkpoint(model, exclude=exclude)
    for name in (MANIFEST, CARD):
        if (model / name).exists():
            raise CheckpointError(f"`model` must be an unlocked model; {model} holds {name}. Unlock it first.")
    written = map_checkpoint(checkpoint).written if isinstance(map, str) else map
    family = None if written is None else architecture_from(written)
    resolved = resolve(checkpoint.config, checkpoint.shapes, family)
    with ExitStack() as stack:
        spool = Path()
        if kind.spools:
            spool = stack.enter_context(scratch_folder(None if dry_run else out.parent))
        prepared = kind.prepare(checkpoint, resolved, options, spool)
        if written is not None:
            prepared = said_of_map(prepared, written)
        if card:
            prepared = _with_card(checkpoint, kind, prepared)
        if not dry_run:
            check = functools.partial(refuse_inexact, model, kind=kind, prepared=prepared)
            _write(
                checkpoint,
                out,
                key,
                kind,
                prepared,
                written,
                check if written is not None and compared else None,
                progress,
            )
    p = prepared
    return LockReport(
        out=None if dry_run else out,
        key=None if dry_run else key,
        lock=kind.name,
        strength=p.strength,
        exactness=p.exactness,
        num_values=p.num_values,
        left_out=p.left_out,
        remarks=p.remarks,
    )


def _with_card(checkpoint: Checkpoint, kind: LockKind, p: PreparedLock) -> PreparedLock:
    """The same lock, README.md among the files it rewrites."""
    from specdef.checkpoint.layout import library_of
    from specdef.locks.hub_card import base_model, hub_card
    from specdef.locks.prose import README

    path = checkpoint.folder / README
    original = path.read_bytes() if README in checkpoint.others else None
    base = base_model(checkpoint.folder, checkpoint.config)
    library = library_of(checkpoint.folder)
    changed = {**p.changed_files, README: hub_card(original, kind, p.strength, p.exactness, base, library=library)}
    blobs = p.blobs if original is None else {**p.blobs, f"file:{README}": original}
    return replace(p, changed_files=changed, blobs=blobs)


def _write(
    checkpoint: Checkpoint,
    out: Path,
    key: Path,
    kind: LockKind,
    prepared: PreparedLock,
    written: WrittenMap | None = None,
    check: Callable[[Path], None] | None = None,
    progress: Progress | None = None,
) -> None:
    from specdef.core.atomic import temporary_path, uninterrupted
    from specdef.core.folders import place_folder, unplaced_folder
    from specdef.locks.key import place_key, write_key
    from specdef.locks.locked_folder import write_locked

    with unplaced_folder(out, source=checkpoint.folder) as folder, temporary_path(key) as key_file:
        write_key(write_locked(checkpoint, folder, kind, prepared, written, progress), key_file, key)
        if check is not None:
            check(folder)
        with uninterrupted():
            place_key(key_file, key)
            try:
                place_folder(folder, out, source=checkpoint.folder)
            except BaseException:  # without its folder the key unlocks nothing
                key.unlink(missing_ok=True)
                raise
