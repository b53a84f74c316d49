"""The images that a pipeline draws at every evaluation of an attack, kept for people and for other measures."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
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
"""The folder beside the results: of every finished attack a folder, of every evaluation a folder ``step-00080``."""


def refuse_images(task: Task, out: Path) -> None:
    """Raise SpecdefError unless scoring a task draws images, and they can be written."""
    if not isinstance(task.metric, DrawnShare):
        raise SpecdefError(f"`images` must be left out with task {task.name}: nothing is drawn to score it.")
    if (place := out / DRAWN).exists() and not place.is_dir():
        raise SpecdefError(f"`out` must have a folder {DRAWN}, or none; {place} is a file. Give another folder.")
    pillow()


@contextmanager
def images_kept(folder: Path | None) -> Iterator[Callable[[Evaluation], None]]:
    """Yield what keeps the images of an evaluation, called after it; the folder appears when the attack is done.

    Args:
        folder: of this attack; one of before is replaced. None keeps nothing.
    """
    if folder is None:
        yield lambda point: None
        return
    last: list[Tensor] = []

    def see(images: Tensor) -> None:
        last[:] = [images]

    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.rmtree(folder, ignore_errors=True)
        with new_folder(folder) as unfinished, watching(see):

            def write(point: Evaluation) -> None:
                step = unfinished / f"step-{point.step:05d}"
                step.mkdir()
                write_folder(step, last[0].numpy())

            yield write
    except BaseException:
        with suppress(OSError):
            folder.parent.rmdir()  # where it holds no other attack's
        raise
