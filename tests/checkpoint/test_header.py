"""Headers of safetensors files: what is trusted of them is nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from specdef.checkpoint.header import load_json_object, num_bytes, read_header, read_header_bytes, write_header
from specdef.core.dtypes import BITS
from specdef.core.text import shown
from specdef.errors import CheckpointError


def _file(path: Path, entries: dict[str, Any] | str, data: bytes) -> Path:
    text = (entries if isinstance(entries, str) else json.dumps(entries)).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    return path


def _entry(dtype: Any = "F32", shape: Any = (1,), offsets: Any = (0, 4)) -> dict[str, Any]:
    return {"x": {"dtype": dtype, "shape": shape, "data_offsets": offsets}}


def _refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    text = str(caught.value)
    assert text.startswith(f"File {path} is not a sound safetensors file: ")
    assert text.endswith(". Download or convert it again.")
    assert text.isprintable()
    assert len(text) < 2000
    return text.removeprefix(f"File {path} is not a sound safetensors file: ").removesuffix(
        ". Download or convert it again."
    )


@given(
    st.dictionaries(
        st.text().filter(lambda name: name != "__metadata__"),
        st.tuples(st.sampled_from(sorted(BITS)), st.lists(st.integers(0, 4), max_size=3)),
    ),
    st.none() | st.dictionaries(st.text(), st.text()),
)
def test_what_is_written_is_read(tensors: dict[str, tuple[str, list[int]]], metadata: dict[str, str] | None) -> None:
    """Of any names; sizes of 4 and 6 bits are rounded up to whole bytes' worth of numbers."""
    whole = {name: (dtype, (*shape, 4 if BITS[dtype] < 8 else 1)) for name, (dtype, shape) in tensors.items()}
    raw = write_header(whole, metadata)
    found = read_header_bytes(raw, "x")
    assert {t.name: (t.dtype, t.shape) for t in found} == whole
    assert all(t.num_bytes == num_bytes(t.dtype, t.shape) for t in found)


@pytest.mark.parametrize("data", [b"\0\0\0\0\0", b"\0\0\0\0" + b"hidden weights", b"\0\0\0"])
def test_bytes_after_the_last_tensor_are_refused(tmp_path: Path, data: bytes) -> None:
    """They could hide the unlocked weights in what gets published."""
    path = _file(tmp_path / "x.safetensors", _entry(), data)
    size = path.stat().st_size
    assert _refused(path) == f"its tensors end at byte {size - len(data) + 4} and the file has {size} (truncated?)"


@pytest.mark.parametrize(
    ("dtype", "shape", "size", "fault"),
    [
        ("F4", [3], 2, "tensor x has shape [3], whose 4-bit numbers fill no whole bytes"),
        ("F4", [], 1, "tensor x has shape [], whose 4-bit numbers fill no whole bytes"),
        ("F6_E2M3", [5], 4, "tensor x has shape [5], whose 6-bit numbers fill no whole bytes"),
        ("F4", [4], 4, "tensor x has 4 bytes where its shape and dtype need another number"),
        ("F5", [8], 5, "tensor x has the unknown dtype 'F5'"),
        (4, [8], 4, "tensor x has the unknown dtype 4"),
        ("F32\x1b[2J" * 1000, [1], 4, r"tensor x has the unknown dtype 'F32\x1b[2J"),
        ("F32", [2**62] * 40, 4, "tensor x has the malformed shape [4611686018427387904, 4611686018427387904, 461"),
        ("F32", [2**62] * 32, 4, "tensor x has 4 bytes where its shape and dtype need another number"),
        ("F32", [True], 4, "tensor x has the malformed shape [True]"),
        ("F32", [-1], 4, "tensor x has the malformed shape [-1]"),
        ("F32", [1.0], 4, "tensor x has the malformed shape [1.0]"),
        ("F32", "1", 4, "tensor x has the malformed shape 1"),
    ],
)
def test_dtypes_and_shapes_that_do_not_fit(tmp_path: Path, dtype: Any, shape: Any, size: int, fault: str) -> None:
    found = _refused(_file(tmp_path / "x.safetensors", _entry(dtype, shape, [0, size]), bytes(size)))
    assert found.startswith(fault)


@pytest.mark.parametrize(("dtype", "shape", "size"), [("F4", [3, 2], 3), ("F6_E3M2", [4], 3), ("F4", [0, 3], 0)])
def test_numbers_of_fewer_bits_that_fill_their_bytes(tmp_path: Path, dtype: str, shape: list[int], size: int) -> None:
    header = read_header(_file(tmp_path / "x.safetensors", _entry(dtype, shape, [0, size]), bytes(size)))
    assert (header.tensors[0].dtype, header.tensors[0].num_bytes) == (dtype, size)


