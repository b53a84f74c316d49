"""Several certificates, or folders of attacks, side by side in one page. Reads results, never changes them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from specdef.certify.certificate import Certificate
from specdef.certify.certificate_file import CERTIFICATE, read_certificate
from specdef.certify.findings import UNLOCKED
from specdef.certify.store import stored_cells
from specdef.certify.threat_model import THREATS
from specdef.certify.verdict import ThreatVerdict
from specdef.core.folders import scratch_folder
from specdef.core.text import counted, shown
from specdef.errors import SpecdefError
from specdef.report import phrases
from specdef.report.compare_runs import runs_comparison
from specdef.report.files import write_bytes
from specdef.report.form import number, seconds
from specdef.report.heatmaps import drawn_cells, heat_map, is_comparable
from specdef.report.html import document, facts, figure, grid, listing, row, section, text
from specdef.report.links import Link, run_links, to_files
from specdef.report.page import FILES, HEATMAP, picture_words
from specdef.report.provenance import provenance
from specdef.report.rates_picture import explanation, rates_picture, scale_of
from specdef.report.sentences import headline, not_tried, steps_text, worst
from specdef.report.verdict_cards import look


def write_comparison(folders: Sequence[Path | str], out: Path | str) -> Path:
    """Write one page that sets the certificates of some folders side by side, or their attacks.

    Args:
        folders: results folders, two or more, all of `specdef certify` or all of `specdef attack`.
        out: the HTML file to write.

    Returns:
        The file written, whole or not at all.

    Raises:
        SpecdefError: fewer than two folders, one twice, one without results, or certificates and attacks mixed.
    """
    places = [Path(folder) for folder in folders]
    twice = [place for index, place in enumerate(places) if place.resolve() in [p.resolve() for p in places[:index]]]
    if len(places) < 2 or twice:
        got = f"{twice[0]} twice" if twice else f"{len(places)}"
        raise SpecdefError(f"`folders` must be two results folders or more, each once; got {got}.")
    path = Path(out)
    if path.suffix != ".html":
        raise SpecdefError(f"`out` must be a file ending in .html; got {path}.")
    named = dict(zip(_names(places), places, strict=True))
    links = {name: _link(place, path.parent) for name, place in named.items()}
    if _are_attacks(places):
        content = runs_comparison({name: stored_cells(place) for name, place in named.items()}, links)
    else:
        certificates = {name: read_certificate(place) for name, place in named.items()}
        content = comparison(certificates, _pictures(certificates), links)
    write_bytes(path, content.encode())
    return path


def _are_attacks(places: Sequence[Path]) -> bool:
    """Whether the folders are of attacks, all of them."""
    certified = [place for place in places if (place / CERTIFICATE).is_file()]
    bare = [place for place in places if place not in certified and (place / "cells").is_dir()]
    if certified and bare:
        raise SpecdefError(
            f"`folders` must all hold certificates or all hold single attacks; {shown(certified[0])} holds a "
            f"certificate, {shown(bare[0])} does not. Compare them apart."
        )
    return bool(bare) and not certified


def comparison(
    certificates: Mapping[str, Certificate],
    pictures: Mapping[tuple[str, ...], bytes],
    links: Mapping[str, Link] | None = None,
) -> str:
    """The page as text.

    Args:
        certificates: name of a column -> certificate.
        pictures: names of the certificates that a heat map shows -> PNG.
        links: name of a column -> where its cells are found; nowhere when None.
    """
    differing, same = _provenance(certificates)
    links = links or dict.fromkeys(certificates, _nowhere)
    sections = [
        section("Verdicts", _verdicts(certificates)),
        section("In words", listing(f"{name}: {headline(one)}" for name, one in certificates.items())),
        section("Every run by learning rate", _rates(certificates, links)),
        section("Outcome by learning rate and multiplier", _heat_maps(certificates, pictures, links)),
        section("What was not tried", "\n".join(_not_tried(name, one) for name, one in certificates.items())),
        section("What differs", _differences(certificates, differing)),
        section("What is the same", facts(same.items(), "Of every certificate")),
    ]
    return document("Certificates side by side", _warning(differing), sections)


def _names(places: Sequence[Path]) -> list[str]:
    """The last part of every folder's path, or as much more as tells them apart."""
    for length in range(1, 1 + max(len(place.resolve().parts) for place in places)):
        names = ["/".join(place.resolve().parts[-length:]) for place in places]
        if len(set(names)) == len(names):
            break
    return names


def _link(folder: Path, page: Path) -> Link:
    """Links from a page in the folder `page` to the result files of a results folder."""
    found = folder / FILES
    seen = Path(os.path.relpath(found.resolve(), page.resolve())).as_posix()
    return to_files(seen, (path.stem for path in found.glob("*.json")))


