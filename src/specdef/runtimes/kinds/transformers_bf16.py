"""transformers, the model loaded in bfloat16: the cache of keys and values is bfloat16 too."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from specdef.runtimes.base import Running, Runtime
from specdef.runtimes.in_transformers import loaded


class TransformersBf16(Runtime):
    """Weights, activations and cache in bfloat16."""

    name = "transformers-bf16"
    modules = (("transformers", "transformers"), ("torch", "torch"))
    formats = default_formats = ("bf16",)

    def open(self, folder: Path, format: str, scratch: Path) -> AbstractContextManager[Running]:
        """See `Runtime`."""
        return loaded(folder, "bfloat16")


KIND = TransformersBf16()
