"""ResNet: inside a block a convolution, its BatchNorm, a ReLU and the next convolution; blocks stand in stages.

BatchNorm takes its statistics, stored ones or the batch's, of the convolution's output, which is not scaled. So its
weight and bias scale its output exactly, in evaluation and in training alike.

The lock is weak here, most likely for the same reason: the consumer's output goes through a BatchNorm of its own, which
takes out the size of whatever training does to it. `tests/certify/test_image_classifier.py` measures how weak.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from specdef.architectures.spec import (
    INTERMEDIATE,
    Architecture,
    Config,
    Dims,
    Exclusion,
    Pair,
    PartNames,
    Place,
    Slot,
    degree_of,
)
from specdef.errors import ArchitectureError

STEM = "encoder.stages.{layer}."
CONVOLUTION = STEM + "layer.{number}.convolution.weight"
NORMALIZATION = STEM + "layer.{number}.normalization."
CONVOLUTIONS = {"basic": 2, "bottleneck": 3}
REDUCTION = 4
"""By how much a bottleneck is narrower than its block; transformers has no name for it."""
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def places(config: Config, shapes: Mapping[str, tuple[int, ...]]) -> list[Place]:
    """The blocks, stage by stage; `intermediate` is the width between a block's convolutions.

    Raises:
        ArchitectureError: depths, widths or the type of block are not such as ResNets have.
    """
    depths, widths, kind = _sizes(config, "depths"), _sizes(config, "hidden_sizes"), config.get("layer_type")
    if len(depths) != len(widths):
        raise ArchitectureError(
            f"`depths` in config.json must have one number a stage, as `hidden_sizes`; got {depths} and {widths}."
        )
    if kind not in CONVOLUTIONS:
        raise ArchitectureError(f"`layer_type` in config.json must be basic or bottleneck; got {kind!r}.")
    found = []
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        inner = width // REDUCTION if kind == "bottleneck" else width
        dims = Dims(hidden=width, num_layers=depth, num_heads=1, num_kv_heads=1, head_dim=width, intermediate=inner)
        found += [Place(f"{stage}.layers.{block}", dims) for block in range(depth)]
    return found


def _sizes(config: Config, key: str) -> list[int]:
    found = config.get(key)
    if not isinstance(found, list) or not found or not all(type(size) is int and size > 0 for size in found):
        raise ArchitectureError(f"`{key}` in config.json must be a list of positive whole numbers; got {found!r}.")
    return found


def _pairs(config: Config, dims: Dims) -> Sequence[Pair]:
    degree = degree_of(config.get("hidden_act"))
    if degree is None:
        return ()
    labels = ("first", "second")[: CONVOLUTIONS[config["layer_type"]] - 1]
    return [
        conv_pair(_named(NORMALIZATION, number), _named(CONVOLUTION, number + 1), degree=degree, label=label)
        for number, label in enumerate(labels)
    ]


def conv_pair(normalization: str, convolution: str, *, degree: int = 1, label: str = "") -> Pair:
    """The pair of a BatchNorm and the next convolution of its block.

    Args:
        normalization: template of the BatchNorm's names, up to ``weight``.
        convolution: template of the convolution's weight.
        degree: the activation's between them.
        label: what tells the pair from others of its block.
    """
    return Pair(
        "conv",
        tuple(Slot(normalization + part, 0, INTERMEDIATE) for part in ("weight", "bias")),
        (Slot(convolution, 1, INTERMEDIATE),),
        lambda d: d.intermediate,
        degree=degree,
        label=label,
    )


def _named(template: str, number: int) -> str:
    return template.replace("{number}", str(number))


RESNET = Architecture(
    name="ResNet",
    model_types=("resnet",),
    prefixes=("resnet.", ""),
    layer_stem=STEM,
    pairs=_pairs,
    linears={f"convolution_{number}": STEM + f"layer.{number}.convolution" for number in range(3)},
    inject_default=("convolution_0", "convolution_1", "convolution_2"),
    others=(
        *(_named(NORMALIZATION, number) + part for number in range(3) for part in ("weight", "bias", *STATISTICS)),
        STEM + "shortcut.convolution.weight",
        *(STEM + "shortcut.normalization." + part for part in ("weight", "bias", *STATISTICS)),
    ),
    exclusions=(
        Exclusion(
            "normalization -> next convolution under GELU or SiLU", "only a homogeneous activation lets a scale by"
        ),
        Exclusion("last normalization of a block -> next block", "its output is added to the residual stream"),
        Exclusion(
            "embedder.normalization -> first block", "the first block's residual stream reads it beside its convolution"
        ),
        Exclusion(
            "convolution -> its normalization",
            "the normalization divides the scale out again, but for eps: not exact, and no consumer is scaled",
        ),
    ),
    config_defaults={
        "depths": [3, 4, 6, 3],
        "hidden_sizes": [256, 512, 1024, 2048],
        "layer_type": "bottleneck",
        "hidden_act": "relu",
    },
    part_names=PartNames(query_value=("convolution",), mlp=r"layer\.\d\.convolution", embeddings=r"embedder\."),
    places=places,
    layer_pattern=r"[0-9]{1,6}\.layers\.[0-9]{1,6}",
    remarks=(
        "Do not rely on it: BatchNorm follows every scaled convolution and takes out the size of whatever training "
        "does to it; on tiny models fine-tuning went on as without the lock (docs/limits.md).",
    ),
)

FAMILIES = (RESNET,)
