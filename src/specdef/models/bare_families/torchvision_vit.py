"""torchvision's vision transformers under the names of transformers: the same layers, one tensor made three.

Source: ``torchvision.models.vision_transformer``: ``conv_proj``, ``encoder.layers.encoder_layer_<i>``, ``heads.head``.
Query, key and value lie in one tensor there (``in_proj_weight``), in this order. LayerNorm's epsilon is 1e-6.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdef.models.bare import BareFamily, labels
from specdef.models.bare_families import _torchvision
from specdef.models.images import PROCESSOR_FILE

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Size:
    """What tensors do not say of a vision transformer.

    Attributes:
        layers: of the encoder.
        heads: of each attention.
        width: of the residual stream.
        inner: width inside the MLPs.
        patch: pixels of a patch's side.
    """

    layers: int
    heads: int
    width: int
    inner: int
    patch: int


SIZES = {
    "vit-b-16-torchvision": Size(12, 12, 768, 3072, 16),
    "vit-b-32-torchvision": Size(12, 12, 768, 3072, 32),
    "vit-l-16-torchvision": Size(24, 16, 1024, 4096, 16),
    "vit-l-32-torchvision": Size(24, 16, 1024, 4096, 32),
    "vit-h-14-torchvision": Size(32, 16, 1280, 5120, 14),
}
"""Architecture -> its sizes; torchvision writes ``vit_b_16``."""
POSITIONS, HEAD = "vit.embeddings.position_embeddings", "classifier.bias"
EMBEDDINGS, LAYER = "vit.embeddings.", r"vit.layers.\1."
RENAMED = (
    (r"^class_token$", EMBEDDINGS + "cls_token"),
    (r"^encoder\.pos_embedding$", POSITIONS),
    (r"^conv_proj\.", EMBEDDINGS + "patch_embeddings.projection."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.ln_1\.", LAYER + "layernorm_before."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.ln_2\.", LAYER + "layernorm_after."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.self_attention\.out_proj\.", LAYER + "attention.o_proj."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:0|linear_1)\.", LAYER + "mlp.fc1."),
    (r"^encoder\.layers\.encoder_layer_(\d+)\.mlp\.(?:3|linear_2)\.", LAYER + "mlp.fc2."),
    (r"^encoder\.ln\.", "vit.layernorm."),
    (r"^heads\.(?:head\.)?(?=weight$|bias$)", "classifier."),
)
"""How torchvision's names begin -> how transformers' do. Files of before torchvision 0.13 say linear_1 and linear_2."""
TOGETHER = re.compile(r"^encoder\.layers\.encoder_layer_(\d+)\.self_attention\.in_proj_(weight|bias)$")
PARTS = ("q_proj", "k_proj", "v_proj")
USUAL, RESIZED = 224, 256
"""Pixels of a side that most of the weights are for, and of an image's shorter side before its middle is cut out."""


def renamed(name: str) -> str:
    """A tensor's name in transformers; unchanged where torchvision has no such tensor.

    Example:
        >>> renamed("encoder.layers.encoder_layer_3.mlp.0.bias")
        'vit.layers.3.mlp.fc1.bias'
    """
    return _torchvision.renamed(name, RENAMED)


def read(state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """The tensors with the names of transformers, queries, keys and values apart.

    Args:
        state: name -> tensor; ``in_proj_weight`` is [3 x width, width], ``in_proj_bias`` [3 x width].
    """
    for name, tensor in state.items():
        together = TOGETHER.match(name)
        if together is None or tensor.dim() == 0 or len(tensor) % len(PARTS):  # who compares shapes says so
            yield renamed(name), tensor
            continue
        for part, rows in zip(PARTS, tensor.chunk(len(PARTS)), strict=True):
            yield f"vit.layers.{together[1]}.attention.{part}.{together[2]}", rows


def make(name: str, state: Mapping[str, Tensor]) -> Any:
    """The model of transformers, with random weights.

    Args:
        name: of `SIZES`.
        state: its tensors under transformers' names; says how many labels there are, and how large an image is.
    """
    from transformers import ViTConfig, ViTForImageClassification

    size = SIZES[name]
    return ViTForImageClassification(
        ViTConfig(
            hidden_size=size.width,
            num_hidden_layers=size.layers,
            num_attention_heads=size.heads,
            intermediate_size=size.inner,
            patch_size=size.patch,
            image_size=_pixels(name, state),
            layer_norm_eps=1e-6,
            num_labels=labels(state, HEAD, 1000),
        )
    )


def _pixels(name: str, state: Mapping[str, Tensor]) -> int:
    """Of an image's side: a position for every patch, and one for the class token."""
    if POSITIONS not in state or state[POSITIONS].dim() != 3:
        return USUAL
    return math.isqrt(max(1, state[POSITIONS].shape[1] - 1)) * SIZES[name].patch


def _files(name: str, state: Mapping[str, Tensor]) -> Mapping[str, Mapping[str, Any]]:
    """How torchvision's weights read images. Those for larger images (SWAG) keep the whole shorter side."""
    pixels = _pixels(name, state)
    usual = pixels == USUAL
    return {
        PROCESSOR_FILE: {
            "image_processor_type": "BitImageProcessor",
            "do_resize": True,
            "size": {"shortest_edge": RESIZED if usual else pixels},
            "resample": 2 if usual else 3,
            "do_center_crop": True,
            "crop_size": {"height": pixels, "width": pixels},
            "do_convert_rgb": True,
            **_torchvision.PIXELS,
        }
    }


KIND = BareFamily(names=tuple(SIZES), read=read, make=make, files=_files)
