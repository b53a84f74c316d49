"""A model beside unlocked ones of its family: what lies outside their range, and what does not."""

from __future__ import annotations

import json
from pathlib import Path

import pico
import pytest
from typer.testing import CliRunner

from specdef import inspect_model, lock
from specdef.analysis.baseline import compare_with_baseline, is_unusual
from specdef.cli.main import app
from specdef.errors import SpecdefError


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    found = {f"seed{seed}": pico.build("llama", place / f"seed{seed}", seed=seed) for seed in range(4)}
    lock(found["seed0"], place / "fold", preset="exact", multiplier="2^10")
    lock(found["seed0"], place / "inject", preset="paper", multiplier=1e3, rank=3, num_matrices=2)
    return {**found, "fold": place / "fold", "inject": place / "inject"}


def test_locked_models_stand_out_and_unlocked_ones_do_not(models: dict[str, Path]) -> None:
    reports = {name: inspect_model(folder) for name, folder in models.items()}
    baseline = [reports[f"seed{seed}"] for seed in (1, 2)]
    for name, report in reports.items():
        found = compare_with_baseline(report, baseline)
        assert is_unusual(found) == (name in ("fold", "inject")), (name, found[:3])
        assert all(item.excess > 0 for item in found)
        assert found == sorted(found, key=lambda item: -item.excess)
    worst = compare_with_baseline(reports["inject"], baseline)[0]
    assert worst.feature in ("sigma_1", "jump")
    locked = set(json.loads((models["inject"] / "specdef_lock.json").read_text())["strength"]["matrices"])
    assert worst.name.removesuffix(".weight") in locked
    assert worst.excess == pytest.approx(9.97, abs=4), "log2 of 1000, give or take what the baseline spans"


def test_the_command_line_compares(models: dict[str, Path]) -> None:
    arguments = ["inspect", str(models["fold"]), "--baseline", str(models["seed1"]), "--baseline", str(models["seed2"])]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "Unusual: " in result.stdout
    found = json.loads(CliRunner().invoke(app, [*arguments, "--json"]).stdout)
    assert found["unusual"][0]["excess"] > 2
    same = CliRunner().invoke(app, ["inspect", str(models["seed1"]), "--baseline", str(models["seed1"])])
    assert "Nothing lies far outside the baseline's range." in same.stdout


def test_a_baseline_of_another_family_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    report = inspect_model(models["seed0"])
    other = inspect_model(pico.build("gpt2", tmp_path / "gpt2"))
    with pytest.raises(SpecdefError, match="`baseline` must be of the model's family, Llama"):
        compare_with_baseline(report, [other])
    with pytest.raises(SpecdefError, match="`baseline` must hold at least one unlocked model"):
        compare_with_baseline(report, [])
