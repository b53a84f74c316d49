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
        for base in defence.Options.__mro__:
            _describe(kind, base.__doc__ or "")
        for name, part in kind["properties"].items():
            options.setdefault(name, {key: value for key, value in part.items() if key != "default"})
    return {
        "title": "DefenceEntry",
        "description": "A lock (preset) or another defence (method), with its options; or several (chain).",
        "type": "object",
        "properties": {
            **options,
            "label": {"type": "string", "description": "shown in tables; name and options when left out."},
            "seed": {"type": "integer", "description": "decides the defence's draws."},
            "preset": {"type": "string", "description": "a preset, or a kind of lock by its own name."},
            "method": {"enum": [defence.name for defence in DEFENCES], "description": "another defence."},
            "chain": {
                "type": "array",
                "items": {"$ref": "#/$defs/DefenceEntry"},
                "description": "several defences, the next on top of the last, instead of one.",
            },
            **{name: {"type": "string", "description": text} for name, text in _DATA.items()},
        },
        "oneOf": [{"required": ["preset"]}, {"required": ["method"]}, {"required": ["chain"]}],
    }


_DATA = {
    "forget": "file of rows that a method removes; those of `task` when left out.",
    "retain": "file of rows that it keeps; general text when left out.",
    "task": "whose score says what is left of the rows.",
    "eval": "file of questions on the rows, instead of `task`.",
    "fields": "what these files call what is read, as in ``prompt=q,completion=a``.",
}


def _describe(part: dict[str, Any], docstring: str | None = None) -> None:
    """Say of each name what a docstring's list of attributes says of it; the part's own where none is given."""
    text = part.get("description", "") if docstring is None else docstring
    first, _, listed = inspect.cleandoc(text).partition("\n\nAttributes:\n")
    part["description"] = first if docstring is None else part.get("description", "").partition("\n")[0]
    for name, text in re.findall(r"^    (\w+): ((?:.|\n {8})+)", listed, flags=re.MULTILINE):
        if name in part["properties"]:
            part["properties"][name]["description"] = " ".join(text.split())
