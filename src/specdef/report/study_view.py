"""What a study's entry says in a table or picture."""

from __future__ import annotations

from collections.abc import Sequence

from specdef.certify.study_results import Entry, StudyResults, Table
from specdef.core.text import counted
from specdef.report import phrases
from specdef.report.entries import LOST_ALL, LOST_SOME
from specdef.report.kind import Kind

NOT_REACHED = "—"


def kind_of(entry: Entry) -> Kind:
    """How an entry is coloured."""
    if entry.seeds_broken and entry.seeds_recovered == entry.seeds:
        return Kind.REGAINED
    return Kind[entry.outcome.name]


def steps_text(entry: Entry) -> str:
    """``20 ± 5 (0.64)``: mean steps to the target, best score within the budget; marks where utility was lost."""
    if entry.score is None:
        return phrases.kind(kind_of(entry))
    mark = "" if not entry.seeds_diverged else LOST_ALL if entry.seeds_diverged == entry.seeds else LOST_SOME
    steps = NOT_REACHED if entry.steps is None else f"{entry.steps:.0f} ± {entry.steps_std or 0:.0f}"
    some = f", {entry.seeds_broken}/{entry.seeds}" if 0 < entry.seeds_broken < entry.seeds else ""
    return f"{steps}{some} ({entry.score:.2f}){mark}"


def price_text(entry: Entry) -> str:
    """What an attack cost: rewriting, added numbers, a step, memory; or why it does not count."""
    cost = entry.cost
    if cost.seconds_per_step is None:
        return entry.note.split("; ")[0][:80]
    parts = [] if cost.rewrite_seconds is None else [f"{cost.rewrite_seconds:.1f} s"]
    if cost.added_parameters:
        parts.append(f"{cost.added_parameters / 1e6:+.1f} M")
    parts.append(f"{cost.seconds_per_step:.2f} s/step")
    if cost.peak_memory_bytes is not None:
        parts.append(f"{cost.peak_memory_bytes / 2**30:.1f} GiB")
    return ", ".join(parts)


def legend(results: StudyResults) -> str:
    """What entries mean, in sentences."""
    text = (
        f"Entry: mean steps to the target ± std (best score within the utility budget); {NOT_REACHED} where no seed "
        f"reached it, 1/2 where one of two did. {LOST_SOME} a seed lost utility at some evaluation, {LOST_ALL} all "
        "did. "
    )
    if results.rows == "attacks":
        text += (
            "Then the cost: seconds of rewriting, parameters added (millions), seconds a training step, peak memory. "
            "Invalid: the attack does not apply, or changed the function. "
        )
    if any(row.undefended for table in results.tables for row in table.rows):
        text += "What the undefended model withstands as well says nothing about a defence. "
    text += f"{counted(results.seeds, 'seed')}, {counted(results.steps, 'step')}."
    return text + (f" Command: `{results.command}`." if results.command else "")


def table_title(table: Table) -> str:
    """What tells a table from the others of its study."""
    return f"{table.model}, task {table.task}"


def grid(table: Table, rows: str) -> tuple[list[str], list[str], list[list[Entry]]]:
    """Names of the columns, names of the rows, and the entries, row by row."""
    defences = [row.defence for row in table.rows]
    attacks = [entry.attack for entry in table.rows[0].entries]
    lines = [list(row.entries) for row in table.rows]
    return (defences, attacks, _turned(lines)) if rows == "attacks" else (attacks, defences, lines)


def _turned(lines: Sequence[Sequence[Entry]]) -> list[list[Entry]]:
    return [list(column) for column in zip(*lines, strict=True)]
