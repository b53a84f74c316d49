"""Hostile changes to the files of a model folder and its key: seeded, so that every case can be made again."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from blake3 import blake3

from specdef.core.dtypes import BITS

HOSTILE: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 7, 2**31, 2**63 - 1, 2**63, -(2**63), 10**30, 10**200, 0.5, -0.0, 1e300, 1e-300,
    float("nan"), float("inf"), "", "x", "\x1b[31mred", "\ud800", "../x", "/etc/passwd", "a" * 5000, "é\u202e", "NaN",
    "1e400", "2^20", "2^99999999", "F4", "F6_E2M3", "BOOL", "I64", "F64", "BF16", "float16", [], {}, [[]], [1, 2], [-1],
    [10**9], {"a": 1}, {"\ud800": 1}, [2**62] * 4, [None], ["x"] * 3, [[[[[[]]]]]],
)  # fmt: skip
TEXTS = (
    b"", b"[", b"[" * 3000, b'{"a":' * 3000, b"9" * 5000, b"\xff\xfe", b"nul", b'{"a":1,"a":2}', b"NaN", b"\x00" * 64,
    b"1e999", b'"\\ud800"', b"\xef\xbb\xbf{}", b"[]", b"{}", b'{"__metadata__": 3}',
)  # fmt: skip


def change_json(value: Any, rng: random.Random) -> Any:
    """One place of some JSON data changed: replaced, left out, renamed, doubled, grown, or moved."""
    places = list(_places(value))
    if not places:
        return rng.choice(HOSTILE)
    container, name = rng.choice(places)
    match rng.randrange(8):
        case 0:
            del container[name]
        case 1 if isinstance(container, dict):
            container[rng.choice([x for x in HOSTILE if isinstance(x, str)])] = container.pop(name)
        case 2:
            other, other_name = rng.choice(places)
            container[name] = json.loads(json.dumps(other[other_name]))
        case 3 if isinstance(container, list):
            container.extend(container[:] * rng.choice([1, 100]))
        case 4 if type(container[name]) is int:
            container[name] += rng.choice([-1, 1, -(2**31), 2**31])
        case 5 if isinstance(container, dict):
            container[rng.choice(["extra", "rank", "quantization_config", "\x1b"])] = rng.choice(HOSTILE)
        case _:
            container[name] = json.loads(json.dumps(rng.choice(HOSTILE)))
    return value


def _places(value: Any) -> Any:
    if isinstance(value, dict | list):
        for name in value if isinstance(value, dict) else range(len(value)):
            yield value, name
            yield from _places(value[name])


def change_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bytes flipped, cut, put in, left out, or altogether others."""
    if not data:
        return rng.choice(TEXTS)
    at, changed = rng.randrange(len(data)), bytearray(data)
    match rng.randrange(6):
        case 0:
            changed[at] = rng.randrange(256)
        case 1:
            changed[at:] = b""
        case 2:
            changed[at:at] = rng.choice(TEXTS)
        case 3:
            del changed[at : at + rng.choice([1, 8, 100])]
        case 4:
            changed += rng.choice([b"\0", b"{}", b"x" * 1000])
        case _:
            return rng.choice(TEXTS)
    return bytes(changed)


def change_json_file(path: Path, rng: random.Random) -> None:
    """A JSON file changed, mostly in its data and sometimes in its bytes."""
    data = path.read_bytes()
    if rng.random() < 0.2:
        path.write_bytes(change_bytes(data, rng))
        return
    value = json.loads(data)
    for _ in range(rng.choice([1, 1, 2, 4])):
        value = change_json(value, rng)
    text = json.dumps(value)
    if rng.random() < 0.1:
        text = text.replace("1e+300", "1" + "0" * 5000)
    path.write_text(text)


def change_shard(path: Path, rng: random.Random) -> None:
    """A safetensors file changed: in the data of its header, the bytes of its header, or any byte."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    match rng.randrange(6):
        case 0:
            path.write_bytes(change_bytes(data, rng))
            return
        case 1:
            header = change_bytes(header, rng)
        case 2 | 3 if names := [name for name in json.loads(header) if name != "__metadata__"]:
            entries = json.loads(header)
            disguise(entries[rng.choice(names)], rng)
            header = json.dumps(entries).encode()
        case _:
            header = json.dumps(change_json(json.loads(header), rng)).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + rest)


def disguise(entry: dict[str, Any], rng: random.Random) -> None:
    """Another dtype and another shape for the same bytes: a sound header whose tensor is not what a reader expects."""
    start, end = entry["data_offsets"]
    entry["dtype"] = rng.choice([entry["dtype"], *BITS])
    numbers, shape = 8 * (end - start) // BITS[entry["dtype"]], entry["shape"]
    entry["shape"] = rng.choice([[numbers], [1, numbers], [numbers, 1], shape[::-1], [1, *shape], [numbers, 1, 1]])


def change_key(path: Path, rng: random.Random) -> None:
    """A key changed by someone who can compute its checksum: in its body, or in its blobs."""
    if rng.random() < 0.2:
        change_shard(path, rng)
        return
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    metadata = header.pop("__metadata__")
    blobs = {name: data[8 + length :][slice(*entry["data_offsets"])] for name, entry in header.items()}
    body = json.loads(metadata["body"])
    if rng.random() < 0.7 or not blobs:
        target = body if rng.random() < 0.3 or not body["edits"] else body["edits"]
        changed = change_json(target, rng)
        body = changed if target is body else {**body, "edits": changed}
    else:
        name = rng.choice(list(blobs))
        if rng.random() < 0.3:
            blobs[rng.choice(["tensor:x", "header:model.safetensors", "file:config.json", "\x1b"])] = blobs.pop(name)
        elif name.startswith("header:") and rng.random() < 0.7:
            entries = json.dumps(change_json(json.loads(blobs[name][8:]), rng)).encode()
            blobs[name] = len(entries).to_bytes(8, "little") + entries
        else:
            blobs[name] = change_bytes(blobs[name], rng)
    write_key(path, json.dumps(body), blobs)


def write_key(path: Path, body: str, blobs: dict[str, bytes]) -> None:
    """A key file with a right checksum, whatever its body and blobs say."""
    hasher = blake3(body.encode())
    for name in sorted(blobs):
        hasher.update(name.encode())
        hasher.update(len(blobs[name]).to_bytes(8, "little"))
        hasher.update(blobs[name])
    entries: dict[str, Any] = {"__metadata__": {"body": body, "checksum": hasher.hexdigest()}}
    offset = 0
    for name, data in blobs.items():
        entries[name] = {"dtype": "U8", "shape": [len(data)], "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    header = json.dumps(entries).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + b"".join(blobs.values()))


def attempts(works: dict[str, Callable[[], object]], allowed: type[Exception]) -> dict[str, str]:
    """Do each piece of work; what came out by name: "done", the text of an allowed error, or what must not come out."""
    found = {}
    for name, work in works.items():
        try:
            work()
            found[name] = "done"
        except allowed as error:
            found[name] = str(error)
    return found
