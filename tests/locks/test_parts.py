"""The small parts of a lock by themselves: which layers, which preset, where a key may lie, and what an edit does."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pico
import pytest

from specdef import lock, unlock
from specdef.checkpoint.header import TensorInfo
from specdef.errors import KeyFileError, PlanError, SpecdefError
from specdef.locks.edits import Edit, check_finite, inverse, shard_edits
from specdef.locks.key import Key, default_key_path, find_key, place_key, read_key, refuse_key_path, write_key
from specdef.locks.presets import default_preset, find_preset, lock_options, own_options, preset_names
from specdef.locks.selection import check_pair_kinds, select_layers


@pytest.mark.parametrize(
    ("layers", "draw", "selected"),
    [
        (None, None, (0, 1, 2, 3, 4, 5)),
        ([5, 0], None, (0, 5)),
        (None, 6, (0, 1, 2, 3, 4, 5)),
        (None, 1, (3,)),
        (None, 3, (1, 3, 4)),
    ],
)
def test_layers_are_named_or_drawn(layers: list[int] | None, draw: int | None, selected: tuple[int, ...]) -> None:
    assert select_layers(6, layers, draw, seed=0) == selected


def test_another_seed_draws_other_layers() -> None:
    assert len({select_layers(40, None, 10, seed) for seed in range(20)}) == 20


@pytest.mark.parametrize(
    ("layers", "draw", "sentence"),
    [
        ([1], 1, "`layers` and `num_layers` exclude each other; got both. Give one of them."),
        ([6], None, "`layers` must lie between 0 and 5; got 6. The model has 6."),
        ([-1], None, "`layers` must lie between 0 and 5; got -1. The model has 6."),
        ([], None, "`layers` must name at least one layer, each once; got []."),
        ("0-1", None, "`layers` must be numbers, such as [0, 1]; got '0-1'."),
        ([2, 2], None, "`layers` must name at least one layer, each once; got [2, 2]."),
        (None, 0, "`num_layers` must lie between 1 and 6; got 0."),
        (None, 7, "`num_layers` must lie between 1 and 6; got 7."),
    ],
)
def test_layers_that_cannot_be(layers: Any, draw: int | None, sentence: str) -> None:
    with pytest.raises(PlanError) as caught:
        select_layers(6, layers, draw, seed=0)
    assert str(caught.value) == sentence


def test_kinds_of_pairs() -> None:
    known = "norm, vo, updown, fc, head, conv"
    assert check_pair_kinds(iter(["vo", "norm"])) == ("vo", "norm")
    for kinds, said in (
        (["vo", "up"], f"be drawn from {known}; got 'up'."),
        ([], f"name at least one of {known}; got none."),
    ):
        with pytest.raises(PlanError) as caught:
            check_pair_kinds(kinds)
        assert str(caught.value) == f"`pairs` must {said}"


@pytest.mark.parametrize(
    ("family", "preset"), [("llama", "ladder"), ("gpt2", "ladder"), ("bert", "exact"), ("vit", "exact")]
)
def test_the_kind_of_model_has_a_preset_of_its_own(family: str, preset: str, tmp_path: Path) -> None:
    """Only language models have certificates in which the ladder does better."""
    model = pico.build(family, tmp_path / "model")
    assert default_preset(model) == preset
    unnamed = lock(model, tmp_path / "unnamed")
    named = lock(model, tmp_path / "named", preset=preset)
    assert (unnamed.lock, unnamed.strength) == (named.lock, named.strength)


def test_presets() -> None:
    assert preset_names() == ("exact", "paper", "ladder", "fold", "inject", "trained")
    for name, kind in (
        ("exact", "fold"),
        ("paper", "inject"),
        ("fold", "fold"),
        ("inject", "inject"),
        ("ladder", "ladder"),
        ("trained", "trained"),
    ):
        assert (find_preset(name)[0].name, find_preset(name)[1]) == (kind, {})
    with pytest.raises(PlanError) as caught:
        find_preset("safe")
    assert str(caught.value) == "`preset` must be one of exact, paper, ladder, fold, inject, trained; got 'safe'."
    kind, options = lock_options("exact", {"multiplier": "2^12", "seed": None, "channels": 3})
    assert (kind.name, options.multiplier, options.channels, options.seed) == (
        "fold",
        2.0**12,
        3,
        kind.options({}).seed,
    )
    assert own_options("exact", {"multiplier": "2^12", "channels": "3"}) == {"multiplier": "2^12", "channels": 3}
    for typed, said in (({"rank": "3"}, "rank"), ({"channels": "many"}, "`channels` must be")):
        with pytest.raises(SpecdefError, match=said):
            own_options("exact", typed)


@pytest.mark.parametrize(
    ("locked", "key"), [("a/locked", "a/locked.specdef-key"), ("locked.v1", "locked.v1.specdef-key")]
)
def test_a_key_lies_beside_its_folder(locked: str, key: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert default_key_path(Path(locked)) == Path(key)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert default_key_path(Path()) == Path("here.specdef-key").resolve().parent.with_name("here.specdef-key")
    with pytest.raises(KeyFileError) as caught:
        find_key(Path(locked))
    assert str(caught.value) == (
        f"`key` must be given: {key}, its default place, does not exist. Give the file `lock` wrote."
    )
    (tmp_path / "here.specdef-key").touch()
    assert find_key(tmp_path / "here") == tmp_path / "here.specdef-key"


@pytest.mark.parametrize(
    ("place", "sentence"),
    [
        ("model/key", "lie outside the model folder; got {0}/model/key, inside {0}/model. Move it."),
        ("locked/key", "lie outside the locked folder, which gets published; got {0}/locked/key. Move it."),
        ("there", "be a new file; {0}/there exists. Choose another name: keys are never overwritten."),
        ("link", "be a new file; {0}/link exists. Choose another name: keys are never overwritten."),
        ("no/key", "be in a folder that exists; {0}/no does not. Create it first."),
    ],
)
def test_places_where_no_key_may_lie(place: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "there").touch()
    (tmp_path / "link").symlink_to("nothing")
    refuse_key_path(tmp_path / "new", tmp_path / "locked", tmp_path / "model")
    with pytest.raises(KeyFileError) as caught:
        refuse_key_path(tmp_path / place, tmp_path / "locked", tmp_path / "model")
    assert str(caught.value) == f"`key` must {sentence.format(tmp_path)}"


def test_a_key_is_read_as_it_was_written_and_never_overwrites(tmp_path: Path) -> None:
    key = Key("fold", {"a": "1"}, {"b": "2"}, ({"tensor": "x", "axis": 0},), {"tensor:é": b"\0\1", "none": b""})
    write_key(key, tmp_path / "temporary", tmp_path / "key")
    assert (tmp_path / "temporary").stat().st_mode & 0o777 == 0o600
    place_key(tmp_path / "temporary", tmp_path / "key")
    assert read_key(tmp_path / "key") == key
    with pytest.raises(KeyFileError) as caught:
        place_key(tmp_path / "temporary", tmp_path / "key")
    assert str(caught.value) == f"`key` must be a new file; {tmp_path / 'key'} exists. Choose another name."
    for write in (write_key, lambda key, temporary, path: place_key(tmp_path / "no", path)):
        with pytest.raises(SpecdefError, match=f"Writing {tmp_path}/other failed"):
            write(key, tmp_path / "no" / "key" if write is write_key else tmp_path, tmp_path / "other")
    whole = (tmp_path / "key").read_bytes()
    (tmp_path / "broken").write_bytes(whole.replace(b"\0\1", b"\0\2"))
    for name, sentence in (
        ("broken", "Key {0} was changed after it was written (checksum mismatch). Use a backup."),
        ("gone", "`key` must be a specdef key file; {0} was not found. Give the file `lock` wrote."),
    ):
        with pytest.raises(KeyFileError) as caught:
            read_key(tmp_path / name)
        assert str(caught.value) == sentence.format(tmp_path / name)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EOPNOTSUPP, errno.ENOTSUP])
def test_a_key_is_placed_where_a_file_system_has_no_hard_links(
    code: int, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", link)
    key = lock(llama, tmp_path / "locked", preset="exact").key
    assert key is not None
    assert key.stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"locked", key.name}
    unlock(tmp_path / "locked", tmp_path / "back")
    (tmp_path / "temporary").write_bytes(b"other")
    with pytest.raises(KeyFileError, match="`key` must be a new file"):
        place_key(tmp_path / "temporary", key)
    with pytest.raises(SpecdefError, match=f"Writing {tmp_path}/new failed"):
        place_key(tmp_path / "none", tmp_path / "new")
    assert not (tmp_path / "new").exists()


MATRIX = TensorInfo("w", "F32", (4, 3), 0, 48)
NORM = TensorInfo("n", "F32", (4,), 48, 64)
WHERE = {"w": ("shard", MATRIX), "n": ("other", NORM)}


def edited(edits: list[Edit], tensor: TensorInfo, block: Any, first: int = 0, originals: Any = None) -> list[Any]:
    shard = WHERE[tensor.name][0]
    values = np.array(block, np.float32)
    shard_edits(edits, WHERE, originals)[shard].blocks[tensor.name](values, first)
    return values.tolist()


@pytest.mark.parametrize(
    ("edits", "rows", "first"),
    [
        ([Edit("w", 0, (1, 3), 2)], [1, 4, 1, 4], 0),
        ([Edit("w", 0, (1, 3), 2)], [4, 1, 4], 1),
        ([Edit("w", 0, (1, 3), 2)], [1, 4], 2),
        ([Edit("w", 0, (3,), 2)], [1, 1], 0),
        ([Edit("w", 0, (0,), 2), Edit("w", 0, (0, 1), -1)], [2, 0.5, 1, 1], 0),
    ],
)
def test_rows_are_scaled_where_their_block_lies(edits: list[Edit], rows: list[float], first: int) -> None:
    assert edited(edits, MATRIX, np.ones((len(rows), 3)), first) == [[row] * 3 for row in rows]


def test_columns_are_scaled_in_every_block_and_each_shard_has_its_own() -> None:
    edits = [Edit("w", 1, (0, 2), 3), Edit("n", 0, (2,), 1)]
    assert edited(edits, MATRIX, np.ones((2, 3)), first=2) == [[8, 1, 8]] * 2
    assert {shard: set(found.blocks) for shard, found in shard_edits(edits, WHERE).items()} == {
        "shard": {"w"},
        "other": {"n"},
    }


def test_an_offset_is_part_of_what_is_scaled_and_its_original_is_put_back() -> None:
    edits = [Edit("n", 0, (1, 3), 2, offset=1.0)]
    assert edited(edits, NORM, [0, 0.5, 0, 1]) == [0, 5, 0, 7]
    originals = {"n": np.array([9, 0.5, 9, 1], np.float32)}
    assert edited(inverse(edits), NORM, [0, 7], first=2, originals=originals) == [0, 1]
    assert edited(inverse(edits), NORM, [0, 5, 0, 7]) == [0, 0.5, 0, 1]


def test_an_inverse_goes_back_from_the_end() -> None:
    edits = [Edit("w", 0, (1,), 3), Edit("n", 0, (2,), -4, 1.0)]
    assert inverse(edits) == [Edit("n", 0, (2,), 4, 1.0), Edit("w", 0, (1,), -3)]
    assert edits[1].to_json() == {"tensor": "n", "axis": 0, "indices": [2], "exponent": -4, "offset": 1.0}


@pytest.mark.parametrize(
    ("work", "sentence"),
    [
        (
            lambda: edited([Edit("w", 0, (0,), 60)], MATRIX, np.full((1, 3), 2.0**100)),
            "Tensor w of file shard cannot be scaled by 2^60 exactly where two pairs meet. Use a smaller multiplier or "
            "another seed.",
        ),
        (
            lambda: check_finite("shard", MATRIX, np.array([1, np.inf], np.float32)),
            "Weights must be finite; tensor w of file shard holds NaN or infinity. Repair it first.",
        ),
    ],
)
def test_numbers_that_cannot_be_scaled(work: Callable[[], object], sentence: str) -> None:
    with pytest.raises(PlanError) as caught:
        work()
    assert str(caught.value) == sentence
