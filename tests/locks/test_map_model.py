"""A lock of an undeclared family by an automatic map: locked, named, verified, inspected, unlocked and rebalanced."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pico
import pytest

from specdef import inspect_model, lock, map_model, undo, unlock, verify
from specdef.architectures.resolve import resolve
from specdef.architectures.written import WrittenLayout, architecture_from
from specdef.checkpoint.reader import open_checkpoint
from specdef.errors import ArchitectureError, CheckpointError, PlanError
from specdef.locks import map_model as module
from specdef.locks.base import Check
from specdef.locks.manifest import MANIFEST, read_manifest
from specdef.mapping import automatic
from specdef.mapping.automatic import MapReport


@pytest.fixture(scope="module")
def gemma(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico.build("gemma", tmp_path_factory.mktemp("gemma") / "model")


@pytest.fixture(scope="module")
def locked(gemma: Path) -> Path:
    out = gemma.parent / "locked"
    lock(gemma, out, preset="exact", map="auto", card=True)
    return out


def test_without_a_map_the_family_is_refused(gemma: Path, tmp_path: Path) -> None:
    with pytest.raises(ArchitectureError, match=r"`model_type` in config\.json must be one of"):
        lock(gemma, tmp_path / "locked", preset="exact")


def test_the_locked_folder_needs_no_map_again(gemma: Path, locked: Path, tmp_path: Path) -> None:
    report = verify(locked, original=gemma)
    assert report.passed
    assert report.complete
    assert report.equivalence is not None
    assert report.equivalence.bit_identical
    assert inspect_model(locked, spectra=False).verdict.locked
    unlock(locked, tmp_path / "back")
    assert (tmp_path / "back" / "model.safetensors").read_bytes() == (gemma / "model.safetensors").read_bytes()
    undo("rebalance", locked, tmp_path / "rebalanced")


def test_an_automatic_map_is_never_silent(locked: Path) -> None:
    manifest = read_manifest(locked)
    assert manifest.map is not None
    assert "automatic map of gemma" in manifest.exactness["map"]
    assert manifest.checked[-1] == (
        "the automatic map's pairs hold to the bit in a small random model, and this model's outputs are compared"
    )
    for name in ("SPECDEF_LOCK.md", "README.md"):
        assert "automatic map of gemma" in (locked / name).read_text()
        assert "No person reviewed it" in (locked / name).read_text()


def test_a_declared_family_is_locked_as_before(llama: Path, tmp_path: Path) -> None:
    lock(llama, tmp_path / "locked", preset="exact")
    assert "map" not in json.loads((tmp_path / "locked" / MANIFEST).read_text())
    assert "automatic map" not in (tmp_path / "locked" / "SPECDEF_LOCK.md").read_text()


def test_the_ladder_takes_an_automatic_map(gemma: Path, tmp_path: Path) -> None:
    lock(gemma, tmp_path / "locked", preset="ladder", map="auto")
    assert verify(tmp_path / "locked", original=gemma).passed


def _without_a_reader(report: MapReport) -> MapReport:
    """The map of a mistaken probe: the first norm lacks one of its readers."""
    index, pair = next((i, p) for i, p in enumerate(report.written.pairs) if p.kind == "norm")
    pairs = list(report.written.pairs)
    pairs[index] = replace(pair, consumers=pair.consumers[:-1])
    kept = tuple(replace(one, pair=new) for one, new in zip(report.kept, pairs, strict=True))
    return replace(report, written=replace(report.written, pairs=tuple(pairs)), kept=kept)


def test_the_model_itself_has_the_last_word(gemma: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = automatic.map_checkpoint
    mistaken: Callable[[Any], MapReport] = lambda checkpoint: _without_a_reader(found(checkpoint))  # noqa: E731
    monkeypatch.setattr(automatic, "map_checkpoint", mistaken)
    with pytest.raises(PlanError, match="`map` auto must keep the function; on this model it does not"):
        lock(gemma, tmp_path / "locked", preset="exact", map="auto")
    assert not list(tmp_path.iterdir())

    monkeypatch.setattr(module, "map_checkpoint", mistaken)
    report = map_model(gemma)
    assert {one.pair.kind for one in report.kept} == {"vo", "updown", "head"}
    assert all("on the model" in reason for reason in report.refused.values())
    assert len(report.refused) == 2
    assert report.num_pairs == 5, "of nine, without the four norms"


def test_pairs_that_hold_by_kind_and_not_together_are_refused(gemma: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check(checkpoint: Any, written: Any, kinds: Sequence[str] | None = None) -> Check:
        return Check("function", kinds is not None and kinds != ["norm"], "outputs differ")

    monkeypatch.setattr(module, "_check", check)
    with pytest.raises(PlanError, match="`model` must keep its outputs under a lock of the pairs found"):
        map_model(gemma)


def test_map_model_writes_a_declaration(gemma: Path, tmp_path: Path) -> None:
    report = map_model(gemma, write=tmp_path / "family.py")
    assert "identical to the bit" in report.on_model
    assert (report.proposed, len(report.kept), report.num_pairs) == (5, 5, 9)
    text = (tmp_path / "family.py").read_text()
    assert 'Slot("{layer}.self_attn.o_proj.weight", 1, QUERY_GROUPS)' in text
    with pytest.raises(PlanError, match="`write` must be a new file"):
        map_model(gemma, write=tmp_path / "family.py")


@pytest.mark.parametrize(("name", "said"), [("family.txt", "a Python file"), ("no/family.py", "a folder that exists")])
def test_a_place_that_cannot_be_written_is_refused(name: str, said: str, gemma: Path, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=f"`write` must be .*{said}"):
        map_model(gemma, write=tmp_path / name)


def test_a_locked_model_is_not_mapped(locked: Path) -> None:
    with pytest.raises(PlanError, match="`model` must be an unlocked model"):
        map_model(locked)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"map": "llama"}, "`map` must be auto, or left out for a declared family; got 'llama'"),
        ({"map": "auto", "preset": "paper"}, "`map` must be left out with lock inject"),
    ],
)
def test_what_no_automatic_map_can_do_is_refused(
    options: dict[str, Any], said: str, gemma: Path, tmp_path: Path
) -> None:
    with pytest.raises(PlanError, match=said):
        lock(gemma, tmp_path / "locked", **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda written: written["pairs"][0]["producers"][0]["layout"].update(index=7),
        lambda written: written["pairs"][0].update(producers=[]),
        lambda written: written["pairs"][0].update(degree=0),
        lambda written: written.update(stacks=[]),
        lambda written: written["pairs"][0]["producers"][0].update(tensor="x{y}.weight"),
        lambda written: written["pairs"][0]["consumers"][0].update(tensor="{layer}.{.weight"),
        lambda written: written["pairs"][0]["consumers"][0].update(axis=-1),
    ],
)
def test_a_spoiled_map_in_a_manifest_is_refused(spoil: Callable[[Any], None], locked: Path, tmp_path: Path) -> None:
    data = json.loads((locked / MANIFEST).read_text())
    spoil(data["map"])
    (tmp_path / MANIFEST).write_text(json.dumps(data))
    with pytest.raises(CheckpointError, match="is malformed"):
        read_manifest(tmp_path)


def test_a_map_whose_ends_have_unlike_numbers_of_channels_is_refused(locked: Path) -> None:
    """Before, an IndexError for whoever verified the folder."""
    written = read_manifest(locked).map
    assert written is not None
    norm = next(pair for pair in written.pairs if pair.kind == "norm")
    consumer = replace(norm.consumers[0], layout=WrittenLayout(("16", "16")))
    spoiled = replace(written, pairs=(replace(norm, consumers=(consumer,)),))
    checkpoint = open_checkpoint(locked)
    with pytest.raises(ArchitectureError, match=r"must give all ends of a pair as many channels; it does not for "):
        resolve(checkpoint.config, checkpoint.shapes, architecture_from(spoiled))
