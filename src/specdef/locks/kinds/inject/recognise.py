"""An inject lock recognised: compensation tensors, or jumps in spectra where these were computed."""

from __future__ import annotations

import math
from collections.abc import Callable

from specdef.locks.base import Evidence, Sign

SPECTRAL_JUMP = 30.0
"""A drop s_i / s_{i+1} above this among the top singular values is taken for a deformation."""


def recognise(name: str, is_compensation: Callable[[str], bool], evidence: Evidence) -> Sign | None:
    """Matrices of the layers with a compensation beside them, or a jump in their spectrum."""
    model = evidence.model
    jumping = {n: jump for n, jump in evidence.jumps.items() if jump > SPECTRAL_JUMP and model.layer_of(n) is not None}
    injected = {n.rsplit(".", 1)[0] + ".weight" for n in evidence.checkpoint.shapes if is_compensation(n)}
    names = tuple(sorted(jumping.keys() | injected))
    if not names:
        return None
    what = "spectral jumps" if evidence.jumps else "compensation tensors"
    layers = {layer for n in names if (layer := model.layer_of(n)) is not None}
    return Sign(
        lock=name,
        exponent=round(math.log2(max(jumping.values()))) if jumping else None,
        found=f"{what} in {len(names)} matrices",
        tensors=names,
        layers=tuple(sorted(layers)),
    )
