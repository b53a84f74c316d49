"""Keys from strangers: a right checksum says that a key is whole, not that it fits."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fuzzing
import pico
import pytest

from specdef import lock, unlock
from specdef.checkpoint.reader import open_checkpoint
from specdef.errors import KeyFileError, SpecdefError
from specdef.locks.key import Key, read_key, scalings, stored_header, stored_tensors

MISFIT = "The key does not fit the locked model's tensors. Give the key written with it."
NO_KEY = "`key` must be a specdef key file; {} is not one. Give the file `lock` wrote."
LIMITED = """
import resource, sys
from specdef import unlock
from specdef.errors import SpecdefError
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)
for key in sys.argv[3:]:
    try:
        unlock(sys.argv[1], sys.argv[2], key)
    except SpecdefError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("keys")
    model = pico.build("llama", place / "model")
    lock(model, place / "fold", preset="exact")
    lock(model, place / "inject", preset="paper", rank=4)
    return place


def _changed(place: Path, name: str, out: Path, change: Callable[[dict[str, Any], dict[str, bytes]], object]) -> Path:
    """A copy of a key, its body and blobs changed and its checksum right."""
    key = read_key(place / f"{name}.specdef-key")
    body = {
        "specdef_key": 1,
        "method": key.method,
        "locked_files": dict(key.locked_files),
        "original_files": dict(key.original_files),
        "edits": [dict(edit) for edit in key.edits],
    }
    blobs = dict(key.blobs)
    change(body, blobs)
    fuzzing.write_key(out, json.dumps(body), blobs)
    return out


def _edit(place: Path, tmp_path: Path, **changes: Any) -> Path:
    return _changed(place, "fold", tmp_path / "key", lambda body, _: body["edits"][0].update(changes))


def _refusal(place: Path, name: str, tmp_path: Path, key: Path) -> str:
    with pytest.raises(SpecdefError) as caught:
        unlock(place / name, tmp_path / "out", key)
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))
    return str(caught.value)


