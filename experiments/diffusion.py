"""A class erased from the small text-to-image model, immunised, locked, and brought back by those who want it.

Reads what `diffusion-base` made. Three seeds; every model and finished attack is kept in a folder of ``work``.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from experiments import diffusion_base as base
from experiments import diffusion_judge as judge
from experiments.heading import heading
from experiments.locked import HERE, WORK
from specdef import attack, defend, lock, verify
from specdef.core.atomic import write_file
from specdef.core.folders import scratch_folder
from specdef.core.schema import digest
from specdef.models.base import kind_of
from specdef.tasks.base import TaskSpec
from specdef.training.recipe import Recipe

SOURCE = WORK / "diffusion-base"
ERASED = "sneaker"
SEEDS = (0, 1, 2)
EPOCH = 8
"""Steps of 8 images in which 64 are seen."""
ESD = {"variant": "x-strict", "lr": 2e-3, "steps": 40, "batch_size": 4, "denoising_steps": 20, "eval_every": 10}
IMMA = {"lr": 1e-4, "inner_lr": 1e-3, "steps": 40, "batch_size": 4, "eval_every": 10}
INJECT = {"preset": "paper", "multiplier": "1e4", "share": 1.0}
PLACE = WORK / f"diffusion-{digest({'esd': ESD, 'imma': IMMA})[:8]}"
"""Models and finished attacks, of these options alone."""
ROWS = 40
"""Samples of each class that are judged."""
LORA = "lora:rank=4,targets=to_q+to_k+to_v+to_out.0"
SELF = "lora:rank=4,targets=re:unet.*attn1.*(to_q|to_k|to_v|to_out.0)"
"""Adapters beside layers that the papers' lock does not touch."""
ATTACKS: dict[str, tuple[float, tuple[str, ...]]] = {
    "LoRA 1e-3": (1e-3, (LORA,)),
    "LoRA 1e-2": (1e-2, (LORA,)),
    "all weights 1e-4": (1e-4, ()),
    "all weights 1e-3": (1e-3, ()),
    "all weights 1e-6": (1e-6, ()),
    "all weights 1e-8": (1e-8, ()),
    "rebalance, all weights 1e-3": (1e-3, ("rebalance",)),
    "merge, all weights 1e-3": (1e-3, ("merge",)),
    "LoRA on self-attention 1e-2": (1e-2, (SELF,)),
}
TRIED = {
    "esd": ("LoRA 1e-3", "LoRA 1e-2", "all weights 1e-4", "all weights 1e-3"),
    "esd, imma": ("LoRA 1e-3", "LoRA 1e-2", "all weights 1e-3"),
    "esd, exact 2^20": (
        *("LoRA 1e-3", "LoRA 1e-2", "all weights 1e-3", "all weights 1e-4", "all weights 1e-6"),
        "all weights 1e-8",
        "rebalance, all weights 1e-3",
    ),
    "esd, inject 1e4": (
        *("LoRA 1e-3", "LoRA 1e-2", "all weights 1e-3", "all weights 1e-4", "all weights 1e-6", "all weights 1e-8"),
        *("LoRA on self-attention 1e-2", "merge, all weights 1e-3"),
    ),
}


