"""The harness against transformers.Trainer and PEFT: do they agree on broken and held?

`independent.py` trains with no specdef import; the harness's side is read from the committed certificates: T0 (the
ordinary window, which brackets Trainer's default learning rate 5e-5) and LoRA on all linear layers at 1e-3 and 3e-3.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.locked import HERE, WORK, locked_copy
from specdef.certify.environment import environment
from specdef.certify.store import write_json
from specdef.models import BUNDLED, find_model
from specdef.tasks.facts import bundled_prose, facts
from specdef.tasks.task import MultipleChoice
from specdef.training.perplexity import split_text

MODELS: dict[str, dict[str, str] | None] = {
    "unlocked": None,
    "paper": {"label": "paper 1e4", "preset": "paper", "multiplier": "1e4"},
    "exact": {"label": "exact 2^20", "preset": "exact", "multiplier": "2^20"},
}


def run(name: str) -> Path:
    """Train all models both ways, compare, write results/crosscheck.json and results/crosscheck.md."""
    WORK.mkdir(exist_ok=True)
    data = WORK / "facts.json"
    data.write_text(json.dumps(_data()))
    original = find_model(BUNDLED)
    rows = []
    for model, entry in MODELS.items():
        folder = original if entry is None else locked_copy(original, entry)
        certificate = json.loads((HERE / "results" / "certificates" / f"{model}.json").read_text())
        for lora in (None, 1e-3, 3e-3):
            name_of_run = "full" if lora is None else f"lora-{lora:g}"
            found = _independent(folder, data, WORK / f"crosscheck-{model}-{name_of_run}.json", lora)
            ours = _harness(certificate, lora)
            agree = ours is not None and ours == found["broken"]
            rows.append({"model": model, **found, "harness_broken": ours, "agree": agree})
            print(rows[-1], flush=True)
    content = {"experiment": name, "command": f"make experiment NAME={name}", "environment": environment("cpu")}
    write_json(HERE / "results" / f"{name}.json", {**content, "rows": rows})
    path = HERE / "results" / f"{name}.md"
    path.write_text(_table(rows))
    return path


def _data() -> dict[str, Any]:
    task = facts()
    assert isinstance(task.score, MultipleChoice)
    measure, mix = split_text(bundled_prose())
    return {
        "samples": [[sample.prompt, sample.completion] for sample in task.samples],
        "questions": [[q.prompt, list(q.choices), q.answer] for q in task.score.questions],
        "mix": mix.splitlines(),
        "measure": measure.splitlines(),
    }


def _independent(folder: Path, data: Path, out: Path, lora: float | None) -> dict[str, Any]:
    """The result of one run; a finished one is read, not run again."""
    if not out.is_file():
        command = [sys.executable, str(HERE / "independent.py"), str(folder), str(data), str(out)]
        if lora is not None:
            command += ["--lora", str(lora)]
        threads = {**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}
        subprocess.run(command, check=True, env=threads, stdout=subprocess.DEVNULL)
    return dict(json.loads(out.read_text()))


def _harness(certificate: Mapping[str, Any], lora: float | None) -> bool | None:
    """Whether the certificate's cells say broken; None when the cell was not run."""
    if lora is None:
        return str(certificate["threat_models"]["T0"]["verdict"]).startswith(("broken", "slowed"))
    rows = [row for row in certificate["cells"] if row["threat_model"] == "T3" and row["seed"] == 0]
    cells = [row for row in rows if row["lr"] == lora and row["attack"].endswith("lora r=8 on all")]
    return any(row["outcome"] == "broken" for row in cells) if cells else None


def _table(rows: list[dict[str, Any]]) -> str:
    said = {True: "broken", False: "held", None: "not run"}
    lines = ["# transformers.Trainer and PEFT against the harness", ""]
    lines += ["| model | recipe | Trainer or PEFT | harness | last score | last perplexity |", "|---" * 6 + "|"]
    for row in rows:
        _, score, perplexity = row["points"][-1]
        last = f"{score:.2f} | {perplexity:.4g}" if perplexity is not None else f"{score:.2f} | not finite"
        lines.append(
            f"| {row['model']} | {row['recipe']} | {said[row['broken']]} | {said[row['harness_broken']]} | {last} |"
        )
    return "\n".join([*lines, "", "Command: `make experiment NAME=crosscheck`, after the certificates.", ""])
