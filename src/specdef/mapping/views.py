"""Ways to read the positions along an axis as channels, and what its length is called in the configuration."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from specdef.architectures.spec import Dims
from specdef.architectures.written import SIZES, WrittenLayout, evaluate, extent
from specdef.errors import ArchitectureError
from specdef.mapping.shrink import integers

FACTORS = ("2", "3", "4", "num_heads", "num_kv_heads", "expand", "mamba_expand", "mamba_n_heads", "n_heads")
"""What a size may be multiplied by."""


@dataclass(frozen=True)
class Namer:
    """Names lengths by the sizes of the twin's configuration that are also right for the real one's.

    Attributes:
        twin: configuration and sizes of the twin.
        real: those of the real model.
    """

    twin: tuple[Mapping[str, Any], Dims]
    real: tuple[Mapping[str, Any], Dims]

    def names(self, length: int, real: int) -> Iterator[str]:
        """Every name of a length that is `length` in the twin and `real` in the real model."""
        keys = [*SIZES, *(key for key, _ in integers(self.twin[0]))]
        products = (f"{factor}*{key}" for factor, key in itertools.product(FACTORS, keys))
        for size in (*keys, *products):
            if self._is(size, self.twin, length) and self._is(size, self.real, real):
                yield size

    def name(self, length: int, real: int) -> str | None:
        """The first such name; None where the configuration has none."""
        return next(self.names(length, real), None)

    @staticmethod
    def _is(size: str, where: tuple[Mapping[str, Any], Dims], length: int) -> bool:
        try:
            return evaluate(size, *where) == length
        except ArchitectureError:
            return False

    def whole(self, length: int, real: int) -> WrittenLayout | None:
        """The whole axis, position by position."""
        name = self.name(length, real)
        return None if name is None else WrittenLayout((name,))

    def views(self, length: int, real: int) -> Iterator[WrittenLayout]:
        """Every way to read a part of an axis, or groups on it, as channels; the whole axis is none of them."""
        heads = "num_kv_heads" if self.twin[1].num_kv_heads < self.twin[1].num_heads else "num_heads"
        forms = [
            WrittenLayout(("head_dim",), outer="num_kv_heads", repeat="group"),
            *_cuts(("q_width", "kv_width", "kv_width")),
            *_cuts(("head_dim",) * 3, outer="num_heads"),
            *_cuts(("group*head_dim", "head_dim", "head_dim"), outer=heads),
            *_cuts(("qk_nope_head_dim", "v_head_dim"), outer="num_heads"),
        ]
        for number in (2, 3):
            if length % number == 0 and real % number == 0:
                name = self.name(length // number, real // number)
                forms += [] if name is None else _cuts((name,) * number)
        if heads == "num_heads":
            forms = [form for form in forms if form.repeat == "1" and "group*head_dim" not in form.parts]
        for form in forms:
            if self._length(form, self.twin) == length and self._length(form, self.real) == real:
                yield form

    @staticmethod
    def _length(form: WrittenLayout, where: tuple[Mapping[str, Any], Dims]) -> int:
        try:
            return extent(form, *where)
        except ArchitectureError:
            return -1


def _cuts(parts: tuple[str, ...], outer: str = "1") -> list[WrittenLayout]:
    return [WrittenLayout(parts, outer=outer, index=index) for index in range(len(parts))]
