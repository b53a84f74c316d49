"""A study of Stable Diffusion v1.4 tried out on its configuration: what is counted, and how little memory it takes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pico_diffusion
import pytest
from typer.testing import CliRunner

from experiments import tables
from specdef.architectures.resolve import resolve
from specdef.certify.study_dry_run import dry_run
from specdef.certify.study_faults import StudyError
from specdef.certify.study_file import parse_study
from specdef.checkpoint.layout import load_config
from specdef.checkpoint.random_weights import random_checkpoint
from specdef.cli.main import app
from specdef.errors import SpecdefError
from specdef.models.empty import empty_model
from specdef.models.sources import find_config

FULL = tables.STUDIES / "table17-full.yaml"
TRY = """
import json, resource, sys
import diffusers, torch, transformers, peft
from diffusers import UNet2DConditionModel
from transformers import CLIPTextModel
from specdef.certify.study_dry_run import dry_run
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
found = dry_run(sys.argv[1])
(model,) = found.models
said = {"grown": peak() - before, "layers": model.layers, "parameters": model.parameters, "runs": found.runs}
print(json.dumps({**said, "defences": model.defences, "attacks": model.attacks, "missing": found.missing}))
"""


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    done = subprocess.run([sys.executable, "-c", TRY, str(FULL)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_every_layer_of_stable_diffusion_is_resolved(found: dict[str, Any]) -> None:
    assert (found["layers"], found["parameters"]) == (16 + 16 + 12, 859_520_964 + 123_060_480)
    exact = found["defences"]["esd, exact 2^20"]
    assert exact == {"norm pairs": 88, "vo pairs": 44, "updown pairs": 16}
    assert sum(exact.values()) == 148


def test_matrices_are_shares_of_all_of_cross_attention(found: dict[str, Any]) -> None:
    """Of sixteen blocks with four each."""
    for share, number in ((1, 1), (5, 3), (25, 16), (100, 64)):
        for alpha in ("1e2", "1e3", "1e4"):
            assert found["defences"][f"esd, inject {alpha}, {share} %"] == {"matrices": number}


def test_adapters_are_put_beside_attention(found: dict[str, Any]) -> None:
    """Rank 4 beside four matrices of both attentions: the number that every LoRA of Stable Diffusion 1 has."""
    beside = {trained for label, trained in found["attacks"].items() if "on to_q,to_k,to_v,to_out.0" in label}
    assert beside == {797_184}
    assert any("lr 1e-4," in label and "batch size 1," in label for label in found["attacks"])


def test_the_model_is_not_held_in_memory(found: dict[str, Any]) -> None:
    assert found["grown"] < 200e6 < 2 * found["parameters"] / 8


def test_files_that_are_not_there_are_named(found: dict[str, Any]) -> None:
    assert [sentence[:40] for sentence in found["missing"]] == [
        "`tasks[0].path` must be a file that desc",
        "`text` must be a file that exists; conce",
    ]
    assert found["runs"] == 17 * 14 * 3


def study(folder: Path, **changes: Any) -> Any:
    said = {"specdef_study": 1, "title": "Toy", "models": [str(folder)], "defences": ["none", {"preset": "exact"}]}
    return parse_study(json.dumps({**said, **changes}).encode())


def test_a_folder_of_configurations_is_enough(pipeline: Path, tmp_path: Path) -> None:
    for file in pipeline.rglob("*.json"):
        (tmp_path / file.relative_to(pipeline)).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file.relative_to(pipeline)).write_bytes(file.read_bytes())
    (model,) = dry_run(study(tmp_path)).models
    assert model.defences["exact"] == {"norm pairs": 32, "vo pairs": 16, "updown pairs": 7}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"defences": [{"preset": "paper", "rank": 999}]}, r"`defences\[0\].rank` must be at most 8"),
        ({"defences": [{"preset": "paper", "rank": 1, "share": 2}]}, r"`defences\[0\].share` must be above 0 and at"),
        ({"attacks": [{"interventions": ["lora:targets=to_x"]}]}, r"`attacks\[0\].lora` targets must name linear"),
        ({"tasks": ["facts"]}, r"`tasks\[0\]` must"),
        ({"models": ["org/none/at/all"]}, r"`models\[0\]` must be a folder, a hub id"),
    ],
)
def test_what_does_not_fit_the_model_is_said_of_its_place(changes: dict[str, Any], said: str, pipeline: Path) -> None:
    with pytest.raises(StudyError, match=said):
        dry_run(study(pipeline, **changes))


def test_the_command_writes_nothing(pipeline: Path, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    concept = pico_diffusion.write_concept(tmp_path)
    said = {"models": [str(pipeline)], "tasks": [f"concept:{concept}"], "text": str(concept), "attacks": [{"lr": 1e-4}]}
    path.write_text(json.dumps({"specdef_study": 1, "title": "Toy", **said}))
    before = sorted(tmp_path.iterdir())
    done = CliRunner().invoke(app, ["run", str(path), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert done.output.splitlines()[-1] == "Toy: 1 run. Nothing was written."
    assert "Not here yet" not in done.output
    assert sorted(tmp_path.iterdir()) == before
    error = CliRunner().invoke(app, ["run", str(path)]).exception
    assert isinstance(error, SpecdefError)
    assert "`out` must be given: the study's folder" in str(error)


def test_random_weights_are_those_of_their_names() -> None:
    folder = find_config("CompVis/stable-diffusion-v1-4")
    shapes = {name: tuple(tensor.shape) for name, tensor in empty_model(folder).state_dict().items()}
    checkpoint = random_checkpoint(folder, load_config(folder), shapes)
    assert len(resolve(checkpoint.config, checkpoint.shapes).pairs) == 148
    name = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    first, again, other = (
        checkpoint.map_tensor(*checkpoint.locate()[one]) for one in (name, name, name.replace("_k", "_v"))
    )
    assert first.shape == (1280, 768)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    values = (first.astype(np.uint32) << 16).view(np.float32)
    assert 0.019 < values.std() < 0.021
