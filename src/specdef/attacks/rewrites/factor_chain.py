"""Layer injection (main paper, Theorems 8 and 32): replace a deformed layer by more layers, each less deformed.

literal: W~ with spectral norm M becomes k + 1 factors of norm M^(1/(k+1)), as the proof of Theorem 32 has it; the
defender's C stays where it is. interleaved: C is factored too, and its factors stand between those of W~, so that no
activation inside the chain is larger than M^(1/(k+1)). The difference matters: the gradient with respect to C contains
W~ x, and factoring W~ alone does not make that smaller.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from specdef.attacks.factored_linear import FACTORED_VERSION, FactorEntry
from specdef.attacks.rewrites.compensated import compensated_modules, relative_difference, stored_layer
from specdef.attacks.rewrites.lazy_tensors import Together
from specdef.attacks.rewriting import RewritePlan
from specdef.checkpoint.edits import NewTensor, edits_by_shard
from specdef.checkpoint.reader import Checkpoint
from specdef.core.dtypes import SHORT_NAMES, STORED_NAMES
from specdef.errors import SpecdefError
from specdef.linalg.compensation import TENSOR_NAMES, Side, effective_weight
from specdef.locks.entry import QUANT_METHOD, LayerEntry

TINY = 1e-12
"""Singular values below this share of the largest count as zero."""


def plan_chains(checkpoint: Checkpoint, *, factors: int, order: str, dtype: str) -> RewritePlan:
    """Replace every layer of an inject lock by a chain of trainable factors.

    Args:
        checkpoint: a published folder with an inject lock.
        factors: k, how many layers each of W~ (and, interleaved, C) gains.
        order: ``interleaved`` or ``literal``.
        dtype: of the factors: fp32, bf16 or fp64. The literal chain keeps C in its own dtype.

    Raises:
        SpecdefError: no inject lock, or one that config.json describes wrongly.
    """
    modules = compensated_modules(checkpoint)
    where = checkpoint.locate()
    replaced: dict[str, NewTensor] = {}
    added: dict[str, dict[str, NewTensor]] = {}
    dropped: list[str] = []
    entries: dict[str, Any] = {}
    after = 0
    errors: list[float] = []
    named = SHORT_NAMES[dtype]
    for module, entry in modules.items():
        weight = f"{module}.weight"
        shape = where[weight][1].shape
        if len(shape) != 2:
            raise SpecdefError(
                f"`model` must hold linear layers to become chains of factors; {module} is a convolution. Use merge."
            )
        out, inner = reversed(shape) if entry.transposed else shape
        shapes = chain_shapes((out, inner), entry.side, factors, order)
        keeps = _kept(entry, order, len(shapes))
        dtypes = tuple(entry.dtype if number in keeps else named for number in range(len(shapes)))
        keys = [str(number) for number in range(len(shapes))]
        chain = Together(partial(_chain, checkpoint, module, entry, factors, order, dtypes, errors), keys)
        for number, shape in enumerate(shapes):
            file_dtype = STORED_NAMES[dtypes[number]]
            new = NewTensor(file_dtype, shape, chain.writer(str(number), file_dtype))
            if number == 0:
                replaced[weight] = new
            else:
                added.setdefault(weight, {})[f"{module}.factors.{number - 1}"] = new
            after += shape[0] * shape[1]
        dropped += [f"{module}.{part}" for part in TENSOR_NAMES[entry.form]]
        entries[module] = FactorEntry(shapes, dtypes, entry.transposed).to_json()
    before = sum(math.prod(where[name][1].shape) for name in (*replaced, *dropped))
    edits = edits_by_shard(checkpoint, replaced=replaced, added=added, dropped=dropped)
    quantization = {"needs": QUANT_METHOD, "version": FACTORED_VERSION, "modules": {}, "factored": entries}
    config = {**checkpoint.config, "quantization_config": quantization}
    length = len(next(iter(entries.values()))["shapes"])
    detail = f"{len(modules)} layers replaced by chains of {length} trainable matrices"
    return RewritePlan(edits, config, len(modules), after - before, detail, errors)


def chain_shapes(shape: tuple[int, int], side: Side, factors: int, order: str) -> tuple[tuple[int, int], ...]:
    """Shapes [out, in] of the chain's matrices, first applied first.

    Example:
        >>> chain_shapes((6, 4), "output", 1, "interleaved")
        ((6, 4), (6, 6), (6, 6), (6, 6))
    """
    out, inner = shape if side == "output" else shape[::-1]
    square = (out, out)
    count = 2 * (factors + 1) if order == "interleaved" else factors + 2
    shapes = ((out, inner), *[square] * (count - 1))
    return shapes if side == "output" else tuple((columns, rows) for rows, columns in reversed(shapes))


def factor_chain(
    locked: Float[Tensor, "out in"], effective: Float[Tensor, "out in"], compensation: Tensor, factors: int, order: str
) -> list[Tensor]:
    """The chain for a layer compensated on its output side, first applied first, in float64.

    Math: W~ = U diag(s~) V^T, s_i = ||W v_i||, n = k + 1. literal: U diag(s~^(1/n)) V^T, then k times
    U diag(s~^(1/n)) U^T, then C. interleaved: the same, each followed by U diag((s/s~)^(1/n)) U^T, but for the last,
    which is solved so that the product is W.

    Args:
        locked: W~, float64.
        effective: W = C W~, float64.
        compensation: C [out, out], float64; used by the literal order.
        factors: k.
        order: ``literal`` or ``interleaved``.
    """
    n = factors + 1
    u, s, vh = torch.linalg.svd(locked, full_matrices=False)
    root = s.pow(1 / n)
    links = [(u * root) @ vh, *[(u * root) @ u.T] * factors]
    if order == "literal":
        return [*links, compensation]
    ratio = (torch.linalg.vector_norm(effective @ vh.T, dim=0) / s.clamp_min(torch.finfo(s.dtype).tiny)).clamp(TINY, 1)
    damping = (u * ratio.pow(1 / n)) @ u.T
    chain = [matrix for link in links for matrix in (link, damping)]
    product = chain[0]
    for matrix in chain[1:-1]:
        product = matrix @ product
    chain[-1] = effective @ torch.linalg.pinv(product, rtol=TINY)
    return chain


def _kept(entry: LayerEntry, order: str, length: int) -> set[int]:
    """Which matrices of the chain are the defender's C and keep its dtype."""
    if order == "interleaved":
        return set()
    return {length - 1} if entry.side == "output" else {0}


def _chain(
    checkpoint: Checkpoint,
    module: str,
    entry: LayerEntry,
    factors: int,
    order: str,
    dtypes: tuple[str, ...],
    errors: list[float],
) -> dict[str, Tensor]:
    """The chain's matrices by number, and into `errors` how far their product as stored is from C W~."""
    weight, tensors = stored_layer(checkpoint, module, entry)
    effective = effective_weight(weight, tensors, entry.side)
    side = weight.shape[0] if entry.side == "output" else weight.shape[1]
    compensation = effective_weight(torch.eye(side, dtype=torch.float64), tensors, entry.side)
    if entry.side == "output":
        chain = factor_chain(weight.double(), effective, compensation, factors, order)
    else:
        turned = factor_chain(weight.double().T, effective.T, compensation.T, factors, order)
        chain = [matrix.T for matrix in reversed(turned)]
    stored = [matrix.to(getattr(torch, dtype)) for matrix, dtype in zip(chain, dtypes, strict=True)]
    product = stored[0].double()
    for matrix in stored[1:]:
        product = matrix.double() @ product
    errors.append(relative_difference(product, effective))
    return {str(number): matrix for number, matrix in enumerate(stored)}
