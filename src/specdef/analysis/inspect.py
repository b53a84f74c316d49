"""`inspect_model`: spectra of every matrix, channel scales of every pair, and whether the model looks locked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from specdef.architectures.channels import PairImbalance, pair_imbalances
from specdef.architectures.resolve import ResolvedModel
from specdef.checkpoint.header import TensorInfo
from specdef.checkpoint.reader import Checkpoint, open_checkpoint
from specdef.core.results import Records, brief
from specdef.errors import CheckpointError
from specdef.linalg.exponent import NUMPY_DTYPES, all_finite, to_float
from specdef.linalg.matrix import matrix_shape
from specdef.locks.base import Evidence, Sign, recognised, without_added
from specdef.locks.recognise import resolve_locked

if TYPE_CHECKING:
    import torch

FULL_SPECTRUM_SIDE = 2048
"""Matrices whose short side is at most this get their whole spectrum, and so a condition number."""
TOP_LOOKED_AT = 40
"""How far into the spectrum of a larger matrix a jump is looked for."""


@dataclass(frozen=True)
class TensorSpectrum:
    """Singular values of one matrix; of a convolution, of its kernel as a matrix [out, in * height * width].

    Attributes:
        layer: its layer, None outside the layers.
        component: its name without prefix and layer number.
        top: the largest singular values, descending.
        condition: sigma_1 / sigma_min; None where only the top was computed, infinite when singular.
        stable_rank: squared Frobenius norm over sigma_1 squared.
        jump: largest ratio s_i / s_{i+1} among the top ones.
    """

    name: str
    layer: int | None
    component: str
    shape: tuple[int, ...]
    dtype: str
    top: tuple[float, ...]
    condition: float | None
    stable_rank: float
    jump: float


@dataclass(frozen=True)
class Verdict:
    """Whether a model looks locked, from its weights alone.

    Attributes:
        sign: the lock recognised; None when nothing stands out.
        spectra: whether singular values were looked at.
    """

    sign: Sign | None
    spectra: bool

    @property
    def locked(self) -> bool:
        """Channel scales, spectra or added tensors say so."""
        return self.sign is not None

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        unseen = "" if self.spectra else " Spectra were not computed."
        if self.sign is None:
            seen = "no channel and no spectrum stands out" if self.spectra else "no channel stands out"
            return f"Does not look locked: {seen}.{unseen}"
        strength = "" if self.sign.exponent is None else f", about 2^{self.sign.exponent}"
        count = len(self.sign.layers)
        layers = f"{count} layer{'s' if count != 1 else ''}"
        return f"Looks locked ({self.sign.lock}{strength}): {self.sign.found} of {layers}.{unseen}"


@dataclass(frozen=True, repr=False)
class InspectReport(Records):
    """Everything `inspect_model` measured."""

    model: str
    family: str
    tensors: tuple[TensorSpectrum, ...]
    pairs: tuple[PairImbalance, ...]
    verdict: Verdict

    def summary(self) -> dict[str, str]:
        """See `Result`."""
        return {
            "model": brief(self.model),
            "family": self.family,
            "verdict": self.verdict.sentence,
            "matrices": brief(len(self.tensors)),
            "pairs": brief(len(self.pairs)),
            "pairs with scaled channels": brief(sum(bool(pair.scaled) for pair in self.pairs)),
        }

    def records(self) -> list[dict[str, Any]]:
        """A row a matrix."""
        return [asdict(tensor) for tensor in self.tensors]


def inspect_model(
    model: Path | str, *, top_k: int = 5, spectra: bool = True, progress: Callable[[int, int], None] | None = None
) -> InspectReport:
    """Measure a checkpoint's spectra and channel scales.

    Args:
        model: a model folder (a hub id or ``smollm2-135m`` also works).
        top_k: how many singular values to report per matrix.
        spectra: compute singular values; False keeps to channel scales, which is much faster.
        progress: called with (done, total) steps.

    Raises:
        SpecdefError: the folder is no sound checkpoint, or of a family without a declared map.
    """
    from specdef.models.sources import find_model

    folder = find_model(str(model))
    checkpoint = open_checkpoint(folder, publishing=False)
    resolved = resolve_locked(checkpoint)
    matrices = _matrices(checkpoint) if spectra else []
    total, done = len(resolved.pairs) + len(matrices), 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress is not None:
            progress(done, total)

    pairs = pair_imbalances(checkpoint, resolved.pairs, progress=step)
    tensors = []
    for shard, tensor in matrices:
        tensors.append(_spectrum(checkpoint, resolved, shard, tensor, top_k))
        step()
    evidence = Evidence(checkpoint, resolved, pairs, {tensor.name: tensor.jump for tensor in tensors})
    return InspectReport(
        model=str(model),
        family=resolved.architecture.name,
        tensors=tuple(tensors),
        pairs=tuple(pairs),
        verdict=Verdict(recognised(evidence), bool(tensors)),
    )


def _matrices(checkpoint: Checkpoint) -> list[tuple[str, TensorInfo]]:
    own = set(without_added(checkpoint.shapes))
    return [
        (shard, tensor)
        for shard, header in checkpoint.shards.items()
        for tensor in header.tensors
        if tensor.name in own and tensor.dtype in NUMPY_DTYPES and min(matrix_shape(tensor.shape), default=0) > 1
    ]


def _spectrum(
    checkpoint: Checkpoint, model: ResolvedModel, shard: str, tensor: TensorInfo, top_k: int
) -> TensorSpectrum:
    import torch

    from specdef.linalg.svd import top_k_svd

    stored = np.asarray(checkpoint.map_tensor(shard, tensor))
    if not all_finite(stored, tensor.dtype):
        raise CheckpointError(f"Weights must be finite; tensor {tensor.name} of file {shard} holds NaN or infinity.")
    values = to_float(stored, tensor.dtype)
    shape = matrix_shape(tensor.shape)
    matrix: torch.Tensor = torch.from_numpy(np.array(values, dtype=np.float32)).reshape(shape)
    k = min(top_k, *shape)
    condition = None
    if min(shape) <= FULL_SPECTRUM_SIDE:
        singular = torch.linalg.svdvals(_shrunk(matrix).double()).tolist()
        condition = singular[0] / singular[-1] if singular[-1] > 0 else math.inf
    else:
        singular = top_k_svd(matrix, max(k, TOP_LOOKED_AT), tol=1e-4).s.tolist()
    top = singular[:k]
    upper = singular[: min(shape) // 2]
    jumps = [a / b for a, b in itertools.pairwise(upper) if b > 0]
    frobenius = float(matrix.double().square().sum())
    return TensorSpectrum(
        name=tensor.name,
        layer=model.layer_of(tensor.name),
        component=model.component_of(tensor.name),
        shape=tensor.shape,
        dtype=tensor.dtype,
        top=tuple(top),
        condition=condition,
        stable_rank=frobenius / top[0] ** 2 if top[0] > 0 else 0.0,
        jump=max(jumps, default=1.0),
    )


def _shrunk(matrix: torch.Tensor) -> torch.Tensor:
    """A square matrix with the same singular values: the triangular factor of the tall side."""
    import torch

    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    return torch.linalg.qr(tall.double(), mode="r").R if tall.shape[0] > 4 * tall.shape[1] else tall
