"""Steered text: the distribution, and that a cache and prompts of several lengths change nothing."""

from __future__ import annotations

from pathlib import Path

import pico_text
import pytest
import torch

from specdef.defences.guided import continuations, continued, prefixed, steered


@pytest.mark.parametrize("eta", [0.0, 1.0, 7.5])
def test_steering_is_the_formula(eta: float) -> None:
    torch.manual_seed(0)
    p, q, r = (torch.randn(3, 11, dtype=torch.float64) for _ in range(3))
    weights = p.softmax(-1) * (q.softmax(-1) / r.softmax(-1)) ** eta
    torch.testing.assert_close(steered(p, q, r, eta).exp(), weights / weights.sum(-1, keepdim=True))
    assert steered(p.bfloat16(), q.bfloat16(), r.bfloat16(), eta).dtype == torch.float32


def test_text_is_drawn_token_by_token_from_the_steered_distribution(toy_model: Path) -> None:
    """Written again without a cache and one prompt at a time, with the same draws."""
    model, _ = pico_text.load(toy_model)
    prompts, towards, away = [[5, 9, 7], [8], [6, 30, 12]], [40, 41], [50]
    found = continuations(model, prompts, towards=towards, away=away, eta=2.0, tokens=4, stop=None, seed=3)
    draw = torch.Generator().manual_seed(3)
    wanted: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for group in ([1], [0, 2]):
        for _ in range(4):
            chances = []
            for row in group:
                logits = [
                    model(input_ids=torch.tensor([prefix + prompts[row] + wanted[row]])).logits[0, -1].detach()
                    for prefix in ([], towards, away)
                ]
                chances.append(steered(logits[0], logits[1], logits[2], 2.0).exp())
            drawn = torch.multinomial(torch.stack(chances), 1, generator=draw)
            for row, token in zip(group, drawn[:, 0].tolist(), strict=True):
                wanted[row].append(token)
    assert found == [wanted[0], wanted[1], wanted[2]]


def test_text_ends_with_the_token_that_ends_it(toy_model: Path) -> None:
    model, _ = pico_text.load(toy_model)
    free = continuations(model, [[5, 6]], towards=[7], away=[8], eta=1.0, tokens=6, stop=None, seed=0)[0]
    assert len(free) == 6
    ended = continuations(model, [[5, 6]], towards=[7], away=[8], eta=1.0, tokens=6, stop=free[2], seed=0)[0]
    assert ended == free[: free.index(free[2]) + 1]


def test_rows_and_prefixes() -> None:
    batch = continued([[5], [6, 7]], [[8, 9], [10]])
    assert [tensor.tolist() for tensor in batch] == [
        [[5, 8, 9], [6, 7, 10]],
        [[-100, 8, 9], [-100, -100, 10]],
        [[1, 1, 1], [1, 1, 1]],
    ]
    longer = prefixed(continued([[5], [6]], [[8, 9], [10]]), [3, 4])
    assert [tensor.tolist() for tensor in longer] == [
        [[3, 4, 5, 8, 9], [3, 4, 6, 10, 0]],
        [[-100, -100, -100, 8, 9], [-100, -100, -100, 10, -100]],
        [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]],
    ]
