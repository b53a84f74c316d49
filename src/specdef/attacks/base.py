"""Attacks: a recipe, and what an attacker does besides choosing one.

An `Intervention` is one such thing: it rewrites the weights before they are loaded, changes the loaded model, or
attaches itself to the optimizer. Each kind is one module of `specdef.attacks.interventions`, or comes from another
package through the entry points ``specdef.interventions``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from pathlib import Path
from typing import Any, ClassVar, Self, get_args

from specdef.attacks.options import changed_options, check_options, fit_options, read_options
from specdef.core.registry import Registry
from specdef.core.results import Result
from specdef.core.text import rate
from specdef.errors import SpecdefError
from specdef.models.base import Batch, LoadedModel
from specdef.training.outcome import StopRule
from specdef.training.recipe import Recipe


class Trains(Enum):
    """What is trained under an intervention."""

    WEIGHTS = "all weights"
    PART = "a part of the weights"
    BESIDE = "numbers of its own, beside weights that are frozen"


@dataclass(frozen=True, repr=False)
class RewriteReport(Result):
    """What a rewriting did and cost.

    Attributes:
        kind: name of the intervention.
        seconds: wall time, reading and writing included.
        tensors: how many tensors changed.
        added_parameters: stored numbers the model gained (negative when it lost some).
        detail: what was found, in words.
        function_error: largest relative difference of a rewritten layer from the published one; 0 where the rewriting
            is exact, None where it changes the function by design.
        knowledge: what the attacker must know besides the published folder.
    """

    kind: str
    seconds: float
    tensors: int
    added_parameters: int
    detail: str
    function_error: float | None
    knowledge: str


@dataclass(frozen=True)
class Intervention:
    """One thing an attacker does besides choosing a recipe. A subclass's dataclass fields are its options.

    A kind overrides the hooks it needs: `rewrite`, `modify` or `attach`. An option must have a default unless `parse`
    is overridden; an option of type ``Literal[...]`` takes one of those values.

    Attributes:
        name: what users type; the module's name with ``-`` for ``_``.
        version: raised whenever the algorithm or a default changes, so that cells finished before run again.
        knowledge: what an attacker must know, besides the published folder.
        keeps_function: whether the model computes at step 0 what the published one does.
        undoes: whether it takes a lock out of the weights.
        needs_lock: whether there must be a lock to work on; left out where an attack is tried on the undefended model.
        trains: what is trained under it. An attack has at most one intervention that narrows this.
        needs_weights: whether it acts on the training of the weights themselves.
    """

    name: ClassVar[str]
    version: ClassVar[int] = 1
    knowledge: ClassVar[str] = ""
    keeps_function: ClassVar[bool] = True
    undoes: ClassVar[bool] = False
    needs_lock: ClassVar[bool] = False
    trains: ClassVar[Trains] = Trains.WEIGHTS
    needs_weights: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check_options(self)

    @property
    def label(self) -> str:
        """Short text for people; never an identity."""
        options = ", ".join(f"{name} {value}" for name, value in sorted(self.options().items()))
        return self.name + (f" ({options})" if options else "")

    @property
    def rewrites(self) -> bool:
        """Whether it works on the model's files, before they are loaded."""
        return type(self).rewrite is not Intervention.rewrite

    def check(self, recipe: Recipe) -> None:
        """Refuse a recipe this cannot work with.

        Raises:
            SpecdefError: it cannot.
        """

    def rewrite(self, folder: Path, out: Path) -> RewriteReport | None:
        """Write a rewritten copy of a model folder as `out`; None where the weights stay as published."""
        return None

    def modify(self, loaded: LoadedModel, batch: Batch, recipe: Recipe) -> Any:
        """The model to train: `loaded.model`, changed in place or wrapped, before an optimizer is made.

        Args:
            loaded: the model, its processor and its kind.
            batch: the task's samples, encoded.
            recipe: how it will be trained.
        """
        return loaded.model

    def attach(self, optimizer: Any, model: Any, folder: Path | None) -> None:
        """Change how the optimizer steps.

        Args:
            optimizer: of torch, made for `model`.
            model: as `modify` left it.
            folder: the weights on disk, rewritten already; None where the model came from no folder.
        """

    def options(self) -> dict[str, Any]:
        """The options that differ from their defaults, as JSON data."""
        return changed_options(self)

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> Self:
        """The intervention with these options, as `options` gives them.

        Raises:
            SpecdefError: an unknown option, or a value out of range.
        """
        return cls(**fit_options(cls, options))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what a user types after the name and a colon: ``factors=2,order=literal``.

        Raises:
            SpecdefError: not of that form, or an unknown option.
        """
        return cls.from_options(read_options(cls, text))

    def bound(self) -> Self:
        """The same with the content of files it reads made part of it: a result depends on that, not on their place.

        Raises:
            SpecdefError: a file cannot be used.
        """
        return self

    def places(self) -> Mapping[str, str]:
        """Digest of what it reads from files -> where that lies today, which is no part of its identity."""
        return {}

    def placed(self, places: Mapping[str, str]) -> Self:
        """The same, told where that lies which it knows by its digest alone: one read from a result does."""
        return self

    def to_wire(self) -> dict[str, Any]:
        """Fields of an attack's JSON that say this. See `specdef.attacks.wire`."""
        return {"interventions": [{"name": self.name, "version": self.version, "options": self.options()}]}

    @classmethod
    def from_wire(cls, name: str, value: Any) -> Self | None:
        """What a field of an attack's JSON says, if it is a field that only this kind writes; None otherwise."""
        return None


