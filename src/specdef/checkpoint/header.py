"""Strict reading of one safetensors header: nothing is trusted, every refusal names the file and the fault."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specdef.errors import CheckpointError

MAX_HEADER_BYTES = 100_000_000
"""The limit of the safetensors format itself."""

MAX_RANK = 32
"""More axes than any model has; a longer list is an attack on our arithmetic."""

DTYPE_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}


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
        tensors: in the order of their data.
    """

    raw: bytes
    metadata: Mapping[str, str] | None
    tensors: tuple[TensorInfo, ...]


def read_header(path: Path) -> ShardHeader:
    """Parse and check the header of a safetensors file.

    Raises:
        CheckpointError: unreadable, truncated, a header longer than the file, malformed or duplicate entries,
            offsets that overlap, leave holes or miss the file's end.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
            length = int.from_bytes(prefix, "little")
            if len(prefix) < 8 or length > min(size - 8, MAX_HEADER_BYTES):
                raise _broken(path, f"its header claims {length:,} bytes and the file has {size:,}")
            text = file.read(length)
    except OSError as error:
        raise CheckpointError(
            f"File {path} cannot be read ({error.strerror}). Check the path and permissions."
        ) from error
    metadata, tensors = _parse(path, text)
    _check_layout(path, tensors, 8 + length, size)
    return ShardHeader(prefix + text, metadata, tuple(tensors))


def read_header_bytes(raw: bytes, name: str) -> tuple[TensorInfo, ...]:
    """The tensors of a header kept on its own (in a key), in the order of their data.

    Raises:
        CheckpointError: malformed.
    """
    return tuple(_parse(Path(name), raw[8:])[1])


def _parse(path: Path, text: bytes) -> tuple[Mapping[str, str] | None, list[TensorInfo]]:
    data_start = 8 + len(text)
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_unique)
    except _DuplicateError as error:
        raise _broken(path, f"tensor name {error} appears twice in its header") from None
    except (ValueError, RecursionError):
        raise _broken(path, "its header is not valid JSON") from None
    if not isinstance(entries, dict):
        raise _broken(path, "its header is not a JSON object")
    if not all(_is_encodable(name) for name in entries):
        raise _broken(path, "a tensor's name is not valid Unicode")
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
    """Bytes a tensor takes.

    Example:
        >>> num_bytes("BF16", (3, 4))
        24
    """
    return math.prod(shape) * DTYPE_BITS[dtype] // 8


class _DuplicateError(ValueError):
    pass


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    entries: dict[str, Any] = {}
    for key, value in pairs:
        if key in entries:
            raise _DuplicateError(key)
        entries[key] = value
    return entries


def load_json_object(path: Path) -> dict[str, Any]:
    """A JSON file that must hold one object without duplicate keys.

    Raises:
        CheckpointError: missing, unreadable, not JSON, not an object, or a key given twice.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_unique)
    except FileNotFoundError:
        raise CheckpointError(
            f"File {path} must exist; it was not found. Point at a Hugging Face model folder."
        ) from None
    except OSError as error:
        raise CheckpointError(
            f"File {path} cannot be read ({error.strerror}). Check the path and permissions."
        ) from error
    except _DuplicateError as error:
        raise CheckpointError(f"File {path} gives the name {error} twice. Restore it from its source.") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"File {path} is not valid JSON. Restore it from its source.") from None
    if not isinstance(value, dict):
        raise CheckpointError(f"File {path} must hold a JSON object; got {type(value).__name__}. Restore it.")
    return value


def _is_encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _is_string_map(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def _tensor_info(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    if not isinstance(entry, dict) or not {"dtype", "shape", "data_offsets"} <= entry.keys():
        raise _broken(path, f"the entry of tensor {name} is malformed")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPE_BITS:
        raise _broken(path, f"tensor {name} has the unknown dtype {dtype!r}")
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(_is_size(n) for n in shape):
        raise _broken(path, f"tensor {name} has the malformed shape {str(shape)[:60]}")
    if not (isinstance(offsets, list) and len(offsets) == 2 and all(_is_size(n) for n in offsets)):
        raise _broken(path, f"tensor {name} has malformed data offsets {offsets!r}")
    start, end = offsets
    if end - start != num_bytes(dtype, tuple(shape)):
        raise _broken(path, f"tensor {name} has {end - start:,} bytes where its shape and dtype need another number")
    return TensorInfo(name, dtype, tuple(shape), data_start + start, data_start + end)


def _check_layout(path: Path, tensors: list[TensorInfo], data_start: int, size: int) -> None:
    position = data_start
    for tensor in tensors:
        if tensor.start != position:
            raise _broken(path, f"the data of tensor {tensor.name} overlaps its neighbour or leaves a hole")
        position = tensor.end
    if position != size:
        raise _broken(path, f"its tensors end at byte {position:,} and the file has {size:,} (truncated?)")


def _broken(path: Path, fault: str) -> CheckpointError:
    return CheckpointError(f"File {path} is not a sound safetensors file: {fault}. Download or convert it again.")
