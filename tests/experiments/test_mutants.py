"""What `make mutants` counts: a drawn sample is the same for everyone, and only a failed test is a kill."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from experiments.mutants.__main__ import ROOT, draw, settings
from experiments.mutants.scopes import SCOPES
from experiments.mutants.table import interval, outcomes, page, reason

NAMES = [f"x_f__mutmut_{number}" for number in range(200)]


def test_a_sample_is_its_seed() -> None:
    drawn = draw(NAMES, 60, seed=0)
    assert drawn == draw(NAMES[::-1], 60, seed=0) != draw(NAMES, 60, seed=1)
    assert len(set(drawn)) == 60
    assert draw(NAMES, None, seed=0) == draw(NAMES, 500, seed=0) == sorted(NAMES)


@pytest.mark.parametrize(
    ("code", "outcome"),
    [
        (1, "killed"),
        (3, "killed"),
        (0, "survived"),
        (33, "not reached"),
        (36, "timed out"),
        (-24, "timed out"),
        (-9, "other"),
        (None, None),
    ],
)
def test_only_a_failed_test_is_a_kill(code: int | None, outcome: str | None, tmp_path: Path) -> None:
    place = tmp_path / "src" / "specdef" / "locks"
    place.mkdir(parents=True)
    (place / "verify.py.meta").write_text(json.dumps({"exit_code_by_key": {"f": code}}))
    assert outcomes(tmp_path) == {"locks/verify.py": {"f": outcome}}


def test_the_page_counts_the_tried_alone_and_names_what_no_test_saw() -> None:
    found = {"a.py": {"f": "killed", "g": "survived", "h": None}, "b.py": {"i": "timed out"}}
    written = page(found, {"g": "x += 1", "i": "while True:"}, "`make`, commit 1")
    assert "| `a.py` | 3 | 2 | 1 | 1 | 0 | 0 | 0 | 50 % |" in written
    assert "| together | 4 | 3 | 1 | 1 | 0 | 1 | 0 | 33 % |" in written
    assert "among all 4: 6 to 79 %" in written
    assert "- `a.py`, survived: `x += 1`: **no reason known" in written
    assert "- `b.py`, timed out: `while True:`" in written
    again = page(found, {"g": "x += 1", "i": "while True:"}, "`make`, commit 1", first=(0, 3))
    assert "95 % interval of the share in the first run, 0 of 3, among all 4: 0 to 56 %." in again


def test_interval() -> None:
    assert interval(54, 60) == pytest.approx((0.7985, 0.9534), abs=1e-4)
    assert interval(0, 4)[0] == 0.0
    assert interval(4, 4)[1] == pytest.approx(1.0)


def test_a_reason_holds_in_its_own_module_alone() -> None:
    assert reason("training/outcome.py", "zip(a, b, strict=None)").startswith("both lists")
    assert reason("training/recipe.py", "zip(a, b, strict=None)").startswith("**no reason")


@pytest.mark.parametrize("name", SCOPES)
def test_a_scope_has_files_and_tests(name: str) -> None:
    scope = SCOPES[name]
    table = tomllib.loads(settings(scope))["tool"]["mutmut"]
    assert all(list(ROOT.glob(pattern)) for pattern in table["only_mutate"] + table["do_not_mutate"])
    tests = [*scope.tests, *scope.but_tests]
    assert all((ROOT / test.split("::")[0]).exists() for test in tests)
