"""Open a model folder: find its shards, refuse what is unsafe or would leak, read tensors on demand."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from specdef.checkpoint.header import ShardHeader, TensorInfo, load_json_object, read_header, unreadable
from specdef.checkpoint.layout import WeightPlace, config_files, load_config, weight_places
from specdef.core.text import is_unicode, shown
from specdef.errors import CheckpointError
from specdef.linalg.exponent import NUMPY_DTYPES, Stored

_PYTORCH, _OTHERS = ".bin .pt .pth .ckpt .pkl .safetensors", ".h5 .keras .pb .tflite .msgpack .onnx .onnx_data .mlmodel"
_REST = ".gguf .ggml .npz .npy .ot .nemo .zip .tar .gz .xz .7z"
WEIGHT_SUFFIXES = frozenset(f"{_PYTORCH} {_OTHERS} {_REST}".split())
"""Endings, anywhere in a name (``x.safetensors.bak`` too), of files that may hold the unlocked weights."""
NOT_WEIGHTS = frozenset({"training_args.bin", "scheduler.pt", "tokenizer.pkl"})


@dataclass(frozen=True)
class Checkpoint:
    """A model folder whose headers have been read and checked; tensor data stays on disk.

    Attributes:
        folder: the folder, as given.
        config: the parsed ``config.json``; of a pipeline what stands for it, see `layout.load_config`.
        shards: file name, relative to the folder -> header, in the order they are processed.
        others: every other file, as paths relative to the folder.
    """

    folder: Path
    config: Mapping[str, Any]
    shards: Mapping[str, ShardHeader]
    others: tuple[str, ...]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Tensor name -> shape."""
        return {t.name: t.shape for header in self.shards.values() for t in header.tensors}

    def locate(self) -> dict[str, tuple[str, TensorInfo]]:
        """Tensor name -> (shard, entry), for many look-ups."""
        return {t.name: (shard, t) for shard, header in self.shards.items() for t in header.tensors}

    def map_tensor(self, shard: str, tensor: TensorInfo) -> Stored:
        """The tensor's stored values as a read-only memory map (bfloat16 as uint16).

        Raises:
            CheckpointError: it is not stored as floating-point numbers of 16 bits or more.
        """
        if tensor.dtype not in NUMPY_DTYPES:
            raise CheckpointError(
                f"Tensor {shown(tensor.name)} of file {shown(shard)} is stored as {tensor.dtype}; only F16, BF16, F32 "
                "and F64 can be computed with. Give the unquantised model."
            )
        dtype = NUMPY_DTYPES[tensor.dtype]
        if not tensor.num_bytes:
            return np.empty(tensor.shape, dtype)
        return np.memmap(self.folder / shard, dtype=dtype, mode="r", offset=tensor.start, shape=tensor.shape)


def open_checkpoint(
    folder: Path, *, publishing: bool = True, argument: str = "model", exclude: Sequence[str] = ()
) -> Checkpoint:
    """Read and check the headers of a Hugging Face model folder, or of a pipeline of diffusers.

    Args:
        folder: the model folder.
        publishing: refuse folders with other weight files, which a copy of the folder would publish as they are.
        argument: what the user gave the folder as.
        exclude: shell patterns of files that are not looked at, as if they were not there.

    Raises:
        CheckpointError: not a folder; no safetensors weights (pickle weights: how to convert); a broken shard or
            index; a pipeline without one of its components; a file that lies outside the folder or cannot be read; a
            link to a folder; other weight files that would be published unlocked.
    """
    if not _is_folder(folder):
        raise CheckpointError(
            f"`{argument}` must be a folder, a hub id or smollm2-135m; {shown(folder)} is not a folder."
        )
    files = sorted(_files(folder))
    config = load_config(folder, argument=argument)
    shards = {
        name: read_header(folder / name, place.prefix)
        for place in weight_places(config, folder)
        for name in _shard_names(folder, place, files, argument)
    }
    _check_unique(folder, shards)
    left_out = _excluded(files, {*shards, *config_files(files)}, exclude)
    others = tuple(name for name in files if name not in shards and name not in left_out)
    for name in others:
        _check_readable(folder / name)
    if publishing:
        _refuse_other_weights(folder, others)
    return Checkpoint(folder, config, shards, others)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name no file system takes
        return False


def _files(folder: Path) -> Iterator[str]:
    root = folder.resolve()
    for parent, folders, names in os.walk(folder, onerror=_refuse_folder):
        folders[:] = sorted(name for name in folders if name not in {".git", ".cache"})
        for name in (*folders, *names):
            path = Path(parent) / name
            if not is_unicode(name):
                raise CheckpointError(f"File {shown(path)} must have a name that is valid UTF-8. Rename or remove it.")
            if path.is_symlink() and not _may_link(_followed(path), root):
                raise CheckpointError(
                    f"File {shown(path)} is a link to {shown(_followed(path))}, outside the model folder. "
                    "Copy the file into the folder."
                )
        for name in folders:
            if (Path(parent) / name).is_symlink():
                raise CheckpointError(
                    f"File {shown(Path(parent) / name)} is a link to a folder, which no copy of the model would hold. "
                    "Put the folder itself in its place, or remove the link."
                )
        for name in names:
            path = Path(parent) / name
            if not path.is_file():
                raise CheckpointError(f"File {shown(path)} is not a regular file or its link is broken. Remove it.")
            yield path.relative_to(folder).as_posix()


