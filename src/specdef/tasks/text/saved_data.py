"""Rows of a data set that Hugging Face `datasets` saved. The one file that imports datasets."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from specdef.errors import TaskError


def saved_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a folder that ``save_to_disk`` wrote: one split.

    Raises:
        TaskError: `datasets` is not installed, or the folder holds no data set, or several splits.
    """
    splits = sorted(found.parent.name for found in folder.glob("*/state.json"))
    if splits:
        raise TaskError(
            f"`path` must be one split of a data set; {folder} has {', '.join(splits)}. Give {folder}/NAME."
        )
    if not (folder / "state.json").is_file():
        raise TaskError(
            f"`path` must be a file, or a folder that `save_to_disk` of Hugging Face datasets wrote; {folder} is none."
        )
    if importlib.util.find_spec("datasets") is None:
        raise TaskError("Folders of Hugging Face datasets need `datasets`. Run `pip install datasets`.")
    from datasets import load_from_disk

    try:
        return [dict(row) for row in load_from_disk(str(folder))]
    except Exception as error:  # whatever a stranger's folder makes it raise
        raise TaskError(
            f"`path` must be a data set that can be read; {folder} cannot ({type(error).__name__}: {error})."
        ) from error
