"""What a study takes, told before anything is run: cells, memory of a device from a model's real shapes, hours.

The model is built on torch's meta device, which knows shapes and holds no numbers: a configuration is enough.

Math:
    weights, gradients and optimizer states are shared out over the devices of a cell. Gathered at once are the largest
    layer and what lies outside of layers, as weights and as gradients. Activations are those of one layer, 34 bytes per
    token and hidden unit in 16-bit arithmetic (Korthikanti et al. 2022, section 4.1, without the attention matrix,
    which fused kernels do not keep), the input of every layer (activation checkpointing keeps no more), and the logits
    with their gradient. A step takes 8 operations per weight and token with checkpointing: 2 forward, 2 again, 4
    backward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from specdef.certify.study_file import read_study
from specdef.certify.study_plan import StudyPlan, plan_study
from specdef.errors import SpecdefError
from specdef.models.base import kind_of
from specdef.models.empty import empty_model
from specdef.models.sources import find_config
from specdef.tasks.base import make_task, parse_task
from specdef.training.optimizers import optimizer_spec
from specdef.training.recipe import Recipe

ROW = 128
"""Tokens of a task's row, taken for all of them; those of the bundled tasks are shorter."""
MEASURED = 12 * 128
"""Tokens of general text that an evaluation reads."""
ASKED = 32
"""Tokens of a question with one of its answers."""
ANSWERS = 4
"""Answers of a question."""
GIB = 2**30


@dataclass(frozen=True)
class Shapes:
    """Numbers of a model.

    Attributes:
        parameters: in all.
        layer: of the largest layer.
        outside: of what lies outside of layers, such as embeddings.
        layers: how many layers.
        hidden: width of the stream between them.
        vocabulary: rows of the output head.
    """

    parameters: int
    layer: int
    outside: int
    layers: int
    hidden: int
    vocabulary: int


@dataclass(frozen=True)
class Memory:
    """Bytes on one device, by what takes them."""

    weights: float
    gradients: float
    optimizer: float
    gathered: float
    activations: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.weights + self.gradients + self.optimizer + self.gathered + self.activations


@dataclass(frozen=True)
class ModelForecast:
    """What one model of a study takes.

    Attributes:
        label: the model's, as the study has it.
        shapes: its numbers.
        cells: attacks on it: defences times tasks times attacks times seeds.
        memory: of one device, of the attack that takes most.
        operations: of all cells.
    """

    label: str
    shapes: Shapes
    cells: int
    memory: Memory
    operations: float


@dataclass(frozen=True)
class Forecast:
    """What a study takes.

    Attributes:
        models: one by one.
        devices: of every cell.
        tflops: operations that one device does in a second, in 10^12.
        workers: cells at once.
    """

    models: tuple[ModelForecast, ...]
    devices: int
    tflops: float
    workers: int

    @property
    def cells(self) -> int:
        """Of all models."""
        return sum(one.cells for one in self.models)

    @property
    def device_hours(self) -> float:
        """Hours of one device for all cells."""
        return sum(one.operations for one in self.models) / (self.tflops * 1e12) / 3600

    @property
    def hours(self) -> float:
        """Hours until the last cell ends, all devices at work."""
        return self.device_hours / self.devices / min(self.workers, max(1, self.cells))


def forecast(study: Path | str, *, devices: int = 1, tflops: float = 100.0, workers: int = 1) -> Forecast:
    """What a study takes, from its file and its models' configurations; no weights are read and nothing is written.

    Args:
        study: a study file that lists attacks.
        devices: of every cell, which share its model (FSDP2).
        tflops: operations that one device does in a second, in 10^12: what it reaches, not what it is sold for.
        workers: cells at once.

    Raises:
        SpecdefError: a fault of the file or of a model's configuration; or the study lists no attacks: the cells of one
            that certifies depend on what earlier ones show.
    """
    check_devices(devices, tflops, workers)
    plan = plan_study(read_study(study))
    if not plan.attacks:
        raise SpecdefError(
            "`dry_run` must be given for a study that lists `attacks`; cells of one that lists `certify` depend on "
            "what earlier ones show."
        )
    models = tuple(_model(plan, one.label, find_config(one.model), devices) for one in plan.models)
    return Forecast(models, devices, tflops, workers)


