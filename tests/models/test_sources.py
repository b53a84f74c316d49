"""Where models are looked for, and whose argument is blamed."""

from __future__ import annotations

import pytest

from specdef.errors import CheckpointError
from specdef.models.sources import find_model


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("no/such/folder", "`original` must be a folder, a hub id such as org/name, or smollm2-135m; got 'no/such"),
        ("org/name", "`original` 'org/name' is no local folder and could not be fetched from the hub"),
        ("x" * 5000, "`original` must be a folder; 'xxx.* is not usable"),
    ],
)
def test_the_argument_is_named(name: str, sentence: str) -> None:
    with pytest.raises(CheckpointError, match=sentence):
        find_model(name, argument="original")
