"""transformers, the model loaded in float16: the cache of keys and values is float16 too."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from specdef.runtimes.base import Running, Runtime
from specdef.runtimes.in_transformers import loaded


class TransformersF16(Runtime):
    """Weights, activations and cache in float16."""

    name = "transformers-f16"
    modules = (("transformers", "transformers"), ("torch", "torch"))
    formats = default_formats = ("f16",)

    def open(self, folder: Path, format: str, scratch: Path) -> AbstractContextManager[Running]:
        """See `Runtime`."""
        return loaded(folder, "float16")


KIND = TransformersF16()