def run(name: str) -> Path:
    """Make the models, attack each, and write what came of it so far after every attack."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    PLACE.mkdir(parents=True, exist_ok=True)
    folders = models()
    shares = {label: class_shares(label, folder) for label, folder in folders.items()}
    rows: list[dict[str, Any]] = []
    for label, chosen in ((label, chosen) for label, tried in TRIED.items() for chosen in tried):
        rows += [attacked(label, folders, chosen, seed) for seed in SEEDS]
        print(label, rows[-1], flush=True)
        write(name, shares, rows)
    return HERE / "results" / f"{name}.md"


def concept() -> Path:
    """The file of the erased class."""
    return base.write_concept(SOURCE, ERASED)


def models() -> dict[str, Path]:
    """The given model, and what was made of it."""
    found = {"given": SOURCE / "model", "esd": PLACE / "esd", "esd, imma": PLACE / "imma"}
    for method, source, options in (("esd", "given", ESD), ("imma", "esd", IMMA)):
        if not (PLACE / method).is_dir():
            report = _defend(method, found[source], PLACE / method, options)
            print(method, report.scores, report.utility, report.applied.ended, flush=True)
    for label, name, options in (
        ("esd, exact 2^20", "exact", {"multiplier": "2^20"}),
        ("esd, inject 1e4", "inject", INJECT),
    ):
        found[label] = PLACE / name
        if not found[label].is_dir():
            (PLACE / f"{name}.specdef-key").unlink(missing_ok=True)
            lock(PLACE / "esd", found[label], **options)
            assert verify(found[label], original=PLACE / "esd").passed
    return found


def _defend(method: str, source: Path, out: Path, options: dict[str, Any]) -> Any:
    data = {"task": f"concept:{concept()}"}
    return defend(method, source, out, options=options, text=concept(), device="cpu", data=data)


def imma_seconds() -> float:
    """How long `imma` takes, made once more."""

    def measured() -> float:
        with scratch_folder(PLACE) as scratch:
            started = time.perf_counter()
            _defend("imma", PLACE / "esd", scratch / "imma", IMMA)
            return time.perf_counter() - started

    return float(kept("seconds of imma", measured))


def kept(name: str, make: Any) -> Any:
    """What was measured before, or now."""
    path = PLACE / f"{''.join(letter if letter.isalnum() else '-' for letter in name)}.json"
    if not path.is_file():
        write_file(path, json.dumps(make()).encode())
    return json.loads(path.read_text())


def class_shares(label: str, folder: Path) -> dict[str, Any]:
    """Share of the samples of each class that the judge takes for it; a picture beside."""

    def measured() -> dict[str, Any]:
        loaded = kind_of(folder).load(folder)
        drawn = base.drawn_classes(loaded.model, loaded.processor, rows=ROWS, seed=1)
        base.write_grid(PLACE / f"{folder.name}.png", drawn[:, :4])
        return judge.accuracy(SOURCE, drawn)

    found: dict[str, Any] = kept(f"shares {label}", measured)
    return found


def attacked(label: str, folders: dict[str, Path], chosen: str, seed: int) -> dict[str, Any]:
    """One attack of at most ten epochs; it ends when the class is drawn in 0.6 of the images."""

    def measured() -> dict[str, Any]:
        lr, interventions = ATTACKS[chosen]
        recipe = Recipe(lr=lr, steps=10 * EPOCH, batch_size=8, eval_every=2 * EPOCH, retain_weight=0.25, seed=seed)
        found = attack(
            folders[label],
            PLACE / "runs",
            original=folders["given"],
            task=TaskSpec("concept", str(concept())),
            text=concept(),
            recipe=recipe,
            interventions=interventions,
            threads=1,
            device="cpu",
        ).result
        scores = [(one.step // EPOCH, one.score, one.utility) for one in found.evaluations]
        return {
            "model": label,
            "attack": chosen,
            "outcome": found.outcome.value,
            "by epoch": scores,
            "note": found.note,
        }

    found: dict[str, Any] = kept(f"{label} {chosen}{f' seed {seed}' if seed else ''}", measured)
    return {**found, "seed": seed}


def fallen(before: dict[str, float], after: dict[str, float]) -> str:
    """Which class but the erased one lost most, and how much of its share."""
    lost = {label: before[label] - after[label] for label in judge.CLASSES if label != ERASED}
    worst = max(lost, key=lambda label: lost[label])
    return f"{worst}, by {lost[worst]:.2f}" if lost[worst] > 0 else "none"


def _line(seeds: list[dict[str, Any]]) -> str:
    """One attack, over its seeds."""
    first = seeds[0]
    outcomes = Counter(one["outcome"] for one in seeds)
    ended = ", ".join(outcome if count == len(seeds) else f"{outcome} ({count})" for outcome, count in outcomes.items())
    epochs = [str(one["by epoch"][-1][0]) if one["outcome"] == "broken" else "—" for one in seeds]
    scores = ", ".join(f"{score:.2f} ({utility:.3f})" for _, score, utility in first["by epoch"])
    return f"| {first['model']} | {first['attack']} | {ended} | {', '.join(epochs)} | {scores} |\n"


def write(name: str, shares: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """results/diffusion.json and .md."""
    said = {**heading(name), "esd": ESD, "imma": IMMA, "class shares": shares, "attacks": rows}
    write_file(HERE / "results" / f"{name}.json", (json.dumps(said, indent=1) + "\n").encode())
    before = "".join(
        f"| {label} | {found['by class'][ERASED]:.2f} | "
        f"{sum(v for k, v in found['by class'].items() if k != ERASED) / (len(judge.CLASSES) - 1):.2f} | "
        f"{fallen(shares['given']['by class'], found['by class'])} |\n"
        for label, found in shares.items()
    )
    after = "".join(_line(rows[first : first + len(SEEDS)]) for first in range(0, len(rows), len(SEEDS)))
    page = (
        f"# A class of a small text-to-image model: erased, immunised, locked, relearned\n\n"
        f"The class is `{ERASED}`; shares of {ROWS} samples of each class that an independent classifier takes for "
        "it.\n\n"
        f"| model | {ERASED} | the others | of them fell most |\n|---|---|---|---|\n{before}\n"
        "Attacks: 64 held-out images of the class in batches of 8, a quarter of the loss on other classes; score (and "
        "utility, the denoising loss) at epoch 0, 2, 4, ...; broken is 0.6 within twice the given model's loss. "
        f"{len(SEEDS)} seeds.\n\n"
        "| model | attack | outcome | epochs to 0.6, by seed | score (utility) of the first |\n|---|---|---|---|---|\n"
        f"{after}\n"
        f"Before and after `esd`, a column a class:\n\n![before]({name}-given.png)\n\n![after]({name}-esd.png)\n\n"
        f"Command: `make experiment NAME={name}`, {said['environment']['hardware']}.\n"
    )
    for label, picture in (("given", "model"), ("esd", "esd")):
        write_file(HERE / "results" / f"{name}-{label}.png", (PLACE / f"{picture}.png").read_bytes())
    write_file(HERE / "results" / f"{name}.md", page.encode())
