"""The U-Net's map: every pair exact, every slot needed, and what diffusers draws from a locked folder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from channel_scaling import scalable_channels, scale_pair
from safetensors.torch import load_file, save_file

from specdef import inspect_model, lock, unlock, verify
from specdef.architectures.resolve import ResolvedModel, resolve
from specdef.architectures.spec import Config
from specdef.checkpoint.layout import load_config
from specdef.checkpoint.reader import open_checkpoint
from specdef.errors import ArchitectureError, PlanError, SpecdefError
from specdef.models.base import kind_of
from specdef.models.pipeline import Pipeline

FILES = {"unet": "unet/diffusion_pytorch_model.safetensors", "text_encoder": "text_encoder/model.safetensors"}
DRAW = """
import sys, torch
from pathlib import Path
from diffusers import DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextModel
torch.set_num_threads(1)
drawn = []
for folder in map(Path, sys.argv[2:]):
    unet = UNet2DConditionModel.from_pretrained(folder / "unet").eval()
    text = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
    scheduler = DDIMScheduler.from_pretrained(folder / "scheduler")
    scheduler.set_timesteps(50)
    with torch.no_grad():
        context = text(torch.tensor([[0, 3, 4, 5, 3, 6, 1, 1], [0, 3, 4, 5, 3, 7, 1, 1]]))[0]
        found = torch.randn((2, 1, 8, 8), generator=torch.Generator().manual_seed(0))
        for time in scheduler.timesteps:
            found = scheduler.step(unet(found, time, context).sample, time, found).prev_sample
    drawn.append(found)
