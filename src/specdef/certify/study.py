"""What is being certified: two models, a task, general text, and the recipe everything varies from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from blake3 import blake3

from specdef.architectures.registry import part_names_of
from specdef.architectures.spec import LLAMA_NAMES, PartNames
from specdef.attacks.base import Attack, Intervention
from specdef.attacks.base_weights import weights_digest
from specdef.certify.attack_plan import AttackPlan
from specdef.certify.cell import FIRST_KIND, FIRST_UTILITY, Cell, Subject, digest_of, subject_of
from specdef.certify.effort import QUICK, STANDARD, Effort, effort_of
from specdef.certify.resources import Resources
from specdef.checkpoint.layout import load_config
from specdef.defences.card import RECORD
from specdef.errors import SpecdefError
from specdef.locks.base import LOCKS
from specdef.locks.manifest import MANIFEST, read_manifest
from specdef.models.base import kind_of
from specdef.tasks.base import TASKS, Task, TaskSpec, check_kind, make_task
from specdef.tasks.utility import UTILITIES, utility_for
from specdef.training.outcome import StopRule
from specdef.training.recipe import Recipe

SERIAL = Resources(1, 1, "cpu")
WINDOW = (3e-5, 1e-4, 3e-4, 1e-3)
"""Learning rates of an ordinary fine-tuning run with Adam."""
UNKNOWN_MULTIPLIER = 2.0**20
"""How far below the ordinary window learning rates are searched when nothing says what the multiplier is."""


class MultiplierSource(StrEnum):
    """Who says how strong a lock is."""

    MANIFEST = "manifest"
    OPTION = "option"
    DEFAULT = "default"
    NO_LOCK = "no lock"


@dataclass(frozen=True)
class Study:
    """One certificate's subject matter.

    Attributes:
        original: the undefended model.
        locked: the model under test; the same as `original` to certify an unlocked model.
        method: ``fold``, ``inject`` or ``none`` from the manifest, ``unknown`` without one.
        multiplier: alpha; learning rates are searched down to the ordinary ones divided by it.
        multiplier_source: who says so.
        locked_modules: modules the lock replaced, where the manifest names them.
        task: description, digest and the task itself.
        text: path of the general data, None for what ships with the package.
        recipe: steps, batch size and so on of an ordinary attack.
        window: the ordinary learning rates, ascending.
        resources: where cells run; its threads and device are part of every cell's identity.
        model_kind: name of both models' kind.
        utility: name of the utility that is watched.
        effort: how closely, widely and long is searched.
        part_names: of what attackers train alone, or put adapters beside.
        also: the user's own attacks.
        changed: whether the defence of `locked` changes the function by design; see `Cell`.
        stop: when a run that decides something ends before its last step.
        base: the public base weights, their digest being of the weights alone; None where nobody says what they are.
    """

    original: Subject
    locked: Subject
    method: str
    multiplier: float
    multiplier_source: MultiplierSource
    locked_modules: tuple[str, ...]
    spec: TaskSpec
    task: Task
    task_digest: str
    text: str | None
    text_digest: str
    recipe: Recipe
    window: tuple[float, ...] = WINDOW
    utility_factor: float = 2.0
    resources: Resources = SERIAL
    model_kind: str = FIRST_KIND
    utility: str = FIRST_UTILITY
    effort: Effort = STANDARD
    part_names: PartNames = LLAMA_NAMES
    also: tuple[AttackPlan, ...] = ()
    changed: bool = False
    stop: StopRule = "budget"
    base: Subject | None = None

    @property
    def halfway(self) -> float:
        """The score between chance and target; below it an attack is clearly below its target."""
        return (self.task.chance + self.task.target) / 2

    @property
    def places(self) -> dict[str, str]:
        """Where files lie that attacks read, by digest: an attack made again from a result knows the digest alone."""
        found = {} if self.base is None else {self.base.digest: self.base.path}
        return found | {
            key: place for plan in self.also for one in plan.interventions for key, place in one.places().items()
        }

    def cell(
        self,
        subject: Subject,
        *,
        interventions: tuple[Intervention, ...] = (),
        reference: float | None = None,
        changed: bool | None = None,
        stop: StopRule = "budget",
        **changes: Any,
    ) -> Cell:
        """One attack: the ordinary recipe with some changes."""
        recipe = replace(self.recipe, **changes)
        attack = Attack(recipe, interventions, stop, self.utility_factor)
        return self.attacked(subject, attack, reference=reference, changed=changed)

    def attacked(
        self, subject: Subject, attack: Attack, *, reference: float | None = None, changed: bool | None = None
    ) -> Cell:
        """The cell of an attack on one of the models.

        Args:
            subject: the model.
            attack: the attack.
            reference: utility of the undefended model, for the check at step 0; None leaves it out.
            changed: whether the model's defence changes the function by design; the study's own knowledge when None.
        """
        return Cell(
            subject=subject,
            task=self.spec,
            task_digest=self.task_digest,
            text=self.text,
            text_digest=self.text_digest,
            attack=attack.placed(self.places),
            reference=reference,
            threads=self.resources.threads or 1,
            device=self.resources.device or "cpu",
            model_kind=self.model_kind,
            utility=self.utility,
            original=self.original if UTILITIES.get(self.utility).needs_original else None,
            changed=reference is not None and (self.changed and subject == self.locked if changed is None else changed),
        )

    def identity(self) -> dict[str, Any]:
        """What all cells of one results folder have in common."""
        return {
            "original": self.original.digest,
            "locked": self.locked.digest,
            "task": self.spec.name,
            "task_digest": self.task_digest,
            "text_digest": self.text_digest,
            **({} if self.utility == FIRST_UTILITY else {"utility": self.utility}),
            **({} if self.effort == QUICK else {"effort": self.effort.name}),
            **({} if self.stop == "budget" else {"stop": self.stop}),
        }


def make_study(
    locked: Path,
    original: Path,
    task: TaskSpec,
    *,
    text: Path | None = None,
    utility: str | None = None,
    multiplier: float | None = None,
    recipe: Recipe | None = None,
    window: Sequence[float] = WINDOW,
    utility_factor: float = 2.0,
    resources: Resources = SERIAL,
    effort: str = STANDARD.name,
) -> Study:
    """Read the models' kind, manifests and digests, the task and the general data.

    `utility` None takes that of the models' kind.

    Raises:
        SpecdefError: a file is missing or malformed, the task or utility is for another kind of model, the multiplier
            is not above 1, or there is no such effort.
    """
    level = effort_of(effort)
    kind = kind_of(locked)
    if (other := kind_of(original, argument="original")) is not kind:
        raise SpecdefError(
            f"`original` must be a model of kind {kind.name}, as `model` is; {original} is {other.name}."
        )
    check_kind(TASKS.get(task.name), kind)
    watched = utility_for(kind, utility)
    made = make_task(task)
    content = watched.read(text)
    check_multiplier(multiplier)
    check_window(window)
    lock = _lock_of(locked)
    first, second = subject_of(original, argument="original"), subject_of(locked)
    if first.digest == second.digest:
        lock = _Lock("none", 1.0, MultiplierSource.NO_LOCK)
    if multiplier is not None:
        lock = replace(lock, multiplier=multiplier, source=MultiplierSource.OPTION)
    return Study(
        original=first,
        locked=second,
        method=lock.method,
        multiplier=lock.multiplier,
        multiplier_source=lock.source,
        locked_modules=lock.modules,
        spec=task,
        task=made,
        task_digest=digest_of(made.fingerprint()),
        text=None if text is None else str(text),
        text_digest=blake3(content.encode()).hexdigest(),
        recipe=recipe or Recipe(),
        window=tuple(sorted(set(window))),
        utility_factor=utility_factor,
        resources=resources.for_model(original),
        model_kind=kind.name,
        utility=watched.name,
        effort=level,
        stop=level.stop,
        part_names=part_names_of(load_config(original)),
        changed=first.digest != second.digest and changes_function(locked),
    )


def base_of(study: Study, given: Path | None) -> Subject | None:
    """The public base weights of a study: those given, or the undefended model where the one under test has a lock.

    A lock was made of that model and computes what it does, so whoever has the public weights has those. Of another
    defence only the user knows.

    Raises:
        SpecdefError: the folder is no model that can be read.
    """
    folder = Path(study.original.path) if given is None and study.method in LOCKS.names() else given
    return None if folder is None else Subject(str(folder), weights_digest(folder))


def check_multiplier(multiplier: float | None) -> None:
    """Refuse a multiplier that no lock has.

    Raises:
        SpecdefError: it is outside 1 to 2^60.
    """
    if multiplier is not None and not 1 <= multiplier <= 2.0**60:
        raise SpecdefError(f"`multiplier` must lie between 1 and 2^60; got {multiplier:g}.")


def check_window(window: Sequence[float]) -> None:
    """Refuse learning rates that make no window.

    Raises:
        SpecdefError: fewer than two, or one that is not a number above 0.
    """
    if len(set(window)) < 2 or not all(0 < one < float("inf") for one in window):
        raise SpecdefError(f"`window` must be two or more learning rates above 0; got {', '.join(map(str, window))}.")


@dataclass(frozen=True)
class _Lock:
    """What is known of the lock of the model under test."""

    method: str
    multiplier: float
    source: MultiplierSource
    modules: tuple[str, ...] = ()


def _lock_of(folder: Path) -> _Lock:
    if not (folder / MANIFEST).is_file():
        return _Lock("unknown", UNKNOWN_MULTIPLIER, MultiplierSource.DEFAULT)
    manifest, source = read_manifest(folder), MultiplierSource.MANIFEST
    facts = LOCKS.get(manifest.method).facts(manifest.strength)
    return _Lock(manifest.method, facts.multiplier, source, facts.modules)


def changes_function(folder: Path) -> bool:
    """Whether a defended folder is one whose defence changes the function by design: any but a lock that keeps it.

    A lock on top of such a defence is one too.
    """
    if not (folder / MANIFEST).is_file() or (folder / RECORD).is_file():
        return True
    return not LOCKS.get(read_manifest(folder).method).keeps_function