def _nowhere(key: str) -> str | None:
    return None


def _rates(certificates: Mapping[str, Certificate], links: Mapping[str, Link]) -> str:
    scale = scale_of(certificates.values())
    drawn = (rates_picture(one, links[name], scale=scale, title=name) for name, one in certificates.items())
    return f'{explanation(certificates.values())}\n<div class="figures">{"".join(drawn)}</div>'


def _heat_maps(
    certificates: Mapping[str, Certificate], pictures: Mapping[tuple[str, ...], bytes], links: Mapping[str, Link]
) -> str:
    figures = []
    for names, png in pictures.items():
        drawn: dict[str, tuple[str | None, str]] = {}
        for name in names:
            one = certificates[name]
            drawn = run_links(one, links[name], drawn_cells(one)) | drawn
        figures.append(figure(png, ", ".join(names), picture_words(HEATMAP), list(drawn.values())))
    return "\n".join(figures)


def _not_tried(name: str, certificate: Certificate) -> str:
    return f"<h3>{text(name)}</h3>\n{listing(not_tried(certificate))}"


def _pictures(certificates: Mapping[str, Certificate]) -> dict[tuple[str, ...], bytes]:
    """One heat map for every group of certificates that can be drawn together."""
    groups: list[dict[str, Certificate]] = []
    for name, one in certificates.items():
        group = next((group for group in groups if is_comparable([*group.values(), one])), None)
        if group is None:
            groups.append(group := {})
        group[name] = one
    pictures = {}
    with scratch_folder(None) as temporary:
        for group in groups:
            heat_map(list(group.values()), temporary / HEATMAP)
            pictures[tuple(group)] = (temporary / HEATMAP).read_bytes()
    return pictures


def _verdicts(certificates: Mapping[str, Certificate]) -> str:
    known = {name for one in certificates.values() for name in one.threat_models}
    order = [*(name for name in THREATS.names() if name in known), *sorted(known - set(THREATS.names()))]
    undefended = [_cell(one, one.unlocked, "none") for one in certificates.values()]
    rows = [row(phrases.part(UNLOCKED).capitalize(), undefended)]
    for name in order:
        cells = []
        for one in certificates.values():
            found = one.threat_models.get(name)
            cells.append('<td class="none">not tried</td>' if found is None else _cell(one, found, look(found.verdict)))
        rows.append(row(f"{name}: {phrases.part(name)}", cells))
    caption = "Verdict, most successful attack and its cost"
    return grid(("threat model", *certificates), rows, caption, look="compare")


def _cell(certificate: Certificate, found: ThreatVerdict, looks: str) -> str:
    said = phrases.verdict(found.verdict) if looks != "none" or found.steps is None else "reached"
    small = []
    if found.cell is not None:
        small.append(worst(certificate, found))
    if found.steps is not None:
        small.append(
            f"{steps_text(found)} steps, {found.seeds_broken}/{counted(found.seeds, 'seed')}, {seconds(found.seconds)}"
        )
    if found.score is not None:
        sure = phrases.trusted(found, certificate.task.target)
        score = f"score {number(found.score)}, target {number(certificate.task.target)}, interval {phrases.UNKNOWN}"
        small.append(sure or score)
    notes = "".join(f"<small>{text(line)}</small>" for line in small)
    return f'<td class="{looks}">{text(said)}{notes}</td>'


def _provenance(certificates: Mapping[str, Certificate]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Names whose values differ -> one value a certificate; names whose values are the same -> the value."""
    tables = [dict(provenance(one)) for one in certificates.values()]
    differing = {name: values for name in tables[0] if len(set(values := [found[name] for found in tables])) > 1}
    return differing, {name: value for name, value in tables[0].items() if name not in differing}


def _differences(certificates: Mapping[str, Certificate], differing: Mapping[str, Sequence[str]]) -> str:
    rows = [
        row(name, (f'<td class="value">{text(value)}</td>' for value in values)) for name, values in differing.items()
    ]
    return grid(("what", *certificates), rows, "One column a certificate", look="provenance") if rows else ""


def _warning(differing: Mapping[str, object]) -> str:
    """What makes steps and scores of the certificates incomparable."""
    needed = ("its digest", "task digest", "general text digest", "ordinary recipe", "utility budget")
    names = {"its digest": "undefended model", "task digest": "task", "general text digest": "general text"}
    found = [names.get(name, name) for name in needed if name in differing]
    if not found:
        return '<p class="legend">One undefended model, task, recipe and budget: steps and scores compare directly.</p>'
    return (
        f'<p class="legend">These certificates differ in {text(", ".join(found))}: their verdicts stand beside each '
        "other, their steps and scores do not compare.</p>"
    )
