"""What ``config.json`` says of an inject-locked model: enough to rebuild its layers before their tensors load."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

from specdef.core.dtypes import STORED_NAMES
from specdef.errors import SpecdefError
from specdef.linalg.compensation import TENSOR_NAMES, Basis, Form, Side
from specdef.linalg.deform import Deformation
from specdef.linalg.matrix import matrix_shape
from specdef.locks.base import QUANT_METHOD as QUANT_METHOD

FORMAT_VERSION = 1


@dataclass(frozen=True)
class LayerEntry:
    """What config.json says of one locked layer, enough to build it before its tensors load.

    Attributes:
        side: where C acts, "output" or "input".
        form: "dense", "low_rank" or "diagonal".
        basis: "svd" or "axis".
        dtype: dtype of C, for example "float64".
        weight_dtype: dtype of W~; loading in another one would undo what C was solved against.
        rank: number of scaled directions, k.
        transposed: the weight is stored [in, out] (GPT-2's Conv1D).
    """

    side: Side
    form: Form
    basis: Basis
    dtype: str
    weight_dtype: str
    rank: int
    transposed: bool = False

    @classmethod
    def of(cls, deformation: Deformation, *, transposed: bool = False) -> Self:
        """The entry of a deformation."""
        return cls(
            side=deformation.side,
            form=deformation.form,
            basis=deformation.basis,
            dtype=str(deformation.compensation_dtype).removeprefix("torch."),
            weight_dtype=str(deformation.weight.dtype).removeprefix("torch."),
            rank=deformation.rank,
            transposed=transposed,
        )

    @classmethod
    def parse(cls, name: str, entry: Mapping[str, Any]) -> Self:
        """Read an entry, refusing what this version cannot build.

        Raises:
            SpecdefError: a key is missing or unknown, or a value is not one of those listed above.
        """
        allowed: dict[str, tuple[Any, ...]] = {
            "side": ("output", "input"),
            "form": tuple(TENSOR_NAMES),
            "basis": ("svd", "axis"),
            "dtype": ("float32", "float64", "bfloat16", "float16"),
            "weight_dtype": ("float32", "float64", "bfloat16", "float16"),
            "transposed": (True, False),
        }
        for key, values in allowed.items():
            if entry.get(key) not in values:
                raise SpecdefError(
                    f"`quantization_config.modules[{name!r}].{key}` in config.json must be one of "
                    f"{', '.join(map(str, values))}; got {entry.get(key)!r}. Use the specdef version that locked it."
                )
        rank = entry.get("rank")
        if set(entry) != {*allowed, "rank"} or type(rank) is not int or rank < 1:
            raise SpecdefError(
                f"`quantization_config.modules[{name!r}]` in config.json must have the keys "
                f"{', '.join([*allowed, 'rank'])} and a positive rank; got {dict(entry)!r}. "
                "Use the specdef version that locked it."
            )
        return cls(**entry)

    def tensors(self, module: str, weight: tuple[int, ...]) -> dict[str, tuple[str, tuple[int, ...]]]:
        """What a locked folder holds of this layer: tensor name -> (safetensors dtype, shape).

        Args:
            module: the layer's name.
            weight: shape of its stored weight, a matrix or a convolution; anything else is no layer's, and expected to
                be a matrix of no rows.
        """
        rows, columns = matrix_shape(weight) or (0, 0)
        side = rows if (self.side == "output") != self.transposed else columns
        shapes: dict[str, tuple[int, ...]] = {
            "compensation": (side, side),
            "compensation_basis": (side, self.rank),
            "compensation_scale": (self.rank,),
            "compensation_index": (self.rank,),
            "compensation_factor": (self.rank,),
        }
        dtypes = {"compensation_index": "I64"}
        beside = {
            f"{module}.{name}": (dtypes.get(name, STORED_NAMES[self.dtype]), shapes[name])
            for name in TENSOR_NAMES[self.form]
        }
        return {f"{module}.weight": (STORED_NAMES[self.weight_dtype], weight if rows else (0, 0)), **beside}


def quantization_config(modules: Mapping[str, LayerEntry]) -> dict[str, Any]:
    """The config.json value that names every locked module.

    Args:
        modules: module name -> entry.

    Example:
        >>> entry = LayerEntry("output", "dense", "svd", "float64", "float32", 25)
        >>> quantization_config({"model.layers.3.mlp.gate_proj": entry})["needs"]
        'specdef'
    """
    return {
        "needs": QUANT_METHOD,
        "version": FORMAT_VERSION,
        "modules": {name: asdict(entry) for name, entry in modules.items()},
    }
