"""Tables 5 and 17 to 21, Figures 2, 5 and 6: a class that was erased from the small text-to-image model, brought back.

LoRA on attention, as the papers attack; by method, by number of locked matrices and multiplier, by learning rate. What
comes back is counted by a classifier (for NudeNet) and compared by the similarity gap ratio, in features of networks
trained on the same data (stand-ins for CLIP, DINO and LPIPS). Reads `diffusion-base` and the models of `diffusion`;
every finished attack is kept in a folder of ``work``, with its images.
"""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments import diffusion, diffusion_judge
from experiments import diffusion_base as base
from experiments.heading import heading
from experiments.locked import HERE, WORK
from specdef import attack, lock
from specdef.analysis.image_features import Measure
from specdef.analysis.similarity import by_step, gap, make_measure
from specdef.certify.result import StoredCell
from specdef.core.atomic import write_file
from specdef.errors import SpecdefError
from specdef.models.base import kind_of
from specdef.tasks.base import TaskSpec
from specdef.training.recipe import Recipe

PLACE = WORK / "relearned"
SEEDS = (0, 1, 2)
EPOCHS, EVERY = 10, 2
LORA = "lora:rank=4,lora_alpha=4,targets=to_q+to_k+to_v+to_out.0"
RATE = 1e-2
"""At which the undefended class comes back in few epochs."""
RATES = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4)
MATRICES = (1, 5, 14, 28)
"""Of the 28 of cross-attention; the paper locks 1, 5, 25 and 48 of 48."""
MULTIPLIERS = ("1e2", "1e3", "1e4")
UNDEFENDED, IMMA, EXACT = "esd", "esd, imma", "esd, exact 2^20"
DRAWN = 40
WITNESSES: dict[str, tuple[Callable[[dict[str, Any]], Any], int]] = {
    "witness": (diffusion_judge.small_resnet, 1),
    "vit": (diffusion_judge.small_vit, 2),
}
"""Networks that say how like images are, none of them the judge: folder -> what makes it, seed."""
MEASURES = {
    "SGR (ResNet, for CLIP)": "embedding:witness",
    "SGR (ViT, for DINO)": "embedding:vit",
    "SGR (feature maps, for LPIPS)": "perceptual:witness",
}


@dataclass(frozen=True)
class Run:
    """One attack on one model.

    Attributes:
        method: the model.
        lr: of LoRA.
        seed: of training, and of the draw of locked matrices.
    """

    method: str
    lr: float
    seed: int


def injected(matrices: int, multiplier: str) -> str:
    """The name of the papers' lock on top of `esd`."""
    return f"esd, inject {multiplier}, {matrices} of 28"


INJECTED = {
    injected(matrices, multiplier): (matrices, multiplier) for multiplier in MULTIPLIERS for matrices in MATRICES
}
"""Method -> how many matrices are locked, and how strongly."""
ALL_LOCKED = tuple(injected(28, multiplier) for multiplier in MULTIPLIERS)
BY_METHOD = (UNDEFENDED, IMMA, *INJECTED, EXACT)
BY_RATE = (UNDEFENDED, IMMA, *ALL_LOCKED, EXACT)
RUNS = [
    *(Run(method, RATE, seed) for seed in SEEDS for method in BY_METHOD),
    *(Run(method, lr, seed) for seed in SEEDS for lr in RATES if lr != RATE for method in BY_RATE),
]


def run(name: str) -> Path:
    """Make what is missing, attack each model, then write the page and the pictures."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    PLACE.mkdir(parents=True, exist_ok=True)
    for folder, (make, seed) in WITNESSES.items():
        if not (PLACE / folder).is_dir():
            diffusion_judge.train_classifier(PLACE / folder, make, seed=seed)
    folders = diffusion.models()
    finished: dict[Run, StoredCell] = {}
    for number, one in enumerate(RUNS):
        finished[one] = attacked(folders, one)
        found = finished[one].result
        print(f"[{number + 1}/{len(RUNS)}] {one}: {found.outcome.value} {found.evaluations[-1].score:.2f}", flush=True)
    reference = references(folders["given"])
    measures = {label: _measure(written) for label, written in MEASURES.items()}
    rows = {one: measured(reference, measures, one, finished) for one in RUNS}
    write(name, rows)
    draw(name, rows)
    shown = [drawn(finished[Run(method, RATE, 0)]) for method in BY_RATE]
    base.write_grid(HERE / "results" / f"{name}-pictures.png", pictures(reference, shown))
    return HERE / "results" / f"{name}.md"


def folder_of(folders: Mapping[str, Path], method: str, seed: int) -> Path:
    """The model of a method; the papers' locks draw their matrices by the seed, and are timed."""
    if method in folders:
        return folders[method]
    matrices, multiplier = INJECTED[method]
    place = _place(method, seed)
    if not place.is_dir():
        place.with_suffix(".specdef-key").unlink(missing_ok=True)
        started = time.perf_counter()
        lock(
            folders[UNDEFENDED],
            place,
            key=place.with_suffix(".specdef-key"),
            preset="paper",
            multiplier=multiplier,
            num_matrices=matrices,
            seed=seed,
        )
        write_file(place.with_suffix(".json"), json.dumps(time.perf_counter() - started).encode())
    return place


