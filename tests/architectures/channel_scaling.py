"""Scale one channel of a resolved pair in a saved checkpoint; shares no code with the locks."""

from __future__ import annotations

import json
import shutil
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from specdef.architectures.resolve import ResolvedModel, ResolvedPair, ResolvedSlot, resolve

State = dict[str, Tensor]


def read_config(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "config.json").read_text())


def read_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def resolve_folder(folder: Path) -> ResolvedModel:
    return resolve(read_config(folder), read_shapes(folder))


def read_state(folder: Path) -> State:
    return load_file(folder / "model.safetensors")


def write_state(state: State, source: Path, folder: Path) -> Path:
    """A copy of the folder `source` with `state` as its weights."""
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"), dirs_exist_ok=True)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def offset_weights(stored: Tensor, exponent: int) -> tuple[Tensor, Tensor]:
    """Weights w' meant to satisfy fl32(1 + w') = 2**exponent * fl32(1 + w), and which do in the stored dtype."""
    target = torch.ldexp(1.0 + stored.float(), torch.tensor(exponent))
    scaled = (target.double() - 1.0).to(stored.dtype)
    return scaled, 1.0 + scaled.float() == target


def scalable_channels(state: State, pair: ResolvedPair, exponent: int) -> list[int]:
    """Channels that every slot of the pair can store exactly, in an order fixed by the pair's id."""
    order = torch.randperm(pair.size, generator=torch.Generator().manual_seed(zlib.crc32(pair.id.encode()))).tolist()
    exact = [offset_weights(state[slot.tensor], exponent)[1] for slot in pair.producers if slot.offset]
    return [channel for channel in order if all(mask[channel] for mask in exact)]


def scale_pair(state: State, pair: ResolvedPair, exponent: int, skip: Collection[ResolvedSlot] = ()) -> None:
    """Multiply one channel of the producers by 2**exponent and undo it in the consumers, except in `skip`."""
    channel = scalable_channels(state, pair, exponent)[0]
    for slot in pair.slots:
        if slot in skip:
            continue
        indices = torch.tensor(list(slot.indices(channel)))
        tensor = state[slot.tensor]
        old = tensor.index_select(slot.axis, indices)
        if slot.offset:
            new = offset_weights(old, exponent)[0]
        else:
            power = exponent if slot in pair.producers else -exponent * pair.degree
            new = torch.ldexp(old, torch.tensor(power)).to(old.dtype)
        state[slot.tensor] = tensor.index_copy(slot.axis, indices, new)


def scale_pairs(state: State, pairs: Iterable[ResolvedPair], exponent: int) -> State:
    """A copy of `state` with one channel of every pair scaled."""
    scaled = dict(state)
    for pair in pairs:
        scale_pair(scaled, pair, exponent)
    return scaled
