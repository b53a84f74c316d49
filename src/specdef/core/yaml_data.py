"""YAML as data: what JSON can say and no more, in the spelling of YAML 1.2."""

from __future__ import annotations

import re
from typing import Any, ClassVar

import yaml

MAX_BYTES = 1 << 20
_FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
_INT = re.compile(r"^[-+]?[0-9]+$")


class YamlError(ValueError):
    """Text that is no YAML of this kind; the sentence says where."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """`1e-4` is a number, `on` and `2020-01-01` are texts; no anchors, no name twice."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise YamlError(f"line {event.start_mark.line + 1}: anchors and aliases are not read; write it out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            line = key.start_mark.line + 1
            name = self.construct_object(key, deep=True)
            if not isinstance(name, str):
                raise YamlError(f"line {line}: names must be texts; got {name!r}")
            if name in seen:
                raise YamlError(f"line {line}: {name} stands there twice")
            seen.add(name)
        return dict(super().construct_mapping(node, deep))


_TAG = "tag:yaml.org,2002:"
_KINDS = ("null", "bool", "int", "float", "str", "seq", "map")
_Loader.yaml_constructors = {
    tag: make for tag, make in yaml.SafeLoader.yaml_constructors.items() if tag in {*(_TAG + k for k in _KINDS), None}
}
_Loader.add_implicit_resolver(_TAG + "bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver(_TAG + "null", re.compile(r"^(?:~|null|Null|)$"), ["~", "n", "N", ""])
_Loader.add_implicit_resolver(_TAG + "int", _INT, list("-+0123456789"))
_Loader.add_implicit_resolver(_TAG + "float", _FLOAT, list("-+.0123456789"))
_Loader.add_constructor(_TAG + "int", lambda loader, node: int(node.value))
_Loader.add_constructor(_TAG + "float", lambda loader, node: float(node.value))


def parse_yaml(data: bytes) -> Any:
    """YAML text as JSON data.

    Raises:
        YamlError: too large, not UTF-8, not YAML, or more than JSON could say.

    Example:
        >>> parse_yaml(b"lr: [3e-8, 2^20, on]")
        {'lr': [3e-08, '2^20', 'on']}
    """
    if len(data) > MAX_BYTES:
        raise YamlError(f"it has {len(data)} bytes; the most is {MAX_BYTES}")
    try:
        return yaml.load(data.decode("utf-8"), Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        line = "" if error.problem_mark is None else f"line {error.problem_mark.line + 1}: "
        raise YamlError(f"{line}{error.problem}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        if isinstance(error, YamlError):
            raise
        raise YamlError((str(error).splitlines() or [type(error).__name__])[0]) from error
