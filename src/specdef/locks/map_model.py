"""`map_model`: the pairs of a model, found by gradients of a small twin, proved there and on the model itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from specdef.architectures.resolve import resolve
from specdef.architectures.written import DECLARE, WrittenMap, architecture_from
from specdef.checkpoint.reader import Checkpoint, open_checkpoint
from specdef.core.atomic import write_file
from specdef.core.folders import scratch_folder
from specdef.core.text import shown
from specdef.errors import PlanError
from specdef.locks.base import Check
from specdef.locks.lock import lock_folder
from specdef.locks.manifest import MANIFEST
from specdef.locks.presets import DEFAULT, lock_options
from specdef.locks.scaling import runs_in_float16
from specdef.mapping.automatic import MapReport, map_checkpoint
from specdef.mapping.source import family_source
from specdef.models.sources import find_model

IN_FLOAT16 = "2^5"
"""The largest multiplier that a float16 model takes."""


def map_model(model: Path | str, *, write: Path | str | None = None, on_model: bool = True) -> MapReport:
    """Find the pairs of a model without a declared map (or of any other), and prove them.

    Args:
        model: a model folder, a hub id or ``smollm2-135m``.
        write: a Python file to create: the family's declaration, for a person to review.
        on_model: also lock a copy of the model, every pair by its first exact channel, and compare the outputs; pairs
            of a kind that changes them are refused. The copy is removed.

    Returns:
        What was proposed, kept, refused and why.

    Raises:
        SpecdefError: the model cannot be read or built small, no pair is found, or `write` cannot be created.
    """
    path = None if write is None else Path(write)
    if path is not None:
        _refuse_file(path)
    folder = find_model(str(model))
    if (folder / MANIFEST).exists():
        raise PlanError(f"`model` must be an unlocked model; {shown(folder)} holds {MANIFEST}. Unlock it first.")
    checkpoint = open_checkpoint(folder, publishing=False)
    report = map_checkpoint(checkpoint)
    if on_model:
        report = _on_model(checkpoint, report)
    if path is not None:
        write_file(path, family_source(report.written).encode())
    return report


def _refuse_file(path: Path) -> None:
    if path.suffix != ".py":
        raise PlanError(f"`write` must be a Python file, such as family.py; got {shown(path)}.")
    if path.exists():
        raise PlanError(f"`write` must be a new file; {shown(path)} exists. Remove it, or give another name.")
    if not path.resolve().parent.is_dir():
        raise PlanError(f"`write` must be in a folder that exists; {shown(path.parent)} does not. Create it first.")


def _on_model(checkpoint: Checkpoint, report: MapReport) -> MapReport:
    """The report with what the real model says; kinds of pairs that change its outputs are taken out of the map."""
    check = _check(checkpoint, report.written)
    if check.passed:
        return replace(report, on_model=check.detail)
    kinds = dict.fromkeys(pair.kind for pair in report.written.pairs)
    wrong = {kind: found.detail for kind in kinds if not (found := _check(checkpoint, report.written, [kind])).passed}
    kept = tuple(one for one in report.kept if one.pair.kind not in wrong)
    refused = {one.what: f"on the model: {wrong[one.pair.kind]}" for one in report.kept if one.pair.kind in wrong}
    written = replace(
        report.written,
        pairs=tuple(one.pair for one in kept),
        exclusions=(*report.written.exclusions, *refused.items()),
    )
    if kept and wrong:
        check = _check(checkpoint, written)
    if not check.passed:
        raise PlanError(
            f"`model` must keep its outputs under a lock of the pairs found; it does not ({check.detail}). {DECLARE}"
        )
    bound = resolve(checkpoint.config, checkpoint.shapes, architecture_from(written))
    return replace(
        report,
        written=written,
        kept=kept,
        refused={**report.refused, **refused},
        num_pairs=len(bound.pairs),
        on_model=check.detail,
    )


def _check(checkpoint: Checkpoint, written: WrittenMap, kinds: Sequence[str] | None = None) -> Check:
    """Lock a copy of the model by a map, and compare its outputs with the model's."""
    from specdef.models.equivalence import compare

    half = runs_in_float16(checkpoint.config) or any(
        tensor.dtype == "F16" for header in checkpoint.shards.values() for tensor in header.tensors
    )
    kind, options = lock_options(DEFAULT, {"multiplier": IN_FLOAT16 if half else None, "pairs": kinds})
    with scratch_folder(None) as scratch:
        out = scratch / "locked"
        lock_folder(checkpoint.folder, out, kind, options, map=written, compared=False)
        return kind.function(compare(checkpoint.folder, out), {"bit_exact": not half})
