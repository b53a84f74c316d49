"""`specdef run --dry-run`: what a study resolves to and what it takes, line by line."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.core.text import counted
from specdef.errors import SpecdefError

if TYPE_CHECKING:
    from specdef.certify.forecast import Forecast


def told(study: Path, devices: int | None, tflops: float | None, workers: int | None) -> Iterator[str]:
    """Layers, pairs, matrices and adapters of every model; then cells, memory and hours where they can be foreseen."""
    from specdef.certify.forecast import check_devices, forecast
    from specdef.certify.study_dry_run import dry_run

    asked = {"devices": devices, "tflops": tflops, "workers": workers}
    given: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    check_devices(**given)
    found = dry_run(study)
    for model in found.models:
        yield f"{model.label}: {model.layers} layers, {model.parameters:,} parameters, random in bfloat16"
        for label, parts in model.defences.items():
            if label == "none":
                yield "  none"
                continue
            changed = ", ".join(f"{name} {number:,}" for name, number in parts.items())
            yield f"  {label}: {changed or 'known once it is made'}"
        yield from (f"  {label}: {trained:,} numbers trained" for label, trained in model.attacks.items())
    yield from (f"Not here yet: {sentence}" for sentence in found.missing)
    try:
        yield from _foreseen(forecast(study, **given))
    except SpecdefError as error:
        yield f"Memory and hours are not foreseen: {error}"
    yield f"{found.title}: {counted(found.runs, 'run')}. Nothing was written."


def _foreseen(found: Forecast) -> Iterator[str]:
    from specdef.certify.forecast import ANSWERS, ASKED, GIB, ROW

    for one in found.models:
        shapes, memory = one.shapes, one.memory
        parts = {name: value / GIB for name, value in asdict(memory).items()}
        billions, cells = shapes.parameters / 1e9, counted(one.cells, "cell")
        yield f"{one.label}: {billions:.2f} billion weights in {shapes.layers} layers, {cells}"
        yield f"  memory of a device: {memory.total / GIB:.1f} GiB, with {found.devices} to a cell"
        yield "  of it " + ", ".join(f"{name} {value:.1f}" for name, value in parts.items())
    at_once = f"{found.workers} at a time" if found.workers > 1 else "one at a time"
    yield f"{counted(found.cells, 'cell')}, {at_once}, on {found.workers * found.devices} devices in all"
    yield f"{found.device_hours:.1f} device hours, {found.hours:.1f} hours at {found.tflops:g} TFLOP/s a device"
    yield (
        "Assumed: every weight trained, FSDP2 over the devices of a cell, activation checkpointing, fused attention, "
        f"rows of {ROW} tokens, {ANSWERS} answers of {ASKED} tokens to a question; no time for loading and locking, no "
        "attack that stops early."
    )
