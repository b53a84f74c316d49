"""What a study takes, told from shapes alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pico_text
import pytest
from typer.testing import CliRunner

from specdef.certify.forecast import Shapes, forecast, memory_of, shapes_of
from specdef.cli.main import app
from specdef.errors import SpecdefError
from specdef.training.recipe import Recipe

ROOT = Path(__file__).parents[2]
SHAPES = Shapes(parameters=1000, layer=300, outside=400, layers=2, hidden=8, vocabulary=50)


def write_study(folder: Path, model: Path, rest: str) -> Path:
    path = folder / "study.yaml"
    path.write_text(
        f"specdef_study: 1\ntitle: a plan\nmodels: [{{model: {model}, label: toy}}]\ntasks: [facts]\nseeds: [0, 1]\n"
        f"recipe: {{steps: 10, batch_size: 4, eval_every: 5}}\ndefences: [none, {{preset: exact}}]\n{rest}\n"
    )
    return path


def test_shapes_are_those_of_the_loaded_model(toy_model: Path) -> None:
    model = pico_text.loaded(toy_model).model
    found = shapes_of(toy_model)
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert found.layer == sum(p.numel() for p in model.model.layers[0].parameters())
    assert found.parameters == found.layers * found.layer + found.outside
    assert (found.layers, found.hidden, found.vocabulary) == (2, model.config.hidden_size, model.config.vocab_size)


def test_memory_is_shared_out_and_what_is_gathered_is_not() -> None:
    recipe = Recipe(batch_size=4)
    alone, four = memory_of(SHAPES, recipe, 1), memory_of(SHAPES, recipe, 4)
    assert (alone.weights, alone.gradients, alone.optimizer, alone.gathered) == (4000, 4000, 8000, 0)
    assert (four.weights, four.gradients, four.optimizer) == (1000, 1000, 2000)
    assert four.gathered == (300 + 400) * 2 * 4
    assert four.activations == alone.activations / 4
    assert alone.total == 16000 + alone.activations
    assert memory_of(SHAPES, replace(recipe, precision="bf16"), 1).weights == 2000
    mixed = memory_of(SHAPES, replace(recipe, precision="bf16-master"), 4)
    assert (mixed.weights, mixed.gathered) == (1000, 700 * 2 * 2)
    assert memory_of(SHAPES, replace(recipe, optimizer="sgd"), 1).optimizer == 4000


def test_cells_and_hours(toy_model: Path, tmp_path: Path) -> None:
    study = write_study(tmp_path, toy_model, "attacks: [{lr: 1.0e-3}, {lr: 1.0e-2, steps: 20}]")
    one = forecast(study, tflops=1e-6)
    assert one.cells == 2 * 2 * 2, "defences, attacks, seeds"
    many = forecast(study, tflops=2e-6, devices=4, workers=2)
    assert many.device_hours == pytest.approx(one.device_hours / 2)
    assert many.hours == pytest.approx(many.device_hours / 8)


def test_a_dry_run_writes_nothing_and_needs_no_folder(
    toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path, toy_model, "attacks: [{lr: 1.0e-3}]")
    said = CliRunner().invoke(app, ["run", str(study), "--dry-run", "--devices-per-cell", "2"])
    assert said.exit_code == 0, said.output
    assert "4 cells" in said.stdout
    assert "GiB, with 2 to a cell" in said.stdout
    assert "Assumed: " in said.stdout
    assert list(tmp_path.iterdir()) == [study]
    refused = CliRunner().invoke(app, ["run", str(study)])
    assert "`out` must be given" in str(refused.exception)


def test_the_plan_for_eight_billion_weights_is_of_the_real_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    found = forecast("experiments/studies/scale/llama-8b.yaml", devices=8)
    assert found.models[0].shapes.parameters == 8_030_261_248
    assert found.cells == 30


def test_the_plan_needs_no_weights(toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **patterns: str(toy_model))
    assert forecast(write_study(tmp_path, Path("org/name"), "attacks: [{lr: 1.0e-3}]")).cells == 4


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"devices": 0}, "`devices_per_cell` must be at least 1; got 0"),
        ({"workers": 0}, "`workers` must be at least 1; got 0"),
        ({"tflops": 0.0}, "`tflops` must be a number above 0; got 0"),
    ],
)
def test_numbers_that_are_none_are_refused(options: dict[str, float], match: str, tmp_path: Path) -> None:
    with pytest.raises(SpecdefError, match=match):
        forecast(tmp_path / "nowhere", **options)  # type: ignore[arg-type]


def test_what_cannot_be_told_is_refused(toy_model: Path, pipeline: Path, tmp_path: Path) -> None:
    study = write_study(tmp_path, toy_model, "")
    for text in (study.read_text(), study.read_text().replace("seeds: [0, 1]", "certify: [T0]")):
        study.write_text(text)
        with pytest.raises(SpecdefError, match="`dry_run` must be given for a study that lists `attacks`"):
            forecast(study)
    with pytest.raises(SpecdefError, match="`dry_run` must be given for causal language models"):
        shapes_of(pipeline)
