"""`open_checkpoint`: every refusal word by word, what `exclude` leaves out, and which other files count as weights."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pico
import pytest

from specdef.checkpoint.header import write_header
from specdef.checkpoint.layout import INDEX, SINGLE
from specdef.checkpoint.reader import (
    _check_unique,
    looks_like_safetensors,
    open_checkpoint,
    read_header,
    stray_weights,
)
from specdef.errors import CheckpointError


@pytest.fixture
def model(llama: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(llama, tmp_path / "model"))


def _write(name: str, text: str = "x") -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


def _rename(old: str, new: str) -> Callable[[Path], None]:
    return lambda folder: (folder / old).rename(folder / new) and None


def _index(weight_map: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        pico.shard(folder)
        (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))

    return write


def _link(folder: Path) -> None:
    (folder.parent / "secret").write_text("x")
    (folder / "link").symlink_to(folder.parent / "secret")


def _link_folder(folder: Path) -> None:
    (folder / "other").mkdir()
    (folder / "assets").symlink_to("other")


def _both(*changes: Callable[[Path], None]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for change in changes:
            change(folder)

    return make


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (shutil.rmtree, "`given` must be a folder, a hub id or smollm2-135m; {0} is not a folder."),
        (
            _link,
            "File {0}/link is a link to {0.parent}/secret, outside the model folder. Copy the file into the folder.",
        ),
        (
            lambda folder: (folder / "link").symlink_to("nothing"),
            "File {0}/link is not a regular file or its link is broken. Remove it.",
        ),
        (
            _link_folder,
            "File {0}/assets is a link to a folder, which no copy of the model would hold. Put the folder itself in "
            "its place, or remove the link.",
        ),
        (
            _rename(SINGLE, "pytorch_model.bin"),
            "`given` must hold safetensors; {0} holds pickle weights (pytorch_model.bin), which can run code when "
            "read. Convert them: `AutoModelForCausalLM.from_pretrained(DIR).save_pretrained(NEW)` writes safetensors.",
        ),
        (
            _rename(SINGLE, "training_args.bin"),
            "`given` must hold model.safetensors or model.safetensors.index.json; {0} has neither. Give a folder with "
            "its weights.",
        ),
        *(
            (_index(names), f"File {{0}}/{INDEX} must hold a `weight_map` of names. Download it again.")
            for names in ({}, [], {"x": 1}, None)
        ),
        (
            _index({"x": "sub/a.safetensors"}),
            f"File {{0}}/{INDEX} names the shard 'sub/a.safetensors'; a shard must be a plain file name in the same "
            "folder. Do not trust this checkpoint.",
        ),
        (
            _index({"x": "sub\\a.safetensors"}),
            f"File {{0}}/{INDEX} names the shard 'sub\\\\\\\\a.safetensors'; a shard must be a plain file name in the "
            "same folder. Do not trust this checkpoint.",
        ),
        (_index({"x": "a.bin"}), f"File {{0}}/{INDEX} names the shard a.bin, which must end in .safetensors."),
        (
            _index({"x": "c.safetensors"}),
            f"Shard c.safetensors named in {{0}}/{INDEX} is missing. Download it again.",
        ),
        (
            _index({"x": "a.safetensors"}),
            f"Tensor lm_head.weight is in only one of {INDEX} and shard a.safetensors of {{0}}. Download both again.",
        ),
        (
            _write("a.onnx"),
            "Folder {0} also holds a.onnx, which would be published beside the locked weights as it is. Move it out of "
            "the folder; `lock --exclude PATTERN` leaves such files out of the locked one.",
        ),
        (
            _both(_write("b.onnx"), _write("a.onnx")),
            "Folder {0} also holds a.onnx, b.onnx, which would be published beside the locked weights as they are. "
            "Move them out of the folder; `lock --exclude PATTERN` leaves such files out of the locked one.",
        ),
    ],
    ids=range(17),
)
def test_refusals(change: Callable[[Path], None], sentence: str, model: Path) -> None:
    change(model)
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(model, argument="given")
    assert str(caught.value) == sentence.format(model).replace("\\\\\\\\", "\\\\")


@pytest.mark.parametrize("name", ["assets", "LICENSE"])
def test_what_cannot_be_read_is_named(name: str, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, a folder was left out of the locked one without a word, and a file ended in a traceback."""
    path, scandir, opened = model / name, os.scandir, Path.open

    def refuse(given: Any) -> None:
        if Path(given) == path:
            raise PermissionError(errno.EACCES, "Permission denied", str(given))

    monkeypatch.setattr(os, "scandir", lambda given: (refuse(given), scandir(given))[1])
    monkeypatch.setattr(Path, "open", lambda given, *args, **more: (refuse(given), opened(given, *args, **more))[1])
    path.mkdir() if name == "assets" else path.touch()
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(model, publishing=False)
    assert str(caught.value) == f"File {path} cannot be read (Permission denied). Check the path and permissions."


