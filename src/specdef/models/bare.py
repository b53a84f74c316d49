"""Layout `bare`: a file of weights alone, whose architecture the user names, written as a model folder."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.core.folders import new_folder, refuse_target
from specdef.core.registry import Registry
from specdef.errors import CheckpointError
from specdef.models.loading import is_fault, quiet, reason

if TYPE_CHECKING:
    from torch import Tensor


COUNTER = "num_batches_tracked"
"""How names of whole numbers end: what BatchNorm counts."""


@dataclass(frozen=True)
class BareFamily:
    """Architectures whose weights are published as a file alone: one file of `specdef.models.bare_families`.

    Attributes:
        names: of its architectures, as the user types them.
        read: a file's tensors with the names of the model that `make` gives. Names of tensors it does not know stay.
        make: (name, those tensors) -> a model of transformers with random weights; the tensors say what the name
            leaves open, such as the number of labels.
        files: (name, the tensors) -> JSON files that the folder holds beside the model.
    """

    names: tuple[str, ...]
    read: Callable[[Mapping[str, Tensor]], Iterable[tuple[str, Tensor]]]
    make: Callable[[str, Mapping[str, Tensor]], Any]
    files: Callable[[str, Mapping[str, Tensor]], Mapping[str, Mapping[str, Any]]] = lambda name, state: {}


BARE: Registry[BareFamily] = Registry(
    "name", "specdef.models.bare_families", "specdef.bare_families", error=CheckpointError
)


def write_folder(name: str, file: Path | str, out: Path | str) -> Path:
    """Write a file of weights as a folder that every verb reads: config.json and model.safetensors.

    Args:
        name: of the architecture, as a `BareFamily` has it.
        file: a state_dict, as safetensors or as ``torch.save`` wrote it (also under the key ``state_dict``); names may
            begin with ``module.``. Pickled code is never run.
        out: the folder to create.

    Raises:
        CheckpointError: unknown architecture, a file that cannot be read or holds code, or tensors that are not the
            architecture's.
    """
    families = {known: family for family in BARE for known in family.names}
    if name not in families:
        raise CheckpointError(f"`name` must be drawn from {', '.join(families)} for a file of weights; got {name!r}.")
    family = families[name]
    file, out = Path(file), Path(out)
    if not file.is_file():
        raise CheckpointError(f"`name` must be followed by a file of weights, {name}:FILE; {file} does not exist.")
    refuse_target(out, None)
    import torch

    given = _once(by_name(lambda key: key.removeprefix("module."))(_read(file)), file)
    _check_numbers(given, file)
    state = _once(family.read(given), file)
    with torch.device("meta"):
        wanted = family.make(name, state).state_dict()
    for key in wanted:  # files of before torch 0.4.1 lack it
        if key.endswith(COUNTER):
            state.setdefault(key, torch.tensor(0))
    for key in sorted(wanted.keys() | state.keys()):
        found, expected = (list(held[key].shape) if key in held else None for held in (state, wanted))
        if found != expected:
            needs = f"no tensor {key}" if expected is None else f"tensor {key} of shape {expected}"
            has = "none" if found is None else f"one of shape {found}"
            raise CheckpointError(
                f"`name` must be the architecture of {file}; {name} has {needs}, the file has {has}. Name another "
                "architecture."
            )
    model = family.make(name, state)
    model.to(next(value.dtype for value in state.values() if value.is_floating_point()))
    model.load_state_dict(state)
    with new_folder(out) as folder, quiet():
        model.save_pretrained(folder)
        for file_name, content in family.files(name, state).items():
            (folder / file_name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return out


def by_name(rename: Callable[[str], str]) -> Callable[[Mapping[str, Tensor]], Iterable[tuple[str, Tensor]]]:
    """`BareFamily.read` of a family whose tensors are the model's, under other names."""
    return lambda state: ((rename(name), tensor) for name, tensor in state.items())


def labels(state: Mapping[str, Tensor], bias: str, usual: int) -> int:
    """How many labels a model has, by its head's bias; as many as usual where the file has no such vector."""
    return len(state[bias]) if bias in state and state[bias].dim() == 1 else usual


def _once(named: Iterable[tuple[str, Tensor]], file: Path) -> dict[str, Tensor]:
    """Tensors by name, no two of one name."""
    found: dict[str, Tensor] = {}
    for name, tensor in named:
        if name in found:
            raise CheckpointError(
                f"`name` must be followed by a file that names a tensor once; {file} has {name} twice."
            )
        found[name] = tensor
    return found


def _check_numbers(state: Mapping[str, Tensor], file: Path) -> None:
    """Refuse what is no ordinary tensor, and weights of several types: a folder has one."""
    import torch

    plain = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
    weights = {name: one for name, one in state.items() if not name.endswith(COUNTER)}
    for name, one in state.items():
        ordinary = one.layout is torch.strided and not (one.is_meta or one.is_quantized or one.is_nested)
        if not ordinary or (name in weights and one.dtype not in plain):
            raise CheckpointError(
                f"`name` must be followed by a file of ordinary float tensors; {name} of {file} is none "
                f"({str(one.dtype).removeprefix('torch.')}). Convert it first."
            )
    if len(kinds := {one.dtype for one in weights.values()}) > 1:
        said = ", ".join(sorted(str(kind).removeprefix("torch.") for kind in kinds))
        raise CheckpointError(f"`name` must be followed by a file of one type of numbers; {file} has {said}.")


def _read(file: Path) -> Mapping[str, Tensor]:
    import pickle

    import torch
    from safetensors.torch import load_file

    from specdef.checkpoint.reader import looks_like_safetensors

    try:
        if looks_like_safetensors(file):
            return dict(load_file(file))
        held = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"`name` must be followed by a file of weights alone; {file} cannot be read without running what it holds "
            f"({reason(error)}). Get it as safetensors."
        ) from error
    except BaseException as error:  # whatever a damaged file makes torch raise
        if not is_fault(error):
            raise
        raise CheckpointError(
            f"`name` must be followed by a readable file of weights; {file} is not ({reason(error)}). Download it "
            "again."
        ) from error
    inner = held.get("state_dict", held) if isinstance(held, dict) else held
    if not isinstance(inner, dict) or not all(isinstance(value, torch.Tensor) for value in inner.values()):
        raise CheckpointError(
            f"`name` must be followed by a file that holds a state_dict; {file} holds something else."
        )
    return {str(key): value for key, value in inner.items()}
