"""One attack by one process, by two that copy the model (DDP), by two that share it out (FSDP2): is it the same?"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.certificates import EXACT, PAPER
from experiments.heading import heading
from experiments.locked import HERE, WORK, locked_copy
from specdef.certify.result import StoredCell
from specdef.certify.store import stored_cells, write_json
from specdef.core.text import rate
from specdef.models.bundled import BUNDLED
from specdef.models.sources import find_model

PROCESSES = 2
BIN = Path(sys.executable).parent
LAUNCHERS: dict[str, tuple[str, ...]] = {
    "one process": (sys.executable,),
    "DDP": (str(BIN / "torchrun"), "--nproc-per-node", str(PROCESSES)),
    "FSDP2": (
        *(str(BIN / "accelerate"), "launch", "--use_fsdp", "--fsdp_version", "2", "--num_processes", str(PROCESSES)),
        *("--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"),
    ),
}
MODELS: dict[str, tuple[Mapping[str, str] | None, float]] = {
    "unlocked": (None, 1e-4),
    "exact 2^20": (EXACT, 5.62e-8),
    "paper 1e4": (PAPER, 1e-8),
}
"""Label -> arguments of its lock, and a learning rate at which its certificate has an attack that learns."""
ABOUT = f"""# One attack in several processes

SmolLM2-135M, task `biographies`, AdamW, 60 steps, two CPU threads in all: by one process, by {PROCESSES} under
`torchrun` (DDP), by {PROCESSES} under `accelerate launch --use_fsdp --fsdp_version 2`. Differences are from the one
process, the largest over all evaluations; those of loss and perplexity are relative, that of the score is of shares."""
COLUMNS = ("model", "lr", "started as", "cell", "outcome", "step", "score", "growth of perplexity", "loss at the end")
COLUMNS += ("differs by: loss", "perplexity", "score", "seconds")


def run(name: str) -> Path:
    """Attack each model under each launcher, or read what is finished; write results/together.json and .md."""
    WORK.mkdir(exist_ok=True)
    original = find_model(BUNDLED)
    rows = []
    for label, (entry, lr) in MODELS.items():
        folder = original if entry is None else locked_copy(original, entry)
        found = {launcher: _attacked(folder, original, lr, launcher) for launcher in LAUNCHERS}
        alone = found["one process"]
        rows += [_row(label, lr, launcher, cell, alone) for launcher, cell in found.items()]
    content = {**heading(name), "rows": rows}
    write_json(HERE / "results" / f"{name}.json", content)
    path = HERE / "results" / f"{name}.md"
    path.write_text(_table(content))
    return path


def _attacked(folder: Path, original: Path, lr: float, launcher: str) -> StoredCell:
    """The cell that the command line makes."""
    out = WORK / "together" / f"{folder.name}-{launcher.split()[0]}"
    if not any((out / "cells").glob("*.json")):
        print(f"{folder.name}, {launcher}", flush=True)
        asked = ("attack", str(folder), "--original", str(original), "--task", "biographies", "--lr", str(lr))
        run = ("-m", "specdef", *asked, "--threads", str(PROCESSES), "--device", "cpu", "--out", str(out))
        # The launchers count threads by it, and specdef shares out those that it is given.
        surroundings = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        subprocess.run((*LAUNCHERS[launcher], *run), check=True, env=surroundings)
    (cell,) = stored_cells(out)
    return cell


def _row(label: str, lr: float, launcher: str, cell: StoredCell, alone: StoredCell) -> dict[str, Any]:
    points, others = cell.result.evaluations, alone.result.evaluations
    pairs = list(zip(points, others, strict=True))
    end = points[-1]
    return {
        "model": label,
        "lr": lr,
        "launcher": launcher,
        "processes": cell.measured.processes or 1,
        "cell": cell.key,
        "outcome": cell.result.outcome.value,
        "step": cell.result.step,
        "score": end.score,
        "growth": end.utility / points[0].utility,
        "loss": end.loss,
        "differs": {
            "loss": max(abs(one.loss / other.loss - 1) for one, other in pairs if one.loss and other.loss),
            "perplexity": max(abs(one.utility / other.utility - 1) for one, other in pairs),
            "score": max(abs(one.score - other.score) for one, other in pairs),
        },
        "seconds": cell.measured.seconds,
    }


def _table(content: Mapping[str, Any]) -> str:
    lines = [ABOUT, "", f"| {' | '.join(COLUMNS)} |", f"|{' --- |' * len(COLUMNS)}"]
    for row in content["rows"]:
        differs = row["differs"]
        entries = (
            *(row["model"], rate(row["lr"]), row["launcher"], row["cell"], row["outcome"], str(row["step"] or "-")),
            *(f"{row['score']:.3f}", f"x {row['growth']:.4f}", f"{row['loss']:.5f}"),
            *(f"{differs['loss']:.1e}", f"{differs['perplexity']:.1e}", f"{differs['score']:.3f}"),
            f"{row['seconds']:.0f}",
        )
        lines.append(f"| {' | '.join(entries)} |")
    about = content["environment"]
    lines += ["", f"Command: `{content['command']}`, commit {about['commit']}, {about['hardware']}."]
    return "\n".join(lines) + "\n"
