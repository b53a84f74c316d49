"""What a defended folder says of itself: ``specdef_defence.json`` for programs, ``SPECDEF_DEFENCE.md`` for people."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from specdef.core.versions import installed_versions
from specdef.defences.base import Change, DefenceReport

RECORD, CARD = "specdef_defence.json", "SPECDEF_DEFENCE.md"
SCHEMA = 1
_LIBRARIES = ("specdef", "torch", "transformers", "accelerate")


def write_record(folder: Path, report: DefenceReport, data: Mapping[str, str]) -> None:
    """Write both files into a folder that is being made.

    Args:
        folder: the defended model.
        report: what was done.
        data: digests of everything that decided the result, by name.
    """
    content = {
        "specdef_defence": SCHEMA,
        "method": report.method,
        "options": dict(report.options),
        "seed": report.seed,
        "data": dict(data),
        "scores": {name: _pair(change) for name, change in report.scores.items()},
        "utility": {"name": report.utility_name, **_pair(report.utility)},
        "steps": dict(report.applied.steps),
        "ended": report.applied.ended,
        "notes": list(report.notes),
        "versions": installed_versions(_LIBRARIES),
    }
    (folder / RECORD).write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (folder / CARD).write_text(_card(report), encoding="utf-8")


def _pair(change: Change) -> dict[str, float | None]:
    """JSON has no infinity: null stands for it."""
    return {name: value if math.isfinite(value) else None for name, value in asdict(change).items()}


def _card(report: DefenceReport) -> str:
    options = "".join(f", {name} {value}" for name, value in report.options.items())
    rows = [*report.scores.items(), (report.utility_name, report.utility)]
    lines = [
        "# This model is defended by specdef",
        "",
        f"Method `{report.method}`, seed {report.seed}{options}.",
        "",
        "| measured | before | after |",
        "|---|---|---|",
        *(f"| {name} | {change.before:.4g} | {change.after:.4g} |" for name, change in rows),
        "",
        *([f"Training ended: {report.applied.ended}.", ""] if report.applied.ended else []),
        *(line for note in report.notes for line in (note, "")),
        "A defence is a claim until someone attacks it: ask the publisher for the certificate, and read what it did",
        f"not try. `{RECORD}` holds these figures, and digests of the data.",
        "",
    ]
    return "\n".join(lines)
