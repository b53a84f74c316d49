"""JSON from strangers: what is refused, and that refusing it costs neither memory nor a traceback."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specdef.core.strict_json import MAX_BYTES, MAX_DEPTH, MAX_DIGITS, JsonError, parse_json, read_json

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**39), 10**39)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_all_honest_json_is_read_as_the_standard_library_reads_it(value: object) -> None:
    for ascii_only in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@given(st.binary() | st.text(st.sampled_from('{}[]",:\\u0dD8 eE+-.1naNIfity')).map(str.encode))
def test_other_bytes_are_refused_or_can_be_written_again(text: bytes) -> None:
    with contextlib.suppress(JsonError):
        json.dumps(parse_json(text), ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (b"", "is not valid JSON"),
        (b'{"a": 1,}', "is not valid JSON"),
        (b'"\xff"', "is not valid JSON"),
        (b"\xef\xbb\xbf{}", "is not valid JSON"),
        (b'{"a": 1, "b": {"x": 1, "x": 2}}', "gives the name x twice"),
        (b'{"\\u001b[2J": 1, "\\u001b[2J": 2}', r"gives the name \x1b[2J twice"),
        (b"[NaN]", "holds NaN, which is no JSON number"),
        (b"[-Infinity]", "holds -Infinity, which is no JSON number"),
        (b"1e999", "holds the number 1e999, which is too large"),
        (b"9" * 5000, "holds an integer of more than 40 digits"),
        (b"[" * 10**6, "nests deeper than 64 levels"),
        (b'{"a":' * 10**6, "nests deeper than 64 levels"),
        (b'["\\ud800"]', "holds text that is not valid Unicode"),
        (b'{"a": {"\\udfff": 1}}', "holds text that is not valid Unicode"),
    ],
)
def test_what_is_refused(text: bytes, fault: str) -> None:
    with pytest.raises(JsonError) as caught:
        parse_json(text)
    assert str(caught.value) == fault


def test_the_bounds_are_where_they_are_said_to_be() -> None:
    assert parse_json(b"[" * MAX_DEPTH + b"]" * MAX_DEPTH)
    with pytest.raises(JsonError, match="nests deeper"):
        parse_json(b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1))
    assert parse_json(b"9" * MAX_DIGITS) == 10**MAX_DIGITS - 1
    with pytest.raises(JsonError, match="digits"):
        parse_json(b"9" * (MAX_DIGITS + 1))
    assert parse_json('["\\ud83d\\ude42", "🙂"]'.encode()) == ["🙂", "🙂"], "a whole pair is fine"


def test_constants_pass_where_they_are_allowed() -> None:
    nan, infinite = parse_json(b"[NaN, -Infinity]", constants=True)
    assert math.isnan(nan)
    assert infinite == -math.inf


def test_a_file_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(3 << 30)
    with pytest.raises(JsonError, match="is larger than 64 MiB"):
        read_json(path)
    with path.open("wb") as file:
        file.write(b"{}" + b" " * (MAX_BYTES - 2))
    assert read_json(path) == {}


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(JsonError, match="is not a plain file"):
            read_json(path)
