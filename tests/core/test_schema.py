"""Typed data: what fits is read as its type, what does not is refused with its place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from blake3 import blake3

from specdef.core.schema import SchemaError, convert, digest, parse, plain, read, read_object


@dataclass(frozen=True)
class Inner:
    names: tuple[str, ...]
    share: float = 1.0


class Outer(msgspec.Struct, forbid_unknown_fields=True):
    inner: Inner
    count: int
    note: str | None = None


TEXT = '{"inner": {"names": ["a", "b"], "share": 2}, "count": 3}'
VALUE = Outer(Inner(("a", "b"), 2.0), 3)


def test_text_becomes_a_value_and_back() -> None:
    assert parse(TEXT, Outer) == parse(TEXT.encode(), Outer) == VALUE
    assert plain(VALUE) == {"inner": {"names": ["a", "b"], "share": 2.0}, "count": 3, "note": None}
    assert convert(plain(VALUE), Outer) == VALUE


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ('{"inner": {"names": ["a", 2]}, "count": 3}', r"Expected `str`, got `int` - at `\$.inner.names\[1\]`"),
        ('{"inner": {"names": []}, "count": "3"}', r"Expected `int`, got `str` - at `\$.count`"),
        ('{"inner": {"names": []}, "count": true}', r"Expected `int`, got `bool` - at `\$.count`"),
        ('{"inner": {"names": []}, "count": 3.0}', r"Expected `int`, got `float` - at `\$.count`"),
        ('{"inner": {"names": []}}', "missing required field `count`"),
        ('{"inner": {"names": []}, "count": 3, "\\u001b": 1}', r"unknown field `\\x1b`"),
        ("[]", "Expected `object`, got `array`"),
        ("{", "it is not valid JSON"),
        ('{"count": 3, "count": 4}', "it gives the name count twice"),
        ('{"inner": {"names": [], "share": NaN}, "count": 3}', "it holds NaN, which is no JSON number"),
        ("[" * 100_000, "it nests deeper than 64 levels"),
        ('{"note": "\ud800"}', "it is not valid JSON"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(text: str, fault: str) -> None:
    with pytest.raises(SchemaError, match=fault):
        parse(text, Outer)


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    path.write_text(TEXT)
    assert read(path, Outer) == VALUE
    assert read_object(path)["count"] == 3
    path.write_text("[1]")
    for kind in (Outer, dict[str, Any]):
        with pytest.raises(SchemaError, match="got `array`"):
            read(path, kind)
    with pytest.raises(FileNotFoundError):
        read_object(tmp_path / "none")


def test_a_digest_names_the_content_and_not_its_spelling() -> None:
    assert digest({"a": 1, "b": [1.5, None]}) == digest({"b": [1.5, None], "a": 1})
    found = {digest(value) for value in ({"a": 1}, {"a": 1.0}, {"a": "1"}, {"a": True}, {"a": None}, {"b": 1}, {})}
    assert len(found) == 7
    assert digest({"b": [1, 2], "a": "é"}) == blake3(b'{"a":"\\u00e9","b":[1,2]}').hexdigest()
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"a": math.nan})
