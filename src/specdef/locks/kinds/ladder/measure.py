"""How constant every channel of every pair is, and how far the outputs move when it trains: one backward pass.

A channel that is nearly the same for every token can teach a layer little more than a bias, so it is where a large
factor does least good to an attacker. How hot a factor makes it is measured: the gradient says what a step of a given
learning rate does, which no exponent alone tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from specdef.architectures.resolve import ResolvedPair, ResolvedSlot
from specdef.errors import PlanError
from specdef.locks.model_tensors import model_tensors, saved_parts
from specdef.models.base import find_kind
from specdef.models.loading import unusable
from specdef.models.probing import Probing

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class PairMeasure:
    """What one pair's channels do on the calibration inputs; every array is [channels].

    Attributes:
        constancy: |mean| over standard deviation of what the consumers read, over tokens but the first of each text,
            the smallest of all readers; None where no reader is a linear layer.
        consumer: sum of |dL/dw| over the consumers' weights of the channel.
        producer: the same over the producers' weights.
    """

    constancy: Values | None
    consumer: Values
    producer: Values


@dataclass(frozen=True)
class Measured:
    """All pairs, and the model as a whole.

    Attributes:
        pairs: pair id -> its channels.
        total: sum of |dL/dw| over every weight of the model: what training all of it does per unit of learning rate.
    """

    pairs: Mapping[str, PairMeasure]
    total: float


def measure(
    model: nn.Module, pairs: Sequence[ResolvedPair], inputs: Mapping[str, Tensor], *, seed: int = 0
) -> Measured:
    """One forward and one backward pass of a transformers model; its weights and its mode are left as they are.

    Math: L is the mean of -log p(y) over all outputs, y drawn from the model's own p(y), so that a well trained model
    has a gradient too (its square in the mean is the Fisher information's diagonal). Under a step of Adam or of the
    sign of the gradient with learning rate a, L changes by a * sum |dL/dw| to first order.

    Args:
        model: in floating point on any device.
        pairs: of its checkpoint.
        inputs: what the model is called with; the first axis runs over texts, the second over tokens.
        seed: of the drawn labels.

    Raises:
        PlanError: an output is not finite.
        CheckpointError: transformers cannot run the model on these inputs.
    """
    tensors = model_tensors(model)
    own: dict[str, Tensor] = dict(model.named_parameters())
    training = model.training
    wanted = {name: parameter.requires_grad for name, parameter in own.items()}
    held = {name: parameter.grad for name, parameter in own.items()}
    readers = _readers(model, tensors.sources, pairs)
    try:
        model.eval()
        for parameter in own.values():
            parameter.requires_grad_(True)
            parameter.grad = None
        with _watched(readers) as constancies, torch.enable_grad():
            loss = _loss(model, find_kind(tensors.config) or Probing(), inputs, seed)
            loss.backward()
        slopes = _slopes(
            model,
            own,
            {tensors.sources[slot.tensor] for pair in pairs for slot in pair.slots if slot.tensor in tensors.sources},
        )
        found = {pair.id: _of_pair(pair, slopes, constancies) for pair in pairs}
        total = sum(float(p.grad.abs().sum(dtype=torch.float64)) for p in own.values() if p.grad is not None)
        return Measured(found, total)
    finally:
        model.train(training)
        for name, parameter in own.items():
            parameter.requires_grad_(wanted[name])
            parameter.grad = held[name]


def _loss(model: Any, probing: Probing, inputs: Mapping[str, Tensor], seed: int) -> Tensor:
    """Cross-entropy against classes drawn from the model's own outputs."""
    try:
        outputs = probing.outputs(model, inputs)
    except Exception as error:  # whatever a stranger's config makes transformers raise
        raise unusable(type(model).__name__, error) from error
    log_p = torch.log_softmax(outputs.flatten(0, -2).float(), dim=-1)
    if log_p.isnan().any():
        raise PlanError(
            "`model` must have finite outputs on the calibration text; some are not. Repair its weights, or give "
            "another `calibration`."
        )
    generator = torch.Generator(device=log_p.device).manual_seed(seed)
    classes = torch.multinomial(log_p.detach().exp(), 1, generator=generator)
    return -log_p.gather(-1, classes).mean()


def _readers(model: nn.Module, sources: Mapping[str, str], pairs: Iterable[ResolvedPair]) -> dict[str, nn.Module]:
    """Consumer tensor -> the linear layer that it is the weight of; those of other layers are left out."""
    from transformers.pytorch_utils import Conv1D

    modules = dict(model.named_modules())
    found = {}
    for slot in (slot for pair in pairs for slot in pair.consumers):
        owner = modules.get(sources.get(slot.tensor, "").rpartition(".")[0])
        if isinstance(owner, nn.Linear | Conv1D):
            found[slot.tensor] = owner
    return found


@contextmanager
def _watched(readers: Mapping[str, nn.Module]) -> Iterator[dict[str, Values]]:
    """While it lasts, what every reader reads is summed up: tensor -> constancy of each input position."""
    found: dict[str, Values] = {}

    def watch(name: str) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
            found[name] = _constancy(args[0].detach())

        return hook

    handles = [module.register_forward_pre_hook(watch(name)) for name, module in readers.items()]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def _constancy(inputs: Tensor) -> Values:
    """|mean| / standard deviation of every input position over texts and tokens, the first token of each text apart.

    The first token of a text is an outlier of its own (an attention sink). Inputs of one token keep it.
    """
    rest = inputs[:, 1:] if inputs.dim() > 2 and inputs.shape[1] > 1 else inputs
    values = rest.reshape(-1, rest.shape[-1]).double()
    spread = values.std(0, correction=0).clamp_min(torch.finfo(torch.float64).tiny)
    return (values.mean(0).abs() / spread).cpu().numpy()


def _slopes(model: nn.Module, own: Mapping[str, Tensor], sources: Iterable[str]) -> dict[str, tuple[Values, ...]]:
    """Checkpoint tensor -> per axis, the sum of |gradient| over all other axes."""
    found: dict[str, tuple[Values, ...]] = {}
    for source in sorted(sources):
        gradient = own[source].grad
        if gradient is not None:
            found |= {name: _by_axis(part) for name, part in saved_parts(model, source, gradient).items()}
    return found


def _by_axis(gradient: Tensor) -> tuple[Values, ...]:
    sizes = gradient.abs().double()
    axes = range(sizes.dim())
    kept = [[other for other in axes if other != axis] for axis in axes]
    return tuple((sizes.sum(others) if others else sizes).cpu().numpy() for others in kept)


def _of_pair(
    pair: ResolvedPair, slopes: Mapping[str, tuple[Values, ...]], constancies: Mapping[str, Values]
) -> PairMeasure:
    constant = [
        _spread_out(slot, pair.size, constancies[slot.tensor]).min(axis=1)
        for slot in pair.consumers
        if slot.tensor in constancies
    ]
    whole = len(constant) == len(pair.consumers)
    return PairMeasure(
        np.min(constant, axis=0) if whole and constant else None,
        _summed(pair, pair.consumers, slopes),
        _summed(pair, pair.producers, slopes),
    )


def _summed(pair: ResolvedPair, slots: Sequence[ResolvedSlot], slopes: Mapping[str, tuple[Values, ...]]) -> Values:
    parts = [
        _spread_out(slot, pair.size, slopes[slot.tensor][slot.axis]).sum(axis=1)
        for slot in slots
        if slot.tensor in slopes
    ]
    return np.sum(parts, axis=0) if parts else np.zeros(pair.size)


def _spread_out(slot: ResolvedSlot, size: int, along: Values) -> Values:
    """Values along a slot's axis as [channels, positions of the channel]."""
    positions = np.array([list(slot.indices(channel)) for channel in range(size)])
    values: Values = along[positions]
    return values
