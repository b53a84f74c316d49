"""torchao: a float32 model with its linear layers quantised to int8."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from specdef.models.loading import load, quiet
from specdef.runtimes.base import Running, Runtime
from specdef.runtimes.in_transformers import InTransformers


class Torchao(Runtime):
    """Weights in int8, a scale a row; activations as they are, or in int8 as well, a scale a token."""

    name = "torchao"
    modules = (("torchao", "torchao"), ("torch", "torch"))
    formats = ("int8", "int8-dynamic")
    default_formats = ("int8",)

    @contextmanager
    def open(self, folder: Path, format: str, scratch: Path) -> Iterator[Running]:
        """See `Runtime`."""
        import torch
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig, quantize_

        model = load(folder, dtype=torch.float32)
        with quiet():
            quantize_(model, Int8WeightOnlyConfig() if format == "int8" else Int8DynamicActivationInt8WeightConfig())
            yield InTransformers(model)


KIND = Torchao()
