"""Relations between vectors of sums: found where they hold, with the right powers, and nowhere else."""

from __future__ import annotations

import torch
from torch import Tensor

from specdef.architectures.written import WrittenLayout
from specdef.mapping.relations import End, find

CHANNELS, PASSES = 6, 8


def _draws(number: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return list(torch.randn(number, CHANNELS, PASSES, generator=generator, dtype=torch.float64))


def _end(name: str, offset: float = 0.0) -> End:
    return End(name, 0, WrittenLayout(("hidden",)), offset)


def test_a_producer_equals_the_sum_of_its_consumers() -> None:
    q, k, v, other = _draws(4)
    vectors = {_end("norm"): q + k + v, _end("q"): q, _end("k"): k, _end("v"): v, _end("other"): other}
    (relation,) = find(vectors)
    signs = {end.tensor: power for end, power in relation.powers.items()}
    assert signs in ({"norm": 1, "q": -1, "k": -1, "v": -1}, {"norm": -1, "q": 1, "k": 1, "v": 1})


def test_a_degree_of_two_shows_in_the_powers() -> None:
    (down,) = _draws(1)
    (relation,) = find({_end("up"): 2 * down, _end("down"): down})
    powers = {end.tensor: power for end, power in relation.powers.items()}
    assert (powers["up"], powers["down"]) in ((1, -2), (-1, 2))


def test_two_relations_are_told_apart_whatever_their_size() -> None:
    a, b = _draws(2)
    vectors = {_end("a"): a, _end("b"): 1e-4 * b, _end("a'"): a, _end("b'"): 1e-4 * b}
    found = {frozenset(end.tensor for end in relation.powers) for relation in find(vectors)}
    assert found == {frozenset({"a", "a'"}), frozenset({"b", "b'"})}


def test_nothing_is_found_among_strangers() -> None:
    assert find(dict(zip(map(_end, "abcde"), _draws(5), strict=True))) == []


def test_nearly_equal_is_not_equal() -> None:
    a, noise = _draws(2)
    assert find({_end("a"): a, _end("b"): a + 1e-4 * noise}) == []


def test_coefficients_that_are_no_small_whole_numbers_are_no_relation() -> None:
    a, b = _draws(2)
    assert find({_end("a"): a + 0.37 * b, _end("b"): a, _end("c"): b}) == []


def test_too_few_equations_prove_nothing() -> None:
    """Three vectors of two numbers each always have a relation."""
    vectors = {_end(name): draw[:1, :2] for name, draw in zip("abc", _draws(3), strict=True)}
    assert find(vectors) == []


def test_what_no_loss_depends_on_is_left_out() -> None:
    (a,) = _draws(1)
    assert find({_end("dead"): torch.zeros_like(a), _end("dead too"): torch.zeros_like(a), _end("a"): a}) == []
