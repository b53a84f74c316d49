"""YAML as data: YAML 1.2's spelling, JSON's kinds of values, and no more."""

from __future__ import annotations

import pytest

from specdef.core.yaml_data import MAX_BYTES, YamlError, parse_yaml


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("3E+2", 300.0),
        (".5", 0.5),
        ("-2.", -2.0),
        ("10", 10),
        ("true", True),
        ("~", None),
        ("", None),
        ("null", None),
        ("on", "on"),
        ("no", "no"),
        ("none", "none"),
        ("2^20", "2^20"),
        ("2020-01-01", "2020-01-01"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("12:30", "12:30"),
        ("'1'", "1"),
    ],
)
def test_a_value_is_what_yaml_1_2_says(text: str, value: object) -> None:
    found = parse_yaml(f"a: {text}\n".encode())["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"a: &x [1]\nb: *x", "line 1: anchors and aliases are not read; write it out"),
        (b"a: 1\nb: 2\na: 3", "line 3: a stands there twice"),
        (b"1: 2", "line 1: names must be texts; got 1"),
        (b"? [a]\n: 1", "line 1: names must be texts"),
        (b"a: [1", "line 1: "),
        (b"a: 1\n b: 2", "line 2: "),
        (b"\xff", "utf-8"),
        (b"a: \0", "character"),
        (b"a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        (b"!!set {a}", "could not determine a constructor"),
        (b"--- 1\n--- 2\n", "line 2: "),
        (b"[" * 100_000, "recursion"),
        (b"a: " + b"9" * 5000, "digits"),
        (b"a" * (MAX_BYTES + 1), "the most is"),
    ],
)
def test_anything_else_is_refused_in_one_line(data: bytes, fault: str) -> None:
    with pytest.raises(YamlError, match=fault) as raised:
        parse_yaml(data)
    assert "\n" not in str(raised.value)
