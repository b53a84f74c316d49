"""What the public base weights give away of every defence of `rivals`, and of the locks: one subtraction each.

`anchor` divides out what is a change of variables and tells rank, size and place of the rest; then it takes the
leading components of the rest away, and the score says how much of the defence went with them. Nothing is trained.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from experiments import certificates, rivals, stories
from experiments.locked import HERE, WORK, locked_copy
from specdef.attacks.interventions.anchor import Anchor
from specdef.certify.store import write_json
from specdef.models.base import kind_of
from specdef.tasks.base import TaskSpec, make_task
from specdef.tasks.utility import utility_for

RANKS: tuple[Any, ...] = (0, 1, 4, 16, "all")


def run(name: str) -> Path:
    """Anchor every model; write a table. The models are those of `rivals`, which is run first."""
    task = make_task(TaskSpec("own", str(WORK / "stories-train.jsonl"), eval=str(WORK / "stories-eval.jsonl")))
    rows = [_row(label, folder, base, task) for label, folder, base in _models()]
    write_json(HERE / "results" / f"{name}.json", {"command": f"make experiment NAME={name}", "rows": rows})
    path = HERE / "results" / f"{name}.md"
    path.write_text(_table(rows, name))
    return path


def _models() -> Iterator[tuple[str, Path, Path]]:
    """(label, defended model, the weights it was made of)."""
    found = rivals.made()
    taught = next(folder for record, folder in found if record["method"] == "taught")
    for record, folder in found:
        if record["method"] not in ("taught", "filter"):
            yield f"{record['method']}, seed {record['seed']}", folder, taught
    original = stories.model()
    for label, entry in certificates.LOCKS.items():
        if entry is not None:
            yield f"{label} lock", locked_copy(original, entry), original


def _row(label: str, folder: Path, base: Path, task: Any) -> dict[str, Any]:
    kind = kind_of(folder)
    utility = utility_for(kind)
    content = utility.read(WORK / "stories.txt")
    found: dict[str, Any] = {"model": label, "ranks": {}}
    for rank in RANKS:
        with tempfile.TemporaryDirectory() as scratch:
            out = Path(scratch) / "anchored"
            report = Anchor(str(base), "", rank).rewrite(folder, out)
            loaded = kind.load(out if report is not None else folder)
            general = utility.prepare(content, loaded, original=lambda: kind.load(base))
            found["ranks"][str(rank)] = {
                "score": float(task.metric(loaded.model, loaded.processor)),
                "growth": general.measure(loaded.model),
            }
            if rank == 0 and report is not None:
                found |= {"seconds": report.seconds, "detail": report.detail}
    print(label, found.get("detail"), flush=True)
    return found


def _table(rows: list[dict[str, Any]], name: str) -> str:
    names = {0: "changes of variables undone", "all": "base taken back"}
    head = " | ".join(names.get(rank, f"rank {rank} removed") for rank in RANKS)
    lines = [
        "# What the base weights give away",
        "",
        "Score (growth of perplexity over the base's) of each model after `anchor`, which knows the weights it was",
        "made of. The taught model, base of the methods, scores 1.00; the locks' base, never taught, 0.25: a lock",
        f"keeps what a model knows, and is gone. Command: `make experiment NAME={name}`, after `NAME=rivals`.",
        "",
        f"| model | {head} | seconds | what shows |",
        "|---" * (len(RANKS) + 3) + "|",
    ]
    for row in rows:
        scores = (f"{one['score']:.2f} (x{one['growth']:.2f})" for one in row["ranks"].values())
        lines.append(
            f"| {row['model']} | {' | '.join(scores)} | {row.get('seconds', 0):.1f} | {row.get('detail', '')} |"
        )
    return "\n".join(lines) + "\n"
