"""`verify` on fold locks it used to fail: small factors, all channels of a kind; and on claims that are false."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pico
import pytest

from specdef import lock, verify
from specdef.architectures.channel_exponents import UNKNOWN, channel_exponents
from specdef.architectures.resolve import resolve
from specdef.checkpoint.digests import file_digest
from specdef.checkpoint.reader import open_checkpoint
from specdef.errors import CheckpointError
from specdef.models.equivalence import Equivalence

SIZES = {"norm": 32, "vo": 16, "updown": 48, "head": 32}


@pytest.fixture(autouse=True)
def _no_model_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is checked here is what the weights say; `test_verify.py` compares what models say."""
    same = Equivalence(bit_identical=True, max_error=0.0, kl=0.0, own_noise=None, num_outputs=1, dtype="float32")
    monkeypatch.setattr("specdef.locks.verify.compare", lambda *_: same)


def checked(folder: Path, original: Path | None = None) -> tuple[bool | None, str]:
    found = next(check for check in verify(folder, original=original).checks if check.name == "lock")
    return found.passed, found.detail


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize("exponent", [1, 2, 5, 6, 12, 20, 40])
def test_every_valid_lock_passes_beside_its_original(
    exponent: int, direction: str, llama: Path, tmp_path: Path
) -> None:
    lock(llama, tmp_path / "locked", preset="exact", multiplier=f"2^{exponent}", direction=direction)
    assert checked(tmp_path / "locked", llama)[0] is True
    assert checked(tmp_path / "locked")[0] is not False
    if exponent >= 20:
        assert checked(tmp_path / "locked")[0] is True


@pytest.mark.parametrize("exponent", [2, 20])
@pytest.mark.parametrize("kind", ["norm", "vo", "updown", "head"])
def test_all_channels_of_a_kind(kind: str, exponent: int, llama: Path, tmp_path: Path) -> None:
    lock(llama, tmp_path / "locked", preset="exact", pairs=[kind], channels=SIZES[kind], multiplier=f"2^{exponent}")
    assert checked(tmp_path / "locked", llama)[0] is True
    assert checked(tmp_path / "locked")[0] is (True if exponent == 20 else None)


def test_all_channels_of_crossing_kinds(llama: Path, tmp_path: Path) -> None:
    """Every number of up_proj is multiplied by its row's factor and divided by its column's: nothing changes there."""
    lock(llama, tmp_path / "norms", preset="exact", pairs=["norm"], channels=32)
    model = resolve(*(getattr(open_checkpoint(llama), part) for part in ("config", "shapes")))
    found = channel_exponents(
        open_checkpoint(llama), open_checkpoint(tmp_path / "norms", publishing=False), model.pairs
    )
    for pair in model.pairs:
        assert (found[pair.id] == (20 if pair.kind == "norm" else 0)).all(), pair.id
    assert UNKNOWN not in np.concatenate(list(found.values()))


def test_a_channel_more_than_claimed_is_no_fault_and_one_less_is(llama: Path, tmp_path: Path) -> None:
    lock(llama, tmp_path / "locked", preset="exact", pairs=["vo"])
    manifest = tmp_path / "locked" / "specdef_lock.json"
    entries = json.loads(manifest.read_text())
    entries["strength"]["pairs"] = {"vo": 2, "updown": 1}
    manifest.write_text(json.dumps(entries))
    assert checked(tmp_path / "locked", llama)[0] is False
    assert checked(tmp_path / "locked")[0] is False


def claim(folder: Path, **strength: object) -> None:
    manifest = folder / "specdef_lock.json"
    entries = json.loads(manifest.read_text())
    entries["strength"] |= strength
    manifest.write_text(json.dumps(entries))