def test_what_is_not_published_may_hold_other_weights(model: Path) -> None:
    (model / "a.onnx").write_text("x")
    assert "a.onnx" in open_checkpoint(model, publishing=False).others


def test_a_tensor_of_two_shards_is_refused(tmp_path: Path) -> None:
    headers = {}
    for name in "abc":
        (tmp_path / name).write_bytes(write_header({"x" if name != "b" else "y": ("F32", (0,))}, None))
        headers[name] = read_header(tmp_path / name)
    with pytest.raises(CheckpointError) as caught:
        _check_unique(tmp_path, headers)
    assert str(caught.value) == f"Tensor x is in both a and c of {tmp_path}. Remove the stale shard."


@pytest.mark.parametrize(
    ("patterns", "left_out"),
    [
        ([], set()),
        (["*.bin"], {"a.bin", "sub/b.bin"}),
        (["sub/*"], {"sub/b.bin", "sub/c.md"}),
        (["c.md", "a.bin"], {"a.bin", "sub/c.md"}),
    ],
)
def test_exclude_is_by_path_or_by_name(patterns: list[str], left_out: set[str], model: Path) -> None:
    (model / "sub").mkdir()
    for name in ("a.bin", "sub/b.bin", "sub/c.md"):
        (model / name).write_text("x")
    every = open_checkpoint(model, publishing=False).others
    assert set(every) - set(open_checkpoint(model, publishing=False, exclude=patterns).others) == left_out


@pytest.mark.parametrize(
    ("pattern", "sentence"),
    [
        ("*.zip", "match files of the model folder; {0} matches none. Give a name or a pattern such as '*.bin'."),
        ("*", "leave in what the model needs; {0} matches config.json. Give a narrower pattern."),
        ("*.safetensors", "leave in what the model needs; {0} matches model.safetensors. Give a narrower pattern."),
    ],
)
def test_exclude_must_match_and_leave_the_model(pattern: str, sentence: str, model: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(model, exclude=[pattern])
    assert str(caught.value) == "`exclude` must " + sentence.format(repr(pattern))


@pytest.mark.parametrize(
    ("name", "content", "counts"),
    [
        ("model.bin", b"x", True),
        ("MODEL.BIN", b"x", True),
        ("model.safetensors.bak", b"x", True),
        ("model.bin.index.json", b"x", False),
        ("training_args.bin", b"x", False),
        ("sub/training_args.bin", b"x", False),
        ("notes", write_header({"x": ("F32", (0,))}, None), True),
        ("notes.json", write_header({"x": ("F32", (0,))}, None), True),
        ("notes", (3).to_bytes(8, "little") + b"{}", False),
        ("notes", (2).to_bytes(8, "little") + b"{}", True),
        ("notes", (2).to_bytes(8, "little") + b"[]", False),
        ("notes", (1).to_bytes(8, "little") + b"{}", False),
        ("notes", b"", False),
        ("README.md", b"text of a page", False),
    ],
)
def test_weights_are_known_by_their_name_or_their_start(
    name: str, content: bytes, counts: bool, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / name).write_bytes(content)
    assert stray_weights(tmp_path, [name]) == ([name] if counts else [])
    if name == "notes":
        assert looks_like_safetensors(tmp_path / name) == counts
