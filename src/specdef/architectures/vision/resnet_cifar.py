"""The narrow ResNets for CIFAR (He et al. 2016, section 4.2): conv1, bn1, ReLU, conv2, bn2, a sum without weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from specdef.architectures.spec import (
    Architecture,
    Config,
    Dims,
    Exclusion,
    Pair,
    PartNames,
    Place,
)
from specdef.architectures.vision.resnet import RESNET, STATISTICS, conv_pair
from specdef.architectures.vision.resnet import places as stages

STEM = "layer{layer}."


def _places(config: Config, shapes: Mapping[str, tuple[int, ...]]) -> list[Place]:
    """Stages are numbered from 1, and every block is a basic one."""
    found = []
    for place in stages({**config, "layer_type": "basic"}, shapes):
        stage, _, block = place.path.split(".")
        found.append(Place(f"{int(stage) + 1}.{block}", place.dims))
    return found


def _pairs(config: Config, dims: Dims) -> Sequence[Pair]:
    return (conv_pair(STEM + "bn1.", STEM + "conv2.weight"),)


RESNET_CIFAR = Architecture(
    name="CIFAR ResNet",
    model_types=("resnet-cifar",),
    prefixes=("",),
    layer_stem=STEM,
    pairs=_pairs,
    linears={f"conv{number}": f"{STEM}conv{number}" for number in (1, 2)},
    inject_default=("conv1", "conv2"),
    others=(
        *(f"{STEM}bn1.{part}" for part in STATISTICS),
        *(f"{STEM}bn2.{part}" for part in ("weight", "bias", *STATISTICS)),
    ),
    exclusions=(
        Exclusion("bn2 -> next block", "its output is added to the residual stream"),
        Exclusion(
            "bn1 of the model -> first block", "the first block's residual stream reads it beside its convolution"
        ),
    ),
    part_names=PartNames(query_value=("conv2",), mlp=r"layer\d\.\d+\.conv", embeddings=r"^conv1\."),
    places=_places,
    layer_pattern=r"[0-9]{1,6}\.[0-9]{1,6}",
    remarks=RESNET.remarks,
)

FAMILIES = (RESNET_CIFAR,)
