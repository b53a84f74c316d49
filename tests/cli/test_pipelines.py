"""Bad pipelines, concepts and pictures at the command line: one sentence, exit 2, nothing left behind."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pico_diffusion
import pytest
from safetensors.torch import save_file
from torch import zeros

from specdef.cli.main import main

Image = pytest.importorskip("PIL.Image")
Said = Callable[..., str]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Said:
    """Runs the command line with bad input; what it says on the one line of its error."""

    def run(*arguments: str | Path) -> str:
        before = sorted(tmp_path.rglob("*"))
        monkeypatch.setattr(sys, "argv", ["specdef", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("Error: ")]
        assert len(lines) == 1
        assert sorted(tmp_path.rglob("*")) == before
        return lines[0].removeprefix("Error: ")

    return run


@pytest.fixture
def model(pipeline: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pipeline, tmp_path / "model"))


def names(model: Path, component: str, value: list[str | None]) -> None:
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").write_text(json.dumps({**index, component: value}))


@pytest.mark.parametrize("component", ["unet", "text_encoder", "scheduler", "tokenizer"])
def test_a_component_that_is_named_and_missing(component: str, said: Said, model: Path, tmp_path: Path) -> None:
    shutil.rmtree(model / component)
    found = said("lock", model, tmp_path / "out")
    assert f"must hold every component that its model_index.json names; {model} has no {component}." in found


@pytest.mark.parametrize("component", ["text_encoder", "scheduler", "tokenizer"])
def test_a_component_that_is_not_named(component: str, said: Said, model: Path, tmp_path: Path) -> None:
    names(model, component, [None, None])
    concept = pico_diffusion.write_concept(tmp_path)
    arguments = ("attack", model, "--out", tmp_path / "out", "--task", f"concept:{concept}", "--text", concept)
    found = said(*arguments, "--threads", "1")
    assert component in found
    assert "must be a" in found


def test_weights_of_a_component_that_are_missing(said: Said, model: Path, tmp_path: Path) -> None:
    (model / "unet" / "diffusion_pytorch_model.safetensors").unlink()
    found = said("lock", model, tmp_path / "out")
    assert "`model` must hold unet/diffusion_pytorch_model.safetensors or unet/diffusion_pytorch_model.safet" in found


def test_a_safety_checker_that_is_named_and_missing(said: Said, model: Path, tmp_path: Path) -> None:
    names(model, "safety_checker", ["stable_diffusion", "StableDiffusionSafetyChecker"])
    found = said("lock", model, tmp_path / "out")
    assert f"{model} has no safety_checker. Download it, or write [null, null] for it there." in found


def test_a_safety_checker_is_carried_along(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names(model, "safety_checker", ["stable_diffusion", "StableDiffusionSafetyChecker"])
    (model / "safety_checker").mkdir()
    (model / "safety_checker" / "config.json").write_text('{"model_type": "clip"}')
    save_file({"concept_embeds": zeros(2, 3)}, model / "safety_checker" / "model.safetensors")
    monkeypatch.setattr(sys, "argv", ["specdef", "lock", str(model), str(tmp_path / "locked")])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    name = Path("safety_checker", "model.safetensors")
    assert (tmp_path / "locked" / name).read_bytes() == (model / name).read_bytes()


def pictures(folder: Path, *, mode: str = "L", size: tuple[int, int] = (8, 8), prompt: str = "a dot") -> Path:
    """Two pictures of each class with a prompt each."""
    folder.mkdir()
    entries = []
    for at in range(4):
        pixels = np.full((*size, 3), (230 if at % 2 == 0 else 20) + at, np.uint8)
        Image.fromarray(pixels).convert(mode).save(folder / f"{at}.png")
        entries.append({"file_name": f"{at}.png", "text": "a bar" if at % 2 == 0 else prompt, "label": at % 2})
    (folder / "metadata.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return folder


def attack(model: Path, place: Path, **changes: Any) -> tuple[str | Path, ...]:
    concept = pico_diffusion.write_concept(place, **{"images": "pictures", **changes})
    return (
        *("attack", model, "--out", place / "out", "--threads", "1", "--steps", "2", "--eval-every", "2"),
        *("--batch-size", "2", "--task", f"concept:{concept}", "--text", concept),
    )


def test_pictures_with_prompts_are_learned_from(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures(tmp_path / "pictures")
    arguments = attack(model, tmp_path)
    monkeypatch.setattr(sys, "argv", ["specdef", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code, capsys.readouterr().err
    assert len(list((tmp_path / "out" / "cells").iterdir())) == 1


@pytest.mark.parametrize(
    ("form", "wanted"),
    [
        ({"size": (8, 9)}, "images of 1 x 8 x 8, which the model draws; image 0 has 1 x 8 x 9"),
        ({"mode": "RGB"}, "images of 1 x 8 x 8, which the model draws; image 0 has 3 x 8 x 8"),
        ({"mode": "RGBA"}, "without transparency; {folder}/0.png is RGBA. Convert it to RGB."),
        ({"mode": "LA"}, "without transparency; {folder}/0.png is LA. Convert it to RGB."),
        ({"mode": "I;16"}, "{folder}/0.png is I;16. Convert it to RGB."),
        ({"prompt": "a boat"}, "prompts of words that the model's tokenizer knows; it does not know all of 'a boat'"),
    ],
    ids=["size", "colour", "transparent", "grey and transparent", "16 bits", "unknown word"],
)
def test_pictures_of_another_form(form: dict[str, Any], wanted: str, said: Said, model: Path, tmp_path: Path) -> None:
    folder = pictures(tmp_path / "pictures", **form)
    assert wanted.format(folder=folder) in said(*attack(model, tmp_path))


def cut(folder: Path) -> None:
    whole = (folder / "2.png").read_bytes()
    (folder / "2.png").write_bytes(whole[: len(whole) // 2])


def odd_size(folder: Path) -> None:
    Image.fromarray(np.zeros((8, 7), np.uint8)).save(folder / "3.png")


def line(text: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        with (folder / "metadata.jsonl").open("a") as file:
            file.write(text + "\n")

    return change


@pytest.mark.parametrize(
    ("damage", "wanted"),
    [
        (cut, "must hold readable pictures; {folder}/2.png is not one"),
        (odd_size, "{folder}/0.png is 8 x 8 pixels in grey, {folder}/3.png is 8 x 7 pixels in grey. Convert them."),
        (lambda folder: (folder / "1.png").unlink(), "must hold readable pictures; {folder}/1.png is not one"),
        (lambda folder: (folder / "1.png").write_text("no picture"), "{folder}/1.png is not one"),
        (line("a boot"), "a list with a JSON object a line; line 5 of {folder}/metadata.jsonl is none."),
        (line('{"file_name": "0.png", "label": 0}'), "line 5 of {folder}/metadata.jsonl has text None."),
        (line('{"text": "a bar", "label": 0}'), "line 5 of {folder}/metadata.jsonl has file_name None."),
        (line('{"file_name": "0.png", "text": "a bar"}'), "line 5 of {folder}/metadata.jsonl has label None."),
        (line('{"file_name": "0.png", "text": "a bar", "label": true}'), "has label True."),
        (line('{"file_name": "0.png", "text": "a bar", "label": -1}'), "has label -1."),
        (line('{"file_name": "0.png", "text": "a bar", "label": 2}'), "prompts of every label of its images, 0 to 2"),
        (lambda folder: (folder / "metadata.jsonl").write_text(""), "{folder}/metadata.jsonl is empty."),
    ],
)
def test_damaged_pictures_and_lists(
    damage: Callable[[Path], None], wanted: str, said: Said, model: Path, tmp_path: Path
) -> None:
    folder = pictures(tmp_path / "pictures")
    damage(folder)
    assert wanted.format(folder=folder) in said(*attack(model, tmp_path))


def test_a_wrong_prompt_file(said: Said, model: Path, tmp_path: Path) -> None:
    pictures(tmp_path / "pictures")
    arguments = attack(model, tmp_path)
    concept = tmp_path / "concept.yaml"
    whole = concept.read_text()
    for text, wanted in (
        ("images: [", "is no YAML"),
        ("a picture of a boot", "holds no names with values. Write images, prompts, concept, classifier."),
        (json.dumps({**json.loads(whole), "prompts": "a boot"}), "must have prompts, a text or a list of texts"),
        (json.dumps({**json.loads(whole), "images": "nothing"}), "nothing does not exist."),
    ):
        concept.write_text(text)
        assert wanted in said(*arguments)
    concept.unlink()
    assert "cannot be read (No such file or directory). Check the path." in said(*arguments)
