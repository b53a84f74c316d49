"""Folders of single attacks side by side: score against step in one picture, and a row a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from specdef.certify.cell import CellConfig
from specdef.certify.result import StoredCell
from specdef.core.folders import scratch_folder
from specdef.report.html import document, figure, grid, linked, row, section, text
from specdef.report.links import Link
from specdef.report.run_table import look_of, run_texts
from specdef.report.score_picture import draw_scores

MOST = 24
"""Runs of one folder drawn in the picture."""
SHOWN = ("model", "attack", "lr", "seed", "step", "best score", "score at the end", "utility at the end", "seconds")
Folders = Mapping[str, Sequence[StoredCell]]
"""Name of a folder -> its finished attacks, oldest first."""


def runs_comparison(folders: Folders, links: Mapping[str, Link]) -> str:
    """The page as text.

    Args:
        folders: what is compared.
        links: name of a folder -> where its result files are.
    """
    with scratch_folder(None) as temporary:
        draw_scores(compared_panels(folders), temporary / "runs.png")
        picture = (temporary / "runs.png").read_bytes()
    drawn = (
        "A colour a folder. Each line is a run; the thick one is the mean over seeds. A ring marks where the target "
        "was reached within the utility budget."
    )
    sections = [
        section("Score against step", figure(picture, "Score on the task by step", drawn)),
        section("Every run", _table(folders, links)),
    ]
    return document("Attacks side by side", f'<p class="legend">{text(warning(folders))}</p>', sections)


def compared_panels(folders: Folders) -> dict[str, dict[str, list[StoredCell]]]:
    """What `draw_scores` draws: a panel for every attack that two folders share, a line for every folder.

    Where no attack is in two folders, all lines are in one panel.
    """
    measured = {name: [one for one in cells if one.result.evaluations][-MOST:] for name, cells in folders.items()}
    attacks = Counter(label for cells in measured.values() for label in {cell.attack.label for cell in cells})
    shared = any(count > 1 for count in attacks.values())
    panels: dict[str, dict[str, list[StoredCell]]] = {}
    for name, cells in measured.items():
        several = len({cell.config["model"] for cell in cells}) > 1
        for cell in cells:
            line = f"{name}: {run_texts(cell)['model']}" if several else name
            if not shared and len({one.attack.label for one in cells}) > 1:
                line += f": {cell.attack.label}"
            panels.setdefault(cell.attack.label if shared else "", {}).setdefault(line, []).append(cell)
    return panels or {"no run was measured": {}}


def warning(folders: Folders) -> str:
    """Whether scores and steps compare, in words."""
    configs = [CellConfig.from_wire(cell.config) for cells in folders.values() for cell in cells]
    targets = {cell.measured.target for cells in folders.values() for cell in cells} - {None}
    seen: dict[str, set[Any]] = {
        "task": {config.task_digest for config in configs},
        "general text": {config.text_digest for config in configs},
        "utility": {config.utility for config in configs},
        "utility budget": {config.attack.utility_factor for config in configs},
        "target": targets,
    }
    differing = [name for name, values in seen.items() if len(values) > 1]
    if not differing:
        return "One task, general text, target and utility budget: steps and scores compare directly."
    return f"These runs differ in {', '.join(differing)}: they stand beside each other, their scores do not compare."


def _table(folders: Folders, links: Mapping[str, Link]) -> str:
    rows = []
    for name, cells in folders.items():
        for cell in cells:
            found = run_texts(cell)
            outcome = linked(links[name](cell.key), found["outcome"])
            note = f"<small>{text(cell.result.note)}</small>" if cell.result.note else ""
            values = [f"<td>{text(found[column])}</td>" for column in SHOWN]
            rows.append(row(name, [f'<td class="{look_of(cell)}">{outcome}{note}</td>', *values]))
    caption = "One attack a row, folder by folder. An outcome leads to its result file."
    return grid(("folder", "outcome", *SHOWN), rows, caption, look="paper")
