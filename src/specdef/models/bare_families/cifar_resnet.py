"""The narrow ResNets for CIFAR as they are published: their own names of tensors, but for the head's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from specdef.models.bare import BareFamily, by_name, labels

if TYPE_CHECKING:
    from torch import Tensor

DEPTHS = {f"resnet{6 * blocks + 2}-cifar": blocks for blocks in (3, 5, 7, 9, 18)}
"""Architecture -> blocks of each of its three stages."""
WIDTHS = [16, 32, 64]
HEAD = "classifier."
PUBLISHED_HEAD = "linear."


def renamed(name: str) -> str:
    """A tensor's name in `CifarResNetForImageClassification`.

    Example:
        >>> renamed("linear.bias")
        'classifier.bias'
    """
    return HEAD + name.removeprefix(PUBLISHED_HEAD) if name.startswith(PUBLISHED_HEAD) else name


def make(name: str, state: Mapping[str, Tensor]) -> Any:
    """The model, with random weights.

    Args:
        name: of `DEPTHS`.
        state: its tensors; says how many labels there are.
    """
    from specdef.models.cifar_resnet import CifarResNetConfig, CifarResNetForImageClassification

    count = labels(state, f"{HEAD}bias", 10)
    config = CifarResNetConfig(depths=[DEPTHS[name]] * 3, hidden_sizes=WIDTHS, num_labels=count)
    return CifarResNetForImageClassification(config)


KIND = BareFamily(
    names=tuple(DEPTHS),
    read=by_name(renamed),
    make=make,
)
