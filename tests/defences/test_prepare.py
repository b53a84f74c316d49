"""Preparing models: what is written, what is reported, and when nothing is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pico_text
import pytest
import torch

from specdef.defences.prepare import prepare
from specdef.errors import SpecdefError
from specdef.tasks.kinds.unlearned import unlearned
from specdef.tasks.text.prose import bundled_prose, split_text
from specdef.tasks.utilities.perplexity import perplexity, token_blocks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico_text.write_model(tmp_path_factory.mktemp("prepare") / "model")


def test_a_prepared_model_is_a_plain_folder_with_the_reported_figures(folder: Path, tmp_path: Path) -> None:
    seen: list[str] = []
    report = prepare("unlearned", folder, tmp_path / "out", steps=4, progress=lambda name, point: seen.append(name))
    model, tokenizer = pico_text.load(tmp_path / "out")
    blocks = token_blocks(split_text(bundled_prose())[0], tokenizer, length=128, max_blocks=32)
    assert unlearned().metric(model, tokenizer) == report.score_after <= 0.35
    with torch.inference_mode():
        assert perplexity(model, blocks) == pytest.approx(report.perplexity_after, rel=1e-5)
    assert report.perplexity_after <= 2 * report.perplexity_before
    assert report.steps == {"learn": 4, "remove": 4}
    assert seen == ["learn", "learn", "remove", "remove"]
    assert [point.step for point in report.evaluations["remove"]] == [0, 4]
    assert {path.name for path in folder.iterdir()} <= {path.name for path in (tmp_path / "out").iterdir()}
    before, _ = pico_text.load(folder)
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), model.parameters(), strict=True))


def test_the_same_seed_prepares_the_same_model(folder: Path, tmp_path: Path) -> None:
    state = torch.random.get_rng_state()
    for name in ("a", "b"):
        prepare("unlearned", folder, tmp_path / name, steps=2, seed=3)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert (tmp_path / "a/model.safetensors").read_bytes() == (tmp_path / "b/model.safetensors").read_bytes()


def test_a_guard_that_does_not_refuse_is_not_written(folder: Path, tmp_path: Path) -> None:
    wanted = "`steps` must suffice to refuse 90 % of held-out requests; after 2 a stage, held-out .* 0. Give more steps"
    with pytest.raises(SpecdefError, match=wanted):
        prepare("guard", folder, tmp_path / "out", steps=2)
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_lost_its_use_is_not_written(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecdefError, match=r"`lr` must be small enough that perplexity at most doubles; it went from"):
        prepare("unlearned", folder, tmp_path / "out", steps=3, lr=10.0)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("kind", "arguments", "fault"),
    [
        ("safe", {}, "`kind` must be one of guard, unlearned; got 'safe'"),
        ("guard", {"steps": 0}, "`steps` must be at least 1; got 0"),
        ("guard", {"lr": 0.0}, "`lr` must be a number above 0"),
        ("guard", {"text": "one line"}, "`text` must have at least two paragraphs"),
    ],
)
def test_unusable_arguments_are_refused(
    folder: Path, tmp_path: Path, kind: Any, arguments: dict[str, Any], fault: str
) -> None:
    with pytest.raises(SpecdefError, match=fault):
        prepare(kind, folder, tmp_path / "out", **arguments)
    assert list(tmp_path.iterdir()) == []


def test_unusable_folders_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecdefError, match="`out` must be a new folder"):
        prepare("guard", folder, folder)
    with pytest.raises(SpecdefError):
        prepare("guard", tmp_path / "absent", tmp_path / "out")
