"""Where models are looked for, and whose argument is blamed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

import specdef
from specdef import certify_model, lock, verify
from specdef.errors import CheckpointError, SpecdefError
from specdef.models.sources import find_config, find_model


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "no/such/folder",
            "`original` must be a folder, a hub id such as org/name, smollm2-135m or minilm; got",
        ),
        ("org/name", "`original` 'org/name' is no local folder and could not be fetched from the hub"),
        ("x" * 5000, "`original` must be a folder; 'xxx.* is not usable"),
    ],
)
def test_the_argument_is_named(name: str, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        find_model(name, argument="original")


def test_a_folder_that_holds_no_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"`original` must be a Hugging Face model folder; .* no config\.json"):
        find_model(str(tmp_path), argument="original")


def test_a_configuration_is_fetched_without_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, a dry run fetched gigabytes that it never read."""
    asked: list[str | None] = []

    def fetch(name: str, *, allow_patterns: str | None, **others: Any) -> str:
        asked.append(allow_patterns)
        return "fetched"

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert find_config("org/name") == find_model("org/name") == Path("fetched")
    assert asked == ["*.json", None]


WITH_AN_ORIGINAL: dict[str, Callable[[Path, Path, Path], object]] = {
    "verify": lambda locked, original, out: verify(locked, original=original),
    "attack": lambda locked, original, out: specdef.attack(locked, out, original=original),
    "certify": lambda locked, original, out: certify_model(locked, out, original=original),
}


@pytest.mark.parametrize("kept", [None, (), ("model.safetensors",), ("config.json",)])
@pytest.mark.parametrize("command", WITH_AN_ORIGINAL)
def test_a_wrong_original_is_never_called_the_model(
    command: str, kept: tuple[str, ...] | None, toy_model: Path, tmp_path: Path
) -> None:
    """Missing, empty, without a config, without weights."""
    lock(toy_model, tmp_path / "locked", preset="exact")
    original = tmp_path / "original"
    if kept is not None:
        original.mkdir()
        for name in kept:
            (original / name).write_bytes((toy_model / name).read_bytes())
    with pytest.raises(SpecdefError, match=r"^`original` must [^`]*original"):
        WITH_AN_ORIGINAL[command](tmp_path / "locked", original, tmp_path / "out")
    assert not (tmp_path / "out").exists()
