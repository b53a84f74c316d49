"""Folders of pictures: the folders' names in order are the labels, and whatever is wrong is named by its file."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from specdef.tasks.base import TaskError, TaskSpec, make_task
from specdef.tasks.images.read import read_images

Image = pytest.importorskip("PIL.Image")
DRAW = np.random.default_rng(0)
GREY = DRAW.integers(0, 256, (6, 4, 5), dtype=np.uint8)
COLOUR = DRAW.integers(0, 256, (6, 4, 5, 3), dtype=np.uint8)


def save(path: Path, pixels: np.ndarray[Any, Any], mode: str | None = None, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def folder(place: Path, pixels: np.ndarray[Any, Any] = GREY, *, suffix: str = ".png") -> Path:
    for at, name in enumerate(("bird", "ape") * 3):
        save(place / name / f"{at}{suffix}", pixels[at])
    return place


def test_folders_in_the_order_of_their_names_are_the_labels(tmp_path: Path) -> None:
    found = read_images(folder(tmp_path))
    assert [image.label for image in found] == [0, 0, 0, 1, 1, 1], "ape, then bird"
    wanted = GREY[[1, 3, 5, 0, 2, 4]].astype(np.float32) / np.float32(255)
    assert np.array_equal(np.stack([image.pixels[0] for image in found]), wanted)
    (tmp_path / "README.md").write_text("beside the classes")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "ape" / ".DS_Store").write_bytes(b"x")
    assert read_images(tmp_path) == found
    assert make_task(TaskSpec("images", path=str(tmp_path))).chance == 0.5


def test_colour_grey_palettes_and_single_bits(tmp_path: Path) -> None:
    colour = read_images(folder(tmp_path / "colour", COLOUR))
    assert np.array_equal(colour[0].pixels, COLOUR[1].transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    for name, pixels in (("a/0.gif", COLOUR[0]), ("b/0.gif", COLOUR[1])):
        save(tmp_path / "palette" / name, pixels, "P")
    assert read_images(tmp_path / "palette")[0].shape == (3, 4, 5)
    for name in ("a/0.png", "b/0.png"):
        save(tmp_path / "bits" / name, GREY[0], "1")
    assert set(np.unique(read_images(tmp_path / "bits")[0].pixels)) == {0.0, 1.0}
    flat = np.broadcast_to(np.arange(0, 240, 40, dtype=np.uint8)[:, None, None], (6, 16, 16))
    jpegs = read_images(folder(tmp_path / "jpeg", np.ascontiguousarray(flat), suffix=".jpg"))
    assert [round(255 * float(image.pixels.mean())) for image in jpegs] == [40, 120, 200, 0, 80, 160]


def damaged(place: Path, cut: int = 30) -> Path:
    path = save(place / "ape" / "9.png", DRAW.integers(0, 256, (4, 5), dtype=np.uint8))
    path.write_bytes(path.read_bytes()[:-cut])
    return path


@pytest.mark.parametrize("cut", [10, 20, 30, 60])
def test_a_truncated_picture_is_named(cut: int, tmp_path: Path) -> None:
    path = damaged(folder(tmp_path), cut)
    with pytest.raises(TaskError, match=r"^`text` must hold readable pictures; .*9.png is not one \(.*\)\. Repl"):
        read_images(tmp_path, argument="text")
    large = save(tmp_path / "ape" / "9.png", DRAW.integers(0, 256, (90, 90, 3), dtype=np.uint8))
    jpeg = save(large.with_suffix(".jpg"), DRAW.integers(0, 256, (90, 90, 3), dtype=np.uint8))
    path.unlink()
    jpeg.write_bytes(jpeg.read_bytes()[:2000])
    with pytest.raises(TaskError, match=r"must hold readable pictures; .*9.jpg is not one \(.*truncated"):
        read_images(tmp_path)


def test_what_differs_or_is_no_picture_is_named(tmp_path: Path) -> None:
    folder(tmp_path)
    extra = tmp_path / "bird" / "7.png"
    for pixels, fault in (
        (GREY[0, :, :4], r"one size, all grey or all in colour; .*1.png is 4 x 5 pixels in grey, .*7.png is 4 x 4"),
        (COLOUR[0], r"all grey or all in colour; .*1.png is 4 x 5 pixels in grey, .*7.png is 4 x 5 pixels in colour"),
        (DRAW.integers(0, 256, (4, 5, 4), dtype=np.uint8), r"without transparency; .*7.png is RGBA. Convert it to RGB"),
        (GREY[0].astype(np.uint16), r"in grey or in red, green, blue, .*7.png is I;16"),
    ):
        save(extra, pixels)
        with pytest.raises(TaskError, match=fault):
            read_images(tmp_path)
    save(extra, COLOUR[0], "P", transparency=0)
    with pytest.raises(TaskError, match=r"without transparency; .*7.png is P"):
        read_images(tmp_path)
    extra.write_text("no picture")
    with pytest.raises(TaskError, match=r"`path` must hold readable pictures; .*7.png is not one \(cannot identify"):
        read_images(tmp_path)
    extra.unlink()
    (tmp_path / "cat").mkdir()
    with pytest.raises(TaskError, match=r"`path` must have a picture of every class; .*cat is empty. Fill it"):
        read_images(tmp_path)
    (tmp_path / "cat" / "inner").mkdir()
    with pytest.raises(TaskError, match=r"`path` must be a folder of class folders .*inner is a folder. Name the"):
        read_images(tmp_path)


def test_pictures_without_pillow_are_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder(tmp_path)
    real = builtins.__import__

    def none(name: str, *rest: Any, **named: Any) -> Any:
        if name == "PIL":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", none)
    with pytest.raises(TaskError, match=r"Pictures need Pillow, .* `pip install specdef\[images\]`"):
        read_images(tmp_path)
