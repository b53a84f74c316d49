"""Do two model folders compute the same function? Measured on probes, in the model's own dtype."""

from __future__ import annotations

import copy
import gc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.checkpoint.layout import load_config
from specdef.core.results import Result
from specdef.errors import CheckpointError
from specdef.models.base import find_kind
from specdef.models.loading import unusable
from specdef.models.memory import config_of, require_transformers
from specdef.models.probing import Probing

if TYPE_CHECKING:
    import torch
    from torch import nn

FLOAT32_KL = 1e-6
"""Mean KL divergence (nats per position) up to which a float32 model counts as the same function."""


@dataclass(frozen=True, repr=False)
class Equivalence(Result):
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

    @property
    def sentence(self) -> str:
        """KL and error in words, with what is allowed."""
        noise = "" if self.own_noise is None else f", {self.dtype}'s own noise {self.own_noise:.3g}"
        allowed = f"KL {self.kl:.3g} (at most {self.tolerance:.3g}{noise})"
        return f"{allowed}, largest error {self.max_error:.3g}, in {self.dtype}"


def compare(
    original: Path | nn.Module, locked: Path | nn.Module, *, num_probes: int = 16, length: int = 48, seed: int = 0
) -> Equivalence:
    """Run both models on the same probes, one after the other in memory, and compare their outputs.

    Args:
        original: the first model, a folder or in memory; its dtype is the one both run in. A folder beside a model in
            memory is loaded in that model's dtype, on its device.
        locked: the second, likewise. A model in memory is left as it is.
        num_probes: random sequences (or images).
        length: tokens per sequence, shortened to what the model allows.
        seed: of the probes.

    Returns:
        Bit identity, largest error and KL divergence.

    Raises:
        CheckpointError: a model cannot be loaded, or two models in memory differ in dtype or device.
    """
    import torch

    like = _place(original, locked)
    config = _config(original)
    probing = find_kind(config) or Probing()  # a model that no kind knows is compared all the same
    inputs = probing.probes(config, num_probes, seed, length=length)
    first = _outputs(original, inputs, like, probing)
    second = _outputs(locked, inputs, like, probing)
    if first.shape != second.shape:
        raise CheckpointError(
            f"`original` must be the model that was locked; its outputs are {list(first.shape)}, the locked model's "
            f"{list(second.shape)}. Give that model."
        )
    narrow = first.dtype in (torch.bfloat16, torch.float16)
    identical = torch.equal(first, second)
    noise = None
    if narrow and not identical:
        wide = _Place(torch.float32, like.device)
        noise = probing.divergence(_outputs(original, inputs, wide, probing), first)
    return Equivalence(
        bit_identical=identical,
        max_error=0.0 if identical else float((first.double() - second.double()).abs().max()),
        kl=0.0 if identical else probing.divergence(first, second),
        own_noise=noise,
        num_outputs=first.numel(),
        dtype=str(first.dtype).removeprefix("torch."),
    )


@dataclass(frozen=True)
class _Place:
    """The dtype (the stored one when None) and device that a model runs in."""

    dtype: torch.dtype | None
    device: torch.device | str


def _place(original: Path | nn.Module, locked: Path | nn.Module) -> _Place:
    """Where both models run: as the one in memory is, else as stored, on the CPU."""
    places = [_own_place(model) for model in (original, locked) if not isinstance(model, Path)]
    if len(places) == 2 and places[0] != places[1]:
        (first, second) = (f"{place.dtype} on {place.device}" for place in places)
        raise CheckpointError(
            f"`original` must be of the dtype and on the device of the locked model, {second}; it is {first}. Move it."
        )
    return places[0] if places else _Place(None, "cpu")


def _own_place(model: nn.Module) -> _Place:
    parameter = next(p for p in model.parameters() if p.is_floating_point())
    return _Place(parameter.dtype, parameter.device)


def _config(model: Path | nn.Module) -> dict[str, Any]:
    if isinstance(model, Path):
        return load_config(model)
    require_transformers(model)
    return config_of(model)


def _outputs(
    source: Path | nn.Module, inputs: Mapping[str, torch.Tensor], place: _Place, probing: Probing
) -> torch.Tensor:
    """What a model says to the probes, on the CPU."""
    import torch

    if isinstance(source, Path):
        model = probing.module(source, dtype=place.dtype).to(place.device)
    else:
        model = source if _own_place(source).dtype == place.dtype else copy.deepcopy(source).to(place.dtype)
    own = _own_place(model)
    cast = {k: v.to(own.device, own.dtype if v.is_floating_point() else None) for k, v in inputs.items()}
    training = {name: part.training for name, part in model.named_modules()}
    try:
        with torch.inference_mode():
            result = probing.outputs(model.eval(), cast)
    except Exception as error:  # whatever a stranger's config makes transformers raise
        raise unusable(source if isinstance(source, Path) else type(model).__name__, error) from error
    finally:
        for name, part in model.named_modules():
            part.training = training.get(name, False)  # BigBird puts other modules in place while it runs
    del model
    gc.collect()
    return result.cpu().clone()
