"""Do two model folders compute the same function? Measured on probes, in the model's own dtype."""

from __future__ import annotations

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from specdef.checkpoint.header import load_json_object
from specdef.models.base import find_kind
from specdef.models.loading import load, unusable
from specdef.models.probing import Probing

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

    config = load_json_object(original / "config.json")
    probing = find_kind(config) or Probing()  # a model that no kind knows is compared all the same
    inputs = probing.probes(config, num_probes, seed, length=length)
    first = _outputs(original, inputs, None, probing)
    second = _outputs(locked, inputs, None, probing)
    narrow = first.dtype in (torch.bfloat16, torch.float16)
    identical = torch.equal(first, second)
    noise = None
    if narrow and not identical:
        noise = probing.divergence(_outputs(original, inputs, torch.float32, probing), first)
    return Equivalence(
        bit_identical=identical,
        max_error=float((first.double() - second.double()).abs().max()),
        kl=0.0 if identical else probing.divergence(first, second),
        own_noise=noise,
        num_outputs=first.numel(),
        dtype=str(first.dtype).removeprefix("torch."),
    )


def _outputs(
    folder: Path, inputs: Mapping[str, torch.Tensor], dtype: torch.dtype | None, probing: Probing
) -> torch.Tensor:
    import torch

    model = load(folder, dtype=dtype)
    parameter = next(p for p in model.parameters() if p.is_floating_point())
    cast = {k: v.to(parameter.dtype) if v.is_floating_point() else v for k, v in inputs.items()}
    try:
        with torch.inference_mode():
            result = probing.outputs(model, cast)
    except Exception as error:  # whatever a stranger's config makes transformers raise
        raise unusable(folder, error) from error
    del model
    gc.collect()
    return result.clone()
