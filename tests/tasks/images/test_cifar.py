"""CIFAR's pickles: read whole in every form they come in, and never run."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specdef.tasks.base import TaskError, TaskSpec, make_task
from specdef.tasks.images.read import read_images

DRAW = np.random.default_rng(0)
DATA = DRAW.integers(0, 256, (6, 3072), dtype=np.uint8)
LABELS = [0, 1, 2, 0, 1, 2]


def write(path: Path, held: Any, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(held, protocol))
    return path


def python2(data: np.ndarray[Any, Any], labels: list[int]) -> bytes:
    """A batch as Python 2 wrote it: its strings are bytes, and so is the array's content."""

    def text(content: bytes) -> bytes:
        return b"U" + bytes([len(content)]) + content if len(content) < 256 else b"T" + len4(content) + content

    def len4(content: bytes) -> bytes:
        return struct.pack("<I", len(content))

    array = b"cnumpy.core.multiarray\n_reconstruct\n" + b"cnumpy\nndarray\n" + b"K\x00\x85" + text(b"b") + b"\x87R"
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R"
    dtype += b"(K\x03" + text(b"|") + b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    rows, width = (b"M" + struct.pack("<H", size) for size in data.shape)
    array += b"(K\x01" + rows + width + b"\x86" + dtype + b"\x89" + text(data.tobytes()) + b"tb"
    listed = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + listed + b"u."


def pixels(path: Path) -> np.ndarray[Any, Any]:
    return np.stack([image.pixels for image in read_images(path)])


WANTED = DATA.reshape(6, 3, 32, 32).astype(np.float32) / np.float32(255)


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("key", ["labels", "fine_labels"])
@pytest.mark.parametrize("labels", [LABELS, np.array(LABELS)], ids=["list", "array"])
def test_a_batch_is_read_whole(labels: Any, key: str, protocol: int, tmp_path: Path) -> None:
    path = write(tmp_path / "batch", {"data": DATA, key: labels, "filenames": ["a.png"], "batch_label": "1"}, protocol)
    assert np.array_equal(pixels(path), WANTED)
    assert [image.label for image in read_images(path)] == LABELS


def test_a_batch_of_python_2_is_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "data_batch_1"
    path.write_bytes(python2(DATA, LABELS))
    assert np.array_equal(pixels(path), WANTED)
    fortran = write(tmp_path / "f", {"data": np.asfortranarray(DATA), "labels": LABELS})
    assert np.array_equal(pixels(fortran), WANTED)


def test_a_folder_is_its_training_batches_in_order(tmp_path: Path) -> None:
    for number in (2, 1):
        write(tmp_path / f"data_batch_{number}", {"data": DATA[3 * number - 3 : 3 * number], "labels": LABELS[:3]})
    write(tmp_path / "test_batch", {"data": DATA, "labels": LABELS})
    assert np.array_equal(pixels(tmp_path), WANTED)
    hundred = tmp_path / "hundred"
    hundred.mkdir()
    write(hundred / "train", {"data": DATA, "fine_labels": LABELS, "coarse_labels": [0] * 6})
    assert [image.label for image in read_images(hundred)] == LABELS
    assert make_task(TaskSpec("images", path=str(hundred))).chance == pytest.approx(1 / 3)


class Ran:
    """Makes a folder when it is unpickled without care."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", [2, 5])
def test_code_is_refused_and_not_run(protocol: int, tmp_path: Path) -> None:
    path = write(tmp_path / "bad", {"data": DATA, "labels": LABELS, "extra": Ran(tmp_path / "ran")}, protocol)
    fault = r"`text` must hold arrays and plain data; .*bad asks for posix.mkdir when it is read, which can run code"
    if protocol == 2:
        with pytest.raises(TaskError, match=fault):
            read_images(path, argument="text")
    else:
        with pytest.raises(TaskError, match="must hold arrays and plain data"):
            read_images(path)
    assert not (tmp_path / "ran").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "ran").exists(), "it would have run"


BAD = [
    (None, "must be a batch of CIFAR, with data and labels; .* holds a NoneType"),
    ({"data": DATA}, "must be a batch of CIFAR, with data and labels or fine_labels; .* holds data"),
    ({"labels": LABELS}, "must be a batch of CIFAR"),
    ({}, "must be a batch of CIFAR, .* holds nothing"),
    ({"data": DATA.tolist(), "labels": LABELS}, "must be a batch of CIFAR"),
    ({"data": DATA[:, :3000], "labels": LABELS}, r"must hold images in 3072 bytes .* shape \[6, 3000\]"),
    ({"data": DATA.astype(np.int16), "labels": LABELS}, "must hold images in 3072 bytes .* holds int16"),
    ({"data": DATA.astype(np.float32), "labels": LABELS}, r"must hold arrays of whole numbers; .* \(an array is of f4"),
    ({"data": DATA.astype(object), "labels": LABELS}, r"must hold arrays of whole numbers; .* \(an array is of O8"),
    ({"data": DATA, "labels": LABELS[:5]}, r"must hold images in 3072 bytes each and a label each; .* shape \[5\]"),
    ({"data": DATA, "labels": ["0"] * 6}, "must hold arrays of whole numbers"),
    ({"data": DATA, "labels": [0, 1, 2**70] * 2}, "must hold arrays of whole numbers"),
    ({"data": DATA, "labels": [0, 1, 3] * 2}, "must have an image of every class; .* has none of class 2"),
]


@pytest.mark.parametrize(("held", "fault"), BAD)
def test_a_fault_in_a_batch_is_named(held: Any, fault: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=rf"^`path` {fault}"):
        read_images(write(tmp_path / "batch", held))


@pytest.mark.parametrize("end", [1, 2, 30, 200, 9000, -1])
def test_a_truncated_batch_is_refused(end: int, tmp_path: Path) -> None:
    path = write(tmp_path / "batch", {"data": DATA, "labels": LABELS})
    path.write_bytes(path.read_bytes()[:end])
    with pytest.raises(TaskError, match=r"^`path` must be a readable batch of CIFAR; .*batch is not \("):
        read_images(path)


def test_an_array_whose_bytes_are_fewer_than_it_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "batch"
    path.write_bytes(python2(DATA, LABELS).replace(b"M\x06\x00M", b"M\x07\x00M"))
    with pytest.raises(TaskError, match=r"`path` must hold arrays of whole numbers; .*cannot reshape"):
        read_images(path)
