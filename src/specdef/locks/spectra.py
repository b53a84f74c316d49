"""Jumps in spectra: a few singular values far above the rest, which no training at ordinary rates makes."""

from __future__ import annotations

from specdef.locks.base import Evidence

SPECTRAL_JUMP = 30.0
"""A drop s_i / s_{i+1} above this among the top singular values is taken for a deformation."""


def jumping(evidence: Evidence) -> dict[str, float]:
    """Matrices of the layers whose spectrum jumps -> by how much."""
    layer_of = evidence.model.layer_of
    return {n: jump for n, jump in evidence.jumps.items() if jump > SPECTRAL_JUMP and layer_of(n) is not None}
