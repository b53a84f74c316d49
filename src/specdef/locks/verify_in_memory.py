"""`verify` for a model in memory: is a lock in its weights, is its function the original's?

Nothing was published, so there is no manifest and there are no digests: the weights and the function speak alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from specdef.architectures.channels import pair_imbalances
from specdef.locks.base import Check, Evidence, recognised
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
    checks, equivalence = [_lock(module)], None
    if original is not None:
        say("function, against the original")
        equivalence = compare(original, module)
        checks.append(_function(equivalence))
    return tuple(checks), equivalence


def _lock(module: nn.Module) -> Check:
    """Whether a kind of lock recognises itself; small factors hide among natural scales, so no sign proves nothing."""
    tensors = model_tensors(module)
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
