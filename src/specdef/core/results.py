"""How a public result shows itself: a short text, a small table in notebooks, JSON data, a data frame.

A result is a frozen dataclass made with ``repr=False`` of `Result`, or of `Records` where it has rows.
"""

from __future__ import annotations

import dataclasses
import html
import math
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from specdef.core.text import shown
from specdef.errors import SpecdefError

if TYPE_CHECKING:
    import pandas

LINES, WIDTH = 20, 120
"""A result's text is at most so many lines of at most so many characters."""
FEW = 6
"""Values of a list or mapping that are written out; of more, only the number is."""


class Result:
    """A public result: everything in it is for people to see, but what `secret` names.

    Attributes:
        secret: fields that neither a text, a table nor JSON data ever shows: keys and original weights.
    """

    secret: ClassVar[frozenset[str]] = frozenset()

    def summary(self) -> dict[str, str]:
        """Name -> value in words, in the order they are shown; a result may say it better than its fields do."""
        assert dataclasses.is_dataclass(self)
        names = [field.name for field in dataclasses.fields(self) if field.name not in self.secret]
        return {name.replace("_", " "): brief(getattr(self, name)) for name in names}

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON data: paths as texts, a number that is not finite as None, no secret."""
        data = json_data(self)
        assert isinstance(data, dict)
        return data

    def __repr__(self) -> str:
        return "\n".join([type(self).__name__, *_lines(self.summary())])

    def _repr_html_(self) -> str:
        """A table of the summary, as notebooks show it."""
        rows = "".join(
            f'<tr><th style="text-align:left">{html.escape(shown(name))}</th>'
            f'<td style="text-align:left">{html.escape(_cut(shown(value), 2 * WIDTH))}</td></tr>'
            for name, value in _few(self.summary()).items()
        )
        caption = f'<caption style="text-align:left">{html.escape(type(self).__name__)}</caption>'
        return f"<table>{caption}<tbody>{rows}</tbody></table>"


class Records(Result):
    """A result that has rows: cells, evaluations, checks."""

    def records(self) -> list[dict[str, Any]]:
        """A dictionary a row; all have the same names."""
        raise NotImplementedError

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a data frame.

        Raises:
            SpecdefError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise SpecdefError("`to_pandas` needs the package pandas. Run `pip install pandas`.") from error
        return pandas.DataFrame(self.records())


def brief(value: Any) -> str:
    """A value in a few words: four digits of a number, of a long list or a nested mapping only how much it holds.

    Example:
        >>> brief(0.123456), brief(None), brief(("a", "b")), brief(range(9)), brief({"norm": 2, "vo": 1})
        ('0.1235', '-', 'a, b', '9 values', 'norm 2, vo 1')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, str | PurePath):
        return shown(value)
    if isinstance(value, Result):
        return "; ".join(f"{name} {inner}" for name, inner in value.summary().items())
    if isinstance(value, Mapping):
        texts = [f"{name} {brief(inner)}" for name, inner in value.items()]
        return _written(texts, list(value.values()), "entry", "entries")
    if isinstance(value, Sequence):
        return _written([brief(inner) for inner in value], value, "value", "values")
    return shown(type(value).__name__)


def json_data(value: Any) -> Any:
    """A value as JSON data: dataclasses and structs as objects, without what is secret in them."""
    if isinstance(value, Enum):
        return json_data(value.value)
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): json_data(inner) for name, inner in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        secret: frozenset[str] = getattr(value, "secret", frozenset())
        names = [field.name for field in dataclasses.fields(value) if field.name not in secret]
        return {name: json_data(getattr(value, name)) for name in names}
    if isinstance(value, list | tuple):
        return [json_data(inner) for inner in value]
    if hasattr(value, "__struct_fields__"):
        from specdef.core.schema import plain

        return json_data(plain(value))
    return str(value)


def _written(texts: list[str], values: Sequence[Any], one: str, many: str) -> str:
    nested = any(isinstance(inner, Mapping | list | tuple) or dataclasses.is_dataclass(inner) for inner in values)
    if nested or len(texts) > FEW:
        return f"{len(texts):,} {one if len(texts) == 1 else many}"
    return ", ".join(texts) or "none"


def _lines(summary: Mapping[str, str]) -> list[str]:
    few = _few(summary)
    column = max(map(len, few), default=0)
    return [_cut(f"  {shown(name):<{column}}  {shown(value)}".rstrip(), WIDTH) for name, value in few.items()]


def _few(summary: Mapping[str, str]) -> dict[str, str]:
    most = LINES - 1
    if len(summary) <= most:
        return dict(summary)
    kept = list(summary.items())[: most - 1]
    return {**dict(kept), "...": f"{len(summary) - len(kept)} more; see to_dict()"}


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "\N{HORIZONTAL ELLIPSIS}"