@pytest.mark.parametrize("name", ["fold", "inject"])
def test_a_key_written_as_lock_writes_it_unlocks(place: Path, tmp_path: Path, name: str) -> None:
    """So that the refusals below are of what was changed."""
    key = _changed(place, name, tmp_path / "key", lambda body, blobs: None)
    unlock(place / name, tmp_path / "out", key)
    for path in (place / "model").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    "changes",
    [
        {"axis": 10**9},
        {"axis": 2},
        {"axis": -1},
        {"axis": 2**63},
        {"axis": "0"},
        {"axis": True},
        {"axis": None},
        {"indices": [10**9]},
        {"indices": [-1]},
        {"indices": [2**70]},
        {"indices": ["0"]},
        {"indices": [0.5]},
        {"indices": 0},
        {"indices": {"0": 1}},
        {"exponent": 10**12},
        {"exponent": -61},
        {"exponent": "20"},
        {"exponent": 20.5},
        {"offset": "1"},
        {"offset": [1]},
        {"tensor": "no.such.tensor"},
        {"tensor": "\x1b[31m"},
        {"tensor": None},
        {"tensor": ["x"]},
    ],
)
def test_scalings_that_do_not_fit(place: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    assert _refusal(place, "fold", tmp_path, _edit(place, tmp_path, **changes)) == MISFIT


@pytest.mark.parametrize("edit", [{}, [], 3, None, {"tensor": "x"}])
def test_scalings_that_are_none(place: Path, tmp_path: Path, edit: Any) -> None:
    key = _changed(place, "fold", tmp_path / "key", lambda body, _: body.update(edits=[edit]))
    assert _refusal(place, "fold", tmp_path, key) in (MISFIT, NO_KEY.format(key))


@pytest.mark.parametrize(
    "changes",
    [
        {"locked_files": []},
        {"locked_files": {"a": 1}},
        {"locked_files": None},
        {"original_files": "x"},
        {"original_files": {"a": ["b"]}},
        {"edits": {}},
        {"edits": "x"},
        {"method": 3},
        {"method": None},
        {"extra": 1},
    ],
)
def test_a_body_of_other_types(place: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    for name in ("fold", "inject"):
        key = _changed(place, name, tmp_path / "key", lambda body, _: body.update(changes))
        assert _refusal(place, name, tmp_path, key) == NO_KEY.format(key)


@pytest.mark.parametrize("number", [0, 2, "1", None, True, 10**30])
def test_another_format_is_said(place: Path, tmp_path: Path, number: Any) -> None:
    key = _changed(place, "fold", tmp_path / "key", lambda body, _: body.update(specdef_key=number))
    expected = (
        NO_KEY.format(key)
        if number is True
        else (f"Key {key} must be of format 1; it is not. Use the specdef that wrote it.")
    )
    assert _refusal(place, "fold", tmp_path, key) == expected


@pytest.mark.parametrize("body", ["", "[]", "3", "null", "[" * 5000, "9" * 5000, '{"specdef_key": 1}', '{"a": NaN}'])
def test_a_body_that_is_none(place: Path, tmp_path: Path, body: str) -> None:
    fuzzing.write_key(tmp_path / "key", body, {})
    found = _refusal(place, "fold", tmp_path, tmp_path / "key")
    assert found in (
        NO_KEY.format(tmp_path / "key"),
        f"Key {tmp_path / 'key'} must be of format 1; it is not. Use the specdef that wrote it.",
    )


def test_original_tensors_of_another_size(place: Path, tmp_path: Path) -> None:
    def cut(_: dict[str, Any], blobs: dict[str, bytes]) -> None:
        name = next(name for name in blobs if name.startswith("tensor:"))
        blobs[name] = blobs[name][:-1]

    assert _refusal(place, "inject", tmp_path, _changed(place, "inject", tmp_path / "key", cut)) == MISFIT


@pytest.mark.parametrize("change", ["shape", "cut", "empty", "text"])
def test_an_original_header_that_is_none(place: Path, tmp_path: Path, change: str) -> None:
    def break_header(_: dict[str, Any], blobs: dict[str, bytes]) -> None:
        raw = blobs["header:model.safetensors"]
        blobs["header:model.safetensors"] = {
            "shape": raw.replace(b'"shape":[', b'"shape":[9', 1),
            "cut": raw[:-1],
            "empty": b"",
            "text": raw[:8] + b"x" * (len(raw) - 8),
        }[change]

    assert _refusal(place, "inject", tmp_path, _changed(place, "inject", tmp_path / "key", break_header)) == MISFIT


def test_original_bytes_that_are_others_restore_nothing(place: Path, tmp_path: Path) -> None:
    """A key that fits and lies: what comes out is compared with what the key says it must be."""

    def lie(_: dict[str, Any], blobs: dict[str, bytes]) -> None:
        name = next(name for name in blobs if name.startswith("tensor:"))
        blobs[name] = bytes(len(blobs[name]))

    assert "could not be restored to its original bytes" in _refusal(
        place, "inject", tmp_path, _changed(place, "inject", tmp_path / "key", lie)
    )


def test_huge_numbers_cost_no_memory(place: Path, tmp_path: Path) -> None:
    """One such key took 7.8 GiB; here the process may take one more GiB than it has."""
    keys = []
    for number, changes in enumerate(
        ({"axis": 10**9}, {"indices": [10**15]}, {"exponent": 10**18}, {"indices": list(range(10**5))})
    ):
        keys.append(_edit(place, tmp_path, **changes).rename(tmp_path / f"key{number}"))
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.write((1 << 40).to_bytes(8, "little") + b"{")
        file.truncate(8 << 30)
    claims = tmp_path / "claims"
    shutil.copy(place / "inject.specdef-key", claims)
    raw = claims.read_bytes()
    claims.write_bytes(raw.replace(b"data_offsets", b"data_offsetz", 1))
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, place / "fold", tmp_path / "out", *keys, sparse, claims],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [MISFIT] * 4 + [NO_KEY.format(sparse), NO_KEY.format(claims)]


@pytest.mark.parametrize("content", [b"", b"x", b"\0" * 100, b"{}", (2).to_bytes(8, "little") + b"{}"])
def test_another_file_is_no_key(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(KeyFileError) as caught:
        read_key(tmp_path / "key")
    assert str(caught.value) == NO_KEY.format(tmp_path / "key")


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    for path, name in ((tmp_path / "none", tmp_path / "none"), (tmp_path, tmp_path), (tmp_path / "\x1b", None)):
        with pytest.raises(KeyFileError, match="was not found. Give the file `lock` wrote") as caught:  # noqa: RUF043
            read_key(path)
        assert str(name or rf"{tmp_path}/\x1b") in str(caught.value)
    with pytest.raises(KeyFileError):
        read_key(tmp_path / ("x" * 5000))


def test_what_a_key_holds_is_handed_out_only_where_it_fits(place: Path) -> None:
    fold, inject = (read_key(place / f"{name}.specdef-key") for name in ("fold", "inject"))
    header = open_checkpoint(place / "model").shards["model.safetensors"]
    tensors = {tensor.name: tensor for tensor in header.tensors}
    found = scalings(fold, tensors)
    assert [edit.to_json() for edit in found] == list(fold.edits)
    assert stored_header(inject, "model.safetensors") == (header.raw, header.tensors)
    assert stored_header(inject, "other.safetensors") is None
    kept = stored_tensors(inject, tensors)
    assert {f"tensor:{name}" for name in kept} == {name for name in inject.blobs if name.startswith("tensor:")}
    whole = (place / "model" / "model.safetensors").read_bytes()
    assert all(data == whole[tensors[name].start : tensors[name].end] for name, data in kept.items())
    assert stored_tensors(Key("x", {}, {}), tensors) == {}