def _place(method: str, seed: int) -> Path:
    """Of a papers' lock; its key and the seconds it took lie beside it."""
    matrices, multiplier = INJECTED[method]
    return PLACE / f"inject-{multiplier}-{matrices}-seed{seed}"


def attacked(folders: Mapping[str, Path], one: Run) -> StoredCell:
    """LoRA to the last epoch, or until every image is of the class, with the images of every second epoch."""
    epoch = diffusion.EPOCH
    recipe = Recipe(
        lr=one.lr, steps=EPOCHS * epoch, batch_size=8, eval_every=EVERY * epoch, retain_weight=0.25, seed=one.seed
    )
    return attack(
        folder_of(folders, one.method, one.seed),
        PLACE / "runs",
        original=folders["given"],
        task=TaskSpec("concept", str(diffusion.concept()), target=1.0),
        text=diffusion.concept(),
        recipe=recipe,
        interventions=(LORA,),
        images=True,
        threads=1,
        device="cpu",
    )


def drawn(cell: StoredCell) -> dict[int, Any]:
    """Epoch -> images [40, 1, 16, 16] from 0 to 1; the last stand for those after them."""
    return _by_epoch(dict(by_step(PLACE / "runs" / "drawn" / cell.key)))


def _by_epoch(found: Mapping[int, Any]) -> dict[int, Any]:
    """By step -> of every second epoch, what was there last; an attack may end anywhere, ruined or done."""
    last, every = {}, EVERY * diffusion.EPOCH
    for step, value in sorted(found.items()):
        last[math.ceil(step / every) * EVERY] = value
    value = last[0]
    return {epoch: (value := last.get(epoch, value)) for epoch in range(0, EPOCHS + 1, EVERY)}


def references(given: Path) -> Any:
    """What the given model draws of the class, from other noise than the attacks' images."""
    path = PLACE / "references.npy"
    if not path.is_file():
        loaded = kind_of(given).load(given)
        classes = base.drawn_classes(loaded.model, loaded.processor, rows=DRAWN, seed=1)
        of_class = classes[diffusion_judge.CLASSES.index(diffusion.ERASED)]
        np.save(path, ((of_class + 1) / 2).clamp(0, 1).unsqueeze(1).numpy())
    return np.load(path)


def _measure(written: str) -> Measure:
    """One of `MEASURES`, whose network lies among ours."""
    kind, _, folder = written.partition(":")
    return make_measure(f"{kind}:{PLACE / folder}")


def measured(
    reference: Any, measures: Mapping[str, Measure], one: Run, finished: Mapping[Run, StoredCell]
) -> dict[str, Any]:
    """Shares and gap ratios by epoch, against the undefended model's images after the same attack."""
    cell, undefended = drawn(finished[one]), drawn(finished[Run(UNDEFENDED, one.lr, one.seed)])[EPOCHS]
    gaps = {
        label: {epoch: _ratio(label, measure, reference, undefended, images) for epoch, images in cell.items()}
        for label, measure in measures.items()
    }
    found = finished[one].result
    share = _by_epoch({point.step: point.score for point in found.evaluations})
    return {"share": share, "outcome": found.outcome.value, **gaps}


def _ratio(label: str, measure: Measure, reference: Any, undefended: Any, images: Any) -> float | None:
    """None where the undefended model's own images are not like the references."""
    try:
        return gap(label, measure, reference, undefended, images).ratio
    except SpecdefError:
        return None


