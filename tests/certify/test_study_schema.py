"""The schema of study files: the published one is of today, explains every name, and takes what the library takes."""

from __future__ import annotations

import json
from pathlib import Path

from specdef.certify.study_schema import SCHEMA_FILE, study_schema, write_schema
from specdef.defences.base import DEFENCES

DOCS = Path(__file__).parents[2] / "docs"


def test_the_published_schema_is_of_today() -> None:
    """After a change, write it again: see `write_schema`."""
    assert json.loads((DOCS / SCHEMA_FILE).read_text()) == study_schema()


def test_the_schema_explains_every_name() -> None:
    for kind in study_schema()["$defs"].values():
        for name, part in kind["properties"].items():
            assert part.get("description"), f"{kind['title']}.{name}"


def test_options_of_defences_are_completed(tmp_path: Path) -> None:
    write_schema(tmp_path / SCHEMA_FILE)
    entry = json.loads((tmp_path / SCHEMA_FILE).read_text())["$defs"]["DefenceEntry"]
    assert entry["properties"]["method"]["enum"] == list(DEFENCES.names())
    assert {"steps", "lr", "preset", "seed", "label"} <= set(entry["properties"])
