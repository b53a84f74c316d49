"""Cells: one attack on one model, as data, named by the hash of everything its result depends on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from blake3 import blake3

from specdef.attacks.lora import AdapterSpec
from specdef.attacks.rewrites.apply import VERSIONS, Rewriting
from specdef.attacks.run import Attack
from specdef.defences.card import CARD, RECORD
from specdef.errors import SpecdefError
from specdef.tasks.base import TaskSpec
from specdef.training.recipe import Recipe

FORMAT = 1
"""Raised whenever the same configuration would give another result: finished cells are then computed again."""
_NOT_WEIGHTS = {"README.md", ".gitattributes", "SPECDEF_LOCK.md", "specdef_lock.json", CARD, RECORD}


@dataclass(frozen=True)
class Subject:
    """A model folder under attack. Its path is where it lies today; its digest is what it is."""

    path: str
    digest: str

    @property
    def name(self) -> str:
        """What people call the model: its hub id where it lies in the hub's cache, else its folder's name.

        Example:
            >>> Subject("/cache/hub/models--org--small/snapshots/0a1b", "").name, Subject("runs/locked", "").name
            ('org/small', 'locked')
        """
        place = Path(self.path).resolve()
        hub = place.parent.parent.name
        if place.parent.name == "snapshots" and hub.startswith("models--"):
            return hub.removeprefix("models--").replace("--", "/")
        return place.name


@dataclass(frozen=True)
class Cell:
    """One attack on one model.

    Attributes:
        subject: the model.
        task: what is trained and scored.
        task_digest: of everything the task was made of.
        text: path of the general text; None is the bundled prose.
        text_digest: of that text.
        attack: how the model is attacked.
        reference_perplexity: of the undefended model, for the check at step 0; None leaves it out.
        threads: CPU threads; sums come out differently with another number, so it is part of the identity.
        device: ``cpu`` or ``cuda``.
    """

    subject: Subject
    task: TaskSpec
    task_digest: str
    text: str | None
    text_digest: str
    attack: Attack = field(default_factory=Attack)
    reference_perplexity: float | None = None
    threads: int = 1
    device: str = "cpu"

    def identity(self) -> dict[str, Any]:
        """Everything the result depends on, and nothing about where files lie."""
        return {
            "format": FORMAT,
            "model": self.subject.digest,
            "task": self.task.name,
            "task_digest": self.task_digest,
            "text_digest": self.text_digest,
            "attack": attack_to_json(self.attack),
            "reference_perplexity": self.reference_perplexity,
            "threads": self.threads,
            "device": self.device,
        }

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that name the cell."""
        return digest_of(self.identity())[:16]

    def to_json(self) -> dict[str, Any]:
        """The cell as JSON data, paths included, for a worker process."""
        return {**asdict(self), "attack": attack_to_json(self.attack)}


def cell_from_json(data: Mapping[str, Any]) -> Cell:
    """The cell that `Cell.to_json` wrote."""
    rest = {name: value for name, value in data.items() if name not in ("subject", "task", "attack")}
    return Cell(
        subject=Subject(**data["subject"]),
        task=TaskSpec(**data["task"]),
        attack=attack_from_json(data["attack"]),
        **rest,
    )


def attack_to_json(attack: Attack) -> dict[str, Any]:
    """An attack as JSON data. What was added after the first results existed is left out where it is at its default."""
    data = {**asdict(attack), "recipe": recipe_to_json(attack.recipe)}
    if attack.rewrite is not None and attack.rewrite.kind in VERSIONS:
        data["rewrite"]["version"] = VERSIONS[attack.rewrite.kind]
    return {name: value for name, value in data.items() if value or name not in ("rewrite", "channel_rates")}


_WIRE = {"gradient_accumulation_steps": "accumulation", "max_grad_norm": "clip", "retain_weight": "general_share"}
"""Field of `Recipe` -> its name in cells, frozen when the first results were written."""
_FIELD = {wire: name for name, wire in _WIRE.items()}


def recipe_to_json(recipe: Recipe) -> dict[str, Any]:
    """A recipe as JSON data; later additions at their defaults left out, as in `attack_to_json`."""
    return {
        _WIRE.get(name, name): value
        for name, value in asdict(recipe).items()
        if value or name not in ("clip_each", "eps")
    }


def recipe_from_json(data: Mapping[str, Any]) -> Recipe:
    """The recipe that `recipe_to_json` wrote."""
    return Recipe(**{_FIELD.get(name, name): value for name, value in data.items()})


def attack_from_json(data: Mapping[str, Any]) -> Attack:
    """The attack that a cell's configuration describes."""
    attack = dict(data)
    adapter, recipe = attack.pop("adapter"), recipe_from_json(attack.pop("recipe"))
    if attack.get("rewrite") is not None:
        attack["rewrite"] = Rewriting(attack["rewrite"]["kind"], dict(attack["rewrite"]["options"]))
    if adapter is not None:
        adapter = AdapterSpec(**{**adapter, "targets": tuple(adapter["targets"])})
    return Attack(recipe=recipe, adapter=adapter, **attack)


def digest_of(value: Any) -> str:
    """BLAKE3 of JSON data in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return blake3(text.encode()).hexdigest()


def subject_of(folder: Path) -> Subject:
    """A model folder and the digest of every file that decides its function.

    Raises:
        SpecdefError: the folder holds no safetensors, or a file cannot be read.
    """
    names = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in _NOT_WEIGHTS)
    if not any(name.endswith(".safetensors") for name in names):
        raise SpecdefError(f"`model` must be a folder with .safetensors files; {folder} has none.")
    hasher = blake3()
    try:
        for name in names:
            hasher.update(f"{name}\0".encode())
            hasher.update(blake3(max_threads=blake3.AUTO).update_mmap(folder / name).digest())
    except OSError as error:
        raise SpecdefError(f"Model file {folder / name} must be readable; it is not ({error.strerror}).") from error
    return Subject(str(folder), hasher.hexdigest())
