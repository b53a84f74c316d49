"""Hidden states of a language model, and where its layers are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from specdef.defences.objective import require
from specdef.errors import SpecdefError
from specdef.models.base import Batch

if TYPE_CHECKING:
    import torch

MLP_OUTPUTS = ("down_proj", "c_proj", "fc2", "dense_4h_to_h", "fc_out", "w2")
"""Names that families give the projection out of an MLP."""
_LAYER = re.compile(r"(?:^|\.)(?:layers|h|blocks|block)\.(\d+)\.")


def hidden_states(model: Any, batch: Batch) -> tuple[torch.Tensor, ...]:
    """What every layer of a causal language model passes on.

    Args:
        model: the model, or a wrapper of peft.
        batch: token ids, labels and mask, each [rows, tokens].

    Returns:
        The embeddings, then each layer's output, [rows, tokens, hidden]; the last has passed the final norm.
    """
    device = next(model.parameters()).device
    ids, _, mask = (tensor.to(device) for tensor in batch)
    found: tuple[torch.Tensor, ...] = model(
        input_ids=ids, attention_mask=mask, output_hidden_states=True, use_cache=False, logits_to_keep=1
    ).hidden_states
    return found


def token_mean(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The mean of [rows, tokens] over tokens that are no padding."""
    real = mask.to(values)
    return (values * real).sum() / real.sum()


def mean_distance(
    after: tuple[torch.Tensor, ...], before: tuple[torch.Tensor, ...], mask: torch.Tensor
) -> torch.Tensor:
    """The mean over layers and real tokens of the Euclidean distance of hidden states.

    Args:
        after: of every layer, [rows, tokens, hidden].
        before: the same, of another model.
        mask: [rows, tokens], 0 for padding.
    """
    import torch

    real = mask.to(after[0].device)
    distances = [torch.linalg.vector_norm(a - b, dim=-1) for a, b in zip(after, before, strict=True)]
    return torch.stack([token_mean(distance, real) for distance in distances]).mean()


def layer_count(model: Any) -> int:
    """How many layers a model has.

    Raises:
        SpecdefError: its parameters are not named by layers.
    """
    numbers = {int(match[1]) for name, _ in model.named_parameters() if (match := _LAYER.search(name))}
    if not numbers:
        raise SpecdefError("`model` must name its parameters by layers (layers.0., h.0.); none of them is named so.")
    return max(numbers) + 1


def layer_of(name: str) -> int | None:
    """The layer of a parameter's or module's name; None for one in no layer."""
    match = _LAYER.search(f"{name}.")
    return None if match is None else int(match[1])


def chosen_layer(layer: int | None, default: int, model: Any) -> int:
    """The layer an option names, from 0, or the default where it names none.

    Raises:
        SpecdefError: the model has no such layer.
    """
    count = layer_count(model)
    found = default if layer is None else layer
    require(0 <= found < count, "layer", f"be a layer of the model, 0 to {count - 1}", found)
    return found


def chosen_layers(layers: tuple[int, ...], default: tuple[int, ...], model: Any) -> tuple[int, ...]:
    """The layers an option names, from 0, or the default where it names none.

    Raises:
        SpecdefError: the model lacks one of them.
    """
    count = layer_count(model)
    found = layers or default
    good = all(0 <= layer < count for layer in found)
    require(good, "layers", f"be layers of the model, 0 to {count - 1}", list(found))
    return found


def mlp_outputs(model: Any, layers: range) -> list[str]:
    """Names of the weights of the projections out of the MLPs of some layers; biases are left out.

    Raises:
        SpecdefError: there are none by a name that is known.
    """
    found = [
        name
        for name, parameter in model.named_parameters()
        if layer_of(name) in layers and parameter.ndim >= 2 and _is_mlp_output(name)
    ]
    if not found:
        raise SpecdefError(
            f"`model` must have a projection out of every MLP, named {', '.join(MLP_OUTPUTS)}; layers {layers[0]} to "
            f"{layers[-1]} have none of these."
        )
    return found


def _is_mlp_output(name: str) -> bool:
    parts = name.removesuffix(".weight").split(".")
    attention = any("attn" in part or "attention" in part for part in parts)
    return not attention and any(part in MLP_OUTPUTS for part in parts)
