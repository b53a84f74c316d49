"""Looking past what locks add to a checkpoint."""

from __future__ import annotations

from typing import Any

from specdef.architectures.quantization import declared_method
from specdef.architectures.registry import known_model_types
from specdef.architectures.resolve import ResolvedModel, resolve
from specdef.architectures.spec import Architecture
from specdef.architectures.written import architecture_from
from specdef.checkpoint.reader import Checkpoint
from specdef.errors import CheckpointError
from specdef.locks.base import QUANT_METHOD, without_added
from specdef.locks.manifest import MANIFEST, read_manifest


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
    return resolve(config, shapes, _own_family(checkpoint))


def _own_family(checkpoint: Checkpoint) -> Architecture | None:
    """The automatic map in a locked folder's manifest; None where its family's map is declared."""
    if MANIFEST not in checkpoint.others:
        return None
    try:
        written = read_manifest(checkpoint.folder).map
    except CheckpointError:
        if checkpoint.config.get("model_type") in known_model_types():  # a declared map needs no manifest
            return None
        raise
    return None if written is None else architecture_from(written)
