"""From a model folder to a locked one and a private key; `restore.py` is the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from specdef import __version__
from specdef.architectures.resolve import ResolvedModel, resolve
from specdef.checkpoint.reader import Checkpoint, open_checkpoint
from specdef.checkpoint.writer import Progress, ShardEdits, copy_others, file_digest, write_shards
from specdef.core.atomic import temporary_path, uninterrupted
from specdef.core.folders import place_folder, refuse_target, scratch_folder, unplaced_folder
from specdef.errors import CheckpointError, PlanError
from specdef.linalg.exponent import Stored
from specdef.locks.card import model_card
from specdef.locks.fold import check_finite, plan_fold, shard_edits
from specdef.locks.key import Key, default_key_path, place_key, refuse_key_path, write_key
from specdef.locks.manifest import CARD, MANIFEST, Manifest
from specdef.locks.matrices import InjectOptions, choose_matrices
from specdef.locks.plan import FoldOptions, LockPlan


@dataclass(frozen=True)
class LockReport:
    """What `lock` did, or with ``dry_run`` would do.

    Attributes:
        out: the locked folder; None for a dry run.
        key: the private key file; None for a dry run.
        method: ``fold`` or ``inject``.
        strength: multiplier, channels or top-k, layers, counts per pair kind.
        exactness: in which dtypes the function is the original's, and how closely.
        num_values: weights that change.
        left_out: pair id -> why it could not be locked exactly (only kinds the user did not ask for by name).
    """

    out: Path | None
    key: Path | None
    method: str
    strength: Mapping[str, Any]
    exactness: Mapping[str, Any]
    num_values: int
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class _Prepared:
    """A planned lock: what to write and what to say about it."""

    method: str
    strength: Mapping[str, Any]
    exactness: Mapping[str, Any]
    checked: tuple[str, ...]
    num_values: int
    left_out: Mapping[str, str]
    edits: Mapping[str, ShardEdits]
    changed_files: Mapping[str, bytes]
    key_edits: tuple[Mapping[str, Any], ...]
    blobs: Mapping[str, bytes]


def lock_folder(
    model: Path,
    out: Path,
    options: FoldOptions | InjectOptions,
    *,
    key: Path | None = None,
    dry_run: bool = False,
    progress: Progress | None = None,
) -> LockReport:
    """Write a locked copy of a model folder and its private key.

    Args:
        model: a Hugging Face folder with safetensors weights.
        out: the folder to create.
        options: the lock to apply.
        key: where the private key goes; `default_key_path` unless given.
        dry_run: plan and check only, write nothing that stays.
        progress: called with the number of bytes just read.

    Raises:
        SpecdefError: the model, the options, `out` or `key` are not usable; nothing is left behind.
    """
    key = default_key_path(out) if key is None else key
    if not dry_run:
        refuse_target(out, model)
        refuse_key_path(key, out, model)
    checkpoint = open_checkpoint(model)
    for name in (MANIFEST, CARD):
        if name in checkpoint.others:
            raise CheckpointError(f"`model` must be an unlocked model; {model} holds {name}. Unlock it first.")
    resolved = resolve(checkpoint.config, checkpoint.shapes)
    if isinstance(options, FoldOptions):
        return _lock(checkpoint, out, key, _prepare_fold(checkpoint, resolved, options), dry_run, progress)
    with scratch_folder(out.parent if not dry_run else None) as spool:
        return _lock(checkpoint, out, key, _prepare_inject(checkpoint, resolved, options, spool), dry_run, progress)


def _lock(
    checkpoint: Checkpoint, out: Path, key: Path, prepared: _Prepared, dry_run: bool, progress: Progress | None
) -> LockReport:
    p = prepared
    if dry_run:
        return LockReport(None, None, p.method, p.strength, p.exactness, p.num_values, p.left_out)
    with unplaced_folder(out, source=checkpoint.folder) as folder, temporary_path(key) as key_file:
        write_key(_write_locked(checkpoint, folder, p, progress), key_file, key)
        with uninterrupted():
            place_key(key_file, key)
            try:
                place_folder(folder, out, source=checkpoint.folder)
            except BaseException:  # without its folder the key unlocks nothing
                key.unlink(missing_ok=True)
                raise
    return LockReport(out, key, p.method, p.strength, p.exactness, p.num_values, p.left_out)


def _write_locked(checkpoint: Checkpoint, folder: Path, p: _Prepared, progress: Progress | None) -> Key:
    """Everything that goes into the locked folder; returns the key to it."""
    files = copy_others(checkpoint, folder)
    originals = dict(files)
    (folder / CARD).write_text(model_card(p.method, p.strength, p.exactness), encoding="utf-8")
    for name, data in p.changed_files.items():
        (folder / name).write_bytes(data)
    files |= {name: file_digest(folder / name) for name in (CARD, *p.changed_files)}
    digests = write_shards(checkpoint, folder, p.edits, check=check_finite, progress=progress)
    files |= {shard: digest.target for shard, digest in digests.items()}
    originals |= {shard: digest.source for shard, digest in digests.items()}
    Manifest(
        method=p.method,
        version=__version__,
        model_type=str(checkpoint.config["model_type"]),
        strength=p.strength,
        exactness=p.exactness,
        checked=("every weight read is finite", *p.checked),
        files=dict(sorted(files.items())),
        tensors={name: digest for d in digests.values() for name, digest in d.tensors.items()},
    ).write(folder)
    return Key(p.method, files, originals, p.key_edits, p.blobs)


def _prepare_fold(checkpoint: Checkpoint, model: ResolvedModel, options: FoldOptions) -> _Prepared:
    plan = plan_fold(checkpoint, model, options)
    strength, exactness = _describe(plan, model)
    return _Prepared(
        method="fold",
        strength=strength,
        exactness=exactness,
        checked=("every scaled weight is normal and scales back to its original bits",),
        num_values=_num_values(plan, checkpoint),
        left_out=plan.left_out,
        edits=shard_edits(plan.edits, checkpoint.locate()),
        changed_files={},
        key_edits=tuple(edit.to_json() for edit in plan.edits),
        blobs=_offset_originals(plan, checkpoint),
    )


def _prepare_inject(checkpoint: Checkpoint, model: ResolvedModel, options: InjectOptions, spool: Path) -> _Prepared:
    if checkpoint.config.get("quantization_config"):
        raise PlanError(
            "`quantization_config` in config.json must be absent for an inject lock, which needs that entry itself; "
            f"{checkpoint.folder} has one. Use preset exact."
        )
    names = choose_matrices(model, options, checkpoint.shapes)
    from specdef.locks import inject
    from specdef.models.loading import refuse_renamed_modules

    refuse_renamed_modules(checkpoint.folder, [name.removesuffix(".weight") for name in names])
    plan = inject.plan_inject(checkpoint, model, options, names, spool)
    strength, exactness = inject.describe(plan)
    edits = inject.inject_edits(checkpoint, plan)
    return _Prepared(
        method="inject",
        strength=strength,
        exactness=exactness,
        checked=("each locked layer's output on Gaussian inputs is within its dtype's tolerance of the original's",),
        num_values=sum(layer.num_parameters for layer in plan.layers),
        left_out={},
        edits=edits,
        changed_files=inject.changed_files(checkpoint, plan, edits),
        key_edits=(),
        blobs=inject.originals(checkpoint, plan, tuple(edits)),
    )


def _describe(plan: LockPlan, model: ResolvedModel) -> tuple[dict[str, Any], dict[str, Any]]:
    kinds = {pair.id: pair.kind for pair in model.pairs}
    counts: dict[str, int] = {}
    for pair in plan.channels:
        counts[kinds[pair]] = counts.get(kinds[pair], 0) + 1
    dtypes = sorted(plan.headroom)
    strength = {
        "multiplier": f"2^{plan.exponent}",
        "exponent": plan.exponent,
        "direction": plan.options.direction,
        "channels_per_pair": plan.options.channels,
        "pairs": counts,
        "num_layers": len(plan.layers),
    }
    half = "F16" in dtypes
    names = {"F16": "float16", "BF16": "bfloat16", "F32": "float32"}
    portable = not half and not any(edit.offset for edit in plan.edits)
    exact_in = ["bfloat16", "float32"] if portable else [names[dtype] for dtype in dtypes]
    exactness = {
        "bit_exact": not half,
        "closeness": "identical while no activation leaves float16's normal range" if half else "bit-identical",
        "stored_dtypes": dtypes,
        "exact_in": exact_in,
        "not_claimed_in": [name for name in ("bfloat16", "float16", "float32") if name not in exact_in],
        "kv_cache": (
            "a cache in the model's own dtype is exact; a float16 or fp8 cache overflows on scaled value channels"
            if plan.options.direction == "up"
            else "a cache in the model's own dtype is exact; a float16 or fp8 cache loses scaled value channels"
        ),
        "quantisation": "quantising the locked model afterwards damages the channels it divides",
        "headroom": dict(plan.headroom),
        "left_out": dict(plan.left_out),
    }
    return strength, exactness


def _num_values(plan: LockPlan, checkpoint: Checkpoint) -> int:
    shapes = checkpoint.shapes
    return sum(
        len(edit.indices) * int(np.prod(shapes[edit.tensor])) // shapes[edit.tensor][edit.axis] for edit in plan.edits
    )


def _offset_originals(plan: LockPlan, checkpoint: Checkpoint) -> dict[str, bytes]:
    """Raw bytes of the tensors whose scaling has no inverse on the stored number (Gemma's norms)."""
    where = checkpoint.locate()
    names = sorted({edit.tensor for edit in plan.edits if edit.offset})
    return {f"tensor:{name}": _bytes(checkpoint.map_tensor(*where[name])) for name in names}


def _bytes(values: Stored) -> bytes:
    return np.ascontiguousarray(values).tobytes()
