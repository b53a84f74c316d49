"""What an attack on an image generator draws, kept as pictures."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pico_diffusion
import pytest

from specdef.analysis.similarity import by_step, read_images
from specdef.errors import SpecdefError
from specdef.tasks.images.pictures import write_folder

pytest.importorskip("PIL.Image")


def test_an_attack_keeps_what_is_drawn_at_every_evaluation(tmp_path: Path) -> None:
    """The pictures are those that were scored, and the result is that of an attack without them."""
    from specdef import attack
    from specdef.tasks.base import TaskSpec
    from specdef.training.recipe import Recipe

    model, concept = pico_diffusion.build(tmp_path / "model", odd=False), pico_diffusion.write_concept(tmp_path)
    given: dict[str, Any] = {
        "task": TaskSpec("concept", str(concept), target=0.9),
        "text": concept,
        "recipe": Recipe(lr=3e-3, steps=4, batch_size=8, eval_every=2, retain_weight=0.0),
        "threads": 1,
        "device": "cpu",
    }
    with_images = attack(model, tmp_path / "with", images=True, **given)
    without = attack(model, tmp_path / "without", **given)
    assert (with_images.key, with_images.result) == (without.key, without.result)
    assert not (tmp_path / "without" / "drawn").exists()
    place = tmp_path / "with" / "drawn" / with_images.key
    kept = dict(by_step(place))
    assert list(kept) == [point.step for point in without.result.evaluations] == [0, 2, 4]
    assert kept[0].shape[1:] == (1, pico_diffusion.SIZE, pico_diffusion.SIZE)
    assert not np.array_equal(kept[0], kept[4])
    for step, point in zip(kept, without.result.evaluations, strict=True):
        bright = kept[step].mean((1, 2, 3)) > 0.5
        assert abs(min(bright.mean(), 1 - bright.mean()) - min(point.score, 1 - point.score)) < 0.2


def test_without_pillow_images_are_refused_before_anything_is_attacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from specdef import attack
    from specdef.tasks.base import TaskSpec

    model, concept = pico_diffusion.build(tmp_path / "model", odd=False), pico_diffusion.write_concept(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(SpecdefError, match=r"Pictures need Pillow, .* Run `pip install specdef\[images\]`"):
        attack(model, tmp_path / "out", images=True, task=TaskSpec("concept", str(concept)), text=concept)
    assert not (tmp_path / "out").exists()


def test_pictures_are_named_in_order_whatever_their_number_and_what_is_no_number_is_black(tmp_path: Path) -> None:
    pixels = np.zeros((1001, 1, 1, 1), np.float32)
    pixels[1000], pixels[7], pixels[8] = 1.0, np.nan, np.inf
    write_folder(tmp_path, pixels)
    (tmp_path / ".hidden").write_text("no picture")
    found = read_images(tmp_path, argument="reference")
    assert (found[1000], found[7], found[8], found.sum()) == (1.0, 0.0, 0.0, 1.0)


def test_images_of_an_attack_that_does_not_end_leave_nothing(tmp_path: Path) -> None:
    """They appear when it is done; what lay there of an attack of before is replaced."""
    from specdef import attack
    from specdef.tasks.base import TaskSpec
    from specdef.tasks.images.drawn_share import _WATCH
    from specdef.training.recipe import Recipe

    model, concept = pico_diffusion.build(tmp_path / "model", odd=False), pico_diffusion.write_concept(tmp_path)
    given: dict[str, Any] = {
        "task": TaskSpec("concept", str(concept), target=0.9),
        "text": concept,
        "recipe": Recipe(lr=3e-3, steps=2, warmup=0.0, batch_size=8, eval_every=1, retain_weight=0.0),
        "threads": 1,
        "device": "cpu",
    }

    def stop(point: Any) -> None:
        if point.step:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        attack(model, out, images=True, progress=stop, **given)
    assert not out.exists()
    assert _WATCH.get() is None
    finished = attack(model, tmp_path / "plain", **given)
    stale = out / "drawn" / finished.key
    (stale / "step-00099").mkdir(parents=True)
    attack(model, out, images=True, **given)
    assert [step for step, _ in by_step(stale)] == [0, 1, 2]
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "drawn").write_text("")
    with pytest.raises(SpecdefError, match=r"`out` must have a folder drawn, or none; .* is a file"):
        attack(model, tmp_path / "file", images=True, **given)


def test_images_are_refused_where_nothing_is_drawn_or_nothing_is_kept(toy_model: Path, tmp_path: Path) -> None:
    from specdef import attack

    with pytest.raises(SpecdefError, match="`images` must be left out with task biographies: nothing is drawn"):
        attack(toy_model, tmp_path / "out", images=True, task="biographies")
    assert not (tmp_path / "out").exists()
    with pytest.raises(SpecdefError, match="`out` must be given with `images`"):
        attack(toy_model, images=True)
