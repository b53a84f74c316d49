"""What a fold lock's weights show by themselves, against what its manifest claims: a table of made-up pairs."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from specdef.architectures.channels import PairImbalance, ScaledChannel
from specdef.errors import CheckpointError
from specdef.locks.base import Evidence
from specdef.locks.kinds.fold import check as checking
from specdef.locks.kinds.fold.check import _alone, _Claim, _near, _refuse_more_than_there_are, _shown_by_most, recognise

UNTOLD = "; the others cannot be told from natural scales without --original"


@pytest.fixture(autouse=True)
def no_channel_is_half_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_half_dead", lambda _, pairs, exponent: [0] * len(pairs))


def scaled(*exponents: int) -> tuple[ScaledChannel, ...]:
    return tuple(ScaledChannel(number, exponent, 0.0, 0.0) for number, exponent in enumerate(exponents))


def imbalance(number: int, exponents: Sequence[int], *, kind: str = "vo", limit: float = 10.0) -> PairImbalance:
    return PairImbalance(f"{kind}.{number}", kind, number, 1.0, 1.0, limit, scaled(*exponents))


@pytest.mark.parametrize(
    ("exponent", "shows", "passed", "detail"),
    [
        (20, [[20, 21], [19, 20]], True, "2/2 vo pairs"),
        (20, [[20, 21, 20], [19, 20]], True, "2/2 vo pairs"),
        (20, [[22, 22], [22, 22]], True, "2/2 vo pairs"),
        (20, [[23, 23], [23, 23]], False, "2/2 vo pairs, but typically by 2^23"),
        (20, [[17, 17], [17, 17]], False, "2/2 vo pairs, but typically by 2^17"),
        (20, [[-20, -20], [-20, -20]], False, "0/2 vo pairs"),
        (-20, [[-20, -20], [-20, -19]], True, "2/2 vo pairs"),
        (20, [[20, 20], [20]], False, "2/2 vo pairs, but only 3 of the 4 channels claimed there"),
        (20, [[20, 20, 20], [20]], False, "2/2 vo pairs, but only 3 of the 4 channels claimed there"),
        (20, [[20, 20], []], False, "1/2 vo pairs"),
        # Under 2^16 a pair may hide some of its channels, under its threshold and 2^3 all of them.
        (15, [[15, 15], [15]], None, f"2/2 vo pairs, but only 3 of the 4 channels claimed there{UNTOLD}"),
        (16, [[16, 16], [16]], False, "2/2 vo pairs, but only 3 of the 4 channels claimed there"),
        (12, [[12, 12], []], None, f"1/2 vo pairs{UNTOLD}"),
        (13, [[13, 13], []], False, "1/2 vo pairs"),
        (12, [[12, 12], [1]], False, "1/2 vo pairs"),
        (-12, [[-12, -12], []], None, f"1/2 vo pairs{UNTOLD}"),
        (12, [[], []], None, f"0/2 vo pairs{UNTOLD}"),
        (20, [[20, 20]], False, "1/2 vo pairs"),
    ],
    ids=range(18),
)
def test_the_weights_alone(
    exponent: int, shows: list[list[int]], passed: bool | None, detail: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs: Any = [SimpleNamespace(id=f"vo.{number}", kind="vo", size=16) for number in range(len(shows))]
    seen = [imbalance(number, exponents) for number, exponents in enumerate(shows)]
    monkeypatch.setattr(checking, "pair_imbalances", lambda _, asked: seen[: len(list(asked))])
    monkeypatch.setattr(checking, "channel_logs", lambda _, asked: [None] * len(asked))
    found = _alone(None, pairs, _Claim(exponent, 2, {"vo": 2}))  # type: ignore[arg-type]
    assert (found.name, found.passed) == ("lock", passed)
    assert found.detail == f"channels look scaled by about 2^{exponent} in {detail}"


def test_a_side_that_is_all_zero_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: Any = [SimpleNamespace(id=f"vo.{number}", kind="vo", size=16) for number in range(2)]
    monkeypatch.setattr(checking, "pair_imbalances", lambda *_: [imbalance(0, [20, 20]), imbalance(1, [20])])
    monkeypatch.setattr(checking, "channel_logs", lambda *_: [])
    for half, passed in (([0, 1], None), ([1, 0], False)):
        monkeypatch.setattr(checking, "_half_dead", lambda *_, half=half: half)
        assert _alone(None, pairs, _Claim(20, 2, {"vo": 2})).passed is passed  # type: ignore[arg-type]


def test_a_wide_threshold_hides_more(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: Any = [SimpleNamespace(id=f"vo.{number}", kind="vo", size=16) for number in range(2)]
    seen = [imbalance(0, [20, 20]), imbalance(1, [20], limit=18.0)]
    monkeypatch.setattr(checking, "pair_imbalances", lambda *_: seen)
    monkeypatch.setattr(checking, "channel_logs", lambda *_: [])
    assert _alone(None, pairs, _Claim(20, 2, {"vo": 2})).passed is None  # type: ignore[arg-type]


def test_one_channel_in_twenty_may_be_an_outlier_by_nature(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: Any = [SimpleNamespace(id=f"vo.{number}", kind="vo", size=60) for number in range(2)]
    monkeypatch.setattr(checking, "channel_logs", lambda *_: [])
    for missing, passed in ((1, None), (2, None), (3, False)):
        seen = [imbalance(0, [20] * 20), imbalance(1, [20] * (20 - missing))]
        monkeypatch.setattr(checking, "pair_imbalances", lambda *_, seen=seen: seen)
        assert _alone(None, pairs, _Claim(20, 20, {"vo": 2})).passed is passed  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("exponent", "apart", "count"),
    [
        (20, [40.0] * 8 + [0.0] * 8, 8),
        (20, [40.0] * 7 + [0.0] * 9, 0),
        (20, [41.0] * 10 + [1.0] * 6, 10),
        (20, [40.0] * 8 + [20.0] * 8, 16),
        (20, [40.0] * 8 + [19.9] * 8, 8),
        (-20, [-40.0] * 8 + [0.0] * 8, 8),
        (20, [-40.0] * 16, 0),
        (20, [9.9] * 16, 0),
        (20, [10.0] * 16, 16),
        (16, [32.0] * 16, 16),
        (15, [30.0] * 16, 0),
        (20, [40.0] * 2 + [-np.inf] * 7, 2),
        (20, [], 0),
    ],
    ids=range(13),
)
def test_a_pair_scaled_in_most_of_its_channels_shows_as_a_whole(
    exponent: int, apart: list[float], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = np.array(apart), np.zeros(len(apart))
    monkeypatch.setattr(checking, "channel_logs", lambda *_: [logs])
    pair: Any = SimpleNamespace(kind="norm")
    assert _shown_by_most(None, [pair], exponent) == [("norm", count)]  # type: ignore[arg-type]


@pytest.mark.parametrize(("kinds", "passed"), [([8, 8], True), ([8, 7], False), ([16, 0], False)])
def test_most_channels_are_counted_like_few(kinds: list[int], passed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs: Any = [SimpleNamespace(id=str(number), kind="norm", size=16) for number in range(2)]
    monkeypatch.setattr(checking, "_shown_by_most", lambda *_: [("norm", count) for count in kinds])
    monkeypatch.setattr(checking, "pair_imbalances", lambda _, asked: [] if not asked else [imbalance(0, [])])
    assert _alone(None, pairs, _Claim(20, 8, {"norm": 2})).passed is passed  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("exponent", "near"), [(20, range(12, 29)), (-20, range(-28, -11)), (10, range(5, 16)), (2, range(-1, 6))]
)
def test_near_is_half_the_exponent_within_three_and_eight(exponent: int, near: range) -> None:
    assert _near(scaled(*range(-40, 41)), exponent) == list(near)


def test_a_claim_is_counted_kind_by_kind() -> None:
    claim = _Claim(20, 3, {"vo": 2, "norm": 1})
    assert claim.counts("look scaled by", ["vo", "norm", "vo", "vo"]) == (
        "channels look scaled by 2^20 in 2/2 vo, 1/1 norm pairs",
        True,
    )
    assert claim.counts("are", ["vo"]) == ("channels are 2^20 in 1/2 vo, 0/1 norm pairs", False)
    assert claim.missing([("vo", 3), ("vo", 5), ("norm", 3)]) == 0
    assert claim.missing([("vo", 1), ("vo", 5), ("vo", 3), ("norm", 2), ("other", 9)]) == 1
    assert claim.missing([]) == 9
    assert claim.shortage(4) == ", but only 5 of the 9 channels claimed there"


def test_more_channels_than_the_widest_pair_has() -> None:
    pairs: Any = [SimpleNamespace(kind="vo", size=size) for size in (8, 16)]
    _refuse_more_than_there_are(_Claim(20, 16, {"vo": 2, "unknown": 1}), pairs)
    with pytest.raises(CheckpointError) as caught:
        _refuse_more_than_there_are(_Claim(20, 17, {"vo": 2}), pairs)
    assert str(caught.value) == (
        "`channels_per_pair` in the manifest is malformed: it claims 17 channels in each vo pair, which has 16. "
        "Restore it from the published model."
    )


def test_a_lock_is_recognised_by_its_commonest_exponent() -> None:
    pairs = [
        imbalance(3, [20, -19]),
        imbalance(1, [20], kind="norm"),
        imbalance(2, [-20]),
        imbalance(0, []),
        PairImbalance("head", "head", None, 1.0, 1.0, 1.0, scaled(7)),
    ]
    found = recognise("fold", Evidence(None, None, pairs, {}))  # type: ignore[arg-type]
    assert found is not None
    assert (found.lock, found.exponent, found.layers) == ("fold", 20, (1, 2, 3))
    assert (found.found, found.pairs) == (
        "scaled channels in 1 head, 1 norm, 2 vo pairs",
        {"vo": 2, "norm": 1, "head": 1},
    )
    assert recognise("fold", Evidence(None, None, [imbalance(0, [])], {})) is None  # type: ignore[arg-type]
