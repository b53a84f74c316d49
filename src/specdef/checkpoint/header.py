"""Strict reading of one safetensors header: nothing is trusted, every refusal names the file and the fault."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from specdef.core.dtypes import BITS
from specdef.core.strict_json import DuplicateNameError, JsonError, parse_json, read_json
from specdef.core.text import shown
from specdef.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format itself."""

MAX_RANK = 32
"""More axes than any model has; a longer list is an attack on our arithmetic."""


@dataclass(frozen=True)
class TensorInfo:
    """One tensor of a shard. `start` and `end` are byte offsets in the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int

    @property
    def num_bytes(self) -> int:
        """Bytes of data."""
        return self.end - self.start


@dataclass(frozen=True)
class ShardHeader:
    """The header of one safetensors file.

    Attributes:
        raw: the first bytes of the file, length prefix included, exactly as stored.
        metadata: the ``__metadata__`` entry, kept as it is.
        tensors: in the order of their data, `prefix` before the name that the file has.
        prefix: what the house puts before the names: of a pipeline's component, such as ``unet.``.
    """

    raw: bytes
    metadata: Mapping[str, str] | None
    tensors: tuple[TensorInfo, ...]
    prefix: str = ""


def read_header(path: Path, prefix: str = "") -> ShardHeader:
    """Parse and check the header of a safetensors file.

    Args:
        path: the file.
        prefix: put before the names of its tensors.

    Raises:
        CheckpointError: unreadable, truncated, a header longer than the file, malformed or duplicate entries,
            offsets that overlap, leave holes or miss the file's end.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(8)
            length = int.from_bytes(start, "little")
            if len(start) < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise _broken(path, f"its header claims {length:,} bytes and the file has {size:,}")
            text = file.read(length)
    except OSError as error:
        raise unreadable(path, error) from error
    metadata, tensors = _parse(path, text)
    _check_layout(path, tensors, 8 + length, size)
    named = tuple(replace(tensor, name=prefix + tensor.name) for tensor in tensors) if prefix else tuple(tensors)
    return ShardHeader(start + text, metadata, named, prefix)


def read_header_bytes(raw: bytes, name: str) -> tuple[TensorInfo, ...]:
    """The tensors of a header kept on its own (in a key), in the order of their data.

    Raises:
        CheckpointError: malformed; not as long as it says; its tensors overlap or leave holes.
    """
    path = Path(name)
    if len(raw) < 8 or int.from_bytes(raw[:8], "little") != len(raw) - 8:
        raise _broken(path, f"its header has {len(raw):,} bytes, which is not what it claims")
    tensors = _parse(path, raw[8:])[1]
    _check_layout(path, tensors, len(raw), tensors[-1].end if tensors else len(raw))
    return tuple(tensors)


def _parse(path: Path, text: bytes) -> tuple[Mapping[str, str] | None, list[TensorInfo]]:
    data_start = 8 + len(text)
    try:
        entries = parse_json(text)
    except DuplicateNameError as error:
        raise _broken(path, f"tensor name {error.name} appears twice in its header") from None
    except JsonError as error:
        raise _broken(path, f"its header {error}") from None
    if not isinstance(entries, dict):
        raise _broken(path, "its header is not a JSON object")
    metadata = entries.pop("__metadata__", None)
    if metadata is not None and not _is_string_map(metadata):
        raise _broken(path, "its __metadata__ is not a map of strings")
    tensors = [_tensor_info(path, name, entry, data_start) for name, entry in entries.items()]
    tensors.sort(key=lambda t: (t.start, t.end))
    return metadata, tensors


def write_header(tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str] | None) -> bytes:
    """Serialise a header for tensors laid out back to back in the given order.

    Args:
        tensors: name -> (safetensors dtype, shape), in the order of their data.
        metadata: the ``__metadata__`` entry, if any.

    Returns:
        Length prefix and JSON, padded with spaces to a multiple of 8 bytes as the reference writer does.
    """
    entries: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        end = offset + num_bytes(dtype, shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def num_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes a tensor takes. The bits of a shape of 4-bit or 6-bit numbers must fill whole bytes.

    Example:
        >>> num_bytes("BF16", (3, 4))
        24
    """
    return math.prod(shape) * BITS[dtype] // 8


def load_json_object(path: Path) -> dict[str, Any]:
    """A JSON file that must hold one object: of a model folder, so NaN and Infinity pass.

    Raises:
        CheckpointError: missing, unreadable, not JSON, not an object, a key given twice, or beyond the bounds of
            `core.strict_json` (a file of gigabytes is not read).
    """
    name = shown(path)
    try:
        value = read_json(path, constants=True)
    except FileNotFoundError:
        raise CheckpointError(
            f"File {name} must exist; it was not found. Point at a Hugging Face model folder."
        ) from None
    except OSError as error:
        raise unreadable(path, error) from error
    except JsonError as error:
        raise CheckpointError(f"File {name} {error}. Restore it from its source.") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"File {name} must hold a JSON object; got {type(value).__name__}. Restore it.")
    return value


def _is_string_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _tensor_info(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    tensor = f"tensor {shown(name)}"
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise _broken(path, f"the entry of {tensor} is malformed")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _broken(path, f"{tensor} has the unknown dtype {_cut(repr(dtype))}")
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(_is_size(n) for n in shape):
        raise _broken(path, f"{tensor} has the malformed shape {_cut(shape)}")
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(_is_size(n) for n in offsets)):
        raise _broken(path, f"{tensor} has malformed data offsets {_cut(offsets)}")
    if math.prod(shape) * BITS[dtype] % 8:
        raise _broken(path, f"{tensor} has shape {_cut(shape)}, whose {BITS[dtype]}-bit numbers fill no whole bytes")
    start, end = offsets
    if end - start != num_bytes(dtype, tuple(shape)):
        raise _broken(path, f"{tensor} has {end - start:,} bytes where its shape and dtype need another number")
    return TensorInfo(name, dtype, tuple(shape), data_start + start, data_start + end)


def _cut(value: object) -> str:
    """The start of what a header says; it may be megabytes of it."""
    return shown(str(value)[:60])


def _check_layout(path: Path, tensors: list[TensorInfo], data_start: int, size: int) -> None:
    position = data_start
    for tensor in tensors:
        if tensor.start != position:
            raise _broken(path, f"the data of tensor {shown(tensor.name)} overlaps its neighbour or leaves a hole")
        position = tensor.end
    if position != size:
        raise _broken(path, f"its tensors end at byte {position:,} and the file has {size:,} (truncated?)")


def _broken(path: Path, fault: str) -> CheckpointError:
    return CheckpointError(
        f"File {shown(path)} is not a sound safetensors file: {fault}. Download or convert it again."
    )


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """What to say of a file or folder that the system does not let this user read."""
    return CheckpointError(f"File {shown(path)} cannot be read ({error.strerror}). Check the path and permissions.")
