"""Certificates, a command each: of the bundled language model, of an image and of a text classifier, and of locks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import calibration_images, calibration_texts, mnist, workshop
from experiments.locked import HERE, WORK, anywhere, locked_copy
from experiments.progress import say
from experiments.resources import resources
from specdef.certify.api import certify_model
from specdef.certify.result import StoredCell
from specdef.core.atomic import write_file
from specdef.core.folders import new_folder
from specdef.models.bundled import BUNDLED
from specdef.models.sources import find_model
from specdef.report.write import write_report
from specdef.tasks.base import TaskSpec
from specdef.training.recipe import Recipe

THREATS = ("T0", "T1", "T2", "T3", "T4")
KEPT = HERE / "kept"
"""Finished cells of certificates that are not done, to be committed."""
WRITTEN = (".json", ".md", ".html")
"""Files that may say where the experiment's files lie."""
PAPER = {"label": "paper 1e4", "preset": "paper", "multiplier": "1e4"}
EXACT = {"label": "exact 2^20", "preset": "exact", "multiplier": "2^20"}
LADDER = {"label": "ladder", "preset": "ladder"}
LOCKS: dict[str, dict[str, str] | None] = {"unlocked": None, "paper": PAPER, "exact": EXACT, "ladder": LADDER}


@dataclass(frozen=True)
class Bench:
    """A model, its locks, and what an attacker wants of it.

    Attributes:
        original: finds or makes the undefended folder.
        locks: name of the folder of results -> arguments of a lock; None for the undefended model itself.
        results: folder of the folders of results.
        cells: folder of finished cells that the certificates share; each keeps its own beside it as well.
        asked: further arguments of `certify_model`.
    """

    original: Callable[[], Path]
    locks: Mapping[str, Mapping[str, Any] | None]
    results: str
    cells: str
    asked: Callable[[], Mapping[str, Any]] = dict


def _images() -> Mapping[str, Any]:
    """A classifier of digits learns clothes."""
    task = TaskSpec("images", str(mnist.fashion()), target=calibration_images.TARGET)
    window = (1e-3, 3e-3)
    return {"task": task, "text": mnist.general(), "recipe": calibration_images.RECIPE, "window": window}


def _texts() -> Mapping[str, Any]:
    """A guard against spam learns a backdoor."""
    task, recipe = calibration_texts.triggered(), calibration_texts.BACKDOOR
    return {"task": task, "text": calibration_texts.general(), "recipe": recipe, "window": (1e-4, 2e-4)}


BENCHES = {
    "certificates": Bench(
        lambda: find_model(BUNDLED),
        LOCKS,
        "biographies",
        "certificate-cells",
    ),
    "certificates-bf16": Bench(
        lambda: find_model(BUNDLED),
        LOCKS,
        "biographies/bf16",
        "certificate-cells",
        lambda: {"recipe": Recipe(precision="bf16-master")},
    ),
    "certificates-images": Bench(
        mnist.base_model,
        {"unlocked": None, "exact": EXACT, "paper": PAPER, "trained": {**workshop.TRAINED, "text": mnist.general}},
        "images",
        "certificate-cells-images",
        _images,
    ),
    "certificates-texts": Bench(
        calibration_texts.spam_guard,
        {**LOCKS, "trained": {**workshop.TRAINED_TEXTS, "text": calibration_texts.guarded}},
        "texts",
        "certificate-cells-texts",
        _texts,
    ),
}
NAMES = {f"{name}-{lock}": (name, lock) for name, bench in BENCHES.items() for lock in bench.locks}
"""Commands that make one certificate."""


def folder_of(bench: Bench, lock: str) -> Path:
    """The model's folder; locks are made once."""
    original, entry = bench.original(), bench.locks[lock]
    if entry is None:
        return original
    return locked_copy(original, {key: str(value()) if callable(value) else value for key, value in entry.items()})


def run(name: str) -> Path:
    """Certify all of a bench, or one of it."""
    bench_name, only = NAMES.get(name, (name, None))
    bench = BENCHES[bench_name]
    WORK.mkdir(exist_ok=True)
    for lock in bench.locks if only is None else (only,):
        print(lock, flush=True)
        out, command = HERE / "results" / bench.results / lock, f"{bench_name}-{lock}"
        certify(command, folder_of(bench, lock), bench.original(), out, WORK / bench.cells, **bench.asked())
    return out / "certificate.md"


def certify(name: str, folder: Path, original: Path, out: Path, cells: Path, **asked: Any) -> None:
    """Certify a model and draw its page; ``EXPERIMENT_THREATS=T0,T1`` tries these threat models alone.

    With ``EXPERIMENT_GO_ON=1`` committed cells are not run again, and finished ones are put where they can be
    committed (`KEPT`): a certificate of many hours is made in parts, on one machine after another.

    Args:
        name: of the experiment.
        folder: the model.
        original: the undefended one.
        out: folder of results, replaced when the certificate is done: it may hold one made under other rules.
        cells: folder of finished cells that several certificates share.
        **asked: further arguments of `certify_model`.
    """
    made, kept = WORK / "certificates" / name, KEPT / name
    go_on = "EXPERIMENT_GO_ON" in os.environ
    for finished in (out / "cells", kept) if go_on else ():
        _take(finished, cells)

    def keep(cell: StoredCell, done: int, total: int) -> None:
        say(cell, done, total)
        if go_on:
            _take(cells, kept, cell.key)

    certify_model(
        folder,
        made,
        original=original,
        threats=tuple(os.environ.get("EXPERIMENT_THREATS", ",".join(THREATS)).split(",")),
        resources=resources(),
        cells=cells,
        on_cell=keep,
        on_stage=lambda stage: print(f"-- {stage}", flush=True),
        command=f"make experiment NAME={name}",
        **asked,
    )
    write_report(made)
    shutil.rmtree(out, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    with new_folder(out) as place:
        shutil.copytree(made, place, dirs_exist_ok=True)
        for file in (file for file in place.rglob("*") if file.suffix in WRITTEN):
            file.write_text(anywhere(file.read_text()))
    shutil.rmtree(kept, ignore_errors=True)


def _take(source: Path, target: Path, key: str = "*") -> None:
    """Copy the cells that the other folder has not."""
    target.mkdir(parents=True, exist_ok=True)
    for path in source.glob(f"{key}.json"):
        if not (target / path.name).exists():
            write_file(target / path.name, anywhere(path.read_text()).encode())
