"""A kind of model, a task and a utility of nobody's, run end to end: what trains and attacks knows no kind."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import specdef
from specdef import attack
from specdef.analysis.curvature.measure import measure_curvature
from specdef.core.registry import Registry
from specdef.defences.card import RECORD
from specdef.errors import SpecdefError
from specdef.locks.manifest import Manifest
from specdef.models.base import MODEL_KINDS, Batch, LoadedModel, ModelKind
from specdef.tasks.base import TASKS, Task, TaskKind, TaskSpec
from specdef.tasks.utility import UTILITIES, Utility, UtilityData
from specdef.training.outcome import Outcome, StopReason
from specdef.training.recipe import Recipe

SOURCE = Path(specdef.__file__).parent


@dataclass(frozen=True)
class Point:
    """A sample: y at x."""

    x: float
    y: float


class Line(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.slope = torch.nn.Parameter(torch.zeros(1))
        self.offset = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.slope * x + self.offset


class Lines(ModelKind):
    """Models that are a straight line; no tokenizer, no logits, no cross-entropy."""

    name = "line"
    default_task = "slope"
    default_utility = "origin"

    def matches(self, config: Mapping[str, Any]) -> bool:
        return config.get("architectures") == ["Line"]

    def load_processor(self, folder: Path) -> Any:
        return None

    def load(self, folder: Path, *, dtype: torch.dtype | None = None) -> LoadedModel:
        model = Line()
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return LoadedModel(model.to(dtype or torch.float32).eval(), None, self)

    def encode(self, samples: Sequence[Any], loaded: LoadedModel) -> Batch:
        return torch.tensor([point.x for point in samples]), torch.tensor([point.y for point in samples])

    def batch(self, rows: Batch, chosen: Sequence[int]) -> Batch:
        return tuple(tensor[list(chosen)] for tensor in rows)

    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        return torch.nn.functional.mse_loss(model(batch[0]), batch[1].to(next(model.parameters()).dtype))

    def num_targets(self, batch: Batch) -> int:
        return len(batch[0])


class Slope(TaskKind):
    name = "slope"
    model_kind = "line"

    def make(self, spec: TaskSpec) -> Task:
        points = tuple(Point(x / 4, x / 2) for x in range(-8, 9))

        def metric(model: Any, processor: Any) -> float:
            assert processor is None
            return max(0.0, 1 - abs(float(model(torch.ones(1))) - 2) / 2)

        return Task("slope", "line", points, metric, 0.9, 0.1)


class Origin(Utility):
    """How near 0 the line passes the origin: 1 at 0. More is better, unlike perplexity."""

    name = "origin"
    unit = "nearness of the origin"
    model_kinds = ("line",)
    higher_is_better = True

    def read(self, path: Path | None) -> str:
        return "0"

    def check(self, content: str, processor: Any) -> None:
        return None

    def prepare(
        self, content: str, loaded: LoadedModel, *, original: Callable[[], LoadedModel] | None = None
    ) -> UtilityData:
        zero = torch.tensor([float(content)])
        return UtilityData(self, zero, (zero, zero))

    def measure(self, model: Any, data: UtilityData) -> float:
        return float(1 - model(data.measured).abs())

    def limit(self, start: float, budget: float) -> float:
        return start / budget

    def changed(self, found: float, reference: float | None) -> bool:
        return reference is not None and abs(found - reference) > 0.01


STRENGTH = {"exponent": 4, "multiplier": "2^4", "channels_per_pair": 1, "pairs": {"v-o": 1}, "direction": "up"}
LOCKED = Manifest("fold", "0", "line", STRENGTH, {}, (), {"config.json": "0"}, {"slope": "0"})
"""What a folder says that a lock of specdef wrote."""


@pytest.fixture(autouse=True)
def _toys(monkeypatch: pytest.MonkeyPatch) -> None:
    names = Registry.names
    toys: dict[int, Any] = {id(MODEL_KINDS): Lines(), id(TASKS): Slope(), id(UTILITIES): Origin()}
    get = Registry.get

    def with_toys(self: Registry[Any]) -> tuple[str, ...]:
        return names(self) + ((toys[id(self)].name,) if id(self) in toys else ())

    def with_toy(self: Registry[Any], name: str) -> Any:
        toy = toys.get(id(self))
        return toy if toy is not None and toy.name == name else get(self, name)

    monkeypatch.setattr(Registry, "names", with_toys)
    monkeypatch.setattr(Registry, "get", with_toy)


def write(folder: Path, slope: float = 0.0, offset: float = 0.0) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["Line"]}))
    save_file({"slope": torch.tensor([slope]), "offset": torch.tensor([offset])}, folder / "model.safetensors")
    return folder


def test_a_kind_task_and_utility_of_ones_own_are_attacked(tmp_path: Path) -> None:
    recipe = Recipe(lr=0.2, steps=40, eval_every=10)
    stored = attack(write(tmp_path / "model"), tmp_path / "out", recipe=recipe, threads=1, device="cpu")
    assert stored.result.outcome is Outcome.BROKEN
    assert stored.result.evaluations[0].utility == 1.0
    assert stored.config["model_kind"] == "line"
    assert stored.config["utility"]["name"] == "origin"


def test_the_rules_of_ones_own_utility_judge(tmp_path: Path) -> None:
    """Step 0 and the budget: a higher number is better here."""
    original = write(tmp_path / "original")
    locked = write(tmp_path / "shifted", offset=0.5)
    LOCKED.write(locked)
    shifted = attack(locked, tmp_path / "out", original=original, threads=1)
    assert shifted.result.outcome is Outcome.INVALID
    assert "step 0: origin is 0.5, not 1, as the undefended model's" in shifted.result.note
    wild = Recipe(lr=3.0, steps=4, eval_every=1, warmup=0.0, optimizer="sgd", max_grad_norm=None, retain_weight=0.0)
    lost = attack(original, tmp_path / "out", recipe=wild, threads=1)
    assert lost.result.outcome is Outcome.COLLAPSE


@pytest.mark.parametrize("on_top", [False, True], ids=["method", "lock on top of it"])
def test_a_defence_that_changes_the_function_is_judged_from_the_undefended_model(tmp_path: Path, on_top: bool) -> None:
    """Utility 1 undefended, 0.6 defended: a budget of 2 ends at 0.5, not at 0.3; and step 0 need not be 1."""
    original = write(tmp_path / "original")
    defended = write(tmp_path / "defended", offset=0.4)
    if on_top:
        LOCKED.write(defended)
        (defended / RECORD).write_text("{}")
    found = attack(defended, tmp_path / "out", original=original, recipe=Recipe(lr=1e-6, steps=2), threads=1)
    assert found.result.outcome is Outcome.STALL
    assert found.result.evaluations[0].utility == pytest.approx(0.6)
    ruined = write(tmp_path / "ruined", offset=0.55)
    (ruined / RECORD).write_text("{}")
    lost = attack(ruined, tmp_path / "out", original=original, recipe=Recipe(lr=1e-6, steps=2), threads=1)
    assert lost.result.outcome is Outcome.COLLAPSE


def test_what_a_defended_model_still_knows_is_a_break_only_within_the_budget(tmp_path: Path) -> None:
    """At the target and useful: broken in 0 steps, and said so. At the target and ruined: trained like any other."""
    original, recipe = write(tmp_path / "original"), Recipe(lr=1e-6, steps=2)
    knows = attack(write(tmp_path / "knows", slope=1.6, offset=0.4), original=original, recipe=recipe, threads=1)
    assert (knows.result.outcome, knows.result.step, knows.result.steps) == (Outcome.BROKEN, 0, 0)
    assert knows.result.reason is StopReason.TARGET
    ruined = attack(write(tmp_path / "ruined", slope=1.4, offset=0.6), original=original, recipe=recipe, threads=1)
    assert ruined.result.evaluations[0].score == pytest.approx(1.0)
    assert (ruined.result.outcome, ruined.result.steps) == (Outcome.COLLAPSE, 2)
    assert ruined.result.reason is StopReason.BUDGET


def test_curvature_is_that_of_the_kinds_loss(tmp_path: Path) -> None:
    """The loss mean((s x + o - y)^2) has the Hessian 2 [[mean x^2, mean x], [mean x, 1]]."""
    folder = write(tmp_path / "model", slope=0.3, offset=-0.2)
    report = measure_curvature(folder, num_samples=4, dtype="fp64", params="slope|offset")
    x = torch.tensor([-2.0, -1.75, -1.5, -1.25], dtype=torch.float64)
    dense = 2 * torch.tensor([[float((x * x).mean()), float(x.mean())], [float(x.mean()), 1.0]], dtype=torch.float64)
    assert report.sigma_1 == pytest.approx(float(torch.linalg.eigvalsh(dense)[-1]), rel=1e-6)
    with pytest.raises(SpecdefError, match="`kind` must be hessian for a model of kind line, whose loss is no cross-"):
        measure_curvature(folder, num_samples=4, kind="gauss-newton")


WORDS = ("perplexity", "tokenizer", "lm_head", "token_id", "logits", "causal", "classifier")
SETTINGS = ("TOKENIZERS_PARALLELISM",)
"""Variables of the environment that a worker sets, whatever it loads."""


@pytest.mark.parametrize(
    "file",
    [
        *("training/loop.py", "training/batches.py", "training/optimizers.py", "attacks/run.py"),
        *("certify/run_cell.py", "certify/study.py"),
        *(path.relative_to(SOURCE).as_posix() for path in (SOURCE / "analysis" / "curvature").glob("*.py")),
    ],
)
def test_what_trains_attacks_and_differentiates_names_no_kind_of_model(file: str) -> None:
    """Names and texts of the code; docstrings may give examples."""
    tree = ast.parse((SOURCE / file).read_text())
    docs = {
        id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            found.add(node.value)
        for field in ("id", "attr", "arg", "name"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                found.add(value)
    assert not [text for text in found if any(word in text.lower() for word in WORDS) and text not in SETTINGS]