def check_devices(devices: int = 1, tflops: float = 100.0, workers: int = 1) -> None:
    """Refuse what no forecast can be made with.

    Raises:
        SpecdefError: one of them is too small, or not finite.
    """
    for name, value in (("devices_per_cell", devices), ("workers", workers)):
        if value < 1:
            raise SpecdefError(f"`{name}` must be at least 1; got {value}.")
    if not 0 < tflops < math.inf:
        raise SpecdefError(f"`tflops` must be a number above 0; got {tflops:g}.")


def shapes_of(folder: Path) -> Shapes:
    """The numbers of a causal language model, from its configuration alone.

    Raises:
        SpecdefError: it is of another kind, or transformers cannot build it.
    """
    if not (kind := kind_of(folder)).splits:
        raise SpecdefError(f"`dry_run` must be given for causal language models; {folder} is of kind {kind.name}.")
    model: Any = empty_model(folder)
    named = set(model._no_split_modules or ())
    layers = [module for module in model.modules() if type(module).__name__ in named]
    sizes = [sum(p.numel() for p in layer.parameters()) for layer in layers]
    whole = sum(p.numel() for p in model.parameters())
    text = model.config.get_text_config()
    return Shapes(
        whole, max(sizes, default=0), whole - sum(sizes), len(layers), int(text.hidden_size), int(text.vocab_size)
    )


def memory_of(shapes: Shapes, recipe: Recipe, devices: int) -> Memory:
    """Bytes on one device of a cell whose every weight is trained.

    Args:
        shapes: of the model.
        recipe: says batch, precision and optimizer.
        devices: that share the cell.
    """
    held = 2 if recipe.precision == "bf16" else 4
    computed = 4 if recipe.precision == "fp32" else 2
    own = shapes.parameters / devices * held
    tokens = math.ceil(recipe.batch_size / devices) * ROW
    gathered = 0 if devices == 1 else (shapes.layer + shapes.outside) * 2 * computed
    in_layer = 17 * computed * shapes.hidden
    between = shapes.layers * shapes.hidden * computed
    return Memory(
        weights=own,
        gradients=own,
        optimizer=own * optimizer_spec(recipe.optimizer).states,
        gathered=gathered,
        activations=tokens * (in_layer + between + shapes.vocabulary * (computed + 8)),
    )


def _model(plan: StudyPlan, label: str, folder: Path, devices: int) -> ModelForecast:
    shapes = shapes_of(folder)
    specs = [task.spec for task in plan.tasks] or [parse_task(kind_of(folder).default_task)]
    asked = [len(make_task(spec).samples) * ANSWERS * ASKED for spec in specs]
    copies = len(plan.defences) * len(plan.study.seeds)
    recipes = [replace(plan.recipe, **attack.changes) for attack in plan.attacks]
    operations = sum(_operations(shapes, recipe, tokens) for recipe in recipes for tokens in asked)
    memory = max((memory_of(shapes, recipe, devices) for recipe in recipes), key=lambda one: one.total)
    return ModelForecast(label, shapes, copies * len(recipes) * len(specs), memory, operations * copies)


def _operations(shapes: Shapes, recipe: Recipe, asked: int) -> float:
    """Of one cell: its steps, and an evaluation at the start and after every so many."""
    trained = recipe.steps * recipe.gradient_accumulation_steps * recipe.batch_size * ROW * (1 + recipe.retain_weight)
    evaluations = 1 + math.ceil(recipe.steps / recipe.eval_every)
    return shapes.parameters * (8 * trained + 2 * evaluations * (MEASURED + asked))
