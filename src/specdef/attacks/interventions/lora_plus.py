"""LoRA+: B learns faster than A (Hayou et al., arXiv 2402.12354)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from specdef.attacks.base import Intervention
from specdef.attacks.interventions.lora import Lora
from specdef.attacks.options import read_options
from specdef.attacks.scaled_steps import refuse_unrated, scale_steps
from specdef.errors import SpecdefError
from specdef.training.recipe import Recipe


@dataclass(frozen=True)
class LoraPlus(Lora):
    """LoRA with a larger learning rate for B than for A, which has the recipe's.

    Attributes:
        ratio: of the two; the paper's experiments have 16.
    """

    name: ClassVar[str] = "lora-plus"

    ratio: float = 16.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind != "LORA":
            raise SpecdefError(f"`kind` must be LORA with {self.name}; got {self.kind}.")
        if not self.ratio >= 1:
            raise SpecdefError(f"`ratio` must be at least 1; got {self.ratio:g}.")

    @property
    def label(self) -> str:
        """Short text for tables."""
        return f"{super().label}, B at {self.ratio:g} times A's rate"

    def check(self, recipe: Recipe) -> None:
        """Refuse an optimizer whose step depends on the weights.

        Raises:
            SpecdefError: it does.
        """
        refuse_unrated(self.name, recipe)

    def attach(self, optimizer: Any, model: Any, folder: Path | None) -> None:
        """Put hooks on the optimizer: every step of B is `ratio` times as large. Its weight decay is A's."""
        import torch

        found = [one for name, one in model.named_parameters() if ".lora_B." in name]
        scale_steps(optimizer, {one: torch.tensor(self.ratio) for one in found})

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `Lora.parse` reads, and ``ratio=8``.

        Raises:
            SpecdefError: not of that form.
        """
        parts = text.split(",")
        own = [part for part in parts if part.partition("=")[0] == "ratio"]
        rest = Lora.parse(",".join(part for part in parts if part not in own))
        return cls(rest.kind, rest.rank, rest.targets, rest.arguments, **read_options(cls, ",".join(own)))

    def to_wire(self) -> dict[str, Any]:
        """In the list: version 1's field for adapters has no room for it."""
        return Intervention.to_wire(self)

    @classmethod
    def from_wire(cls, name: str, value: Any) -> Self | None:
        """No field of version 1 says this."""
        return None


KIND = LoraPlus
