"""An image classifier from lock to result: waves to agree on, bars to learn, the lock on and off."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pico
import pytest
import torch
from typer.testing import CliRunner

from specdef import attack, lock, unlock, verify
from specdef.attacks.interventions.lora import Lora, add_adapter
from specdef.certify.cell_result import CellResult
from specdef.cli.main import app
from specdef.errors import SpecdefError
from specdef.models.base import kind_of
from specdef.training.recipe import Recipe

SMALL: dict[str, dict[str, Any]] = {
    "resnet": {"depths": [1, 1], "hidden_sizes": [8, 8]},
    "vit": {"image_size": 8, "patch_size": 4},
}
RECIPES = {
    "resnet": Recipe(lr=1e-2, steps=25, batch_size=8, eval_every=25, retain_weight=0.0),
    "vit": Recipe(lr=3e-3, steps=30, batch_size=16, eval_every=30, retain_weight=0.0),
}


@dataclass(frozen=True)
class Folders:
    family: str
    original: Path
    locked: Path


def made(family: str, place: Path) -> Folders:
    original = pico.build(family, place / "original", **SMALL[family])
    lock(original, place / "locked", multiplier="2^20")
    return Folders(family, original, place / "locked")


def attacked(folders: Folders, folder: Path, out: Path, *interventions: str) -> CellResult:
    arguments: dict[str, Any] = {"recipe": RECIPES[folders.family], "threads": 1, "device": "cpu", "target": 0.6}
    return attack(folder, out, original=folders.original, interventions=interventions, **arguments).result


def last(found: CellResult) -> float:
    return float(found.evaluations[-1].score)


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Folders:
    return made("vit", tmp_path_factory.mktemp("vit"))


def test_a_vit_learns_bars_and_the_lock_stops_it_until_it_is_rebalanced(vit: Folders, tmp_path: Path) -> None:
    plain, locked = (attacked(vit, folder, tmp_path) for folder in (vit.original, vit.locked))
    assert last(plain) >= 0.8, "the task can be learned"
    assert locked.evaluations[0] == plain.evaluations[0], "the lock keeps score and utility at step 0"
    assert locked.evaluations[0].utility == 1.0
    assert last(locked) < 0.45
    assert last(attacked(vit, vit.locked, tmp_path, "rebalance")) >= 0.8


def test_a_resnet_learns_bars_in_spite_of_the_lock(tmp_path: Path) -> None:
    """Raw scores. Most likely BatchNorm takes the size out of what training does to the kernel; `lock` says so."""
    resnet = made("resnet", tmp_path)
    plain, locked = (attacked(resnet, folder, tmp_path / "runs") for folder in (resnet.original, resnet.locked))
    assert locked.evaluations[0] == plain.evaluations[0]
    assert min(last(plain), last(locked)) >= 0.6
    assert "BatchNorm follows every scaled convolution" in " ".join(lock(resnet.original, tmp_path / "again").remarks)


def test_adapters_lie_beside_convolutions(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    resnet = made("resnet", tmp_path)
    loaded = kind_of(resnet.locked).load(resnet.locked)
    before = loaded.model(pixel_values=torch.ones(1, 3, 8, 8)).logits.detach()
    adapted = add_adapter(loaded, Lora.parse("rank=2,targets=all"))
    beside = {name.split(".lora_A")[0] for name, part in adapted.named_parameters() if "lora_A" in name}
    assert len(beside) == 6, "the embedder, two blocks of two, and the shortcut that halves"
    assert not any("classifier" in name for name in beside)
    assert torch.equal(adapted(pixel_values=torch.ones(1, 3, 8, 8)).logits, before)
    named = add_adapter(kind_of(resnet.locked).load(resnet.locked), Lora.parse("rank=2,targets=convolution"))
    assert sum("lora_A" in name for name, _ in named.named_parameters()) == 6


def test_bad_images_are_one_sentence(vit: Folders, tmp_path: Path) -> None:
    """An error of this class ends the command line in exit 2."""

    def said(*arguments: str | Path) -> str:
        given = ["attack", str(vit.locked), "--out", str(tmp_path / "out"), "--threads", "1", *map(str, arguments)]
        error = CliRunner().invoke(app, given).exception
        assert isinstance(error, SpecdefError)
        return str(error)

    def written(name: str, images: Any, labels: list[int]) -> str:
        np.savez(tmp_path / name, images=images, labels=labels)
        return f"images:{tmp_path / name}"

    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 8), dtype=np.uint8)
    (tmp_path / "bad.npz").write_bytes(b"PK")
    assert "`path` must be a readable npz file" in said("--task", f"images:{tmp_path / 'bad.npz'}")
    large = written("large.npz", pixels.repeat(2, 1), [0, 1] * 4)
    assert "`task` must have images of at most 8 x 8 pixels" in said("--task", large)
    beyond = written("beyond.npz", np.concatenate([pixels, pixels + 1]), [*range(8), *range(8)])
    assert "`task` must have labels that the model has, from 0 to 6" in said("--task", beyond)
    assert "`task` must be one for a model of kind image-classifier (images, unlearned-class); got facts" in said(
        "--task", "facts"
    )


def test_the_way_back_is_to_the_byte(vit: Folders, tmp_path: Path) -> None:
    assert verify(vit.locked, original=vit.original).passed
    unlock(vit.locked, tmp_path / "back")
    for path in vit.original.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()
