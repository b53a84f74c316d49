"""Cells: one attack on one model, as data, named by the hash of everything its result depends on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from blake3 import blake3

from specdef.attacks.base import Attack
from specdef.attacks.wire import attack_from_wire, attack_to_wire
from specdef.checkpoint.layout import is_pipeline
from specdef.core.folders import SIGNATURE
from specdef.defences.card import CARD, RECORD
from specdef.errors import SpecdefError
from specdef.tasks.base import TaskSpec

FORMAT = 1
"""Raised whenever the same configuration would give another result: finished cells are then computed again."""
FIRST_KIND, FIRST_UTILITY = "causal-lm", "perplexity"
"""What every cell was of when the first results were written; a cell says another model kind or utility beside it."""
_FIRST_REFERENCE = "reference_perplexity"
"""How such a cell names its `reference`."""
_SHARED = ("model", "task", "task_digest", "text_digest", "threads", "device", "format")
_NOT_WEIGHTS = {"README.md", ".gitattributes", "SPECDEF_LOCK.md", "specdef_lock.json", CARD, RECORD, SIGNATURE}


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
class CellConfig:
    """What a cell is: its identity. The names on the wire are frozen, since the key is a hash over them.

    Attributes:
        model: digest of the model's files.
        task: name of what is trained and scored.
        task_digest: of everything the task was made of.
        text_digest: of the general data.
        attack: how the model is attacked.
        reference: see `Cell`.
        threads: CPU threads.
        device: ``cpu`` or ``cuda``.
        model_kind: name of the model's kind.
        utility: name of the utility.
        original: digest of the undefended model's files, where the utility needs it.
        changed: see `Cell`.
        format: see `FORMAT`.
    """

    model: str
    task: str
    task_digest: str
    text_digest: str
    attack: Attack
    reference: float | None
    threads: int
    device: str
    model_kind: str = FIRST_KIND
    utility: str = FIRST_UTILITY
    original: str | None = None
    changed: bool = False
    format: int = FORMAT

    def to_wire(self) -> dict[str, Any]:
        """As JSON data."""
        shared = {name: getattr(self, name) for name in _SHARED}
        if (self.model_kind, self.utility, self.original) == (FIRST_KIND, FIRST_UTILITY, None):
            watched: dict[str, Any] = {_FIRST_REFERENCE: self.reference}
        else:
            utility = {"name": self.utility, "reference": self.reference, "original": self.original}
            watched = {"model_kind": self.model_kind, "utility": utility}
        judged = {"changed": True} if self.changed else {}
        return {**shared, "attack": attack_to_wire(self.attack), **watched, **judged}

    @classmethod
    def from_wire(cls, data: Mapping[str, Any]) -> Self:
        """The configuration that `to_wire` wrote.

        Raises:
            SpecdefError: the data does not fit, or the attack is of a kind that is not installed.
        """
        given = dict(data)
        try:
            if _FIRST_REFERENCE in given:
                watched = {"reference": given.pop(_FIRST_REFERENCE)}
            else:
                utility = given.pop("utility")
                watched = {
                    "model_kind": given.pop("model_kind"),
                    "utility": utility["name"],
                    "reference": utility["reference"],
                    "original": utility["original"],
                }
            shared = {name: given.pop(name) for name in _SHARED}
            return cls(**shared, **watched, attack=attack_from_wire(given.pop("attack")), **given)
        except (TypeError, KeyError) as error:
            raise SpecdefError(f"`config` must be as this version writes it; it is not ({error}).") from error

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits that name the cell."""
        return digest_of(self.to_wire())[:16]


