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


def load_config(folder: Path, *, argument: str = "model") -> dict[str, Any]:
    """The ``config.json`` of a model folder; of a pipeline, what stands for it.

    Returns:
        Of a pipeline: ``model_type`` `PIPELINE_TYPE`, ``architectures`` with the pipeline's class, and ``components``:
        name -> its configuration.

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
    return {"model_type": PIPELINE_TYPE, "architectures": [named], "components": components}


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