@pytest.mark.parametrize("direction", ["up", "down"])
@pytest.mark.parametrize(("scaled", "claimed"), [(1, 2), (2, 3), (1, 16), (5, 7), (5, 8), (8, 12), (10, 16)])
def test_claiming_more_channels_than_are_scaled_fails(
    scaled: int, claimed: int, direction: str, llama: Path, tmp_path: Path
) -> None:
    lock(llama, tmp_path / "locked", preset="exact", channels=scaled, direction=direction)
    assert checked(tmp_path / "locked", llama)[0] is True
    assert checked(tmp_path / "locked")[0] is True
    claim(tmp_path / "locked", channels_per_pair=claimed)
    for original in (None, llama):
        passed, detail = checked(tmp_path / "locked", original)
        assert passed is False
        assert f"of the {9 * claimed} channels claimed there" in detail or "0/" in detail


@pytest.mark.parametrize(
    ("family", "direction", "seeds"),
    [("qwen3", "down", (15, 24, 28)), ("gemma2", "up", (6, 8, 11)), ("mixtral", "up", (4, 15, 51))],
)
def test_a_third_of_a_pairs_channels_is_never_called_too_few(
    family: str, direction: str, seeds: tuple[int, ...], tmp_path: Path
) -> None:
    """So many scaled channels widen the spread that they must stand out from; with these seeds some do not."""
    model = pico.build(family, tmp_path / "model")
    for seed in seeds:
        lock(
            model, tmp_path / f"{seed}", preset="exact", channels=10, multiplier="2^16", direction=direction, seed=seed
        )
        assert checked(tmp_path / f"{seed}")[0] is not False


def test_fewer_channels_at_a_small_multiplier_need_the_original(llama: Path, tmp_path: Path) -> None:
    lock(llama, tmp_path / "locked", preset="exact", channels=2, multiplier="2^12")
    claim(tmp_path / "locked", channels_per_pair=3)
    passed, detail = checked(tmp_path / "locked")
    assert passed is None
    assert "cannot be told from natural scales without --original" in detail
    assert checked(tmp_path / "locked", llama)[0] is False


@pytest.mark.parametrize("family", pico.FAMILIES)
def test_several_channels_of_every_family_are_all_found(family: str, tmp_path: Path) -> None:
    model = pico.build(family, tmp_path / "model")
    lock(model, tmp_path / "locked", preset="exact", channels=3)
    assert checked(tmp_path / "locked", model)[0] is True
    assert checked(tmp_path / "locked")[0] is not False
    claim(tmp_path / "locked", channels_per_pair=4)
    assert checked(tmp_path / "locked", model)[0] is False


@pytest.mark.parametrize("given", [True, False])
def test_claiming_more_pairs_than_the_model_has_fails(given: bool, llama: Path, tmp_path: Path) -> None:
    lock(llama, tmp_path / "locked", preset="exact", pairs=["vo"])
    claim(tmp_path / "locked", pairs={"vo": 3})
    assert checked(tmp_path / "locked", llama if given else None)[0] is False


def test_more_channels_than_a_pair_has_is_malformed(llama: Path, tmp_path: Path) -> None:
    lock(llama, tmp_path / "locked", preset="exact")
    for number in (49, 10**30):
        claim(tmp_path / "locked", channels_per_pair=number)
        for original in (None, llama):
            with pytest.raises(
                CheckpointError,
                match=r"`channels_per_pair` in the manifest is malformed: it claims .* in each \w+ pair",
            ):
                verify(tmp_path / "locked", original=original)


@pytest.mark.parametrize("claimed", [{"channels_per_pair": 32}, {"channels_per_pair": 16}])
def test_claiming_all_channels_hides_no_unlocked_model(claimed: dict[str, int], llama: Path, tmp_path: Path) -> None:
    lock(llama, tmp_path / "locked", preset="exact", pairs=["norm"])
    shutil.copy(llama / "model.safetensors", tmp_path / "locked" / "model.safetensors")
    manifest = tmp_path / "locked" / "specdef_lock.json"
    entries = json.loads(manifest.read_text())
    entries["strength"] |= claimed
    entries["files"]["model.safetensors"] = file_digest(tmp_path / "locked" / "model.safetensors")
    manifest.write_text(json.dumps(entries))
    assert checked(tmp_path / "locked")[0] is False
    assert checked(tmp_path / "locked", llama)[0] is False
