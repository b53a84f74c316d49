"""The table of what each runtime survives, and what is read from it."""

from __future__ import annotations

import pytest

from specdef.errors import PlanError
from specdef.linalg.exponent import MAX_EXPONENT
from specdef.locks.runtimes import RULES, block_of, broken, check_runtimes, limit, smallest_weight


def test_the_strictest_of_several_runtimes_rules() -> None:
    assert limit(["f16-cache"], "vo", "up") == 8
    assert limit(["f16-cache", "q8_0"], "vo", "up") == 4
    assert limit(["q8_0"], "vo", "down") == 0
    assert limit([], "vo", "up") == limit(["f32", "bf16"], "vo", "down") == MAX_EXPONENT
    assert block_of(["f16-cache", "q8_0"]) == 32
    assert block_of([]) == 1
    assert limit(["q4_k"], "norm", "up") == limit(["f16"], "norm", "up") == 4
    assert smallest_weight(["q8_0"]) == 127 * 2.0**-14
    assert smallest_weight(["f16-cache"]) == 0.0


def test_a_plan_breaks_where_an_exponent_or_a_block_does_not_fit() -> None:
    lost = broken(["norm", "vo"], 20, "up", 1)
    assert {"f32", "bf16"}.isdisjoint(lost)
    assert lost["f16-cache"].startswith("vo: ")
    assert lost["q8_0"].startswith("norm, vo: ")
    assert "f16-cache" not in broken(["norm"], 20, "up", 1)
    assert "q8_0" in broken(["norm"], 4, "up", 1)  # one channel of a block of 32
    assert "q8_0" not in broken(["norm"], 4, "up", 32, 32)
    assert "int8" in broken(["norm"], 4, "up", 32, 32)  # a row's one scale bears one small channel, not a block
    assert "int8" not in broken(["norm"], 4, "up", 1)


def test_a_runtime_without_a_rule_is_refused() -> None:
    check_runtimes(RULES)
    with pytest.raises(PlanError, match=r"`runtimes` must be drawn from f32, .*; got 'vllm'"):
        check_runtimes(["f32", "vllm"])
