"""The page of one scope: how many faults of single tokens the tests see, and why the others are none."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from experiments.mutants.reasons import REASONS

KILLED, SURVIVED, TIMED_OUT, NOT_REACHED, OTHER = "killed", "survived", "timed out", "not reached", "other"
OUTCOMES = {1: KILLED, 3: KILLED, 0: SURVIVED, 5: NOT_REACHED, 33: NOT_REACHED}
OUTCOMES |= dict.fromkeys((36, 24, -24, 152, 255), TIMED_OUT)
"""mutmut's exit code -> what became of a mutant. Only a test that failed counts as a kill."""


def outcomes(folder: Path) -> dict[str, dict[str, str | None]]:
    """Module -> mutant -> what became of it, None where it was not tried."""
    found: dict[str, dict[str, str | None]] = {}
    for path in sorted(folder.rglob("*.meta")):
        codes = json.loads(path.read_text())["exit_code_by_key"]
        module = str(path).split("specdef/")[-1].removesuffix(".meta")
        if codes:
            found[module] = {
                key: None if code is None else OUTCOMES.get(code, OTHER) for key, code in sorted(codes.items())
            }
    return found


def interval(killed: int, tried: int) -> tuple[float, float]:
    """Wilson's 95 % interval for a share."""
    square = 1.959964**2 / tried
    share = killed / tried
    half = math.sqrt(square * (share * (1 - share) + square / 4))
    return max(0.0, (share + square / 2 - half) / (1 + square)), min(1.0, (share + square / 2 + half) / (1 + square))


def page(
    found: Mapping[str, Mapping[str, str | None]],
    changes: Mapping[str, str],
    command: str,
    first: tuple[int, int] | None = None,
) -> str:
    """The page in Markdown.

    Args:
        found: what ``outcomes`` gives.
        changes: mutant that no test saw -> its changed lines.
        command: what made it, with the commit.
        first: killed and tried in the first run, where survivors were tried again; the interval is of that run, since
            tests written for a sample's survivors say nothing of the other mutants.
    """
    lines = ["# Faults of single tokens", ""]
    lines += ["| module | mutants | tried | killed | survived | not reached | timed out | other | killed of tried |"]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    lines += [_row(f"`{module}`", of_module.values()) for module, of_module in found.items()]
    everything = [outcome for of_module in found.values() for outcome in of_module.values()]
    lines += [_row("together", everything), ""]
    tried = [outcome for outcome in everything if outcome is not None]
    killed, number = first or (tried.count(KILLED), len(tried))
    low, high = interval(killed, number)
    if len(tried) < len(everything):
        of_first = f" in the first run, {killed} of {number}," if first else ""
        share = f"{100 * low:.0f} to {100 * high:.0f} %"
        lines += [f"95 % interval of the share{of_first} among all {len(everything)}: {share}.", ""]
    if first:
        lines += ["Tests were then written for the survivors, which were tried again.", ""]
    lines += ["Those that no test sees, and why:", ""]
    for module, of_module in found.items():
        for key, outcome in of_module.items():
            if outcome not in (None, KILLED):
                change = changes[key]
                lines.append(f"- `{module}`, {outcome}: `{change}`: {reason(module, change)}")
    return "\n".join([*lines, "", f"Command: {command}.", ""])


def _row(name: str, of_module: Iterable[str | None]) -> str:
    counts = Counter(of_module)
    tried = counts.total() - counts[None]
    share = f"{100 * counts[KILLED] / tried:.0f} %" if tried else ""
    by_outcome = " | ".join(str(counts[kind]) for kind in (KILLED, SURVIVED, NOT_REACHED, TIMED_OUT, OTHER))
    return f"| {name} | {counts.total()} | {tried} | {by_outcome} | {share} |"


def reason(module: str, change: str) -> str:
    """Why no test can see a change, where that is known."""
    found = (why for of_module, part, why in REASONS if of_module == module and part in change)
    return next(found, "**no reason known: a test is missing**")


def changed_lines(folder: Path, key: str) -> str:
    """The lines that a mutant adds; what it takes away where it adds none."""
    command = [sys.executable, "-m", "mutmut", "show", key]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout.splitlines()
    added = [line[1:].strip() for line in shown if line.startswith("+") and line[:3] != "+++"]
    return " ".join(added) or "without " + " ".join(line[1:].strip() for line in shown if line[:2] == "- ")
