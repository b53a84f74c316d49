"""Do two model folders compute the same function? Measured on probes, in the model's own dtype."""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from specdef.checkpoint.header import load_json_object
from specdef.models.loading import load, probe_inputs, unusable

if TYPE_CHECKING:
    import torch

FLOAT32_KL = 1e-6
"""Mean KL divergence (nats per position) up to which a float32 model counts as the same function."""


@dataclass(frozen=True)
class Equivalence:
    """The outputs of two models compared.

    Attributes:
        bit_identical: every output number equal.
        max_error: largest absolute difference of an output.
        kl: mean KL divergence of the second model's output distribution from the first's, nats per position.
        own_noise: the same KL between the original in float32 and in its own narrower dtype; None for float32.
        num_outputs: how many numbers were compared.
        dtype: in which the models ran.
    """

    bit_identical: bool
    max_error: float
    kl: float
    own_noise: float | None
    num_outputs: int
    dtype: str

    @property
    def tolerance(self) -> float:
        """KL up to which the two count as one function: the model's own rounding noise, twice."""
        return FLOAT32_KL if self.own_noise is None else 2 * self.own_noise


def compare(original: Path, locked: Path, *, num_probes: int = 16, length: int = 48, seed: int = 0) -> Equivalence:
    """Run both models on the same probes, one after the other in memory, and compare their outputs.

    Args:
        original: folder of the first model; its dtype is the one both run in.
        locked: folder of the second.
        num_probes: random sequences (or images).
        length: tokens per sequence, shortened to what the model allows.
        seed: of the probes.

    Returns:
        Bit identity, largest error and KL divergence.

    Raises:
        CheckpointError: a model cannot be loaded.
    """
    import torch

    inputs = probe_inputs(load_json_object(original / "config.json"), num_probes=num_probes, length=length, seed=seed)
    first = _outputs(original, inputs, None)
    second = _outputs(locked, inputs, None)
    narrow = first.dtype in (torch.bfloat16, torch.float16)
    identical = torch.equal(first, second)
    noise = None
    if narrow and not identical:
        noise = kl_divergence(_outputs(original, inputs, torch.float32), first)
    return Equivalence(
        bit_identical=identical,
        max_error=float((first.double() - second.double()).abs().max()),
        kl=0.0 if identical else kl_divergence(first, second),
        own_noise=noise,
        num_outputs=first.numel(),
        dtype=str(first.dtype).removeprefix("torch."),
    )


def kl_divergence(reference: torch.Tensor, other: torch.Tensor) -> float:
    """Mean over positions of KL(softmax(reference) || softmax(other)), nats, in float64.

    Args:
        reference: logits [..., classes].
        other: logits of the same shape.
    """
    import torch

    total, count = 0.0, 0
    for ours, theirs in zip(reference.flatten(0, -2).split(256), other.flatten(0, -2).split(256), strict=True):
        log_p = torch.log_softmax(ours.double(), dim=-1)
        log_q = torch.log_softmax(theirs.double(), dim=-1)
        total += float((log_p.exp() * (log_p - log_q)).sum())
        count += len(ours)
    return total / max(count, 1)


def _outputs(folder: Path, inputs: dict[str, torch.Tensor], dtype: torch.dtype | None) -> torch.Tensor:
    import torch

    model = load(folder, dtype=dtype)
    parameter = next(p for p in model.parameters() if p.is_floating_point())
    cast = {k: v.to(parameter.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    try:
        with torch.inference_mode():
            result: torch.Tensor = model(**cast)[0]
    except Exception as error:  # whatever a stranger's config makes transformers raise
        raise unusable(folder, error) from error
    del model
    gc.collect()
    return result.clone()