assert not any(name.startswith("specdef") for name in sys.modules)
torch.save(drawn, sys.argv[1])
"""


def read(folder: Path) -> dict[str, torch.Tensor]:
    return {f"{part}.{name}": t for part, file in FILES.items() for name, t in load_file(folder / file).items()}


def resolved(folder: Path) -> ResolvedModel:
    found = open_checkpoint(folder)
    return resolve(found.config, found.shapes)


@pytest.fixture(scope="module")
def folder(pipeline: Path) -> Path:
    return pipeline


@pytest.fixture(scope="module")
def locked(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("locked") / "locked"
    lock(folder, found, multiplier="2^20")
    return found


def outputs(model: Pipeline, state: dict[str, torch.Tensor], probes: dict[str, torch.Tensor]) -> torch.Tensor:
    model.load_state_dict(state)
    with torch.inference_mode():
        return model(**probes)[0].clone()


def test_every_pair_is_exact_and_every_slot_of_it_is_needed(folder: Path) -> None:
    """A slot left out must change what the U-Net says, even of a context of more tokens than one."""
    model = kind_of(folder).load(folder).model
    probes = kind_of(folder).probes(load_config(folder), 1)
    assert probes["input_ids"].shape[1] >= 3
    state = read(folder)
    original = outputs(model, state, probes)
    pairs = resolved(folder).pairs
    frames, blocks, texts = 7, 7, 2
    assert len(pairs) == frames + 6 * blocks + 3 * texts
    for pair in pairs[:: 1 if len(pairs) < 20 else 2]:
        changed = {name: tensor.clone() for name, tensor in state.items()}
        scale_pair(changed, pair, 7)
        assert torch.equal(outputs(model, changed, probes), original), pair.id
        for slot in pair.slots:
            partly = {name: tensor.clone() for name, tensor in state.items()}
            scale_pair(partly, pair, 7, skip=[slot])
            assert not torch.equal(outputs(model, partly, probes), original), (pair.id, slot.tensor)
    assert scalable_channels(state, pairs[0], 7)


def test_fifty_steps_in_plain_diffusers_are_identical_to_the_bit(folder: Path, locked: Path, tmp_path: Path) -> None:
    argv = [sys.executable, "-c", DRAW, str(tmp_path / "drawn.pt"), str(folder), str(locked)]
    subprocess.run(argv, check=True, capture_output=True)
    original, same = torch.load(tmp_path / "drawn.pt", weights_only=True)
    assert original.isfinite().all()
    assert torch.equal(original, same)


def test_the_way_back_is_to_the_byte(folder: Path, locked: Path, tmp_path: Path) -> None:
    assert verify(locked, original=folder).passed
    assert "Looks locked (fold, about 2^20)" in inspect_model(locked).verdict.sentence
    assert "Does not look locked" in inspect_model(folder).verdict.sentence
    changed, before = read(locked), read(folder)
    for part in FILES:
        assert any(not torch.equal(changed[name], before[name]) for name in before if name.startswith(part)), part
    unlock(locked, tmp_path / "back")
    original = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    back = {p.relative_to(tmp_path / "back"): p.read_bytes() for p in (tmp_path / "back").rglob("*") if p.is_file()}
    assert back == original


def test_a_wrong_pair_is_caught(folder: Path, locked: Path, tmp_path: Path) -> None:
    """The gate's half of a GEGLU grown in place of the value's."""
    name = "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj"
    before, after = (load_file(place / FILES["unet"]) for place in (folder, locked))
    rows = (after[f"{name}.bias"] != before[f"{name}.bias"]).nonzero().flatten()
    half = len(before[f"{name}.bias"]) // 2
    assert len(rows)
    assert rows.max() < half
    wrong = {key: value.clone() for key, value in after.items()}
    wrong[f"{name}.bias"][rows] = before[f"{name}.bias"][rows]
    wrong[f"{name}.bias"][rows + half] *= 2**20
    bad = tmp_path / "bad"
    for path in locked.rglob("*"):
        if path.is_file():
            (bad / path.relative_to(locked)).parent.mkdir(parents=True, exist_ok=True)
            (bad / path.relative_to(locked)).write_bytes(path.read_bytes())
    save_file(wrong, bad / FILES["unet"], {"format": "pt"})
    checks = {check.name: check.passed for check in verify(bad, original=folder).checks}
    assert checks == {"integrity": False, "lock": False, "function": False}


def test_layers_are_numbered_as_the_model_runs_them(folder: Path) -> None:
    paths = resolved(folder).layer_paths
    assert paths[0] == "unet.down_blocks.0.attentions.0"
    assert paths[1] == "unet.down_blocks.0.attentions.0.transformer_blocks.0"
    assert paths[-1].startswith("text_encoder.")
    middle = paths.index("unet.mid_block.attentions.0")
    assert all(".down_blocks." in path for path in paths[:middle])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"only_cross_attention": True}, "`only_cross_attention` of the U-Net must be false; got True"),
        ({"dual_cross_attention": True}, "`dual_cross_attention` of the U-Net must be false; got True"),
    ],
)
def test_other_attention_is_refused(change: dict[str, Any], said: str, folder: Path) -> None:
    found = open_checkpoint(folder)
    parts = found.config["components"]
    config: Config = {**found.config, "components": {**parts, "unet": {**parts["unet"], **change}}}
    with pytest.raises(ArchitectureError, match=said):
        resolve(config, found.shapes)


def test_an_unknown_tensor_in_a_layer_and_a_pipeline_without_unet_are_refused(folder: Path) -> None:
    found = open_checkpoint(folder)
    odd = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.norm_q.weight"
    with pytest.raises(ArchitectureError, match=rf"Tensor {odd} is not part of the U-Net of diffusers map"):
        resolve(found.config, {**found.shapes, odd: (16,)})
    texts = {name: shape for name, shape in found.shapes.items() if name.startswith("text_encoder")}
    with pytest.raises(ArchitectureError, match=r"must have a U-Net with transformers .*; this pipeline has"):
        resolve(found.config, texts)
    for components in ([], {"unet": []}):
        with pytest.raises(ArchitectureError, match=r"this pipeline has (no components|unet)"):
            resolve({"model_type": "diffusion", "components": components}, texts)


def test_what_has_no_place_in_a_pipeline_is_one_sentence(folder: Path, locked: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"`preset` must be exact for a pipeline: a ladder"):
        lock(folder, tmp_path / "locked", preset="ladder")
    with pytest.raises(SpecdefError, match=r"`runtime` must be left out for a pipeline, which none of them runs"):
        verify(locked, original=folder, runtimes=["transformers-bf16"])
    assert not list(tmp_path.iterdir())


def test_the_card_names_the_library_that_loads_it(folder: Path, tmp_path: Path) -> None:
    lock(folder, tmp_path / "locked", card=True)
    assert "library_name: diffusers" in (tmp_path / "locked" / "README.md").read_text()


def test_the_published_config_is_what_the_lock_leaves(folder: Path, locked: Path) -> None:
    for name in ("model_index.json", "unet/config.json", "scheduler/scheduler_config.json"):
        assert json.loads((folder / name).read_text()) == json.loads((locked / name).read_text())


@pytest.mark.parametrize(
    "sizes",
    [
        {"cross_attention_dim": 768, "attention_head_dim": 8},
        {"cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20], "use_linear_projection": True},
    ],
    ids=["Stable Diffusion 1", "Stable Diffusion 2"],
)
def test_stable_diffusion_has_sixteen_transformers(sizes: dict[str, Any]) -> None:
    """Of their real sizes, without their weights; files of before transformers 5 say ``text_model.``."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    with torch.device("meta"):
        unet = UNet2DConditionModel(**sizes)
        text = CLIPTextModel(CLIPTextConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12))
    parts = {"unet": unet.state_dict(), "text_encoder.text_model": text.state_dict()}
    shapes = {f"{part}.{name}": tuple(t.shape) for part, state in parts.items() for name, t in state.items()}
    found = resolve({"model_type": "diffusion", "components": {"unet": dict(unet.config)}}, shapes)
    assert len(found.layer_paths) == 16 + 16 + 12
    kinds = [pair.kind for pair in found.pairs]
    assert [kinds.count(kind) for kind in ("norm", "vo", "updown")] == [16 * 4 + 12 * 2, 16 * 2 + 12, 16]
    assert all(("attn2.to_v", layer) in found.linears for layer in range(32) if layer % 2)