def write(name: str, rows: Mapping[Run, dict[str, Any]]) -> None:
    """results/relearned.json and .md."""
    accuracy = {folder: diffusion_judge.judge_accuracy(PLACE, folder) for folder in WITNESSES}
    said = {
        **heading(name),
        "witnesses on held-out images": accuracy,
        "runs": [{**vars(one), **found} for one, found in rows.items()],
    }
    write_file(HERE / "results" / f"{name}.json", (json.dumps(said, indent=1) + "\n").encode())
    columns = f"| method | images of the class | {' | '.join(MEASURES)} |"
    line = "|---|---|---|---|---|"
    first = Run(UNDEFENDED, RATE, 0)
    erased = [rows[first]["share"][0], *(rows[first][label][0] for label in MEASURES)]
    before = f"| {UNDEFENDED}, not attacked | {erased[0]:.2f} | {' | '.join(map(_share, erased[1:]))} |  |\n"
    by_method = "".join(_row(rows, method, RATE, seconds=True) for method in BY_METHOD)
    by_rate = "".join(f"| {lr:g} {_row(rows, method, lr, seconds=False)}" for method in BY_RATE[1:] for lr in RATES)
    undefended = ", ".join(
        f"{lr:g}: {_spread([rows[Run(UNDEFENDED, lr, s)]['share'][EPOCHS] for s in SEEDS])}" for lr in RATES
    )
    page = (
        "# A class of a small text-to-image model, brought back: counts, similarity gaps, learning rates\n\n"
        f"The class is `{diffusion.ERASED}`, erased by `esd` ({diffusion.ESD['variant']}); LoRA of rank 4 on "
        f"attention, {EPOCHS} epochs of 64 images in batches of 8, a quarter of the loss on other classes. Shares of "
        f"{DRAWN} drawn images that an independent classifier takes for the class, after the last epoch (an attack "
        "ends where all are). Similarity gap ratio (SGR): "
        "of the likeness that the undefended model's images have to the given model's, the share that is missing: "
        f"0 % is no defence, and {UNDEFENDED} before any attack shows what is the most. Mean and standard deviation "
        f"over {len(SEEDS)} seeds. The networks stand in for CLIP, DINO and LPIPS; they label "
        f"{' and '.join(f'{v:.2f}' for v in accuracy.values())} of the held-out images rightly.\n\n"
        f"## By method, at {RATE:g} (Tables 5, 17, 18 to 20)\n\n{columns} seconds to make |\n{line}---|\n{before}"
        f"{by_method}\n"
        f"![similarity gap by epoch]({name}.png)\n\n"
        "A row a method, a column two epochs, of seed 0; above, what the given model draws "
        f"(Figures 5, 6):\n\n![pictures]({name}-pictures.png)\n\n"
        f"## By learning rate (Table 21)\n\nUndefended, images of the class at {undefended}.\n\n"
        f"| learning rate {columns}\n{line}---|\n{by_rate}\n"
        "An attacker chooses where adapters stand. Here they stand beside each locked layer as a whole, and the "
        "papers' lock changes nothing for them: what trains is as it was. The paper reports divergence for 25 and 48 "
        "locked matrices at 1e3 and 1e4; adapters on the compensations, whose inputs are that much larger, would see "
        "it, and so do all weights (`diffusion`). The exact lock scales the inputs of other layers, so adapters feel "
        "it at these rates and ruin the model, whose images are black: lower rates and `rebalance` undo it.\n\n"
        f"Command: `make experiment NAME={name}`, commit {said['environment']['commit']}, "
        f"{said['environment']['hardware']}.\n"
    )
    write_file(HERE / "results" / f"{name}.md", page.encode())


def _row(rows: Mapping[Run, dict[str, Any]], method: str, lr: float, *, seconds: bool) -> str:
    """A line of a table, over seeds, after the last epoch."""
    found = [rows[Run(method, lr, seed)] for seed in SEEDS]
    share = _spread([one["share"][EPOCHS] for one in found])
    ratios = [_spread([one[label][EPOCHS] for one in found], percent=True) for label in MEASURES]
    took = f" {_seconds(method)} |" if seconds else ""
    return f"| {method} | {share} | {' | '.join(ratios)} |{took}\n"


def _spread(values: Sequence[float | None], *, percent: bool = False) -> str:
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return "not defined"
    mean, std = statistics.fmean(known), statistics.stdev(known)
    return f"{mean:.1%} ± {std:.1%}".replace("-0.0%", "0.0%") if percent else f"{mean:.2f} ± {std:.2f}"


def _share(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.1%}"


def _seconds(method: str) -> str:
    """Of the papers' locks, over seeds, and of `imma`, made once more to be timed."""
    if method == IMMA:
        return f"{diffusion.imma_seconds():.0f}"
    if method not in INJECTED:
        return ""
    return _spread([json.loads(_place(method, seed).with_suffix(".json").read_text()) for seed in SEEDS])


def draw(name: str, rows: Mapping[Run, dict[str, Any]]) -> None:
    """The gap ratio by epoch, a panel a measure."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(MEASURES), figsize=(13, 4), sharex=True, constrained_layout=True)
    for panel, label in zip(panels, MEASURES, strict=True):
        for style, method in zip(("-", "-", ":", "-.", "--", "-"), BY_RATE, strict=True):  # several lie on each other
            found = [rows[Run(method, RATE, seed)][label] for seed in SEEDS]
            epochs = sorted(found[0])
            means = [[one[epoch] for one in found if one[epoch] is not None] for epoch in epochs]
            panel.plot(epochs, [100 * statistics.fmean(m) if m else math.nan for m in means], style, label=method)
        panel.axhline(0, color="grey", linewidth=0.8)
        panel.set_title(label, fontsize=10)
        panel.set_xlabel("epoch of LoRA")
    panels[0].set_ylabel("similarity gap ratio, %")
    panels[-1].legend(fontsize=8)
    figure.savefig(HERE / "results" / f"{name}.png", dpi=110)
    plt.close(figure)


def pictures(reference: Any, shown: Sequence[Mapping[int, Any]]) -> torch.Tensor:
    """[columns, rows, 16, 16] from -1 to 1: four of the given model's images, repeated; below four of every epoch."""
    lines = [np.tile(reference[:4, 0], (1 + EPOCHS // EVERY, 1, 1))]
    lines += [np.concatenate([of_epoch[epoch][:4, 0] for epoch in sorted(of_epoch)]) for of_epoch in shown]
    return torch.from_numpy(2 * np.stack(lines, 1) - 1)
