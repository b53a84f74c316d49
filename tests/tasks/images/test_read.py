"""A user's files of images: IDX, gzipped or not, and npz; and one sentence for every fault."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specdef.tasks.base import TaskError
from specdef.tasks.images.read import read_images

IMAGES = np.random.default_rng(0).integers(0, 256, (6, 4, 5), dtype=np.uint8)
LABELS = np.array([0, 1, 2, 0, 1, 2], dtype=np.uint8)


def idx(array: np.ndarray[Any, Any]) -> bytes:
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()


def write_idx(folder: Path, images: bytes = idx(IMAGES), labels: bytes = idx(LABELS), *, zipped: bool = False) -> Path:
    for name, data in (("images-idx3", images), ("labels-idx1", labels)):
        path = folder / f"t10k-{name}-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(data) if zipped else data)
    return folder / f"t10k-images-idx3-ubyte{'.gz' if zipped else ''}"


def write_npz(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "data.npz", **{"images": IMAGES, "labels": LABELS, **arrays})
    return folder / "data.npz"


@pytest.mark.parametrize("zipped", [False, True])
def test_idx_files_are_read_whole(zipped: bool, tmp_path: Path) -> None:
    found = read_images(write_idx(tmp_path, zipped=zipped))
    assert [image.label for image in found] == LABELS.tolist()
    assert all(image.shape == (1, 4, 5) for image in found)
    wanted = IMAGES[:, None].astype(np.float32) / np.float32(255)
    assert np.array_equal(np.stack([image.pixels for image in found]), wanted)


@pytest.mark.parametrize("names", [("images", "labels"), ("x", "y"), ("data", "targets")])
def test_npz_files_are_read_under_the_usual_names(names: tuple[str, str], tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "data.npz", **{names[0]: IMAGES, names[1]: LABELS})
    assert read_images(tmp_path / "data.npz") == read_images(write_idx(tmp_path))


def test_channels_may_come_first_or_last_and_floats_stay_floats(tmp_path: Path) -> None:
    colour = np.random.default_rng(1).random((6, 3, 4, 5), dtype=np.float32)
    first = read_images(write_npz(tmp_path, images=colour))
    last = read_images(write_npz(tmp_path, images=colour.transpose(0, 2, 3, 1)))
    assert first == last
    assert np.array_equal(first[2].pixels, colour[2])


NPZ = [
    ({"images": IMAGES[..., None, None]}, "must hold images of 1 or 3 channels, .* holds \\[6, 4, 5, 1, 1\\]"),
    ({"images": np.zeros((6, 2, 4, 5), np.uint8)}, "must hold images of 1 or 3 channels, .* holds \\[6, 2, 4, 5\\]"),
    ({"images": IMAGES.astype(np.int64)}, "must hold images of bytes or floats; .* holds int64"),
    ({"images": IMAGES.astype(np.float32)}, "must hold floats from 0 to 1; .* holds from "),
    ({"images": np.full((6, 4, 5), np.nan)}, "must hold floats from 0 to 1; .* holds from nan to nan"),
    ({"labels": LABELS[:5]}, "must have one label an image; .* 6 images and labels of shape \\[5\\]"),
    ({"labels": LABELS.astype(np.float32)}, "must have labels that are whole numbers from 0; .* has float32"),
    ({"labels": np.array(["cat", "dog", "cow"] * 2)}, "must have labels that are whole numbers from 0; .* has <U3"),
    ({"labels": LABELS.astype(np.int64) - 1}, "must have labels that are whole numbers from 0; .* from -1"),
    ({"labels": np.array([0, 1, 3, 0, 1, 3])}, "must have an image of every class; .* has none of class 2"),
    ({"labels": np.array([0, 1, 2**62, 0, 1, 2])}, f"must have an image of every class; .* label {2**62}"),
    ({"labels": LABELS.astype(object)}, "must hold plain arrays; .* holds pickled objects, which can run code"),
    ({"images": np.zeros((0, 4, 5), np.uint8)}, "must hold images of 1 or 3 channels"),
]


@pytest.mark.parametrize(("arrays", "fault"), NPZ)
def test_a_fault_in_an_npz_file_is_named(arrays: dict[str, Any], fault: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=rf"^`text` {fault}"):
        read_images(write_npz(tmp_path, **arrays), argument="text")


@pytest.mark.parametrize("part", [slice(0), slice(10), slice(200), slice(1, None), slice(0, 60)])
def test_a_damaged_npz_file_is_refused(part: slice, tmp_path: Path) -> None:
    path = write_npz(tmp_path)
    path.write_bytes(path.read_bytes()[part])
    with pytest.raises(TaskError, match=r"`path` must be a readable npz file"):
        read_images(path)
    whole = write_npz(tmp_path).read_bytes()
    at = whole.index(IMAGES.tobytes()) + 20
    path.write_bytes(whole[:at] + bytes((whole[at] ^ 1,)) + whole[at + 1 :])
    with pytest.raises(TaskError, match=r"`path` must be a readable npz file; .* is not .*CRC"):
        read_images(path)
    with pytest.raises(TaskError, match=r"`path` must be a readable npz file"):
        read_images(path)


def test_an_npz_file_without_labels_or_that_is_none_is_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=IMAGES)
    with pytest.raises(TaskError, match=r"`path` must hold an array named labels or y or targets; .* holds images"):
        read_images(tmp_path / "data.npz")
    with (tmp_path / "one.npz").open("wb") as file:
        np.save(file, IMAGES)
    with pytest.raises(TaskError, match=r"`path` must be a readable npz file; .* is not \(it is no zip archive\)"):
        read_images(tmp_path / "one.npz")


IDX = [
    ({"images": idx(IMAGES)[:-1]}, "must be a whole IDX file; .* says 6 x 4 x 5 bytes and holds 119"),
    ({"images": idx(IMAGES) + b"x"}, "must be a whole IDX file; .* says 6 x 4 x 5 bytes and holds 121"),
    ({"images": idx(IMAGES)[:7]}, "must be an IDX file of unsigned bytes with 3 axes"),
    ({"images": b""}, "must be an IDX file of unsigned bytes with 3 axes"),
    ({"labels": idx(IMAGES)}, "must be an IDX file of unsigned bytes with 1 axes; .* starts with '00000803'"),
    ({"images": b"\x00\x00\x0d\x03" + idx(IMAGES)[4:]}, "must be an IDX file of unsigned bytes"),
    ({"images": gzip.compress(idx(IMAGES))[:-9]}, "must be a readable IDX file"),
    ({"labels": idx(LABELS[:4])}, "must have one label an image"),
]


@pytest.mark.parametrize(("files", "fault"), IDX)
def test_a_fault_in_an_idx_file_is_named(files: dict[str, bytes], fault: str, tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=rf"^`path` {fault}"):
        read_images(write_idx(tmp_path, **files))


def test_files_that_are_not_there_or_of_no_known_form(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match=r"`path` must be an IDX file .*none.npz does not exist"):
        read_images(tmp_path / "none.npz")
    with pytest.raises(TaskError, match=r"`path` must be an IDX file .* is a folder without folders or batches"):
        read_images(tmp_path)
    (tmp_path / "images.bin").write_bytes(b"\x00")
    with pytest.raises(TaskError, match=r"`path` must be an IDX file .* Its name must end in .npz or hold idx3-ubyte"):
        read_images(tmp_path / "images.bin")
    path = write_idx(tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(TaskError, match=r"`path` must have its labels beside it; .*labels-idx1-ubyte does not exist"):
        read_images(path)
    (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(idx(LABELS))
    with pytest.raises(TaskError, match=r"`path` must name the file of images, such as train-images-idx3-ubyte"):
        read_images(tmp_path / "t10k-labels-idx1-ubyte")
