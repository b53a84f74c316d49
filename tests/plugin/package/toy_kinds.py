"""One lock, defence, rewrite, intervention, task, threat model, model kind and utility of another package."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from specdef.attacks.base import Intervention, RewriteReport, Trains
from specdef.certify.findings import Findings
from specdef.certify.study import Study
from specdef.certify.threat_model import Plan, ThreatModel
from specdef.certify.trials import locked_cell, trying
from specdef.defences.base import Applied, Defence, Given
from specdef.locks.base import Check, Evidence, LockFacts, LockKind, ModuleLock, PreparedLock, Sign
from specdef.locks.edits import Edit, inverse, shard_edits
from specdef.locks.key import Key
from specdef.models.base import Batch, LoadedModel, ModelKind
from specdef.tasks.base import Task, TaskKind, TaskSpec
from specdef.tasks.utility import Utility, UtilityData

NORM = "model.layers.0.input_layernorm.weight"


@dataclass(frozen=True)
class ToyOptions:
    note: str = "nothing"
    times: int = 1


class ToyLock(LockKind):
    name = "toy-lock"
    Options = ToyOptions

    def check_options(self, options: Any) -> None:
        assert type(options.times) is int

    def prepare(self, checkpoint: Any, model: Any, options: Any, spool: Path) -> PreparedLock:
        edits = (Edit(NORM, 0, (0,), 2),)
        said = {"kv_cache": "any", "quantisation": "any", "closeness": "roughly", "bit_exact": False}
        exactness = {**said, "exact_in": ["float32"], "not_claimed_in": []}
        scalings = tuple(edit.to_json() for edit in edits)
        where = shard_edits(edits, checkpoint.locate())
        return PreparedLock(
            {"multiplier": "4", "note": options.note, "times": options.times},
            exactness,
            ("nothing",),
            1,
            where,
            key_edits=scalings,
        )

    def claims_hold(self, strength: Mapping[str, Any]) -> bool:
        return bool(strength["multiplier"] == "4")

    def check(self, checkpoint: Any, strength: Mapping[str, Any], original: Any) -> Check:
        return Check("lock", self._first(checkpoint) > 1.5, "the first number of the first norm")

    def recognise(self, evidence: Evidence) -> Sign | None:
        return Sign(self.name, 2, "a large first number") if self._first(evidence.checkpoint) > 1.5 else None

    def invert(self, checkpoint: Any, key: Key) -> Any:
        edits = [Edit(**{**edit, "indices": tuple(edit["indices"])}) for edit in key.edits]
        return shard_edits(inverse(edits), checkpoint.locate())

    def facts(self, strength: Mapping[str, Any]) -> LockFacts:
        return LockFacts(4.0)

    def promise(self, exactness: Mapping[str, Any]) -> str:
        return "Its function is roughly the original's."

    def lock_module(self, module: Any, given: Mapping[str, Any]) -> ModuleLock:
        raise NotImplementedError

    def unlock_module(self, module: Any, originals: Mapping[str, Any]) -> None:
        raise NotImplementedError

    @staticmethod
    def _first(checkpoint: Any) -> float:
        where = checkpoint.locate()
        return float(np.asarray(checkpoint.map_tensor(*where[NORM]))[0]) if NORM in where else 0.0


class ToyDefence(Defence):
    name = "toy-defence"
    summary = "halves the norms"

    def apply(self, given: Given, options: Any) -> Applied:
        for name, parameter in given.loaded.model.named_parameters():
            if "norm" in name:
                parameter.data *= 0.5
        return Applied(data={"none": "0"})


@dataclass(frozen=True)
class ToyRewrite(Intervention):
    """Leave the folder as it is, under another name."""

    name: ClassVar[str] = "toy-rewrite"

    def rewrite(self, folder: Path, out: Path) -> RewriteReport:
        started = time.perf_counter()
        shutil.copytree(folder, out)
        seconds = time.perf_counter() - started
        return RewriteReport(self.name, seconds, 0, 0, "copied", 0.0, "nothing")


@dataclass(frozen=True)
class ToyFreeze(Intervention):
    """Train the offset alone."""

    name: ClassVar[str] = "toy-freeze"
    trains: ClassVar[Trains] = Trains.PART

    def modify(self, loaded: Any, batch: Any, recipe: Any) -> Any:
        for name, parameter in loaded.model.named_parameters():
            parameter.requires_grad_(name == "offset")
        return loaded.model


@dataclass(frozen=True)
class Point:
    x: float
    y: float


class ToyModel(ModelKind):
    name = "toy-model"
    default_task = "toy-task"
    default_utility = "toy-utility"

    def matches(self, config: Mapping[str, Any]) -> bool:
        return config.get("architectures") == ["Line"]

    def load_processor(self, folder: Path) -> Any:
        return None

    def load(self, folder: Path, *, dtype: Any = None) -> LoadedModel:
        import torch
        from safetensors.torch import load_file

        class Line(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.slope = torch.nn.Parameter(torch.zeros(1))
                self.offset = torch.nn.Parameter(torch.zeros(1))

            def forward(self, x: Any) -> Any:
                return self.slope * x + self.offset

        model = Line()
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return LoadedModel(model.to(dtype or torch.float32).eval(), None, self)

    def encode(self, samples: Sequence[Any], loaded: LoadedModel) -> Batch:
        import torch

        return torch.tensor([point.x for point in samples]), torch.tensor([point.y for point in samples])

    def batch(self, rows: Batch, chosen: Sequence[int]) -> Batch:
        return tuple(tensor[list(chosen)] for tensor in rows)

    def loss(self, model: Any, batch: Batch) -> Any:
        import torch

        return torch.nn.functional.mse_loss(model(batch[0]), batch[1].to(next(model.parameters()).dtype))

    def num_targets(self, batch: Batch) -> int:
        return len(batch[0])


class ToyTask(TaskKind):
    name = "toy-task"
    model_kind = "toy-model"

    def make(self, spec: TaskSpec) -> Task:
        import torch

        points = tuple(Point(x / 4, x / 2) for x in range(-8, 9))

        def metric(model: Any, processor: Any) -> float:
            return max(0.0, 1 - abs(float(model(torch.ones(1))) - 2) / 2)

        return Task(self.name, self.model_kind, points, metric, 0.9, 0.1)


class ToyUtility(Utility):
    name = "toy-utility"
    unit = "nearness of the origin"
    model_kinds = ("toy-model",)
    higher_is_better = True

    def read(self, path: Path | None) -> str:
        return "0"

    def check(self, content: str, processor: Any) -> None:
        return None

    def prepare(
        self, content: str, loaded: LoadedModel, *, original: Callable[[], LoadedModel] | None = None
    ) -> UtilityData:
        import torch

        zero = torch.tensor([float(content)])
        return UtilityData(self, zero, (zero, zero))

    def measure(self, model: Any, data: UtilityData) -> float:
        return float(1 - model(data.measured).abs())

    def limit(self, start: float, budget: float) -> float:
        return start / budget

    def changed(self, found: float, reference: float | None) -> bool:
        return reference is not None and abs(found - reference) > 0.01


class ToyThreat(ThreatModel):
    name: ClassVar[str] = "T9"
    title: ClassVar[str] = "training the offset alone"

    def cells(self, study: Study, findings: Findings) -> Plan:
        yield [locked_cell(study, findings, trial.attack(study)) for trial in trying(findings.working[:1], ToyFreeze())]


LOCK, DEFENCE, TASK, THREAT = ToyLock(), ToyDefence(), ToyTask(), ToyThreat()
MODEL, UTILITY = ToyModel(), ToyUtility()


def write_line(folder: Path) -> None:
    """A model of this package's kind."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"architectures": ["Line"]}))
    save_file({"slope": torch.zeros(1), "offset": torch.zeros(1)}, folder / "model.safetensors")
