"""How a model folder is laid out: one model, or a pipeline of diffusers, whose components have folders of their own.

A pipeline is read as one model. Its configuration is what its components' say, by their names, and a component's
tensors carry its name: ``unet.conv_in.weight`` is ``conv_in.weight`` of a file in ``unet``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdef.checkpoint.header import load_json_object
from specdef.core.text import shown
from specdef.errors import CheckpointError

CONFIG, PIPELINE_CONFIG = "config.json", "model_index.json"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
DIFFUSERS_SINGLE = "diffusion_pytorch_model.safetensors"
DIFFUSERS_INDEX = f"{DIFFUSERS_SINGLE}.index.json"
PIPELINE_TYPE = "diffusion"
"""What stands for ``model_type`` in the configuration of a pipeline."""
COMPONENT_CONFIGS = (CONFIG, "scheduler_config.json", "tokenizer_config.json", "preprocessor_config.json")
DECLARED, LISTS = "quantization_config", ("modules", "factored")
"""Where a configuration declares layers that are not the library's own, and what in it lists them by name."""
WITHOUT_WEIGHTS = ("scheduler", "tokenizer", "feature_extractor", "image_processor")
"""How the names of components begin that hold no tensors."""


@dataclass(frozen=True)
class WeightPlace:
    """Where weights lie in a model folder.

    Attributes:
        folder: relative to the model folder, with a slash behind it; "" for the model folder itself.
        single: name of the file of all weights.
        index: name of the index of a model in several files.
    """

    folder: str
    single: str
    index: str

    @property
    def prefix(self) -> str:
        """What stands before the names of its tensors."""
        return self.folder.replace("/", ".")


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a model's configuration, or a pipeline's."""
    return (folder / CONFIG).exists() or is_pipeline(folder)


def is_pipeline(folder: Path) -> bool:
    """Whether a folder is a pipeline of diffusers."""
    return (folder / PIPELINE_CONFIG).exists() and not (folder / CONFIG).exists()


def library_of(folder: Path) -> str:
    """Which library loads a folder: ``diffusers`` or ``transformers``."""
    return "diffusers" if is_pipeline(folder) else "transformers"


def load_config(folder: Path, *, argument: str = "model") -> dict[str, Any]:
    """The ``config.json`` of a model folder; of a pipeline, what stands for it.

    Returns:
        Of a pipeline: ``model_type`` `PIPELINE_TYPE`, ``architectures`` with the pipeline's class, and ``components``:
        name -> its configuration. Layers that components declare (``quantization_config``) are declared at the top too,
        by the names that tensors have.

    Raises:
        CheckpointError: no such file, or a malformed one; a component that `PIPELINE_CONFIG` names is missing.
    """
    if not is_pipeline(folder):
        return load_json_object(folder / CONFIG)
    index = load_json_object(folder / PIPELINE_CONFIG)
    components = {
        name: _component(folder, name, argument)
        for name, value in index.items()
        if isinstance(value, list) and any(value)
    }
    named = index.get("_class_name")
    if not isinstance(named, str) or not components:
        raise CheckpointError(
            f"File {shown(folder / PIPELINE_CONFIG)} must name a class and components of a pipeline. Download it again."
        )
    found = {"model_type": PIPELINE_TYPE, "architectures": [named], "components": components}
    declared = _declared(components)
    return {**found, DECLARED: declared} if declared else found


def component_configs(folder: Path, config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A configuration as `load_config` gives it, as files relative to the folder, where layers are declared otherwise.

    Args:
        folder: a model's or a pipeline's.
        config: what the files are to say.

    Returns:
        Name -> content. Of a pipeline, ``config.json`` of each component whose declared layers are others than before.
    """
    if not is_pipeline(folder):
        return {CONFIG: dict(config)}
    wanted, found = _by_component(config.get(DECLARED), config["components"]), {}
    for name in config["components"]:
        path = folder / name / CONFIG
        before = load_json_object(path) if path.is_file() else {}
        after = {key: value for key, value in before.items() if key != DECLARED}
        if name in wanted:
            after[DECLARED] = wanted[name]
        if after != before:
            found[f"{name}/{CONFIG}"] = after
    return found


def _declared(components: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What components declare of their layers, as one entry: modules are named as tensors are, ``unet.…``."""
    found: dict[str, Any] = {}
    for name, config in components.items():
        own = config.get(DECLARED)
        if not isinstance(own, Mapping):
            continue
        for key, value in own.items():
            if key in LISTS and isinstance(value, Mapping):
                found[key] = {**found.get(key, {}), **{f"{name}.{module}": entry for module, entry in value.items()}}
            else:
                found[key] = value
    return found


def _by_component(declared: Any, components: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The same, taken apart: component -> its own entry, of those that have layers in it."""
    if not isinstance(declared, Mapping):
        return {}
    found: dict[str, dict[str, Any]] = {}
    for name in components:
        own = {
            key: {m.removeprefix(f"{name}."): e for m, e in value.items() if m.startswith(f"{name}.")}
            if key in LISTS and isinstance(value, Mapping)
            else value
            for key, value in declared.items()
        }
        if any(own.get(key) for key in LISTS):
            found[name] = own
    return found


def config_files(files: Iterable[str]) -> set[str]:
    """Those of a folder's files that a model cannot do without, beside its weights."""
    ends = (CONFIG, PIPELINE_CONFIG, INDEX, DIFFUSERS_INDEX, *COMPONENT_CONFIGS)
    return {name for name in files if name.rpartition("/")[2] in ends}


def weight_places(config: Mapping[str, Any], folder: Path) -> list[WeightPlace]:
    """Where the weights of a folder with this configuration lie, in the order of names."""
    if not is_pipeline(folder):
        return [WeightPlace("", SINGLE, INDEX)]
    names = sorted(name for name in config["components"] if not name.startswith(WITHOUT_WEIGHTS))
    return [_place(name, config["components"][name]) for name in names]


def _place(name: str, config: Mapping[str, Any]) -> WeightPlace:
    """Files are named as the library names them that wrote the component: diffusers says which class in its config."""
    own = "_class_name" in config
    return WeightPlace(f"{name}/", DIFFUSERS_SINGLE if own else SINGLE, DIFFUSERS_INDEX if own else INDEX)


def _component(folder: Path, name: str, argument: str) -> dict[str, Any]:
    found = next((path for end in COMPONENT_CONFIGS if (path := folder / name / end).is_file()), None)
    if found is None and not (name.startswith("tokenizer") and (folder / name).is_dir()):
        raise CheckpointError(
            f"`{argument}` must hold every component that its {PIPELINE_CONFIG} names; {shown(folder)} has no "
            f"{shown(name)}. Download it, or write [null, null] for it there."
        )
    return {} if found is None else load_json_object(found)
