"""Certificates on disk: the one reader and writer of ``certificate.json``, of both versions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from specdef.certify.certificate import VERSION, Certificate
from specdef.certify.certificate_v1 import certificate_from_v1
from specdef.certify.certified_cell import CertifiedCell
from specdef.certify.result import StoredCell, cell_from_wire, point_of
from specdef.certify.store import write_json
from specdef.certify.verdict import ThreatVerdict
from specdef.certify.verdict_kinds import holds, is_open
from specdef.core.schema import SchemaError, convert, plain, read_object
from specdef.errors import SpecdefError
from specdef.training.outcome import Outcome

CERTIFICATE, CELLS = "certificate.json", "cells"


def write_certificate(certificate: Certificate, folder: Path) -> None:
    """Write ``certificate.json``, whole or not at all.

    Raises:
        StoreError: the disk is full or the folder not writable.
    """
    write_json(folder / CERTIFICATE, certificate_to_wire(certificate))


def certificate_to_wire(certificate: Certificate) -> dict[str, Any]:
    """As JSON data."""
    return dict(plain(certificate))


def read_certificate(folder: Path | str, *, name: str = CERTIFICATE) -> Certificate:
    """The certificate in a results folder.

    Args:
        folder: holds the certificate, and the result files in ``cells``.
        name: of the certificate's file.

    Raises:
        SpecdefError: there is none, it cannot be read, or it is of another version.
    """
    path = Path(folder) / name
    if not path.is_file():
        raise SpecdefError(f"`folder` must hold {name}; {folder} has none. Run `specdef certify` first.")
    content = _read_json(path)
    version = content.get("specdef_certificate")
    try:
        if version == 1:
            found = certificate_from_v1(content, {cell.key: cell for cell in _stored(Path(folder), content)})
        elif version == VERSION:
            found = convert(content, Certificate)
        else:
            said = "no version" if version is None else f"version {version!r}"
            raise SpecdefError(
                f"`folder` must hold a specdef certificate of version 1 or {VERSION}; got {said}. "
                "Use the specdef that wrote it, or certify again."
            )
        _require_meaning(found)
    except SchemaError as error:
        raise SpecdefError(
            f"`folder` must hold a whole certificate; {name} is not ({error}). Certify again; finished cells are kept."
        ) from error
    return found


def read_cells(folder: Path | str, certificate: Certificate) -> list[StoredCell]:
    """The result files of a certificate's cells, in its order; those that are gone are left out.

    Raises:
        SpecdefError: a file cannot be read or says something else than the certificate.
    """
    rows = {row.cell: row for row in certificate.cells}
    found = {cell.key: cell for cell in _files(Path(folder), rows)}
    for key, cell in found.items():
        _require_agreement(cell, rows[key])
    return [found[key] for key in rows if key in found]


def _stored(folder: Path, content: Mapping[str, Any]) -> list[StoredCell]:
    rows = content.get("cells")
    names = [row.get("cell") for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return _files(folder, [name for name in names if isinstance(name, str)])


def _files(folder: Path, keys: Iterable[str]) -> list[StoredCell]:
    wanted = set(keys)
    return [_read_cell(path) for path in sorted((folder / CELLS).glob("*.json")) if path.stem in wanted]


def _read_cell(path: Path) -> StoredCell:
    try:
        return cell_from_wire(_read_json(path))
    except SchemaError as error:
        raise SpecdefError(
            f"`folder` must hold whole result files; {path.name} is not ({error}). Delete it and certify again."
        ) from error


def _require_agreement(cell: StoredCell, row: CertifiedCell) -> None:
    result = cell.result
    said = {
        "attack": (cell.config["attack"], row.config),
        "outcome": (result.outcome, row.outcome),
        "step": (result.step, row.step),
        "best": (None if result.best is None else point_of(result.best), row.best),
        "diverged_at": (result.diverged_at, row.diverged_at),
        "recovered": (result.recovered, row.recovered),
    }
    differing = [name for name, (one, other) in said.items() if one != other]
    if differing:
        raise SpecdefError(
            f"`folder` must hold results that agree; {cell.key}.json and {CERTIFICATE} differ in "
            f"{', '.join(differing)}. Certify again; finished cells are kept."
        )


def _require_meaning(certificate: Certificate) -> None:
    """Raise SchemaError for values of the right type that say nothing."""
    try:
        _ = (certificate.ordinary, [row.attack for row in certificate.cells])
    except SpecdefError as error:
        raise SchemaError(str(error)) from error
    for name, found in (("unlocked", certificate.unlocked), *certificate.threat_models.items()):
        _require_figures(certificate, name, found)
    for index, row in enumerate(certificate.cells):
        if row.outcome is Outcome.BROKEN and row.step is None:
            raise SchemaError(f"Expected the step of a broken cell, got `null` - at `$.cells[{index}].step`")
        if row.outcome.counts and row.best is None:
            raise SchemaError(f"Expected the best evaluation, got `null` - at `$.cells[{index}].best`")


def _require_figures(certificate: Certificate, name: str, found: ThreatVerdict) -> None:
    if is_open(found.verdict) and found.steps is None:
        raise SchemaError(f"Expected the steps of a target reached, got `null` - at `$...{name}.steps`")
    if holds(found.verdict) and found.score is None:
        raise SchemaError(f"Expected the score of what held, got `null` - at `$...{name}.score`")
    counted = is_open(found.verdict) or holds(found.verdict)
    if (counted or found.cell is not None) and found.cell not in certificate.by_key:
        raise SchemaError(f"Expected a cell of this certificate - at `$...{name}.cell`")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return read_object(path)
    except (OSError, SchemaError) as error:
        raise SpecdefError(
            f"`folder` must hold readable results; {path.name} is not ({error}). Certify again into this folder."
        ) from error
