"""An inject lock recognised: compensation tensors, or jumps in spectra where these were computed."""

from __future__ import annotations

import math
from collections.abc import Callable

from specdef.locks.base import Evidence, Sign
from specdef.locks.spectra import jumping


def recognise(name: str, is_compensation: Callable[[str], bool], evidence: Evidence) -> Sign | None:
    """Matrices of the layers with a compensation beside them, or a jump in their spectrum."""
    model = evidence.model
    jumps = jumping(evidence)
    injected = {n.rsplit(".", 1)[0] + ".weight" for n in evidence.checkpoint.shapes if is_compensation(n)}
    names = tuple(sorted(jumps.keys() | injected))
    if not names:
        return None
    what = "spectral jumps" if evidence.jumps else "compensation tensors"
    layers = {layer for n in names if (layer := model.layer_of(n)) is not None}
    return Sign(
        lock=name,
        exponent=round(math.log2(max(jumps.values()))) if jumps else None,
        found=f"{what} in {len(names)} matrices",
        tensors=names,
        layers=tuple(sorted(layers)),
        specificity=0 if injected else -1,  # other locks leave jumps too
    )
