"""`verify` without a manifest: is a lock in the weights, is the function the original's?

A model in memory was not published, and a folder that another program has saved again lost its manifest. There are no
digests then and nothing is claimed: the weights and the function speak alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from specdef.architectures.channels import pair_imbalances
from specdef.checkpoint.reader import Checkpoint
from specdef.core.text import shown
from specdef.errors import CheckpointError
from specdef.locks.base import Check, Evidence, recognised
from specdef.locks.manifest import MANIFEST
from specdef.locks.model_tensors import model_tensors
from specdef.locks.recognise import resolve_locked
from specdef.models.equivalence import Equivalence, compare

if TYPE_CHECKING:
    from torch import nn


def check_module(
    module: nn.Module, original: nn.Module | Path | None, say: Callable[[str], None]
) -> tuple[tuple[Check, ...], Equivalence | None]:
    """The checks of a model in memory, and the comparison with the original where there is one.

    Args:
        module: a transformers model; it is left as it is.
        original: the unlocked model.
        say: called with the name of each stage as it starts.

    Raises:
        SpecdefError: a model cannot be read, or the two cannot be compared.
    """
    say("lock in the weights")
    return _and_function([_lock(model_tensors(module))], module, original, say)


def check_saved_again(
    checkpoint: Checkpoint, original: nn.Module | Path | None, say: Callable[[str], None]
) -> tuple[tuple[Check, ...], Equivalence | None]:
    """The same of a folder without a manifest, which must show a lock: else any model would pass.

    Args:
        checkpoint: the folder.
        original: the unlocked model.
        say: called with the name of each stage as it starts.

    Raises:
        SpecdefError: no lock stands out, the model cannot be read, or the two cannot be compared.
    """
    say("lock in the weights")
    lock = _lock(checkpoint)
    if lock.passed is None:
        raise CheckpointError(
            f"Folder {shown(checkpoint.folder)} must hold {MANIFEST}; it does not, and {lock.detail}. Give the folder "
            "as it was published, or a model locked by specdef."
        )
    lost = f"{MANIFEST} is missing, as after saving by another program: files cannot be held against digests"
    return _and_function([Check("integrity", None, lost), lock], checkpoint.folder, original, say)


def _and_function(
    checks: list[Check], model: nn.Module | Path, original: nn.Module | Path | None, say: Callable[[str], None]
) -> tuple[tuple[Check, ...], Equivalence | None]:
    if original is None:
        return tuple(checks), None
    say("function, against the original")
    equivalence = compare(original, model)
    return (*checks, _function(equivalence)), equivalence


def _lock(tensors: Checkpoint) -> Check:
    """Whether a kind of lock recognises itself; small factors hide among natural scales, so no sign proves nothing."""
    model = resolve_locked(tensors)
    evidence = Evidence(tensors, model, pair_imbalances(tensors, model.pairs), {})
    sign = recognised(evidence)
    if sign is None:
        return Check("lock", None, "no lock stands out in the weights; a weak one cannot be told without its key")
    strength = "" if sign.exponent is None else f", about 2^{sign.exponent}"
    return Check("lock", True, f"looks like {sign.lock}{strength}: {sign.found} of {len(sign.layers)} layers")


def _function(found: Equivalence) -> Check:
    if found.bit_identical:
        return Check("function", True, f"{found.num_outputs:,} outputs in {found.dtype} are identical to the bit")
    return Check("function", found.kl <= found.tolerance, found.sentence)
