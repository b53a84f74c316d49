"""`inspect_model`: spectra of every matrix, channel scales of every pair, and whether the model looks locked."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from specdef.architectures.channels import PairImbalance, pair_imbalances
from specdef.architectures.resolve import ResolvedModel, resolve
from specdef.checkpoint.header import TensorInfo
from specdef.checkpoint.reader import Checkpoint, open_checkpoint
from specdef.errors import CheckpointError
from specdef.linalg.exponent import NUMPY_DTYPES, all_finite, to_float

if TYPE_CHECKING:
    import torch

FULL_SPECTRUM_SIDE = 2048
"""Matrices whose short side is at most this get their whole spectrum, and so a condition number."""
SPECTRAL_JUMP = 30.0
"""A drop s_i / s_{i+1} above this among the top singular values is taken for a deformation."""
TOP_LOOKED_AT = 40
"""How far into the spectrum of a larger matrix a jump is looked for."""


@dataclass(frozen=True)
class TensorSpectrum:
    """Singular values of one matrix.

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
        locked: channel scales or spectra say so.
        method: ``fold``, ``inject`` or None.
        exponent: log2 of the multiplier most channels (or matrices) show; None when not locked or not computed.
        pairs: kind -> pairs with scaled channels.
        tensors: matrices with a jump in their spectrum.
        layers: layers touched.
        spectra: whether singular values were looked at.
    """

    locked: bool
    method: str | None
    exponent: int | None
    pairs: dict[str, int]
    tensors: tuple[str, ...]
    layers: tuple[int, ...]
    spectra: bool

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        strength = "" if self.exponent is None else f", about 2^{self.exponent}"
        unseen = "" if self.spectra else " Spectra were not computed."
        if not self.locked:
            seen = "no channel and no spectrum stands out" if self.spectra else "no channel stands out"
            return f"Does not look locked: {seen}.{unseen}"
        layers = f"{len(self.layers)} layer{'s' if len(self.layers) != 1 else ''}"
        if self.method == "fold":
            parts = ", ".join(f"{count} {kind}" for kind, count in sorted(self.pairs.items()))
            return f"Looks locked (fold{strength}): scaled channels in {parts} pairs of {layers}.{unseen}"
        found = "spectral jumps" if self.spectra else "compensation tensors"
        return f"Looks locked (inject{strength}): {found} in {len(self.tensors)} matrices of {layers}.{unseen}"


@dataclass(frozen=True)
class InspectReport:
    """Everything `inspect_model` measured."""

    model: str
    family: str
    tensors: tuple[TensorSpectrum, ...]
    pairs: tuple[PairImbalance, ...]
    verdict: Verdict


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
    return InspectReport(
        model=str(model),
        family=resolved.architecture.name,
        tensors=tuple(tensors),
        pairs=tuple(pairs),
        verdict=_verdict(checkpoint, resolved, pairs, tensors),
    )


def resolve_locked(checkpoint: Checkpoint) -> ResolvedModel:
    """`resolve`, looking past what an inject lock adds to a checkpoint."""
    quantization = checkpoint.config.get("quantization_config")
    ours = isinstance(quantization, dict) and quantization.get("quant_method") == "specdef"
    config = {k: v for k, v in checkpoint.config.items() if not (ours and k == "quantization_config")}
    factored = quantization.get("factored") if ours and isinstance(quantization, dict) else None
    added = tuple(f"{module}.factors." for module in factored) if isinstance(factored, dict) else ()
    shapes = {k: v for k, v in checkpoint.shapes.items() if not is_compensation(k) and not k.startswith(added)}
    return resolve(config, shapes)


def is_compensation(name: str) -> bool:
    """Whether a tensor is one an inject lock adds."""
    return ".compensation" in name


def _matrices(checkpoint: Checkpoint) -> list[tuple[str, TensorInfo]]:
    return [
        (shard, tensor)
        for shard, header in checkpoint.shards.items()
        for tensor in header.tensors
        if len(tensor.shape) == 2
        and min(tensor.shape) > 1
        and tensor.dtype in NUMPY_DTYPES
        and not is_compensation(tensor.name)
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
    matrix: torch.Tensor = torch.from_numpy(np.array(values, dtype=np.float32))
    k = min(top_k, *tensor.shape)
    condition = None
    if min(tensor.shape) <= FULL_SPECTRUM_SIDE:
        singular = torch.linalg.svdvals(_shrunk(matrix).double()).tolist()
        condition = singular[0] / singular[-1] if singular[-1] > 0 else math.inf
    else:
        singular = top_k_svd(matrix, max(k, TOP_LOOKED_AT), tol=1e-4).s.tolist()
    top = singular[:k]
    upper = singular[: min(tensor.shape) // 2]
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


def _verdict(
    checkpoint: Checkpoint, model: ResolvedModel, pairs: list[PairImbalance], tensors: list[TensorSpectrum]
) -> Verdict:
    spectra = bool(tensors)
    scaled = [pair for pair in pairs if pair.scaled]
    if scaled:
        exponents = Counter(abs(channel.exponent) for pair in scaled for channel in pair.scaled)
        layers = {pair.layer for pair in scaled if pair.layer is not None}
        kinds = dict(Counter(pair.kind for pair in scaled))
        exponent = exponents.most_common(1)[0][0]
        return Verdict(True, "fold", exponent, kinds, (), tuple(sorted(layers)), spectra)
    jumping = {t.name: t.jump for t in tensors if t.jump > SPECTRAL_JUMP and t.layer is not None}
    injected = {name.rsplit(".", 1)[0] + ".weight" for name in checkpoint.shapes if is_compensation(name)}
    names = tuple(sorted(jumping.keys() | injected))
    if not names:
        return Verdict(False, None, None, {}, (), (), spectra)
    found = [layer for name in names if (layer := model.layer_of(name)) is not None]
    strongest = round(math.log2(max(jumping.values()))) if jumping else None
    return Verdict(True, "inject", strongest, {}, names, tuple(sorted(set(found))), spectra)
