"""Defending a model: what is written, what is reported, and when nothing is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pico
import pico_text
import pytest
import torch
from safetensors.torch import load_file

from specdef.certify.cell import subject_of
from specdef.defences.base import DEFENCES, Applied, Defence, DefenceReport, Given, Measure
from specdef.defences.card import CARD, RECORD
from specdef.defences.defend import defend
from specdef.errors import SpecdefError
from specdef.locks.lock import lock
from specdef.locks.unlock import unlock
from specdef.locks.verify import verify
from specdef.tasks.base import make_task, parse_task
from specdef.tasks.utilities.perplexity import perplexity, token_blocks


@dataclass(frozen=True)
class ScaleOptions:
    factor: float = 2.0
    names: tuple[str, ...] = ("norm",)


class Scale(Defence):
    """A defence of the tests: multiplies weights by a factor."""

    name = "scale"
    summary = "multiplies weights"
    Options = ScaleOptions

    def measures(self, options: ScaleOptions, seed: int) -> list[Measure]:
        return [Measure("first weight", lambda model, tokenizer: next(model.parameters()).flatten()[0].item())]

    def apply(self, given: Given, options: ScaleOptions) -> Applied:
        for name, parameter in given.loaded.model.named_parameters():
            if any(part in name for part in options.names):
                parameter.data *= options.factor
        return Applied(data={"nothing": "0"})

    def check(self, report: DefenceReport, options: ScaleOptions) -> None:
        if options.factor == 0:
            raise SpecdefError("`factor` must keep the model alive; got 0. Give another.")


@pytest.fixture
def scale(monkeypatch: pytest.MonkeyPatch) -> Scale:
    """The toy defence, as if a package offered it."""
    kind = Scale()
    points = {"scale": [SimpleNamespace(name="scale", value="toy:KIND", dist=None, load=lambda: kind)]}
    monkeypatch.setattr(DEFENCES, "_foreign", lambda: points)
    monkeypatch.setattr(DEFENCES, "_loaded", {})
    return kind


def test_a_defended_model_is_a_plain_folder_with_the_reported_figures(toy_model: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    options = {"steps": 4}
    report = defend(
        "unlearned", toy_model, tmp_path / "out", options=options, progress=lambda stage, found: seen.append(stage)
    )
    model, tokenizer = pico_text.load(tmp_path / "out")
    before, _ = pico_text.load(toy_model)
    texts = [file.read_text() for file in files("specdef.data").joinpath("general").iterdir()]
    blocks = [token_blocks(text, tokenizer, length=128, max_blocks=3) for text in texts]
    score = report.scores["held-out questions right"]
    assert float(make_task(parse_task("unlearned")).metric(model, tokenizer)) == score.after <= 0.35
    growths = [perplexity(model, rows) / perplexity(before, rows) for rows in blocks]
    assert len(growths) == 4
    assert max(growths) == pytest.approx(report.utility.after, rel=1e-5)
    assert report.utility.after <= 2 * report.utility.before == 2
    assert report.applied.steps == {"learn": 4, "remove": 4}
    assert seen == ["learn", "learn", "remove", "remove"]
    assert [point.step for point in report.applied.evaluations["remove"]] == [0, 4]
    assert {path.name for path in toy_model.iterdir()} <= {path.name for path in (tmp_path / "out").iterdir()}
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), model.parameters(), strict=True))
    record = json.loads((tmp_path / "out" / RECORD).read_text())
    assert record["method"] == "unlearned"
    assert record["options"] == {"steps": 4, "lr": 1e-4}
    assert record["scores"] == {"held-out questions right": {"before": score.before, "after": score.after}}
    assert set(record["data"]) == {"learn", "remove", "general data"}
    assert "| held-out questions right | 0." in (tmp_path / "out" / CARD).read_text()


def test_the_same_seed_defends_alike_and_leaves_the_callers_draws_alone(toy_model: Path, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        defend("unlearned", toy_model, tmp_path / name, options={"steps": 2}, seed=seed)
    assert torch.equal(torch.random.get_rng_state(), state)
    a, b, c = (subject_of(tmp_path / name).digest for name in "abc")
    assert a == b != c


def test_what_a_defence_says_of_a_model_is_no_part_of_what_it_is(toy_model: Path, tmp_path: Path) -> None:
    defend("unlearned", toy_model, tmp_path / "out", options={"steps": 2})
    whole = subject_of(tmp_path / "out").digest
    for name in (RECORD, CARD):
        (tmp_path / "out" / name).unlink()
    assert subject_of(tmp_path / "out").digest == whole


def test_a_defended_model_can_be_locked_and_unlocked(scale: Scale, toy_model: Path, tmp_path: Path) -> None:
    defend("scale", toy_model, tmp_path / "defended")
    lock(tmp_path / "defended", tmp_path / "locked", preset="exact", multiplier="2^6")
    assert verify(tmp_path / "locked", original=tmp_path / "defended").passed
    unlock(tmp_path / "locked", tmp_path / "back", tmp_path / "locked.specdef-key")
    for path in (tmp_path / "defended").iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_a_defence_of_another_package_from_end_to_end(scale: Scale, toy_model: Path, tmp_path: Path) -> None:
    report = defend("scale", toy_model, tmp_path / "out", options={"factor": "4", "names": "embed,norm"})
    before, after = (load_file(folder / "model.safetensors") for folder in (toy_model, tmp_path / "out"))
    for name, tensor in before.items():
        factor = 4.0 if "embed" in name or "norm" in name else 1.0
        assert torch.equal(after[name], factor * tensor)
    score = report.scores["first weight"]
    assert score.after == 4 * score.before != 0
    assert report.options == {"factor": 4.0, "names": ["embed", "norm"]}
    assert json.loads((tmp_path / "out" / RECORD).read_text())["data"]["nothing"] == "0"


def test_every_tensor_keeps_its_own_dtype(scale: Scale, tmp_path: Path) -> None:
    folder = pico.build("llama", tmp_path / "model", torch.bfloat16)
    pico_text.write_tokenizer(folder)
    defend("scale", folder, tmp_path / "out")
    before, after = (load_file(place / "model.safetensors") for place in (folder, tmp_path / "out"))
    assert {name: tensor.dtype for name, tensor in after.items()} == {n: t.dtype for n, t in before.items()}
    assert torch.equal(after["lm_head.weight"], before["lm_head.weight"])


def test_a_model_of_no_use_is_recorded_without_infinities(scale: Scale, toy_model: Path, tmp_path: Path) -> None:
    defend("scale", toy_model, tmp_path / "out", options={"factor": 1e38, "names": "norm,lm_head"})
    assert json.loads((tmp_path / "out" / RECORD).read_text())["utility"]["after"] is None


def test_nothing_is_written_when_the_check_fails(scale: Scale, toy_model: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecdefError, match="`factor` must keep the model alive"):
        defend("scale", toy_model, tmp_path / "out", options={"factor": 0})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("method", "options", "fault"),
    [
        ("guards", {}, r"`method` must be one of .*; got 'guards'. Did you mean 'guard' or 'unlearned'\?"),
        ("guard", {"step": 3}, r"`option` of defence guard must be one of .*; got 'step'. Did you mean 'steps'\?"),
        ("guard", {"steps": 0}, "`steps` must be at least 1; got 0"),
        ("guard", {"lr": 0.0}, "`lr` must be a number above 0"),
    ],
)
def test_unusable_arguments_are_refused(
    toy_model: Path, tmp_path: Path, method: str, options: dict[str, Any], fault: str
) -> None:
    with pytest.raises(SpecdefError, match=fault):
        defend(method, toy_model, tmp_path / "out", options=options)
    assert list(tmp_path.iterdir()) == []


def test_unusable_folders_and_texts_are_refused(toy_model: Path, llama: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecdefError, match="`out` must be a new folder"):
        defend("guard", toy_model, toy_model)
    with pytest.raises(SpecdefError, match="`out` must lie outside the model folder"):
        defend("guard", toy_model, toy_model / "out")
    with pytest.raises(SpecdefError, match="`model` must be a folder, a hub id"):
        defend("guard", tmp_path / "absent", tmp_path / "out")
    with pytest.raises(SpecdefError, match="must have a tokenizer"):
        defend("guard", llama, tmp_path / "out")
    text = tmp_path / "text.txt"
    text.write_text("one line")
    with pytest.raises(SpecdefError, match="`text` must have at least two paragraphs"):
        defend("guard", toy_model, tmp_path / "out", text=text)
    assert not (tmp_path / "out").exists()


def test_a_model_of_a_kind_the_method_does_not_know_is_refused(
    scale: Scale, toy_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Scale, "model_kinds", ("image-classifier",))
    with pytest.raises(SpecdefError, match=r"`method` scale must be given a model of kind image-classifier; .* is of"):
        defend("scale", toy_model, tmp_path / "out")
