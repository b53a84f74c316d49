"""Certificates that exist: reading them, and telling them in Markdown and in the terminal."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from specdef.certify.certificate import CERTIFICATE
from specdef.certify.result import StoredCell, cell_from_wire
from specdef.certify.verdict_kinds import holds, is_open
from specdef.core.schema import SchemaError
from specdef.errors import SpecdefError
from specdef.report.entries import UNLOCKED, PaperTable, ordinary_attack, paper_tables, rate
from specdef.report.outside import OUTSIDE, outside_budget
from specdef.report.sentences import (
    LEGEND,
    VERDICT_COLUMNS,
    command,
    headline,
    meaning,
    not_tried,
    plain,
    provenance,
    shortened,
    verdict_of,
    verdict_rows,
    verdict_sentences,
)
from specdef.training.outcome import Outcome

VERSION = 1
_NUMBER, _MAYBE = (int, float), (int, float, type(None))
_TEXT = (str, type(None))
_VERDICT = {
    "verdict": str,
    "worst_cell": _TEXT,
    "cell": _TEXT,
    "steps": _MAYBE,
    "steps_std": _MAYBE,
    "score": _MAYBE,
    "utility": _MAYBE,
    "seconds": _MAYBE,
    "seeds": int,
    "seeds_broken": int,
    "diverged": str,
    "recovered": int,
    "num_cells": int,
    "num_invalid": int,
    "not_tried": [str],
}
_ROW = {
    "threat_model": str,
    "cell": str,
    "attack": str,
    "lr": _NUMBER,
    "seed": int,
    "outcome": str,
    "step": (int, type(None)),
    "best_score": _MAYBE,
    "diverged_at": (int, type(None)),
    "recovered": bool,
    "note": str,
}
_SHAPE = {
    "subject": {"name": str, "digest": str, "method": str},
    "multiplier": _NUMBER,
    "original": {"name": str, "digest": str},
    "task": {"name": str, "digest": str, "target": _NUMBER, "chance": _NUMBER},
    "utility": {"text_digest": str, "factor": _NUMBER, "reference_perplexity": _MAYBE},
    "recipe": {"steps": int, "optimizer": str},
    UNLOCKED: {"working_learning_rates": [_NUMBER], **_VERDICT},
    "threat_models": dict,
    "cells": [_ROW],
    "not_tried": [str],
    "seeds": [int],
    "environment": {"libraries": dict},
    "seconds": _NUMBER,
    "cell_seconds": _NUMBER,
}


def read_certificate(folder: Path) -> dict[str, Any]:
    """The certificate in a results folder.

    Raises:
        SpecdefError: there is none, it cannot be read, or it is of another version.
    """
    path = folder / CERTIFICATE
    if not path.is_file():
        raise SpecdefError(f"`folder` must hold {CERTIFICATE}; {folder} has none. Run `specdef certify` first.")
    content = _read_json(path)
    version = content.get("specdef_certificate")
    if version != VERSION:
        found = "no version" if version is None else f"version {version!r}"
        raise SpecdefError(
            f"`folder` must hold a specdef certificate of version {VERSION}; got {found}. "
            "Use the specdef that wrote it, or certify again."
        )
    _require(content, _SHAPE, "")
    for name, entry in content["threat_models"].items():
        _require(entry, _VERDICT, f"threat_models.{name}.")
    _require_meaning(content)
    return content


def _require_meaning(content: Mapping[str, Any]) -> None:
    """Raise SpecdefError for values of the right type that say nothing."""
    try:
        ordinary_attack(content)
    except (TypeError, ValueError, SpecdefError) as error:
        raise _malformed("a recipe of this version", str(error)) from error
    for name, entry in ((UNLOCKED, content[UNLOCKED]), *content["threat_models"].items()):
        try:
            verdict = verdict_of(entry)
        except SpecdefError:
            raise _malformed(f"a verdict of this version of {name}", entry["verdict"]) from None
        if is_open(verdict) and entry["steps"] is None:
            raise _malformed(f"the steps of {name}, which is {entry['verdict']}", None)
        if holds(verdict) and entry["score"] is None:
            raise _malformed(f"the score of {name}, which is {entry['verdict']}", None)
    for row in content["cells"]:
        if row["outcome"] not in [outcome.value for outcome in Outcome]:
            raise _malformed("a known outcome in every cell", row["outcome"])
        if row["outcome"] == Outcome.BROKEN.value and row["step"] is None:
            raise _malformed("the step of every broken cell", None)


def read_cells(folder: Path, certificate: Mapping[str, Any]) -> list[StoredCell]:
    """The result files of a certificate's cells, in its order; those that are gone are left out.

    Raises:
        SpecdefError: a file cannot be read or says something else than the certificate.
    """
    rows = {row["cell"]: row for row in certificate["cells"]}
    found = {path.stem: path for path in sorted((folder / "cells").glob("*.json")) if path.stem in rows}
    return [_read_cell(found[key], row) for key, row in rows.items() if key in found]


def _read_cell(path: Path, row: Mapping[str, Any]) -> StoredCell:
    try:
        cell = cell_from_wire(_read_json(path))
    except SchemaError as error:
        raise SpecdefError(
            f"`folder` must hold whole result files; {path.name} is not ({error}). Delete it and certify again."
        ) from error
    result = cell.result
    said = {
        "outcome": result.outcome.value,
        "step": result.step,
        "diverged_at": result.diverged_at,
        "recovered": result.recovered,
    }
    differing = [name for name, value in said.items() if value != row[name]]
    if differing:
        raise SpecdefError(
            f"`folder` must hold results that agree; {path.name} and {CERTIFICATE} differ in {', '.join(differing)}. "
            "Certify again; finished cells are kept."
        )
    return cell


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse_constant)
    except (OSError, ValueError, RecursionError) as error:
        raise SpecdefError(
            f"`folder` must hold readable results; {path.name} is not ({error}). Certify again into this folder."
        ) from error
    if not isinstance(data, dict):
        raise SpecdefError(
            f"`folder` must hold one JSON object in {path.name}; got {type(data).__name__}. Certify again."
        )
    return data


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _require(value: Any, shape: Any, where: str) -> None:
    """Raise SpecdefError unless JSON data has a shape: a type, a list of one shape, or required keys with shapes."""
    name = where.rstrip(".")
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise _malformed(f"an object as `{name}`", value)
        for key, inner in shape.items():
            if key not in value:
                raise _malformed(f"an entry `{where}{key}`", None)
            _require(value[key], inner, f"{where}{key}.")
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise _malformed(f"a list as `{name}`", value)
        for item in value:
            _require(item, shape[0], where)
    elif not isinstance(value, shape) or (isinstance(value, bool) and shape is not bool):
        kinds = shape if isinstance(shape, tuple) else (shape,)
        raise _malformed(f"{' or '.join(kind.__name__ for kind in kinds)} as `{name}`", value)


def _malformed(contract: str, value: object) -> SpecdefError:
    shown = "nothing" if value is None else shortened(plain(repr(value)))
    return SpecdefError(
        f"`folder` must hold a certificate with {contract}; got {shown}. Certify again; finished cells are kept."
    )


def markdown(certificate: Mapping[str, Any], cells: Sequence[StoredCell]) -> str:
    """The certificate as a Markdown document.

    Args:
        certificate: what `read_certificate` gave.
        cells: what `read_cells` gave.
    """
    name = certificate["subject"]["name"]
    numbers = {row["cell"] for row in certificate["cells"]}
    parts = [f"# Certificate: {_md(name)}", f"**{_md(headline(certificate))}**"]
    parts += ["\n".join(f"- {_md(verdict_sentences(certificate, model))}" for model in certificate["threat_models"])]
    parts += ["## Verdict", _md_table(VERDICT_COLUMNS, verdict_rows(certificate))]
    outside = outside_budget(certificate, cells)
    if outside:
        parts += ["## Target reached outside the utility budget", OUTSIDE]
        parts += ["\n".join(f"- {_md(what)}" for what in outside)]
    parts += ["## Steps to the target by learning rate", _md(LEGEND)]
    for table in paper_tables(certificate):
        parts += [f"### {_md(table_title(table))}", _md_paper(table)]
    parts += ["## What was not tried", "\n".join(f"- {_md(what)}" for what in not_tried(certificate))]
    parts += ["## How to reproduce", _md_command(certificate)]
    parts += ["## Provenance", _md_table(("what", "value"), provenance(certificate))]
    parts += [f"{len(numbers)} cells, {len(cells)} result files."]
    return "\n\n".join(filter(None, parts)) + "\n"


def table_title(table: PaperTable) -> str:
    """Heading of a paper-form table."""
    return meaning(UNLOCKED).capitalize() if table.name == UNLOCKED else f"{table.name}: {meaning(table.name)}"


def _md_paper(table: PaperTable) -> str:
    if not table.entries:
        return "No cells were run."
    rows = []
    for attack in table.attacks:
        found = [table.entries.get((attack, lr)) for lr in table.rates]
        rows.append((shortened(plain(attack)), *("" if entry is None else entry.text for entry in found)))
    return _md_table(("attack", *(f"lr {rate(lr)}" for lr in table.rates)), rows)


def _md_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *([_md(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _md_command(certificate: Mapping[str, Any]) -> str:
    found = command(certificate)
    if found is None:
        return "The command was not recorded; the recipe below and the digests decide every result."
    return f"    {found}"


def _md(text: str) -> str:
    """Text that Markdown shows as it is: names in a certificate come from whoever made the model."""
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|~#!$" else c for c in plain(text))
    return escaped.replace("&", "&amp;").replace("://", ":&#47;/").replace("www.", "www&#46;")


def verdict_table(certificate: Mapping[str, Any]) -> Table:
    """The verdict for the terminal."""
    table = Table(title=Text(headline(certificate)), title_justify="left")
    for name in VERDICT_COLUMNS:
        table.add_column(name, overflow="fold")
    opened = {name for name, entry in certificate["threat_models"].items() if is_open(verdict_of(entry))}
    for row in verdict_rows(certificate):
        style = "bold red" if row[0] in opened else ""
        table.add_row(row[0], Text(row[1], style=style), *(Text(value) for value in row[2:]))
    return table
