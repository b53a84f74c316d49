"""Does `inspect` tell locked from unlocked? Tiny models of every family and the bundled real one, many multipliers."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments.heading import heading
from experiments.locked import HERE, WORK, locked_copy
from specdef import inspect_model, lock
from specdef.analysis.baseline import compare_with_baseline, is_unusual
from specdef.analysis.inspect import InspectReport
from specdef.certify.store import write_json
from specdef.errors import SpecdefError
from specdef.locks.spectra import SPECTRAL_JUMP
from specdef.models.bundled import BUNDLED
from specdef.models.sources import find_model

EXPONENTS = (4, 8, 13, 20, 40)
SEEDS = (0, 1, 2)
INJECTED = ("llama", "qwen2", "gpt2")
"""Families whose tiny models are also given the paper's lock."""
REAL_FOLD, REAL_INJECT = (4, 8, 20, 40), (4, 13)


def run(name: str) -> Path:
    """Write results/detect.json and results/detect.md."""
    rows = [*_tiny(), *_real()]
    write_json(HERE / "results" / f"{name}.json", {**heading(name), "rates": _rates(rows), "rows": rows})
    path = HERE / "results" / f"{name}.md"
    path.write_text(_table(rows))
    return path


def _tiny() -> Iterator[dict[str, Any]]:
    sys.path.insert(0, str(HERE.parent / "tests"))
    import pico

    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        for family in pico.FAMILIES:
            unlocked = {seed: pico.build(family, place / f"{family}-{seed}", seed=seed) for seed in SEEDS}
            reports = {seed: inspect_model(folder) for seed, folder in unlocked.items()}
            for seed, report in reports.items():
                others = [other for number, other in reports.items() if number != seed]
                yield _row(f"tiny {family}", "none", None, report, others)
            others = [reports[1], reports[2]]
            for exponent in EXPONENTS:
                out = place / f"{family}-fold-{exponent}"
                try:
                    lock(unlocked[0], out, preset="exact", multiplier=f"2^{exponent}")
                except SpecdefError:
                    continue  # no channel of this family is exact at that power
                yield _row(f"tiny {family}", "fold", exponent, inspect_model(out), others)
            for exponent in EXPONENTS[:4] if family in INJECTED else ():
                out = place / f"{family}-inject-{exponent}"
                lock(unlocked[0], out, preset="paper", multiplier=2.0**exponent, rank=3, num_matrices=2)
                yield _row(f"tiny {family}", "inject", exponent, inspect_model(out), others)


def _real() -> Iterator[dict[str, Any]]:
    original = find_model(BUNDLED)
    plain = inspect_model(original)
    yield _row(BUNDLED, "none", None, plain, [])
    for prepared in sorted(path for path in WORK.iterdir() if path.name in ("guarded", "unlearned")):
        yield _row(f"{BUNDLED}, {prepared.name}", "none", None, inspect_model(prepared), [plain])
    for exponent in REAL_FOLD:
        folder = locked_copy(
            original, {"label": f"exact 2^{exponent}", "preset": "exact", "multiplier": f"2^{exponent}"}
        )
        yield _row(BUNDLED, "fold", exponent, inspect_model(folder, spectra=False), [plain])
    for exponent in REAL_INJECT:
        entry = {"label": f"paper {2**exponent}", "preset": "paper", "multiplier": str(2**exponent)}
        yield _row(BUNDLED, "inject", exponent, inspect_model(locked_copy(original, entry)), [plain])


def _row(
    model: str, method: str, exponent: int | None, report: InspectReport, baseline: list[InspectReport]
) -> dict[str, Any]:
    found = compare_with_baseline(report, baseline) if baseline else []
    row = {
        "model": model,
        "lock": method,
        "exponent": exponent,
        "verdict": report.verdict.sign.lock if report.verdict.sign else "none",
        "from_numbers": any(p.scaled for p in report.pairs)
        or any(t.jump > SPECTRAL_JUMP for t in report.tensors if t.layer is not None),
        "beside_baseline": is_unusual(found) if baseline else None,
        "excess": round(found[0].excess, 2) if found else 0.0,
    }
    print(row, flush=True)
    return row


def _rates(rows: list[dict[str, Any]]) -> dict[str, Any]:
    unlocked = [row for row in rows if row["lock"] == "none"]
    groups: dict[str, list[dict[str, Any]]] = {"unlocked": unlocked}
    for method in ("fold", "inject"):
        for exponent in EXPONENTS:
            found = [row for row in rows if row["lock"] == method and row["exponent"] == exponent]
            if found:
                groups[f"{method} 2^{exponent}"] = found
    return {
        name: {
            "models": len(group),
            "called locked": sum(row["verdict"] != "none" for row in group),
            "from numbers alone": sum(bool(row["from_numbers"]) for row in group),
            "unusual beside a baseline": sum(bool(row["beside_baseline"]) for row in group),
            "with a baseline": sum(row["beside_baseline"] is not None for row in group),
        }
        for name, group in groups.items()
    }


def _table(rows: list[dict[str, Any]]) -> str:
    lines = [
        "# Does `inspect` tell locked from unlocked?",
        "",
        "| models | number | called locked | from numbers alone | unusual beside unlocked models of the family |",
        "|---|---|---|---|---|",
    ]
    for name, found in _rates(rows).items():
        beside = f"{found['unusual beside a baseline']} of {found['with a baseline']}"
        lines.append(
            f"| {name} | {found['models']} | {found['called locked']} | {found['from numbers alone']} | {beside} |"
        )
    lines += [
        "",
        "Tiny random models of every declared family (three seeds) and SmolLM2-135M; a lock of every pair with one "
        "channel each, or of two to five matrices. From numbers alone: without tensor names and config.json, which "
        "give an inject lock away whatever its multiplier. Command: `make experiment NAME=detect`.",
        "",
    ]
    return "\n".join(lines)
