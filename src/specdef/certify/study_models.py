"""The models of a study: found, prepared, defended; each copy made once and named by what it was made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from specdef.certify.cell import subject_of
from specdef.certify.study_faults import StudyError, at, refuse_twins
from specdef.certify.study_file import PLAIN, ModelEntry, StudyFile
from specdef.core.schema import digest
from specdef.defences.base import DEFENCES
from specdef.defences.data import NAMES, DataSpec, named_data, read_data
from specdef.defences.defend import defend
from specdef.defences.options import make_options
from specdef.errors import SpecdefError
from specdef.locks.lock import lock
from specdef.locks.presets import find_preset, lock_options

_LOCK, _DEFENCE = "preset", "method"


@dataclass(frozen=True)
class DefencePlan:
    """How a copy of a model is made.

    Attributes:
        label: shown in tables.
        lock: name of a preset or a kind of lock; None for another defence, or none at all.
        method: name of a defence that is no lock.
        options: of the lock or defence.
        seed: decides its draws.
        data: what a method is to remove and to keep; None for one that brings its own data.
        chain: plans that are applied one after another instead, such as a lock on top of a method.
    """

    label: str
    lock: str | None = None
    method: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    data: DataSpec | None = None
    chain: tuple[DefencePlan, ...] = ()

    @property
    def changes(self) -> bool:
        """Whether it makes a copy at all."""
        return self.lock is not None or self.method is not None or bool(self.chain)

    @property
    def changes_function(self) -> bool:
        """Whether the copy computes something else by design: after a method, with a lock on top of it or not, or after
        a lock that does not keep the function."""
        if self.lock is not None:
            return not find_preset(self.lock)[0].keeps_function
        return self.method is not None or any(part.changes_function for part in self.chain)

    def apply(self, source: Path, out: Path, text: Path | None) -> None:
        """Write the copy. A lock's key is not kept: the same lock is made again from the same arguments."""
        if self.lock is not None:
            key = out.with_name(f"{out.name}.specdef-key")
            key.unlink(missing_ok=True)  # of a run that was killed
            lock(source, out, preset=self.lock, seed=self.seed, key=key, **self.options)
            key.unlink(missing_ok=True)
        elif self.method is not None:
            defend(self.method, source, out, options=self.options, seed=self.seed, text=text, data=self.data)


@dataclass(frozen=True)
class ModelPlan:
    """One model of a study, and what is done to it before it counts as undefended."""

    label: str
    model: str
    prepare: DefencePlan | None = None


def plan_models(study: StudyFile) -> tuple[ModelPlan, ...]:
    """The models of a study, checked as far as it needs no file.

    Raises:
        StudyError: a fault, said of its place.
    """
    plans = []
    for number, entry in enumerate(study.models):
        entry = entry if isinstance(entry, ModelEntry) else ModelEntry(model=entry)
        prepare = None if entry.prepare is None else _plan(f"models[{number}].prepare", entry.prepare)
        label = entry.label or Path(entry.model).name
        plans.append(ModelPlan(label, entry.model, prepare))
    refuse_twins("models", [plan.label for plan in plans])
    return tuple(plans)


def plan_defences(study: StudyFile) -> tuple[DefencePlan, ...]:
    """The defences of a study, checked as far as it needs no model.

    Raises:
        StudyError: a fault, said of its place.
    """
    plans = [_plan(f"defences[{number}]", entry) for number, entry in enumerate(study.defences)]
    refuse_twins("defences", [plan.label for plan in plans])
    return tuple(plans)


def _plan(place: str, entry: str | Mapping[str, Any]) -> DefencePlan:
    if isinstance(entry, str):
        if entry != PLAIN:
            raise StudyError(
                f"`{place}` must be {PLAIN}, or a mapping with {_LOCK} or {_DEFENCE}; got {entry!r}. "
                f"Write {{{_LOCK}: {entry}}} for a lock."
            )
        return DefencePlan(PLAIN)
    options = dict(entry)
    if "chain" in options:
        return _chain(place, options)
    label, seed = options.pop("label", None), options.pop("seed", 0)
    preset, method = options.pop(_LOCK, None), options.pop(_DEFENCE, None)
    for name, value, kind in (
        ("label", label, str),
        (_LOCK, preset, str),
        (_DEFENCE, method, str),
        ("seed", seed, int),
    ):
        if value is not None and (not isinstance(value, kind) or isinstance(value, bool) or value == ""):
            raise StudyError(f"`{place}.{name}` must be a {'text' if kind is str else 'whole number'}; got {value!r}.")
    if preset == PLAIN or (preset is None and method is None and not options):
        if unused := set(entry) - {"label", _LOCK}:
            raise StudyError(
                f"`{place}` must have {_LOCK} {PLAIN} and label alone, the model as it is; it has "
                f"{', '.join(sorted(unused))} too."
            )
        return DefencePlan(label or PLAIN)
    if (preset is None) == (method is None):
        raise StudyError(f"`{place}` must have {_LOCK} (a lock) or {_DEFENCE} (another defence), one of them.")
    data = None
    if method is not None:
        data = at(place, partial(_data, method, options, seed))
        at(place, lambda: make_options(DEFENCES.get(method), options))
    else:
        at(place, partial(_check_lock, preset, options))
    return DefencePlan(label or _described(preset or method, options), preset, method, options, seed, data)


