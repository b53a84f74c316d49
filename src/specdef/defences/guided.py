"""What a language model says under a prefix, and text that is steered from one prefix towards another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from specdef.models.base import Batch

if TYPE_CHECKING:
    import torch

GROUP = 8
"""Prompts that are continued at once."""


def prefixed(batch: Batch, prefix: Sequence[int]) -> Batch:
    """The rows behind the tokens of a prefix, on which no loss is taken."""
    import torch

    ids, labels, mask = batch
    before = torch.tensor(prefix, dtype=ids.dtype, device=ids.device).expand(len(ids), -1)
    return (
        torch.cat([before, ids], 1),
        torch.cat([torch.full_like(before, -100), labels], 1),
        torch.cat([torch.ones_like(before), mask], 1),
    )


def steered(plain: torch.Tensor, towards: torch.Tensor, away: torch.Tensor, eta: torch.Tensor | float) -> torch.Tensor:
    """log of p (q_towards / q_away)^eta, normalised.

    Args:
        plain: logits of p, [..., vocabulary].
        towards: logits of the same tokens under the prefix that is to be followed.
        away: under the prefix that is to be left.
        eta: how far; a tensor broadcasts.

    Returns:
        Log probabilities, [..., vocabulary]; float64 stays float64, anything narrower is float32.
    """
    import torch

    wide = [part if part.dtype == torch.float64 else part.float() for part in (plain, towards, away)]
    p, q, r = (part.log_softmax(-1) for part in wide)
    return (p + eta * (q - r)).log_softmax(-1)


def continuations(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    towards: Sequence[int],
    away: Sequence[int],
    eta: float,
    tokens: int,
    stop: int | None,
    seed: int,
) -> list[list[int]]:
    """Text after each prompt, sampled from the steered distribution.

    Prompts of one length are continued together, so that none needs padding, which families place differently.

    Args:
        model: a causal language model in evaluation mode.
        prompts: token ids; none is empty.
        towards: tokens of the prefix that is followed.
        away: tokens of the prefix that is left.
        eta: how far, see `steered`.
        tokens: most tokens of a continuation.
        stop: the token that ends one early.
        seed: decides every draw.

    Returns:
        New tokens of each prompt, at least one.
    """
    import torch

    draw = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    found: list[list[int]] = [[] for _ in prompts]
    with torch.no_grad():
        for group in _groups([len(prompt) for prompt in prompts]):
            rows = torch.tensor([list(prompts[index]) for index in group])
            inputs = [
                torch.cat([torch.tensor([list(p)] * len(group), dtype=rows.dtype), rows], 1).to(device)
                for p in ((), towards, away)
            ]
            caches: list[Any] = [None] * 3
            for _ in range(tokens):
                logits = []
                for number, ids in enumerate(inputs):
                    answer = model(input_ids=ids, past_key_values=caches[number], use_cache=True, logits_to_keep=1)
                    caches[number] = answer.past_key_values
                    logits.append(answer.logits[:, -1])
                chances = steered(logits[0], logits[1], logits[2], eta).exp().cpu()
                drawn = torch.multinomial(chances, 1, generator=draw)
                inputs = [drawn.to(device)] * 3
                for index, token in zip(group, drawn[:, 0].tolist(), strict=True):
                    found[index].append(token)
    return [_until(row, stop) for row in found]


def continued(prompts: Sequence[Sequence[int]], continuations: Sequence[Sequence[int]]) -> Batch:
    """Prompts and what follows as rows, padded on the right; the loss is taken on what follows."""
    import torch

    width = max(len(a) + len(b) for a, b in zip(prompts, continuations, strict=True))
    ids = torch.zeros(len(prompts), width, dtype=torch.long)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, (prompt, text) in enumerate(zip(prompts, continuations, strict=True)):
        end = len(prompt) + len(text)
        ids[row, :end] = torch.tensor([*prompt, *text])
        labels[row, len(prompt) : end] = torch.tensor(list(text))
        mask[row, :end] = 1
    return ids, labels, mask


def _groups(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Indices of equal length, at most `GROUP` at once."""
    for length in sorted(set(lengths)):
        same = [index for index, other in enumerate(lengths) if other == length]
        for start in range(0, len(same), GROUP):
            yield same[start : start + GROUP]


def _until(tokens: list[int], stop: int | None) -> list[int]:
    return tokens if stop not in tokens else tokens[: tokens.index(stop) + 1]
