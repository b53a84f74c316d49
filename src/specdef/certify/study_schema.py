"""The JSON schema of study files, for editors: every name, what it is, and what it may be."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

import msgspec

from specdef.certify.study_file import PLAIN, StudyFile
from specdef.defences.base import DEFENCES

SCHEMA_FILE = "study.schema.json"


def study_schema() -> dict[str, Any]:
    """The schema; options of defences that other packages offer are in it where those are installed."""
    schema = msgspec.json.schema(StudyFile)
    kinds = schema["$defs"]
    for part in kinds.values():
        _describe(part)
    kinds["DefenceEntry"] = _defence(kinds)
    entry = {"$ref": "#/$defs/DefenceEntry"}
    kinds["StudyFile"]["properties"]["defences"]["items"] = {"anyOf": [{"const": PLAIN}, entry]}
    kinds["ModelEntry"]["properties"]["prepare"]["anyOf"][0] = entry
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "specdef study"}
    return dict(json.loads(json.dumps({**head, **schema})))


def write_schema(path: Path) -> None:
    """Publish the schema.

    ``python -c "from specdef.certify.study_schema import *; write_schema(Path('docs') / SCHEMA_FILE)"``
    """
    path.write_text(json.dumps(study_schema(), indent=1) + "\n", encoding="utf-8")


def _defence(kinds: dict[str, Any]) -> dict[str, Any]:
    """A lock or another defence; which options belong to which is said by the library, not here."""
    options: dict[str, Any] = {}
    for defence in DEFENCES:
        (made,), extra = msgspec.json.schema_components([defence.Options], ref_template="#/$defs/{name}")
        kind = extra.pop(made["$ref"].rpartition("/")[2]) if "$ref" in made else made
        kinds |= extra
        _describe(kind)
        for name, part in kind["properties"].items():
            options.setdefault(name, {key: value for key, value in part.items() if key != "default"})
    return {
        "title": "DefenceEntry",
        "description": "A lock (preset) or another defence (method), with its options.",
        "type": "object",
        "properties": {
            **options,
            "label": {"type": "string", "description": "shown in tables; name and options when left out."},
            "seed": {"type": "integer", "description": "decides the defence's draws."},
            "preset": {"type": "string", "description": "a preset, or a kind of lock by its own name."},
            "method": {"enum": [defence.name for defence in DEFENCES], "description": "another defence."},
        },
        "oneOf": [{"required": ["preset"]}, {"required": ["method"]}],
    }


def _describe(part: dict[str, Any]) -> None:
    """Say of each name what the docstring's list of attributes says of it."""
    first, _, listed = inspect.cleandoc(part.get("description", "")).partition("\n\nAttributes:\n")
    part["description"] = first
    for name, text in re.findall(r"^    (\w+): ((?:.|\n {8})+)", listed, flags=re.MULTILINE):
        if name in part["properties"]:
            part["properties"][name]["description"] = " ".join(text.split())
