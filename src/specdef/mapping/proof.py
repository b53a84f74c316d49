"""Proof by numbers: channels of pairs scaled by powers of two on the twin, and every output compared to the bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from specdef.architectures.resolve import ResolvedPair
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
        exponents = torch.randint(-LARGEST, LARGEST + 1, (pair.size,), generator=generator).tolist()
        if any(slot.offset for slot in pair.producers):
            exponents = [_offset_exponent(twin, values, pair, channel) for channel in range(pair.size)]
            if not any(exponents):
                raise Unscalable("no channel's 1 + weight can be scaled")
        for channel, exponent in enumerate(exponents):
            for slot in pair.producers:
                places = twin.ids[slot.tensor].movedim(slot.axis, 0)[list(slot.indices(channel))].reshape(-1)
                old = values[places]
                values[places] = _scaled_offset(old, exponent) if slot.offset else old * 2.0**exponent
            for slot in pair.consumers:
                places = twin.ids[slot.tensor].movedim(slot.axis, 0)[list(slot.indices(channel))].reshape(-1)
                values[places] = values[places] * 2.0 ** (-pair.degree * exponent)
    return values


def _scaled_offset(stored: Tensor, exponent: int) -> Tensor:
    return (torch.ldexp(1.0 + stored.float(), torch.tensor(exponent)).double() - 1.0).to(stored.dtype)


def _offset_exponent(twin: Twin, values: Tensor, pair: ResolvedPair, channel: int) -> int:
    """The first exponent that this channel takes exactly; 0 where it takes none."""
    for exponent in OFFSET_EXPONENTS:
        fits = True
        for slot in pair.producers:
            if slot.offset:
                old = values[twin.ids[slot.tensor][list(slot.indices(channel))]]
                target = torch.ldexp(1.0 + old.float(), torch.tensor(exponent))
                fits = fits and bool((1.0 + _scaled_offset(old, exponent).float() == target).all())
        if fits:
            return exponent
    return 0
