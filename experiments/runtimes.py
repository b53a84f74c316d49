"""What a locked model computes where people run models: format x pair kind x exponent, against the unlocked model.

Every finished row is a file in work/runtimes, so an interrupted run goes on where it stopped. Needs the extra
`runtimes`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from experiments.heading import heading
from experiments.locked import HERE, WORK
from specdef import lock
from specdef.certify.store import write_json
from specdef.core.strict_json import read_json
from specdef.errors import SpecdefError
from specdef.models.bundled import BUNDLED
from specdef.models.sources import find_model
from specdef.runtimes.base import RUNTIMES
from specdef.runtimes.measure import Said, agreement, ask
from specdef.runtimes.probes import Probes, probes

FORMATS = (
    *(("llama.cpp", name) for name in ("f32", "f32+f32-cache", "bf16", "f16", "q8_0", "q4_k_m")),
    ("torchao", "int8"),
    ("torchao", "int8-dynamic"),
    ("transformers-bf16", "bf16"),
    ("transformers-f16", "f16"),
    ("onnxruntime", "f32"),
)
FEW = (
    ("llama.cpp", "f32+f32-cache"),
    ("llama.cpp", "bf16"),
    ("torchao", "int8-dynamic"),
    ("transformers-bf16", "bf16"),
    ("transformers-f16", "f16"),
)
"""Tried with the default lock and the planned one alone."""
ONCE = ("onnxruntime", "f32")
"""Tried with the default lock alone: its export takes minutes."""
DEFAULT, PLANNED = "all 2^20 up", "all 2^4 up, planned for f16-cache,q8_0"
PAIRS = {"all": None, "norm": ["norm"], "updown": ["updown"], "vo": ["vo"]}
LOCKS: dict[str, dict[str, Any]] = {
    DEFAULT: {},
    PLANNED: {"runtimes": ["f16-cache", "q8_0"]},
    **{
        f"{pairs} 2^{exponent} {direction}": {
            "multiplier": f"2^{exponent}",
            "pairs": PAIRS[pairs],
            "direction": direction,
        }
        for exponent, pairs, direction in (
            (8, "all", "up"),
            (4, "all", "up"),
            (20, "norm", "up"),
            (20, "updown", "up"),
            (20, "vo", "up"),
            (20, "vo", "down"),
            (8, "vo", "up"),
            (8, "vo", "down"),
            (8, "norm", "up"),
            (8, "updown", "up"),
        )
    },
}


def run(name: str) -> Path:
    """Write results/runtimes.json and results/runtimes.md."""
    original = find_model(BUNDLED)
    asked = probes(original)
    place = WORK / "runtimes"
    place.mkdir(parents=True, exist_ok=True)
    rows = [row for label, options in LOCKS.items() for row in _rows(label, options, original, asked, place)]
    own = [_own(original, runtime, format, asked, place) for runtime, format in FORMATS]
    content = {
        **heading(name),
        "versions": {runtime: RUNTIMES.get(runtime).versions for runtime, _ in FORMATS},
        "text_tokens": len(asked.text),
        "prompts": len(asked.prompts),
        "new_tokens": asked.new_tokens,
        "unlocked": own,
        "rows": rows,
    }
    write_json(HERE / "results" / f"{name}.json", content)
    path = HERE / "results" / f"{name}.md"
    path.write_text(_table(content))
    return path


def _rows(label: str, options: Mapping[str, Any], original: Path, asked: Probes, place: Path) -> list[dict[str, Any]]:
    """One lock in every format; made, converted and deleted again only where a row is missing."""
    formats = [found for found in FORMATS if label in (DEFAULT, PLANNED) or found not in FEW]
    formats = [found for found in formats if found != ONCE or label == DEFAULT]
    files = {found: place / f"{_name(label, *found)}.json" for found in formats}
    if not all(file.exists() for file in files.values()):
        with tempfile.TemporaryDirectory(dir=place) as scratch:
            folder = Path(scratch) / "locked"
            lock(original, folder, preset="exact", **options)
            for found, file in files.items():
                if not file.exists():
                    row = {"lock": label, "runtime": found[0], "format": found[1]}
                    write_json(file, row | _compared(folder, original, *found, asked, place, Path(scratch)))
                    print(file.read_text().replace("\n", " "), flush=True)
    return [read_json(file) for file in files.values()]


def _compared(
    folder: Path, original: Path, runtime: str, format: str, asked: Probes, place: Path, scratch: Path
) -> dict[str, Any]:
    reference = _reference(original, runtime, format, asked, place)
    try:
        found = agreement(reference, ask(RUNTIMES.get(runtime), folder, format, asked, scratch, reference))
    except SpecdefError as error:
        return {"refused": str(error).replace(str(folder), "the locked model"), "kl": None, "same": 0}
    return {"kl": found.kl, "same": found.same, "identical": found.identical}


def _reference(original: Path, runtime: str, format: str, asked: Probes, place: Path) -> Said:
    """What the unlocked model says in a format, kept."""
    path = place / f"{_name('unlocked', runtime, format)}.pt"
    if not path.exists():
        with tempfile.TemporaryDirectory(dir=place) as scratch:
            said = ask(RUNTIMES.get(runtime), original, format, asked, Path(scratch))
            torch.save({"logits": said.logits, "texts": said.texts}, path)
            shutil.rmtree(scratch, ignore_errors=True)
    return Said(**torch.load(path))


def _own(original: Path, runtime: str, format: str, asked: Probes, place: Path) -> dict[str, Any]:
    """The format's own loss: the unlocked model there, against itself in llama.cpp's float32."""
    wide = _reference(original, "llama.cpp", "f32+f32-cache", asked, place)
    found = agreement(wide, _reference(original, runtime, format, asked, place))
    return {"runtime": runtime, "format": format, "kl": found.kl, "same": found.same}


def _name(label: str, runtime: str, format: str) -> str:
    return f"{label} {runtime} {format}".replace(" ", "-").replace("^", "").replace(",", "-")


def _table(content: Mapping[str, Any]) -> str:
    labels = list(dict.fromkeys(row["lock"] for row in content["rows"]))
    cells = {(row["lock"], row["runtime"], row["format"]): row for row in content["rows"]}
    lines = [
        "# Where a locked model runs",
        "",
        f"KL to the unlocked model in the same format (nats per token, {content['text_tokens']} tokens of text), and "
        f"after how many of {content['prompts']} prompts the greedy text ({content['new_tokens']} tokens) is the same. "
        "0: every logit is equal to the bit. "
        "SmolLM2-135M, one channel a pair, every layer, unless said.",
        "",
        "| runtime, format | unlocked, to its float32 | " + " | ".join(labels) + " |",
        "|---" * (len(labels) + 2) + "|",
    ]
    for own in content["unlocked"]:
        key = (own["runtime"], own["format"])
        shown = [_shown(cells.get((label, *key))) for label in labels]
        lines.append(f"| {' '.join(key)} | {_shown(own)} | " + " | ".join(shown) + " |")
    versions = "; ".join(f"{name}: {text}" for name, text in content["versions"].items())
    lines += [
        "",
        "Empty: not tried. Not finite: the logits are no numbers, and nothing is printed. Refused: llama.cpp's "
        "quantiser finds infinite scales or weights. The planned lock scales whole blocks of 32 channels, where no "
        "block's scale loses a digit. int8 of torchao: weights only, unless dynamic.",
        "",
        f"Versions: {versions}. Default settings and caches (llama.cpp: flash attention and a float16 cache) unless "
        f"the format names a cache. Command: `{content['command']}`, commit {content['environment']['commit']}, "
        f"{content['environment']['hardware']}.",
        "",
    ]
    return "\n".join(lines)


def _shown(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    if "refused" in row:
        return "refused"
    if row["kl"] is None:
        return "not finite"
    return f"{row['kl']:.1g}, {row['same']}"
