"""Tensors that are computed together and written one by one, possibly by several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping

import torch
from torch import Tensor

from specdef.core.dtypes import TORCH_NAMES


def tensor_bytes(tensor: Tensor) -> bytes:
    """A tensor's numbers as safetensors stores them."""
    return bytes(tensor.contiguous().flatten().view(torch.uint8).numpy().data)


class Together:
    """Tensors computed when the first of them is written and let go when the last one is.

    Args:
        make: computes them all, by key.
        keys: every key that will be asked for, once each.
    """

    def __init__(self, make: Callable[[], Mapping[str, Tensor]], keys: Collection[str]) -> None:
        self._make, self._left = make, set(keys)
        self._tensors: dict[str, Tensor] | None = None
        self._lock = threading.Lock()

    def writer(self, key: str, dtype: str) -> Callable[[], bytes]:
        """What gives one tensor's bytes in a safetensors dtype."""

        def data() -> bytes:
            with self._lock:
                if self._tensors is None:
                    self._tensors = dict(self._make())
                tensor = self._tensors.pop(key)
                self._left.discard(key)
                if not self._left:
                    self._tensors = {}
            return tensor_bytes(tensor.to(getattr(torch, TORCH_NAMES[dtype])))

        return data