INTERVENTIONS: Registry[type[Intervention]] = Registry(
    "intervention", "specdef.attacks.interventions", "specdef.interventions"
)
"""Every kind of intervention, by name."""


def parse_intervention(text: str) -> Intervention:
    """Read ``NAME`` or ``NAME:OPTIONS``.

    Raises:
        SpecdefError: no such kind, or options it does not take.
    """
    name, _, options = text.partition(":")
    return INTERVENTIONS.get(name).parse(options)


@dataclass(frozen=True)
class Attack:
    """What is done to a model. Its configuration is its identity; the label is for people.

    Attributes:
        recipe: how it is trained.
        interventions: what is done besides, in any order: kept as rewriting first, then what changes the model, then
            what changes the optimizer.
        stop: when a run ends before its last step; see `StopRule`.
        utility_factor: how often the starting perplexity still counts as useful.
    """

    recipe: Recipe = field(default_factory=Recipe)
    interventions: tuple[Intervention, ...] = ()
    stop: StopRule = "budget"
    utility_factor: float = 2.0

    def __post_init__(self) -> None:
        if self.stop not in get_args(StopRule):
            raise SpecdefError(f"`stop` must be one of {', '.join(get_args(StopRule))}; got {self.stop!r}.")
        if not 1 < self.utility_factor < math.inf:
            raise SpecdefError(f"`utility_factor` must be above 1; got {self.utility_factor!r}.")
        _check_together(self.interventions)
        for one in self.interventions:
            one.check(self.recipe)
        object.__setattr__(self, "interventions", tuple(sorted(self.interventions, key=_stage)))

    def __hash__(self) -> int:
        """Of everything but the interventions, whose options may be dictionaries."""
        return hash((self.recipe, self.stop, self.utility_factor, len(self.interventions)))

    @property
    def rewrites(self) -> tuple[Intervention, ...]:
        """What is done to the model's files, in order."""
        return tuple(one for one in self.interventions if one.rewrites)

    def bound(self) -> Attack:
        """The same, every intervention bound to the content of the files it reads.

        Raises:
            SpecdefError: a file cannot be used.
        """
        return self._with(tuple(one.bound() for one in self.interventions))

    @property
    def places(self) -> dict[str, str]:
        """Where what its interventions read lies; see `Intervention.places`."""
        return {digest: place for one in self.interventions for digest, place in one.places().items()}

    def placed(self, places: Mapping[str, str]) -> Attack:
        """The same, every intervention told where what it reads lies."""
        return self._with(tuple(one.placed(places) for one in self.interventions))

    def _with(self, interventions: tuple[Intervention, ...]) -> Attack:
        same = all(one is other for one, other in zip(interventions, self.interventions, strict=True))
        return self if same else replace(self, interventions=interventions)

    @property
    def keeps_function(self) -> bool:
        """Whether the model at step 0 must compute what the published one does."""
        return all(one.keeps_function for one in self.interventions)

    @property
    def undoes(self) -> bool:
        """Whether a lock is taken out of the weights first."""
        return any(one.undoes for one in self.interventions)

    @property
    def label(self) -> str:
        """Short text for tables; never an identity."""
        return self._words([self.recipe.optimizer, f"lr {rate(self.recipe.lr)}"])

    @property
    def label_without_rate(self) -> str:
        """The same for tables that give the learning rate elsewhere."""
        return self._words([self.recipe.optimizer])

    def _words(self, head: Sequence[str]) -> str:
        first = "".join(f"{one.label}, then " for one in self.rewrites)
        others = [one.label for one in self.interventions if not one.rewrites]
        return first + ", ".join([*head, *_unusual(self.recipe), *others])


def _check_together(interventions: Sequence[Intervention]) -> None:
    narrowing = [one for one in interventions if one.trains is not Trains.WEIGHTS]
    if len(narrowing) > 1:
        first, second = narrowing[:2]
        raise SpecdefError(
            f"`{second.name}` must be left out with {first.name}: each of them says what is trained. Give one."
        )
    beside = [one for one in interventions if one.trains is Trains.BESIDE]
    for one in interventions:
        if beside and one.needs_weights:
            raise SpecdefError(
                f"`{one.name}` must be given with training of the weights; got {beside[0].name}, which freezes them."
            )
        if sum(one == other for other in interventions) > 1:
            raise SpecdefError(f"`{one.name}` must be given once; got it twice.")


def _stage(intervention: Intervention) -> int:
    if intervention.rewrites:
        return 0
    return 1 if type(intervention).modify is not Intervention.modify else 2


def _unusual(recipe: Recipe) -> list[str]:
    """What differs from the default in a recipe, besides optimizer and learning rate."""
    default = Recipe()
    parts = ["no clipping"] if recipe.max_grad_norm is None else []
    unusual = (
        "batch_size",
        "gradient_accumulation_steps",
        "precision",
        "schedule",
        "warmup",
        "weight_decay",
        "retain_weight",
    )
    for name in unusual:
        value = getattr(recipe, name)
        if value != getattr(default, name):
            parts.append(f"{name.replace('_', ' ')} {value}")
    if recipe.clip_each:
        parts.append("clipped tensor by tensor")
    if recipe.eps is not None:
        parts.append(f"eps {recipe.eps:.3g}")
    for name, value in dict(recipe.optimizer_options).items():
        parts.append(f"{name} {' '.join(map(str, value)) if isinstance(value, tuple) else value}")
    return parts
