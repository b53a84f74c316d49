"""torchvision's ResNets under the names of transformers: the same layers, convolution for convolution.

Source: ``torchvision.models.resnet``: ``conv1``, ``bn1``, ``layer1`` to ``layer4``, ``fc``. Its bottleneck halves the
image in the 3 x 3 convolution, as transformers' does unless ``downsample_in_bottleneck`` is set.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from specdef.models.bare import BareFamily, by_name, labels
from specdef.models.bare_families import _torchvision
from specdef.models.images import PROCESSOR_FILE

if TYPE_CHECKING:
    from torch import Tensor

DEPTHS = {
    "resnet18-torchvision": ("basic", [2, 2, 2, 2]),
    "resnet34-torchvision": ("basic", [3, 4, 6, 3]),
    "resnet50-torchvision": ("bottleneck", [3, 4, 6, 3]),
}
"""Architecture -> type of block, and blocks of each stage."""
EXPANSION = {"basic": 1, "bottleneck": 4}
WIDTHS = [64, 128, 256, 512]
HEAD = "classifier.1.bias"
RENAMED = (
    (r"^conv1\.", "resnet.embedder.embedder.convolution."),
    (r"^bn1\.", "resnet.embedder.embedder.normalization."),
    (r"^fc\.", "classifier.1."),
    (r"^layer(\d+)\.(\d+)\.downsample\.0\.", r"resnet.encoder.stages.<\1>.layers.\2.shortcut.convolution."),
    (r"^layer(\d+)\.(\d+)\.downsample\.1\.", r"resnet.encoder.stages.<\1>.layers.\2.shortcut.normalization."),
    (r"^layer(\d+)\.(\d+)\.conv(\d)\.", r"resnet.encoder.stages.<\1>.layers.\2.layer.<\3>.convolution."),
    (r"^layer(\d+)\.(\d+)\.bn(\d)\.", r"resnet.encoder.stages.<\1>.layers.\2.layer.<\3>.normalization."),
)
"""How torchvision's names begin -> how transformers' do; a number in <> counts from 1 there and from 0 here."""
PROCESSOR: Mapping[str, Any] = {
    "image_processor_type": "ConvNextImageProcessor",
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "crop_pct": 0.875,
    "resample": 2,
    **_torchvision.PIXELS,
}
"""How torchvision's weights for ImageNet read images: 256 pixels, the middle 224, its mean and spread."""


def renamed(name: str) -> str:
    """A tensor's name in transformers; unchanged where torchvision has no such tensor.

    Example:
        >>> renamed("layer2.0.bn1.weight")
        'resnet.encoder.stages.1.layers.0.layer.0.normalization.weight'
    """
    return re.sub(r"<(\d+)>", lambda number: str(int(number[1]) - 1), _torchvision.renamed(name, RENAMED))


def make(name: str, state: Mapping[str, Tensor]) -> Any:
    """The model of transformers, with random weights.

    Args:
        name: of `DEPTHS`.
        state: its tensors under transformers' names; says how many labels there are.
    """
    from transformers import ResNetConfig, ResNetForImageClassification

    block, depths = DEPTHS[name]
    return ResNetForImageClassification(
        ResNetConfig(
            embedding_size=WIDTHS[0],
            hidden_sizes=[EXPANSION[block] * width for width in WIDTHS],
            depths=depths,
            layer_type=block,
            num_labels=labels(state, HEAD, 1000),
        )
    )


KIND = BareFamily(
    names=tuple(DEPTHS),
    read=by_name(renamed),
    make=make,
    files=lambda name, state: {PROCESSOR_FILE: PROCESSOR},
)
