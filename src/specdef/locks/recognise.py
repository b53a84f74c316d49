"""Looking past what locks add to a checkpoint."""

from __future__ import annotations

from typing import Any

from specdef.architectures.quantization import declared_method
from specdef.architectures.resolve import ResolvedModel, resolve
from specdef.checkpoint.reader import Checkpoint
from specdef.locks.base import QUANT_METHOD, without_added


def resolve_locked(checkpoint: Checkpoint) -> ResolvedModel:
    """The architecture of a checkpoint, whatever layers of ours its config.json lists beside it.

    Raises:
        ArchitectureError: an unknown family, or tensors its map does not know.
    """
    quantization = checkpoint.config.get("quantization_config")
    ours = declared_method(quantization) == QUANT_METHOD
    config: dict[str, Any] = {k: v for k, v in checkpoint.config.items() if not (ours and k == "quantization_config")}
    factored = quantization.get("factored") if ours and isinstance(quantization, dict) else None
    added = tuple(f"{module}.factors." for module in factored) if isinstance(factored, dict) else ()
    own = set(without_added(checkpoint.shapes))
    shapes = {name: shape for name, shape in checkpoint.shapes.items() if name in own and not name.startswith(added)}
    return resolve(config, shapes)
