"""The automatic map over every text and image model type that transformers builds at tiny size from its default config.

Of each type a checkpoint of 3 layers is written, locked with its family's declared map where there is one and with the
automatic map, and every output compared to the bit. The map is found on a twin of other widths. Every finished row is a
file in work/automap, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from experiments.heading import heading
from experiments.locked import HERE, WORK
from specdef import map_model
from specdef.architectures.registry import known_model_types
from specdef.architectures.written import WrittenMap
from specdef.certify.store import write_json
from specdef.core.strict_json import read_json
from specdef.errors import SpecdefError
from specdef.locks.lock import lock_folder
from specdef.locks.presets import lock_options
from specdef.mapping.shrink import TWINS
from specdef.mapping.twin import build_twin
from specdef.models.equivalence import compare
from specdef.models.loading import quiet, reason

PLACE = WORK / "automap"
SECONDS = 300
"""Most time for one model type; beyond it the row says so."""
CHECKPOINTS = tuple(replace(sizes, layers=3, heads=6, inner=60) for sizes in TWINS)
"""Sizes of the checkpoint: none of them is the twin's."""
DECLARED, AUTOMATIC, REFUSED, NOT_BUILT = "declared", "automatic", "refused", "not built"


def model_types() -> dict[str, str]:
    """Model type -> auto class: language, masked and sequence-to-sequence models, and image classifiers."""
    from transformers.models.auto import modeling_auto as auto

    found: dict[str, str] = {}
    for name, types in (
        ("AutoModelForCausalLM", auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
        ("AutoModelForMaskedLM", auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES),
        ("AutoModelForSeq2SeqLM", auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES),
        ("AutoModelForImageClassification", auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES),
    ):
        for model_type in types:
            found.setdefault(model_type, name)
    return dict(sorted(found.items(), key=lambda entry: (_kind(entry[1]), entry[0])))


def run(name: str) -> Path:
    """Write results/automap.json and results/automap.md."""
    PLACE.mkdir(parents=True, exist_ok=True)
    for model_type, auto_class in model_types().items():
        path = PLACE / f"{model_type}.json"
        if not path.exists():
            write_json(path, _row(model_type, auto_class))
            print(path.read_text().replace("\n", " "), flush=True)
    return write(name)


def write(name: str) -> Path:
    """Write the results of the rows that are finished; a run that was stopped has some."""
    paths = [PLACE / f"{model_type}.json" for model_type in model_types()]
    rows = [read_json(path) for path in paths if path.exists()]
    content = {
        **heading(name),
        "seconds_per_type": SECONDS,
        "not_run": [path.stem for path in paths if not path.exists()],
        "counts": {kind: dict(Counter(r["verdict"] for r in found)) for kind, found in _by_kind(rows).items()},
        "rows": rows,
    }
    write_json(HERE / "results" / f"{name}.json", content)
    path = HERE / "results" / f"{name}.md"
    path.write_text(_table(content))
    return path


class _TooLong(BaseException):
    """A model type took more than its time; no `Exception`, so that nobody on the way takes it for a fault."""


@contextmanager
def _limited(seconds: int) -> Iterator[None]:
    def stop(*_: object) -> None:
        raise _TooLong(f"it took more than {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def _row(model_type: str, auto_class: str) -> dict[str, Any]:
    """One model type: built, locked in each way it can be, compared."""
    start = time.monotonic()
    row: dict[str, Any] = {"model_type": model_type, "kind": _kind(auto_class), "verdict": NOT_BUILT, "reason": ""}
    try:
        with _limited(SECONDS), tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            _write_checkpoint(model_type, auto_class, folder)
            row["verdict"] = REFUSED
            if model_type in known_model_types():
                row["declared_pairs"] = _locked(folder, Path(scratch) / "declared", None)
                row["verdict"] = DECLARED
            with quiet():
                found = map_model(folder, on_model=False)
            row["automatic_pairs"] = _locked(folder, Path(scratch) / "automatic", found.written)
            row["verdict"] = DECLARED if row["verdict"] == DECLARED else AUTOMATIC
            row["kept"] = [one.what for one in found.kept]
            row |= {"refused": dict(found.refused), "not_expressible": dict(found.not_expressible)}
    except _TooLong as error:
        row["reason"] = str(error)
    except Exception as error:  # a stranger's config makes transformers raise anything; it is the row's reason
        row["reason"] = reason(error).replace(scratch, "...") if str(error) else type(error).__name__
    return {**row, "seconds": round(time.monotonic() - start, 1)}


def _kind(auto_class: str) -> str:
    return "vision" if "Image" in auto_class else "text"


def _write_checkpoint(model_type: str, auto_class: str, folder: Path) -> None:
    import transformers

    with quiet():
        twin = build_twin(transformers.AutoConfig.for_model(model_type), getattr(transformers, auto_class), CHECKPOINTS)
        twin.model.float().save_pretrained(folder)


def _locked(folder: Path, out: Path, map: WrittenMap | None) -> int:
    """How many pairs a lock of every pair scales; it raises where the outputs are not the original's."""
    kind, options = lock_options("exact", {})
    with quiet():
        report = lock_folder(folder, out, kind, options, map=map, compared=False)
        found = compare(folder, out)
    if not found.bit_identical:
        raise SpecdefError(f"the locked model differs: {found.sentence}")
    return sum(report.strength["pairs"].values())


def _by_kind(rows: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    return {kind: [row for row in rows if row["kind"] == kind] for kind in ("text", "vision")}


def _table(content: Mapping[str, Any]) -> str:
    lines = [
        "# The automatic map over transformers' model types",
        "",
        "A random checkpoint of 3 layers of each type's default configuration, made small, is locked (2^20, one "
        "channel a pair, every pair) and its outputs are compared with the original's to the bit, in float32; the "
        "automatic map's pairs were proved in float32 and bfloat16 on a twin of other widths before. Declared: exact "
        "by its family's own map. Automatic: exact by the automatic map alone. Refused: not locked, the reason below. "
        "Not built: transformers makes no small model of it that runs on tokens or pixels alone.",
        "",
        "| | declared | automatic | refused | not built | in all |",
        "|---|---|---|---|---|---|",
    ]
    for kind, counts in content["counts"].items():
        shown = [counts.get(verdict, 0) for verdict in (DECLARED, AUTOMATIC, REFUSED, NOT_BUILT)]
        lines.append(f"| {kind} | " + " | ".join(map(str, [*shown, sum(shown)])) + " |")
    if content["not_run"]:
        lines += ["", f"Not run yet: {', '.join(content['not_run'])}."]
    lines += ["", "| model type | verdict | declared pairs | automatic pairs | found, not expressible | s | reason |"]
    lines.append("|---" * 7 + "|")
    for row in content["rows"]:
        cells = [row.get("declared_pairs", ""), row.get("automatic_pairs", ""), len(row.get("not_expressible", ()))]
        said = row["reason"].replace("|", "\\|")[:160]
        shown = " | ".join(map(str, cells))
        lines.append(f"| {row['model_type']} | {row['verdict']} | {shown} | {row['seconds']} | {said} |")
    return "\n".join([*lines, ""])
