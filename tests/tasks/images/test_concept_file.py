"""The file of a concept: which prompt an image gets, and every way to write it wrongly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pico
import pico_diffusion
import pytest

from specdef.errors import TaskError
from specdef.tasks.base import TaskSpec, make_task
from specdef.tasks.images.concept_file import read_concept
from specdef.tasks.images.drawn_share import DrawnShare
from specdef.tasks.utilities.denoising_loss import KIND


def test_images_take_their_labels_prompts_in_turn(tmp_path: Path) -> None:
    prompts = ["a picture of a bar", ["a picture of a dot", "a dot"]]
    found = read_concept(pico_diffusion.write_concept(tmp_path, prompts=prompts))
    own = found.prompted(lambda label: label == found.concept)
    assert [image.prompt for image in own[:3]] == ["a picture of a dot", "a dot", "a picture of a dot"]
    assert {image.prompt for image in found.prompted(lambda label: label == 0)} == {"a picture of a bar"}
    assert all(image.pixels.mean() < 0.2 for image in own)


def test_the_task_trains_on_the_concept_and_its_control_on_the_others(tmp_path: Path) -> None:
    file = pico_diffusion.write_concept(tmp_path, samples=10)
    task = make_task(TaskSpec("concept", str(file)))
    assert len(task.samples) == 10
    assert {sample.prompt for sample in task.samples} == {"a picture of a dot"}
    control = make_task(TaskSpec("concept", str(file), control="other concepts"))
    assert {sample.prompt for sample in control.samples} == {"a picture of a bar"}
    assert (task.chance, task.target, task.model_kind) == (0.5, 0.6, "diffusion")
    assert isinstance(task.metric, DrawnShare)
    other = make_task(TaskSpec("concept", str(pico_diffusion.write_concept(tmp_path, samples=10, steps=5))))
    assert other.fingerprint() != task.fingerprint()
    moved = tmp_path / "moved"
    moved.mkdir()
    same = make_task(TaskSpec("concept", str(pico_diffusion.write_concept(moved, samples=10))))
    assert same.fingerprint() == task.fingerprint(), "a place is no part of what a task is"


def test_general_images_are_of_the_other_classes(tmp_path: Path) -> None:
    content = KIND.read(pico_diffusion.write_concept(tmp_path))
    assert len(content.splitlines()) == 24
    assert "dot" not in content
    with pytest.raises(TaskError, match=r"`text` must be given for a pipeline"):
        KIND.read(None)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompts": ["a bar"]}, r"must have prompts, a text or a list of texts for each of two labels or more"),
        ({"prompts": ["a bar", 3]}, r"must have prompts, a text or a list"),
        ({"prompts": ["a bar", []]}, r"must have prompts, a text or a list"),
        ({"prompts": ["a", "b", "c"]}, r"must have prompts of every label of its images, 0 to 1; it has 3\."),
        ({"concept": 2}, r"must have a concept from 0 to 1, a label with prompts; it has 2\."),
        ({"concept": True}, r"must have a concept from 0 to 1"),
        ({"steps": 0}, r"must have a whole number of at least 1 as steps; it has 0\."),
        ({"guidance": "much"}, r"must have a number of at least 1 as guidance; it has 'much'\."),
        ({"classifier": "nowhere"}, r"must name the folder of a classifier; .*nowhere has no config.json"),
        ({"images": 7}, r"must have a path as images; it has 7\."),
        ({"images": "none.npz"}, r"`path` must be an IDX file of images .*none.npz does not exist"),
        ({"sort": "bar"}, r"must not have 'sort'\."),
    ],
)
def test_a_wrong_file_is_one_sentence(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=said):
        read_concept(pico_diffusion.write_concept(tmp_path, **change))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[", r"describes a concept; .* is no YAML: line 1: "),
        ("3", r"holds no names with values\. Write images, prompts, concept, classifier\."),
        ("images: a.npz", r"says nothing of prompts\."),
    ],
)
def test_what_is_no_such_file(content: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "concept.yaml").write_text(content)
    with pytest.raises(TaskError, match=said):
        read_concept(tmp_path / "concept.yaml")
    with pytest.raises(TaskError, match=r"cannot be read \(No such file or directory\)"):
        read_concept(tmp_path / "other.yaml")


def test_another_judge_is_refused(tmp_path: Path) -> None:
    pico.build("resnet", tmp_path / "seven")
    with pytest.raises(TaskError, match=r"a classifier with as many labels as prompts, 2; .*seven has 7"):
        make_task(TaskSpec("concept", str(pico_diffusion.write_concept(tmp_path, classifier="seven"))))
    pico.build("llama", tmp_path / "text")
    with pytest.raises(TaskError, match=r"must name a classifier of images; .*text is of kind causal-lm"):
        make_task(TaskSpec("concept", str(pico_diffusion.write_concept(tmp_path, classifier="text"))))
