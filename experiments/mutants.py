"""The table of `make mutants`: how many faults of single tokens the tests see, and why the others are none.

``python -m experiments.mutants`` reads what mutmut left in ``mutants/`` and writes results/mutants.md.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from experiments.locked import HERE
from specdef.certify.environment import commit

FOLDER = HERE.parent / "mutants"
KILLED, SURVIVED = 1, 0
REASONS = (
    ("strict=", "both lists are made from the same evaluations: their lengths never differ"),
    ("inside, )", "the same: strict left out"),
    ("0 <= mean", "a mean of 0 has no variance"),
    ("mean <= 1", "a mean of 1 has no variance"),
    ("mean < 2", "a mean is at most 1"),
    ("seeds >= 1", "of one seed, the seeds' part and the rest are 0 / 0 and add nothing"),
    ("between >= rest", "where they are equal they cancel"),
    ("found.low >= target", "a lower end is the target in no case but 0, and targets lie above chance"),
    ("low >= target", "a lower end is the target in no case but 0, and targets lie above chance"),
    ("range(groups + 2)", "more right answers than questions are never the fewest that are enough"),
    ("range(31)", "one halving more than thirty"),
    (") > power else", "equality of two floating-point numbers"),
    ("return (2.0,", "1.0 and 2.0 are both above the 0.0 of an attack that failed"),
)
"""A part of the changed line -> why no test can see it."""


def run() -> Path:
    """Write the table; exit 1 where a survivor has no reason."""
    rows, survivors = [], []
    for path in sorted(FOLDER.rglob("*.meta")):
        codes = json.loads(path.read_text())["exit_code_by_key"]
        if not codes:
            continue
        name = str(path).split("specdef/")[-1].removesuffix(".meta")
        alive = [key for key, code in codes.items() if code == SURVIVED]
        rows.append((name, len(codes), len(codes) - len(alive)))
        survivors += [(name, key, _change(key)) for key in alive]
    total, killed = sum(row[1] for row in rows), sum(row[2] for row in rows)
    lines = ["# Faults of single tokens", "", "| module | mutants | seen by a test | share |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {count} | {seen} | {100 * seen / count:.0f} % |" for name, count, seen in rows]
    lines += [f"| together | {total} | {killed} | {100 * killed / total:.0f} % |", ""]
    lines += ["Those that no test sees, and why:", ""]
    lines += [f"- `{name}`: `{change}`: {_reason(change)}" for name, _, change in survivors]
    lines += ["", f"Command: `make mutants && python -m experiments.mutants`, commit {commit()}.", ""]
    path = HERE / "results" / "mutants.md"
    path.write_text("\n".join(lines))
    return path


def _change(key: str) -> str:
    found = subprocess.run([sys.executable, "-m", "mutmut", "show", key], capture_output=True, text=True, check=True)
    added = [line[1:].strip() for line in found.stdout.splitlines() if line.startswith("+") and line[:3] != "+++"]
    return " ".join(added)


def _reason(change: str) -> str:
    return next((reason for part, reason in REASONS if part in change), "**no reason known: a test is missing**")


if __name__ == "__main__":
    print(run().read_text())
