"""Pipelines with an inject lock in diffusers: loaded after `import specdef`, refused without, saved, loaded again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pico_diffusion
import pytest
import torch
from safetensors.torch import load_file

from specdef import inspect_model, lock, unlock, verify
from specdef.attacks.base import parse_intervention
from specdef.errors import ArchitectureError, PlanError
from specdef.locks.deformed_linear import DeformedLinear
from specdef.models.base import kind_of
from specdef.models.pipeline import load_pipeline

OPTIONS: dict[str, Any] = {"preset": "paper", "rank": 3, "multiplier": 1e3}
CROSS = 7 * 4
"""Matrices of cross-attention: seven blocks with four each."""
LOAD = """
import sys
{imports}
import torch
from diffusers import StableDiffusionPipeline
loaded = StableDiffusionPipeline.from_pretrained(sys.argv[1], vae=None)
layer = loaded.unet.mid_block.attentions[0].transformer_blocks[0].attn2.to_q
print(type(layer).__name__)
"""


def files(folder: Path) -> dict[Path, bytes]:
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def locked(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("inject") / "locked"
    lock(pipeline, found, share=1.0, **OPTIONS)
    return found


def outputs(folder: Path, dtype: torch.dtype | None = None) -> torch.Tensor:
    model = load_pipeline(folder, dtype=dtype)
    tokens = torch.tensor([[0, 3, 4, 5, 3, 6, 1, 1]])
    like = next(model.unet.parameters()).dtype
    with torch.no_grad():
        return model(pico_diffusion.noise(1).to(like), torch.tensor([400]), tokens)[0].float()  # type: ignore[no-any-return]


def test_verify_inspect_and_the_way_back_to_the_byte(pipeline: Path, locked: Path, tmp_path: Path) -> None:
    report = verify(locked, original=pipeline)
    assert report.passed
    assert f"recomputed from {CROSS} matrices: 1000 to 1000" in report.checks[1].detail
    assert "Looks locked (inject" in inspect_model(locked).verdict.sentence
    assert f"{CROSS} matrices" in inspect_model(locked).verdict.sentence
    unlock(locked, tmp_path / "back")
    assert files(tmp_path / "back") == files(pipeline)


def test_each_matrix_is_deformed_and_declared_by_the_name_that_diffusers_has(pipeline: Path, locked: Path) -> None:
    before, after = (load_file(place / "unet" / "diffusion_pytorch_model.safetensors") for place in (pipeline, locked))
    declared = json.loads((locked / "unet" / "config.json").read_text())["quantization_config"]
    assert declared["needs"] == "specdef"
    assert len(declared["modules"]) == CROSS
    assert all(".attn2.to_" in name for name in declared["modules"])
    changed = {name.removesuffix(".weight") for name in before if not torch.equal(before[name], after[name])}
    assert changed == set(declared["modules"])
    assert json.loads((locked / "text_encoder" / "config.json").read_text()).keys().isdisjoint({"quantization_config"})


@pytest.mark.parametrize("imports", ["import specdef", "import diffusers.quantizers.auto, specdef"])
def test_diffusers_loads_it_after_specdef_was_imported(imports: str, locked: Path) -> None:
    argv = [sys.executable, "-c", LOAD.format(imports=imports), str(locked)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["DeformedLinear"], done.stderr


def test_without_specdef_diffusers_refuses_it(locked: Path) -> None:
    argv = [sys.executable, "-c", LOAD.format(imports=""), str(locked)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "has no `quant_method` attribute" in done.stderr


def test_locked_tensors_keep_their_dtypes_whatever_the_model_is_loaded_in(pipeline: Path, locked: Path) -> None:
    wide, narrow = load_pipeline(locked), load_pipeline(locked, dtype=torch.bfloat16)
    path = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0"
    cast = load_pipeline(locked)
    cast.unet.to(torch.bfloat16)
    for model in (wide, narrow, cast):
        layer = model.get_submodule(path)
        assert isinstance(layer, DeformedLinear)
        assert layer.weight.dtype == torch.float32
        assert torch.equal(layer.weight, wide.get_submodule(path).weight)
        assert torch.equal(layer.compensation, wide.get_submodule(path).compensation)
    assert narrow.get_submodule(path).bias.dtype == cast.get_submodule(path).bias.dtype == torch.bfloat16
    assert torch.allclose(outputs(locked), outputs(pipeline), rtol=1e-3, atol=1e-4)
    assert torch.allclose(outputs(locked, torch.bfloat16), outputs(pipeline, torch.bfloat16), rtol=0.1, atol=0.1)


def test_a_saved_pipeline_loads_again(locked: Path, tmp_path: Path) -> None:
    kind = kind_of(locked)
    kind.save(kind.load(locked), tmp_path / "saved")
    assert torch.equal(outputs(tmp_path / "saved"), outputs(locked))


def test_a_pipeline_locked_in_memory_is_written_and_unlocked(pipeline: Path, tmp_path: Path) -> None:
    kind = kind_of(pipeline)
    loaded = kind.load(pipeline)
    held = lock(loaded.model, targets=["unet.*.attn2.to_k"], rank=3, multiplier=1e3)
    kind.save(loaded, tmp_path / "saved")
    assert len(json.loads((tmp_path / "saved/unet/config.json").read_text())["quantization_config"]["modules"]) == 7
    assert torch.allclose(outputs(tmp_path / "saved"), outputs(pipeline), rtol=1e-3, atol=1e-4)
    unlock(loaded.model, key=held.key)
    kind.save(loaded, tmp_path / "back")
    assert "quantization_config" not in json.loads((tmp_path / "back/unet/config.json").read_text())
    assert torch.equal(outputs(tmp_path / "back"), outputs(pipeline))


def test_merge_undoes_it_without_a_key(pipeline: Path, locked: Path, tmp_path: Path) -> None:
    report = parse_intervention("merge").rewrite(locked, tmp_path / "merged")
    assert report is not None
    assert report.tensors == CROSS
    assert files(tmp_path / "merged").keys() == files(pipeline).keys()
    assert "quantization_config" not in json.loads((tmp_path / "merged/unet/config.json").read_text())
    assert "Does not look locked" in inspect_model(tmp_path / "merged").verdict.sentence
    assert torch.allclose(outputs(tmp_path / "merged"), outputs(pipeline), rtol=1e-3, atol=1e-4)


def test_chains_of_factors_load(pipeline: Path, locked: Path, tmp_path: Path) -> None:
    parse_intervention("inject-layers:factors=1").rewrite(locked, tmp_path / "chains")
    assert torch.allclose(outputs(tmp_path / "chains"), outputs(pipeline), rtol=1e-2, atol=1e-3)


def test_adapters_reach_locked_layers_by_name(locked: Path) -> None:
    pytest.importorskip("peft")
    loaded = kind_of(locked).load(locked)
    from specdef.training.recipe import Recipe

    adapted = parse_intervention("lora:rank=4,targets=attn2.to_q+attn2.to_out.0").modify(loaded, (), Recipe())
    assert len({name for name, p in adapted.named_parameters() if p.requires_grad}) == 2 * 2 * 7


@pytest.mark.parametrize(("share", "number"), [(0.01, 1), (0.05, 1), (0.25, 7), (1.0, CROSS)])
def test_a_share_of_the_matrices_is_drawn(share: float, number: int, pipeline: Path, tmp_path: Path) -> None:
    report = lock(pipeline, tmp_path / "locked", share=share, dry_run=True, **OPTIONS)
    assert len(report.strength["matrices"]) == number


def test_several_files_of_weights(pipeline: Path, tmp_path: Path) -> None:
    kind = kind_of(pipeline)
    loaded = kind.load(pipeline)
    kind.save(loaded, tmp_path / "model")
    (tmp_path / "model/unet/diffusion_pytorch_model.safetensors").unlink()
    loaded.model.unet.save_pretrained(tmp_path / "model/unet", max_shard_size="40KB")
    index = "unet/diffusion_pytorch_model.safetensors.index.json"
    assert len(set(json.loads((tmp_path / "model" / index).read_text())["weight_map"].values())) > 2
    lock(tmp_path / "model", tmp_path / "locked", share=0.25, **OPTIONS)
    assert (tmp_path / "model" / index).read_bytes() != (tmp_path / "locked" / index).read_bytes()
    assert verify(tmp_path / "locked", original=tmp_path / "model").passed
    unlock(tmp_path / "locked", tmp_path / "back")
    assert files(tmp_path / "back") == files(tmp_path / "model")


def test_what_cannot_be_is_one_sentence(pipeline: Path, locked: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="`share` must be above 0 and at most 1; got 2"):
        lock(pipeline, tmp_path / "out", share=2, **OPTIONS)
    with pytest.raises(PlanError, match="`share` must be left out with `num_matrices`"):
        lock(pipeline, tmp_path / "out", share=0.5, num_matrices=2, **OPTIONS)
    copy = tmp_path / "copy"
    for name, data in files(locked).items():
        if not name.name.lower().startswith("specdef"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes(data)
    with pytest.raises((ArchitectureError, PlanError), match="already locked by specdef"):
        lock(copy, tmp_path / "out")
    config = json.loads((copy / "unet/config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (copy / "unet/config.json").write_text(json.dumps(config))
    with pytest.raises(ArchitectureError, match="got quant_method 'bitsandbytes'"):
        lock(copy, tmp_path / "out")
    assert not (tmp_path / "out").exists()
