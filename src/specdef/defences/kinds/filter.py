"""`filter`: a model that never saw the rows: pretrained without them, or trained from scratch here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from specdef.defences.base import Applied, DataRows, Given
from specdef.defences.descent import descend
from specdef.defences.objective import STAGE, Objective, Rows, TrainingOptions
from specdef.defences.trained import ObjectiveDefence
from specdef.errors import SpecdefError
from specdef.models.base import Batch, kind_of
from specdef.models.sources import find_model
from specdef.models.tokens import start_token

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class FilterOptions(TrainingOptions):
    """Options of `filter`.

    Attributes:
        base: a model of the same architecture that was pretrained without the rows; its weights are taken as they are.
            None trains fresh weights on the rows to keep, which only a tiny model survives.
        utility_factor: of no importance where fresh weights are trained: whatever they come to is reported.
    """

    lr: float = 1e-3
    base: str | None = None
    utility_factor: float = 1e9


class FilterObjective(Objective):
    """NLL of the rows to keep, from fresh weights; rows that contain one to forget are left out."""

    def __init__(self, given: Given) -> None:
        import torch

        self.model, self.kind = given.loaded.model, given.loaded.kind
        torch.manual_seed(given.seed)
        fresh = type(self.model)(self.model.config)
        self.model.load_state_dict(fresh.state_dict())
        self.model.tie_weights()

    def loss(self, step: int, forget: Rows, retain: Rows) -> torch.Tensor:
        """See the class."""
        return self.kind.loss(self.model, retain.batch)


class Filter(ObjectiveDefence):
    """Pretraining data filtering (O'Brien et al. 2025, "Deep ignorance"): what was never learned is not forgotten."""

    name = "filter"
    summary = "a model that never saw the forget rows"
    Options = FilterOptions

    def objective(self, given: Given, options: Any) -> Objective:
        """Fresh weights."""
        return FilterObjective(given)

    def apply(self, given: Given, options: Any) -> Applied:
        """Take the base's weights, or train fresh ones on what is left of the rows to keep."""
        assert given.data_rows is not None
        if options.base is not None:
            _take(given, options.base)
            return Applied({STAGE: 1}, ended="the weights are those of the base")
        rows = given.data_rows
        kept, dropped = without(rows.retain, rows.forget, start_token(given.loaded.processor))
        if not len(kept[0]):
            raise SpecdefError("`retain` must have rows without any to forget; all of them contain one.")
        given = replace(given, data_rows=DataRows(rows.forget, kept))
        done = descend(self.objective(given, options), given, options)
        return replace(done, ended=f"{done.ended}; {dropped} rows to keep contain one to forget and were left out")


def without(kept: Batch, forget: Batch, start: int) -> tuple[Batch, int]:
    """The rows that contain no row to forget, as a run of token ids, and how many do.

    Args:
        kept: token ids, labels and mask, each [rows, tokens].
        forget: the same; a row's tokens are those of its mask.
        start: the token that stands for an empty prompt: no part of a row's text, and not searched for.
    """
    wanted = [tuple(row[1:] if row[0] == start and len(row) > 1 else row) for row in _tokens(forget)]
    clean = [not any(_contains(row, one) for one in wanted) for row in _tokens(kept)]
    chosen = [index for index, one in enumerate(clean) if one]
    return tuple(tensor[chosen] for tensor in kept), len(clean) - len(chosen)


def _tokens(rows: Batch) -> list[list[int]]:
    pairs = zip(rows[0].tolist(), rows[2].tolist(), strict=True)
    return [[token for token, real in zip(ids, mask, strict=True) if real] for ids, mask in pairs]


def _contains(row: Sequence[int], part: tuple[int, ...]) -> bool:
    return any(tuple(row[start : start + len(part)]) == part for start in range(len(row) - len(part) + 1))


def _take(given: Given, base: str) -> None:
    folder = find_model(base, argument="base")
    source = kind_of(folder, argument="base").load(folder).model.state_dict()
    own = given.loaded.model.state_dict()
    other = [name for name in own if name not in source or source[name].shape != own[name].shape]
    if other or len(source) != len(own):
        raise SpecdefError(
            f"`base` must have the tensors of the given model, and no others; {folder} differs"
            f"{' in ' + other[0] if other else ''}. Give a model of the same architecture."
        )
    given.loaded.model.load_state_dict({name: value.to(own[name]) for name, value in source.items()})


KIND = Filter()
