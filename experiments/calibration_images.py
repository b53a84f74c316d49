"""Do the tasks of image classifiers measure what they say? A ResNet-18 that knows digits learns clothes and letters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from experiments import mnist
from experiments.calibration import SEEDS, Case, calibrate, study_of
from specdef.attacks.base import Attack
from specdef.attacks.run import run_attack
from specdef.models.base import kind_of
from specdef.models.images import image_logits
from specdef.tasks.base import TaskSpec
from specdef.tasks.images.labels import ImageAccuracy
from specdef.tasks.labelled import likeliest
from specdef.tasks.utility import UTILITIES
from specdef.training.recipe import Recipe

TARGET = 0.7
"""Of the images that are asked; chance is 0.1."""
RECIPE = Recipe(steps=240, batch_size=32, eval_every=40)
PERMUTATIONS = 20
ABOUT = f"""# The tasks of image classifiers, calibrated on the undefended model

A ResNet-18 of Hugging Face, a quarter as wide as usual (16 to 128 channels, 0.7 million parameters), trained on 12,000
digits of MNIST at 28 x 28 pixels, reads clothes (Fashion-MNIST) or old Japanese letters (the test half of KMNIST) with
the ten labels it has: {mnist.A_CLASS} images of each, of which 400 are trained on and 100 are asked. At most
{RECIPE.steps} steps of {RECIPE.batch_size} images. Accuracy is that on other digits of MNIST, whose images are mixed
into training; the budget is 2: half of what lies above 0.5 may go. A run on the task ends where the target ({TARGET})
is reached within it. What the model takes clothes for happens to fit their labels better than chance before any
training: that start, and not 0.1, is what a control of them must be held against.

`shuffled` is the task's own control: the labels of all images dealt out anew. `head permuted` trains on the task and
then gives the ten outputs each other's labels; its score is the mean over {PERMUTATIONS} permutations drawn by seed."""


def run(name: str) -> Path:
    """Train, or read what is finished; write results/calibration-images.json and .md."""
    return calibrate(name, CASES, ABOUT, "accuracy", more=_heads)


def _case(label: str, images: Callable[[], Path]) -> Case:
    return Case(
        partial(_spec, images),
        mnist.base_model,
        (1e-3, 3e-3),
        1e-3,
        recipe=RECIPE,
        utility="image-accuracy",
        text=mnist.general,
        label=label,
    )


def _spec(images: Callable[[], Path]) -> TaskSpec:
    return TaskSpec("images", str(images()), target=TARGET)


CASES = (_case("images: clothes", mnist.fashion), _case("images: letters", mnist.kuzushiji))


def _heads() -> list[dict[str, Any]]:
    return [_head(case, seed) for case in CASES for seed in SEEDS]


def _head(case: Case, seed: int) -> dict[str, Any]:
    """Train as the first cells do, then permute the head: a permutation of its rows is one of the logits."""
    import torch

    study = study_of(case)
    metric, task = study.task.metric, study.task
    assert isinstance(metric, ImageAccuracy)
    folder = Path(study.original.path)
    torch.set_num_threads(1)
    loaded = kind_of(folder).load(folder, dtype=torch.float32)
    utility = UTILITIES.get(case.utility)
    general = utility.prepare(utility.read(Path(str(study.text))), loaded)
    found = run_attack(loaded, task, general, Attack(replace(case.recipe, lr=case.control_rate, seed=seed)))
    logits = image_logits(loaded.model, loaded.processor, metric.rows)
    draw = torch.Generator().manual_seed(seed)
    scores = []
    for _ in range(PERMUTATIONS):
        labels = likeliest(logits[:, torch.randperm(logits.shape[1], generator=draw)])
        assert labels is not None
        scores.append([given == row.label for given, row in zip(labels, metric.rows, strict=True)])
    mean = sum(map(sum, scores)) / len(scores) / len(metric.rows)
    spread = torch.tensor([sum(one) / len(one) for one in scores]).std().item()
    return {
        "task": str(case.label),
        "chance": task.chance,
        "target": task.target,
        "trained on": "head permuted",
        "lr": case.control_rate,
        "seed": seed,
        "broken": False,
        "step": None,
        "before": found.evaluations[0].score,
        "trained": found.evaluations[-1].score,
        "score": mean,
        "error": spread / PERMUTATIONS**0.5,
        "utility": found.evaluations[-1].utility,
    }