def _refuse_folder(error: OSError) -> None:
    raise unreadable(Path(error.filename), error) from error


def _check_readable(path: Path) -> None:
    try:
        path.open("rb").close()
    except OSError as error:
        raise unreadable(path, error) from error


def _followed(link: Path) -> Path:
    try:
        return link.resolve()
    except (OSError, RuntimeError):  # links in a circle
        return link.readlink()


def _may_link(target: Path, root: Path) -> bool:
    """Links inside the folder are fine, and the hub cache's own snapshot -> blobs links."""
    if target.is_relative_to(root):
        return True
    is_snapshot = root.parent.name == "snapshots" and root.parent.parent.name.startswith("models--")
    return is_snapshot and target.is_relative_to(root.parent.parent / "blobs")


def _shard_names(folder: Path, place: WeightPlace, files: list[str], argument: str) -> list[str]:
    """The files of one place of weights, relative to the model folder."""
    single, index_file = place.folder + place.single, place.folder + place.index
    if single in files:
        return [single]
    if index_file not in files:
        own = [name for name in files if name.startswith(place.folder)]
        pickles = [name for name in own if Path(name).suffix in {".bin", ".pt", ".pth"} and name not in NOT_WEIGHTS]
        if pickles:
            raise CheckpointError(
                f"`{argument}` must hold safetensors; {shown(folder)} holds pickle weights ({shown(pickles[0])}), "
                "which can run code when read. Convert them: "
                "`AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW)` writes safetensors."
            )
        raise CheckpointError(
            f"`{argument}` must hold {single} or {index_file}; {shown(folder)} has neither. "
            "Give a folder with its weights."
        )
    index = shown(folder / index_file)
    weight_map = load_json_object(folder / index_file).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()) or not weight_map:
        raise CheckpointError(f"File {index} must hold a `weight_map` of names. Download it again.")
    names = list(dict.fromkeys(weight_map.values()))
    for name in names:
        if PurePosixPath(name).name != name or "\\" in name or name in {"", ".", ".."}:
            raise CheckpointError(
                f"File {index} names the shard {shown(repr(name))}; a shard must be a plain file name in the same "
                "folder. Do not trust this checkpoint."
            )
        if not name.endswith(".safetensors"):
            raise CheckpointError(f"File {index} names the shard {shown(name)}, which must end in .safetensors.")
        if place.folder + name not in files:
            raise CheckpointError(f"Shard {shown(name)} named in {index} is missing. Download it again.")
    for name in names:
        present = {tensor.name for tensor in read_header(folder / place.folder / name).tensors}
        expected = {tensor for tensor, shard in weight_map.items() if shard == name}
        if present != expected:
            odd = sorted(present ^ expected)[0]
            raise CheckpointError(
                f"Tensor {shown(odd)} is in only one of {place.index} and shard {shown(name)} of "
                f"{shown(folder / place.folder)}. Download both again."
            )
    return sorted(place.folder + name for name in names)


def looks_like_safetensors(path: Path) -> bool:
    """Whether a file starts as a safetensors file does: a plausible length, then a JSON object."""
    with path.open("rb") as file:
        start = file.read(16)
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and 2 <= length <= path.stat().st_size - 8


def _check_unique(folder: Path, shards: Mapping[str, ShardHeader]) -> None:
    owner: dict[str, str] = {}
    for shard, header in shards.items():
        for tensor in header.tensors:
            if tensor.name in owner:
                raise CheckpointError(
                    f"Tensor {shown(tensor.name)} is in both {shown(owner[tensor.name])} and {shown(shard)} of "
                    f"{shown(folder)}. "
                    "Remove the stale shard."
                )
            owner[tensor.name] = shard


def stray_weights(folder: Path, others: Iterable[str]) -> list[str]:
    """Those of a folder's other files that may hold weights, by their name or by how they start."""
    found = []
    for name in others:
        endings = {suffix.lower() for suffix in Path(name).suffixes}
        named_so = bool(endings & WEIGHT_SUFFIXES) and not name.endswith(".json")
        if Path(name).name not in NOT_WEIGHTS and (named_so or looks_like_safetensors(folder / name)):
            found.append(name)
    return found


def _refuse_other_weights(folder: Path, others: tuple[str, ...]) -> None:
    found = [shown(name) for name in stray_weights(folder, others)]
    if not found:
        return
    one = len(found) == 1
    raise CheckpointError(
        f"Folder {shown(folder)} also holds {', '.join(found)}, which would be published beside the locked weights as "
        f"{'it is' if one else 'they are'}. Move {'it' if one else 'them'} out of the folder; `lock --exclude PATTERN` "
        "leaves such files out of the locked one."
    )


def _excluded(names: Iterable[str], needed: Iterable[str], patterns: Sequence[str]) -> set[str]:
    """Files that match a pattern, by their path in the folder or by their own name."""
    names, needed, found = list(names), set(needed), set()
    for pattern in patterns:
        hit = {name for name in names if fnmatchcase(name, pattern) or fnmatchcase(Path(name).name, pattern)}
        if not hit:
            raise CheckpointError(
                f"`exclude` must match files of the model folder; {shown(repr(pattern))} matches none. "
                "Give a name or a pattern such as '*.bin'."
            )
        if hit & needed:
            raise CheckpointError(
                f"`exclude` must leave in what the model needs; {shown(repr(pattern))} matches "
                f"{shown(min(hit & needed))}. Give a narrower pattern."
            )
        found |= hit
    return found
