"""Freeze: train only the parameters whose name a pattern does not find."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from specdef.attacks.base import Intervention, Trains
from specdef.attacks.interventions.smallest_gradients import PREFIX
from specdef.errors import SpecdefError
from specdef.models.base import Batch, LoadedModel
from specdef.training.recipe import Recipe


@dataclass(frozen=True)
class Freeze(Intervention):
    """Leave parameters as they are.

    Attributes:
        pattern: regular expression; parameters whose name it finds are not trained.
    """

    name: ClassVar[str] = "freeze"
    trains: ClassVar[Trains] = Trains.PART

    pattern: str

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pattern.startswith(PREFIX):
            raise SpecdefError(
                f"`freeze` must be a regular expression of names; got {self.pattern!r}. To train the tensors with the "
                "smallest gradients, use smallest-gradients."
            )
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise SpecdefError(f"`freeze` must be a regular expression; {self.pattern!r} is none ({error}).") from error

    @property
    def label(self) -> str:
        """Short text for tables."""
        return f"frozen {self.pattern}"

    def modify(self, loaded: LoadedModel, batch: Batch, recipe: Recipe) -> Any:
        """Freeze what the pattern finds.

        Raises:
            SpecdefError: it finds nothing.
        """
        frozen = [p for name, p in loaded.model.named_parameters() if re.search(self.pattern, name)]
        if not frozen:
            raise SpecdefError(f"`freeze` must match a parameter's name; {self.pattern!r} matches none.")
        for parameter in frozen:
            parameter.requires_grad_(False)
        return loaded.model

    @classmethod
    def parse(cls, text: str) -> Self:
        """The whole text is the pattern."""
        return cls(text)

    def to_wire(self) -> dict[str, Any]:
        """Version 1's field."""
        return {"freeze": self.pattern}

    @classmethod
    def from_wire(cls, name: str, value: Any) -> Self | None:
        """Read version 1's field."""
        return cls(value) if name == "freeze" and not value.startswith(PREFIX) else None


KIND = Freeze
