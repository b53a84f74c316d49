"""Some hundred seeded changes to the files of locked folders and their keys: only SpecdefError comes out, in one line.

A run over many more seeds is `fuzz(range(...))`; see `tests/fuzzing.py` for what is changed.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import fuzzing
import pico
import pytest

from specdef import inspect_model, lock, unlock, verify
from specdef.errors import SpecdefError

CHANGES: dict[str, Callable[[Path, random.Random], None]] = {
    "config.json": fuzzing.change_json_file,
    "specdef_lock.json": fuzzing.change_json_file,
    "model.safetensors.index.json": fuzzing.change_json_file,
    "a.safetensors": fuzzing.change_shard,
    "key": fuzzing.change_key,
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two locked folders of two shards each, with their keys."""
    place = tmp_path_factory.mktemp("fuzz")
    model = pico.build("llama", place / "model")
    pico.shard(model)
    lock(model, place / "exact", preset="exact")
    lock(model, place / "paper", preset="paper", rank=4)
    return place


@pytest.mark.parametrize("file", CHANGES)
def test_hostile_files_are_one_sentence(place: Path, tmp_path: Path, file: str) -> None:
    found = fuzz(range(40), place, tmp_path, file)
    assert found["refused"] > 10, "the changes are felt"


def fuzz(seeds: Iterable[int], place: Path, scratch: Path, file: str) -> Counter[str]:
    """Change a file by each seed and use the folder; whether it was refused, counted."""
    found: Counter[str] = Counter()
    for seed in seeds:
        rng = random.Random(seed)
        name = ("exact", "paper")[seed % 2]
        locked = Path(shutil.copytree(place / name, scratch / "locked"))
        key = Path(shutil.copy(place / f"{name}.specdef-key", scratch / "key"))
        CHANGES[file](key if file == "key" else locked / file, rng)
        plain = Path(shutil.copytree(locked, scratch / "plain"))
        for extra in ("specdef_lock.json", "SPECDEF_LOCK.md"):
            (plain / extra).unlink()
        before = {path.name for path in scratch.iterdir()}
        for work in _works(locked, plain, key, scratch)[: 1 if file == "key" else None]:
            try:
                work()
            except SpecdefError as error:
                found["refused"] += 1
                fault = str(error)
                assert "\n" not in fault, seed
                assert len(fault) < 4000, seed
            else:
                found["done"] += 1
        whole = {"out"} if (scratch / "out").exists() else set()
        assert {path.name for path in scratch.iterdir()} == before | whole, "nothing half-written"
        for path in scratch.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    return found


def _works(locked: Path, plain: Path, key: Path, scratch: Path) -> list[Callable[[], object]]:
    return [
        lambda: unlock(locked, scratch / "out", key),
        lambda: verify(locked),
        lambda: inspect_model(locked, spectra=False),
        lambda: lock(plain, scratch / "other", preset="exact", dry_run=True),
    ]
