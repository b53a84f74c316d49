"""What torchvision's families share: names by a table of beginnings, and how pixels become numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

PIXELS: Mapping[str, Any] = {
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}
"""Of an image processor: the mean and spread of ImageNet."""


def renamed(name: str, table: Sequence[tuple[str, str]]) -> str:
    """The name with its beginning replaced by the first pattern of a table that fits; unchanged where none does.

    Example:
        >>> renamed("fc.bias", [(r"^fc\\.", "classifier.1.")])
        'classifier.1.bias'
    """
    for pattern, begins in table:
        found, count = re.subn(pattern, begins, name)
        if count:
            return found
    return name