@pytest.mark.parametrize(
    ("offsets", "fault"),
    [
        *(
            (offsets, f"tensor x has malformed data offsets {offsets}")
            for offsets in ([0], [0, 4, 8], [-4, 0], [0, "4"], [0, 2**70], "0,4", None)
        ),
        ([4, 0], "tensor x has -4 bytes where its shape and dtype need another number"),
        ([1, 5], "the data of tensor x overlaps its neighbour or leaves a hole"),
    ],
)
def test_offsets_that_are_none(tmp_path: Path, offsets: Any, fault: str) -> None:
    assert _refused(_file(tmp_path / "x.safetensors", _entry(offsets=offsets), bytes(4))) == fault


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"\\ud800": 1}', "its header holds text that is not valid Unicode"),
        ('{"__metadata__": {"a": "\\udc80"}}', "its header holds text that is not valid Unicode"),
        ('{"__metadata__": {"a": 1}}', "its __metadata__ is not a map of strings"),
        ('{"x": 1, "x": 2}', "tensor name x appears twice in its header"),
        ('{"\\u001b[2J": 1, "\\u001b[2J": 2}', r"tensor name \x1b[2J appears twice in its header"),
        ('{"\\u202ey": 1}', r"the entry of tensor \u202ey is malformed"),
        ("[1]", "its header is not a JSON object"),
        ('{"x": ' + "9" * 5000 + "}", "its header holds an integer of more than 40 digits"),
        ('{"x": NaN}', "its header holds NaN, which is no JSON number"),
        ("[" * 5000, "its header nests deeper than 64 levels"),
    ],
)
def test_text_that_is_no_header(tmp_path: Path, text: str, fault: str) -> None:
    assert _refused(_file(tmp_path / "x.safetensors", text, b"")) == fault


def test_a_name_of_megabytes_is_cut(tmp_path: Path) -> None:
    assert _refused(_file(tmp_path / "x.safetensors", {"x" * 5_000_000: 1}, b"")).endswith("… is malformed")


@pytest.mark.parametrize("change", ["shorter", "longer", "prefix", "hole", "empty"])
def test_a_header_kept_on_its_own(change: str) -> None:
    raw = write_header({"a": ("F32", (1,)), "b": ("F32", (1,))}, None)
    assert [tensor.name for tensor in read_header_bytes(raw, "shard")] == ["a", "b"]
    broken = {
        "shorter": raw[:-1],
        "longer": raw + b" ",
        "prefix": raw[:4],
        "hole": raw.replace(b"[4,8]", b"[5,9]"),
        "empty": b"",
    }
    fault = f"its header has {len(broken[change])} bytes, which is not what it claims"
    if change == "hole":
        fault = "the data of tensor b overlaps its neighbour or leaves a hole"
    with pytest.raises(CheckpointError) as caught:
        read_header_bytes(broken[change], "shard")
    assert str(caught.value) == f"File shard is not a sound safetensors file: {fault}. Download or convert it again."


@pytest.mark.parametrize("length", range(1, 18))
def test_a_header_is_padded_to_eight_bytes_as_the_reference_writer_does(length: int, tmp_path: Path) -> None:
    raw = write_header({"x" * length: ("F32", (2,))}, None)
    save_file({"x" * length: torch.zeros(2)}, tmp_path / "x.safetensors")
    assert raw == (tmp_path / "x.safetensors").read_bytes()[: len(raw)]
    assert len(raw) % 8 == 0


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("[]", "must hold a JSON object; got list. Restore it."),
        ('{"a": 1, "a": 2}', "gives the name a twice. Restore it from its source."),
        ("9" * 5000, "holds an integer of more than 40 digits. Restore it from its source."),
        ('{"\\ud800": 1}', "holds text that is not valid Unicode. Restore it from its source."),
        ("[" * 5000, "nests deeper than 64 levels. Restore it from its source."),
        ('{"a": 1e999}', "holds the number 1e999, which is too large. Restore it from its source."),
    ],
)
def test_small_files(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(CheckpointError) as caught:
        load_json_object(path)
    assert str(caught.value) == f"File {path} {fault}"


def test_what_hugging_face_writes_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"time_step_limit": [0.0, Infinity], "model_max_length": 1' + "0" * 30 + "}")
    assert load_json_object(tmp_path / "config.json")["time_step_limit"] == [0.0, float("inf")]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="must exist; it was not found"):
        load_json_object(tmp_path / "config.json")
    with pytest.raises(CheckpointError) as caught:
        read_header(tmp_path)
    assert str(caught.value) == f"File {tmp_path} cannot be read (Is a directory). Check the path and permissions."
    with pytest.raises(CheckpointError, match=r"cannot be read|is not a plain file"):
        load_json_object(tmp_path)
    long = tmp_path / ("a" * 300)
    with pytest.raises(CheckpointError) as caught:
        load_json_object(long)
    assert (
        str(caught.value) == f"File {shown(long)} cannot be read (File name too long). Check the path and permissions."
    )
