"""The images that a pipeline draws at every evaluation of an attack, kept for people and for other measures."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from specdef.core.folders import new_folder
from specdef.errors import SpecdefError
from specdef.tasks.base import Task
from specdef.tasks.images.drawn_share import DrawnShare, watching
from specdef.tasks.images.pictures import pillow, write_folder
from specdef.training.outcome import Evaluation

if TYPE_CHECKING:
    from torch import Tensor

DRAWN = "drawn"
"""The folder beside the results: of every attack a folder, of every evaluation a folder ``step-00080``."""


def refuse_images(task: Task) -> None:
    """Raise SpecdefError unless scoring a task draws images, and Pillow is there to write them."""
    if not isinstance(task.metric, DrawnShare):
        raise SpecdefError(f"`images` must be left out with task {task.name}: nothing is drawn to score it.")
    pillow()


@contextmanager
def images_kept(folder: Path | None) -> Iterator[Callable[[Evaluation], None]]:
    """Yield what writes the images of an evaluation, called after it.

    Args:
        folder: of this attack; what an attack of before that did not end left there is removed. None keeps nothing.
    """
    if folder is None:
        yield lambda point: None
        return
    shutil.rmtree(folder, ignore_errors=True)
    last: list[Tensor] = []

    def see(images: Tensor) -> None:
        last[:] = [images]

    def write(point: Evaluation) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with new_folder(folder / f"step-{point.step:05d}") as unfinished:
            write_folder(unfinished, last[0].numpy())

    with watching(see):
        yield write
