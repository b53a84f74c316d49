"""Proof by numbers: channels of pairs scaled by powers of two on the twin, and every output compared to the bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from specdef.architectures.resolve import ResolvedPair, ResolvedSlot
from specdef.mapping.twin import Twin

LARGEST = 20
"""Channels are scaled by 2^20 and less, up and down, each by a power of its own."""
OFFSET_EXPONENTS = (20, 12, 7, 5, 4, 3, 2, 1, -1, -2)
"""Tried in turn where the model adds 1: not every 1 + w can be scaled in the stored dtype."""
DTYPES = (torch.float32, torch.bfloat16)
SEEDS = range(4)


class Unscalable(ValueError):
    """No channel of a pair can be scaled in a dtype."""


@dataclass(frozen=True)
class Outcome:
    """What scaling a set of pairs did to the outputs.

    Attributes:
        exact: dtype -> whether every output kept every bit; absent where no channel can be scaled in it.
        said: why it is not kept, or what could not be tried; empty where all is well.
    """

    exact: Mapping[str, bool]
    said: str = ""

    @property
    def kept(self) -> bool:
        """Bit-identical in float32, and in bfloat16 where it could be tried."""
        return bool(self.exact) and all(self.exact.values())


def prove(twin: Twin, sets: Mapping[str, Sequence[ResolvedPair]]) -> dict[str, Outcome]:
    """Scale each set of pairs by itself and compare what the model says, in float32 and bfloat16, on varied inputs.

    The twin's weights are rounded to the dtype first; float64 weights are put back at the end.
    """
    wide = twin.values()
    exact: dict[str, dict[str, bool]] = {name: {} for name in sets}
    said: dict[str, list[str]] = {name: [] for name in sets}
    for dtype in DTYPES:
        label = str(dtype).removeprefix("torch.")
        twin.model.to(dtype)
        try:
            stored = twin.values()
            with torch.inference_mode():
                before = [twin.outputs(seed).clone() for seed in SEEDS]
            for name, pairs in sets.items():
                try:
                    scaled = scale(twin, stored, pairs)
                except Unscalable as error:
                    said[name].append(f"{label}: {error}")
                    continue
                twin.set_values(scaled)
                with torch.inference_mode():
                    same = [torch.equal(old, twin.outputs(seed)) for seed, old in zip(SEEDS, before, strict=True)]
                exact[name][label] = all(same)
                if not all(same):
                    said[name].append(f"outputs change in {label}")
            twin.set_values(stored)
        except (RuntimeError, NotImplementedError, TypeError) as error:
            for name in sets:
                said[name].append(f"the model does not run in {label} ({str(error).splitlines()[0][:80]})")
        finally:
            twin.model.double()
            twin.set_values(wide)
    return {name: Outcome(exact[name], "; ".join(said[name])) for name in sets}


def scale(twin: Twin, stored: Tensor, pairs: Sequence[ResolvedPair], seed: int = 0) -> Tensor:
    """Parameters' numbers with every channel of the pairs scaled by a random power of two of its own.

    Raises:
        Unscalable: of a pair whose weights have 1 added, no channel can be.
    """
    generator = torch.Generator().manual_seed(seed)
    values = stored.clone()
    for pair in pairs:
        exponents = torch.randint(-LARGEST, LARGEST + 1, (pair.size,), generator=generator)
        if any(slot.offset for slot in pair.producers):
            exponents = _offset_exponents(twin, values, pair)
            if not bool(exponents.any()):
                raise Unscalable("no channel's 1 + weight can be scaled")
        for slot, power in [(s, 1) for s in pair.producers] + [(s, -pair.degree) for s in pair.consumers]:
            places = _places(twin, pair, slot)
            old, shift = values[places], (power * exponents)[:, None]
            values[places] = _scaled_offset(old, shift) if slot.offset else torch.ldexp(old, shift).to(old.dtype)
    return values


def _places(twin: Twin, pair: ResolvedPair, slot: ResolvedSlot) -> Tensor:
    """Where each channel's numbers are [channels, numbers of a channel]."""
    positions = torch.tensor([list(slot.indices(channel)) for channel in range(pair.size)])
    return twin.ids[slot.tensor].movedim(slot.axis, 0)[positions].flatten(1)


def _scaled_offset(stored: Tensor, exponents: Tensor) -> Tensor:
    """Weights w' with 1 + w' = 2^e (1 + w), as near as the dtype stores them."""
    return (torch.ldexp(1.0 + stored.float(), exponents).double() - 1.0).to(stored.dtype)


def _offset_exponents(twin: Twin, values: Tensor, pair: ResolvedPair) -> Tensor:
    """The first exponent that each channel takes exactly; 0 where it takes none."""
    chosen = torch.zeros(pair.size, dtype=torch.long)
    for exponent in reversed(OFFSET_EXPONENTS):
        fits = torch.ones(pair.size, dtype=torch.bool)
        for slot in pair.producers:
            if slot.offset:
                old = values[_places(twin, pair, slot)]
                shift = torch.tensor(exponent)
                exact = 1.0 + _scaled_offset(old, shift).float() == torch.ldexp(1.0 + old.float(), shift)
                fits &= exact.all(dim=1)
        chosen[fits] = exponent
    return chosen