def _chain(place: str, entry: Mapping[str, Any]) -> DefencePlan:
    """Several defences, the next on top of the last: ``{chain: [{method: npo, ...}, {preset: exact}]}``."""
    parts, label = entry["chain"], entry.get("label")
    if unknown := set(entry) - {"chain", "label"}:
        raise StudyError(f"`{place}` must have chain and label alone; it has {', '.join(sorted(unknown))} too.")
    if label is not None and not (isinstance(label, str) and label):
        raise StudyError(f"`{place}.label` must be a text; got {label!r}.")
    if not isinstance(parts, list) or not parts:
        raise StudyError(f"`{place}.chain` must be a list of defences, the first applied first; got {parts!r}.")
    plans = [_plan(f"{place}.chain[{number}]", part) for number, part in enumerate(parts)]
    return DefencePlan(label or ", then ".join(plan.label for plan in plans), chain=tuple(plans))


def _data(method: str, options: dict[str, Any], seed: int) -> DataSpec | None:
    """What a method is told of its data, taken out of its options; None for one that brings its own."""
    if not DEFENCES.get(method).needs_data:
        return None
    found = named_data({name: options.pop(name, None) for name in NAMES}, seed=seed)
    if found.given is None:
        raise SpecdefError(f"`forget` must be given with method {method}, or a `task` whose samples it removes.")
    return found


def _described(name: str, options: Mapping[str, Any]) -> str:
    """A label: ``exact 2^20, layers 3 9``."""
    shown = dict(options)
    first = f"{name} {shown.pop('multiplier')}" if "multiplier" in shown else name
    rest = [f"{key.replace('_', ' ')} {_words(value)}" for key, value in shown.items()]
    return ", ".join([first, *rest])


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


@dataclass(frozen=True)
class Copies:
    """Where copies lie, and what is told while they are made.

    Attributes:
        folder: of the copies.
        text: the study's general data, part of what a trained defence is made of.
        text_digest: of that data.
    """

    folder: Path
    text: Path | None
    text_digest: str

    def prepared(self, folder: Path, plan: ModelPlan, place: str) -> Path:
        """The undefended model: prepared where the study says so."""
        return folder if plan.prepare is None else self.defended(folder, plan.prepare, place)

    def defended(self, source: Path, plan: DefencePlan, place: str) -> Path:
        """The defended copy of a model; `source` itself where the defence is none.

        A finished copy is used again. A copy that was being made when its process died left nothing under its name.

        Raises:
            StudyError: it cannot be made.
        """
        if not plan.changes:
            return source
        if plan.chain:
            for number, part in enumerate(plan.chain):
                source = self.defended(source, part, f"{place}.chain[{number}]")
            return source
        out = self.folder / f"{plan.lock or plan.method}-{self._digest(source, plan)[:16]}"
        if not out.is_dir():
            self.folder.mkdir(parents=True, exist_ok=True)
            at(place, partial(self._make, source, plan, out))
        return out

    def _make(self, source: Path, plan: DefencePlan, out: Path) -> None:
        try:
            plan.apply(source, out, self.text)
        except SpecdefError:
            if not out.is_dir():  # another run of the same study may have made it in the meantime
                raise

    def _digest(self, source: Path, plan: DefencePlan) -> str:
        return digest(
            {
                "source": subject_of(source).digest,
                "lock": plan.lock,
                "method": plan.method,
                "options": dict(plan.options),
                "seed": plan.seed,
                "text": self.text_digest if plan.method is not None else None,
                **({} if plan.data is None else {"data": read_data(plan.data).digests}),
            }
        )


def _check_lock(preset: str, options: dict[str, Any]) -> None:
    """Refuse options that the lock does not take, before a model is touched."""
    lock_options(preset, options)
