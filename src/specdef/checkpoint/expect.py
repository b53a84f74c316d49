"""What a reader relies on, checked before tensors are read: their dtype and shape, not their numbers."""

from __future__ import annotations

from collections.abc import Mapping

from specdef.checkpoint.reader import Checkpoint
from specdef.core.text import shown
from specdef.errors import CheckpointError


def expect_tensors(checkpoint: Checkpoint, expected: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Check tensors of a folder against what its config.json says of them; those that are missing are passed over.

    Args:
        checkpoint: the folder.
        expected: tensor name -> (safetensors dtype, shape).

    Raises:
        CheckpointError: a tensor has another dtype or shape.
    """
    where = checkpoint.locate()
    for name, (dtype, shape) in expected.items():
        if name in where and (where[name][1].dtype, where[name][1].shape) != (dtype, shape):
            shard, found = where[name]
            raise CheckpointError(
                f"Tensor {shown(name)} of file {shown(shard)} must be {dtype} of shape {list(shape)}, as config.json "
                f"says; it is {found.dtype} of shape {list(found.shape)}. Restore the published model."
            )