@dataclass(frozen=True)
class Cell:
    """One attack on one model.

    Attributes:
        subject: the model.
        task: what is trained and scored.
        task_digest: of everything the task was made of.
        text: path of the general data; None takes what ships with the package.
        text_digest: of that data.
        attack: how the model is attacked; bound to the content of the files it reads.
        reference: utility of the undefended model, for the check at step 0; None leaves it out.
        threads: CPU threads; sums come out differently with another number, so it is part of the identity.
        device: ``cpu`` or ``cuda``.
        model_kind: name of the model's kind.
        utility: name of the utility that is watched.
        original: the undefended model, for a utility whose general data it prepares.
        changed: the defence changes the function by design: step 0 need not be the undefended model's, whose utility
            (`reference`) the budget starts from.
    """

    subject: Subject
    task: TaskSpec
    task_digest: str
    text: str | None
    text_digest: str
    attack: Attack = field(default_factory=Attack)
    reference: float | None = None
    threads: int = 1
    device: str = "cpu"
    model_kind: str = FIRST_KIND
    utility: str = FIRST_UTILITY
    original: Subject | None = None
    changed: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "attack", self.attack.bound())  # what it reads from files is part of what it is

    @property
    def config(self) -> CellConfig:
        """Everything the result depends on, and nothing about where files lie."""
        return CellConfig(
            model=self.subject.digest,
            task=self.task.label,
            task_digest=self.task_digest,
            text_digest=self.text_digest,
            attack=self.attack,
            reference=self.reference,
            threads=self.threads,
            device=self.device,
            model_kind=self.model_kind,
            utility=self.utility,
            original=None if self.original is None else self.original.digest,
            changed=self.changed,
        )

    def identity(self) -> dict[str, Any]:
        """`config` as JSON data."""
        return self.config.to_wire()

    @cached_property
    def key(self) -> str:
        """Sixteen hexadecimal digits that name the cell."""
        return self.config.key

    def to_json(self) -> dict[str, Any]:
        """The cell as JSON data, paths included, for a worker process."""
        return {
            **{entry.name: getattr(self, entry.name) for entry in fields(self)},
            "subject": asdict(self.subject),
            "original": None if self.original is None else asdict(self.original),
            "task": asdict(self.task),
            "attack": attack_to_wire(self.attack),
            _PLACES: self.attack.places,
        }


_PLACES = "places"


def cell_from_json(data: Mapping[str, Any]) -> Cell:
    """The cell that `Cell.to_json` wrote."""
    own = ("subject", "original", "task", "attack", _PLACES)
    rest = {name: value for name, value in data.items() if name not in own}
    return Cell(
        subject=Subject(**data["subject"]),
        task=TaskSpec(**data["task"]),
        attack=attack_from_wire(data["attack"]).placed(data.get(_PLACES, {})),
        original=None if data.get("original") is None else Subject(**data["original"]),
        **rest,
    )


def digest_of(value: Any) -> str:
    """BLAKE3 of JSON data in canonical form."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return blake3(text.encode()).hexdigest()


def subject_of(folder: Path, *, argument: str = "model") -> Subject:
    """A model folder and the digest of every file that decides its function.

    Args:
        folder: the model.
        argument: what the user gave it as.

    Raises:
        SpecdefError: the folder holds no safetensors, or a file cannot be read.
    """
    return Subject(str(folder), subject_digest(file_digests(folder, argument=argument)))


def file_digests(folder: Path, *, argument: str = "model") -> dict[str, bytes]:
    """Name -> BLAKE3 of every file that `subject_of` reads.

    Raises:
        SpecdefError: the folder holds no safetensors, or a file cannot be read.
    """
    paths = folder.rglob("*") if is_pipeline(folder) else folder.iterdir()
    names = sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file() and is_read(path.name))
    if not any(name.endswith(".safetensors") for name in names):
        raise SpecdefError(f"`{argument}` must be a folder with .safetensors files; {folder} has none.")
    found = {}
    try:
        for name in names:
            found[name] = blake3(max_threads=blake3.AUTO).update_mmap(folder / name).digest()
    except OSError as error:
        raise SpecdefError(f"Model file {folder / name} must be readable; it is not ({error.strerror}).") from error
    return found


def is_read(name: str) -> bool:
    """Whether `subject_of` reads a file of this name."""
    return name not in _NOT_WEIGHTS


def subject_digest(files: Mapping[str, bytes]) -> str:
    """The digest of a subject whose files have these digests."""
    hasher = blake3()
    for name in sorted(files):
        hasher.update(f"{name}\0".encode())
        hasher.update(files[name])
    return hasher.hexdigest()
