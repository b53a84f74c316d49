"""What a certificate says in plain language: the least favourable reading first, and what it says nothing about."""

from __future__ import annotations

import re
import shlex
import unicodedata
from collections.abc import Mapping
from typing import Any

from specdef.certify.threat_model import THREATS
from specdef.certify.verdict_kinds import (
    Held,
    NotMeasured,
    Slowed,
    Verdict,
    holds,
    is_open,
    is_outright,
    verdict_from_wire,
)
from specdef.report.entries import LOST_ALL, LOST_SOME, REGAINED, UNLOCKED, number, power, rate, spread
from specdef.training.outcome import Outcome

LEGEND = (
    "Entries: steps to the target, mean ± standard deviation over the seeds that reached it, and in parentheses the "
    "best score within the utility budget, mean over seeds. Without ±: one seed. — target not reached within the "
    f"budget. {LOST_SOME} utility was lost in at least one seed, {LOST_ALL} in all. {REGAINED} utility was lost and "
    "regained in at least one seed. Invalid and crashed cells count for nothing. An empty entry was not tried."
)


def meaning(name: str) -> str:
    """What a part of a certificate is about: the undefended model, or what a threat model tries."""
    if name == UNLOCKED:
        return "the undefended model"
    return THREATS.get(name).title if name in THREATS else name


def verdict_of(entry: Mapping[str, Any]) -> Verdict:
    """The verdict of one threat model's entry."""
    return verdict_from_wire(entry["verdict"])


def headline(certificate: Mapping[str, Any]) -> str:
    """The verdict in one or two sentences."""
    models = certificate["threat_models"]
    if certificate["subject"]["digest"] == certificate["original"]["digest"]:
        return f"This model carries no lock: it is the undefended model itself.{_unlocked_cost(certificate)}"
    opened = [name for name, entry in models.items() if is_open(verdict_of(entry))]
    if opened:
        return f"This lock does NOT hold: {_opened(certificate, opened[0])}"
    held = [name for name, entry in models.items() if holds(verdict_of(entry))]
    missing = [name for name in THREATS.names() if name not in held]
    if not held:
        return "Nothing can be said about this lock: no cell that counts was measured."
    others = (
        f"threat models {listed(missing)}, " if len(missing) > 1 else f"threat model {missing[0]}, " if missing else ""
    )
    return (
        f"Held under {listed(held)} within {certificate['recipe']['steps']} steps; that says nothing about {others}"
        "longer training, or anything else under “What was not tried”."
    )


def _opened(certificate: Mapping[str, Any], name: str) -> str:
    entry = certificate["threat_models"][name]
    unlocked = certificate[UNLOCKED]["steps"]
    cost = f"; the undefended model needs {number(unlocked)}" if unlocked is not None else ""
    sentence = (
        f"under {name} ({meaning(name)}), {attack(entry)} reaches the target within the utility budget "
        f"after {number(entry['steps'])} steps{cost}."
    )
    verdict = verdict_of(entry)
    if isinstance(verdict, Slowed):
        sentence += f" The attack is slowed (x{verdict.factor:.1f}), not prevented."
        models = certificate["threat_models"]
        outright = next((other for other, found in models.items() if is_outright(verdict_of(found))), None)
        if outright is not None:
            steps = number(models[outright]["steps"])
            sentence += f" Under {outright} it is not even slowed: {attack(models[outright])} needs {steps} steps."
    return sentence


def _unlocked_cost(certificate: Mapping[str, Any]) -> str:
    steps = certificate[UNLOCKED]["steps"]
    return "" if steps is None else f" Fine-tuning reaches the target after {number(steps)} steps."


def verdict_sentences(certificate: Mapping[str, Any], name: str) -> str:
    """What one threat model came to, in words."""
    entry = certificate["threat_models"][name]
    verdict, steps = verdict_of(entry), certificate["recipe"]["steps"]
    worst = f"The most successful attack, {attack(entry)} (cell {entry['cell']}),"
    said = [f"{name}, {meaning(name)}: {entry['verdict']}"]
    if is_open(verdict):
        said[0] += "."
        said.append(
            f"{worst} reached the target with {entry['seeds_broken']} of "
            f"{entry['seeds']} seeds after {steps_text(entry)} steps and {seconds(entry['seconds'])} of training."
        )
    elif isinstance(verdict, Held):
        said[0] += f" within {steps} steps."
        said.append(
            f"{worst} scored {number(entry['score'])} within the utility budget; "
            f"the target is {number(certificate['task']['target'])}."
        )
        if verdict.by is Outcome.COLLAPSE:
            said.append("It ended with the model's utility lost: whoever takes smaller steps may fare better.")
        else:
            said.append("It kept the model's utility and was still below the target: more steps may reach it.")
    else:
        said[0] += ". No cell that counts was measured, which says nothing about the lock."
    if entry["diverged"] != "none":
        regained = f", and regained in {entry['recovered']}" if entry["recovered"] else ""
        said.append(
            f"Utility was lost at some evaluation in {entry['diverged']} of its {entry['seeds']} seeds{regained}."
        )
    if entry["num_invalid"]:
        said.append(f"{entry['num_invalid']} of {entry['num_cells']} cells count for nothing (invalid or crashed).")
    return plain(" ".join(said))


def verdict_rows(certificate: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """The verdict table below `VERDICT_COLUMNS`: the undefended model first, then the threat models."""
    unlocked = certificate[UNLOCKED]
    said = "reaches the target" if is_open(verdict_of(unlocked)) else unlocked["verdict"]
    rows = [_verdict_row("undefended model", unlocked, said)]
    return rows + [_verdict_row(name, entry, entry["verdict"]) for name, entry in certificate["threat_models"].items()]


VERDICT_COLUMNS = (
    "threat model",
    "verdict",
    "worst cell",
    "steps",
    "best score within the budget",
    "utility (perplexity ratio)",
    "training",
)


def _verdict_row(name: str, entry: Mapping[str, Any], said: str) -> tuple[str, ...]:
    def shown(value: float | None) -> str:
        return "—" if value is None else number(value)

    steps = "—"
    if entry["steps"] is not None:
        steps = f"{steps_text(entry)} ({entry['seeds_broken']}/{entry['seeds']} seeds)"
    elif not isinstance(verdict_of(entry), NotMeasured):
        steps = f"not reached (0/{entry['seeds']} seeds)"
    return (
        name,
        plain(said),
        attack(entry) if entry["worst_cell"] else "—",
        steps,
        shown(entry["score"]),
        shown(entry["utility"]),
        seconds(entry["seconds"]),
    )


def attack(entry: Mapping[str, Any]) -> str:
    """The worst cell in words."""
    return shortened(label(entry["worst_cell"] or "no attack"))


def label(text: str) -> str:
    """An attack's label with its learning rate written as everywhere in a report.

    >>> label("adamw, lr 3e-05, no clipping")
    'adamw, lr 3e-5, no clipping'
    """
    written = r", lr (\d+(?:\.\d+)?(?:e[+-]\d+)?)(?=,|$)"
    return plain(re.sub(written, lambda found: f", lr {rate(float(found[1]))}", text, count=1))


def steps_text(entry: Mapping[str, Any]) -> str:
    """Mean steps, with the deviation when there is more than one seed."""
    return spread(entry["steps"], entry["steps_std"], entry["seeds_broken"])


def not_tried(certificate: Mapping[str, Any]) -> list[str]:
    """Everything that was left out, threat model by threat model."""
    lines: dict[tuple[str, str], list[str]] = {}
    for name, entry in certificate["threat_models"].items():
        for said in entry["not_tried"]:
            what, _, why = said.rpartition(": ")
            lines.setdefault((name, why if what else ""), []).append(what or why)
    inside = [f"{name}: {', '.join(what)}" + (f" ({why})" if why else "") for (name, why), what in lines.items()]
    return [plain(what) for what in (*inside, *certificate["not_tried"])]


def command(certificate: Mapping[str, Any]) -> str | None:
    """The command that wrote the certificate, when it was recorded."""
    found = certificate.get("command")
    if isinstance(found, list):
        return plain(shlex.join(map(str, found)))
    return plain(found) if found else None


def recipe_text(certificate: Mapping[str, Any]) -> str:
    """The ordinary recipe in one line; attacks are named by their difference from it."""
    parts = [
        f"{key.replace('_', ' ')} {'none' if value is None else value}" for key, value in certificate["recipe"].items()
    ]
    return plain(", ".join(part for part in parts if not part.startswith(("lr ", "seed "))))


def provenance(certificate: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was measured, where and with what."""
    task, utility, where = certificate["task"], certificate["utility"], certificate["environment"]
    subject, original = certificate["subject"], certificate["original"]
    libraries = ", ".join(f"{name} {version}" for name, version in (where.get("libraries") or {}).items())
    reference = utility.get("reference_perplexity")
    pairs = [
        ("model", subject["name"]),
        ("model digest", subject["digest"]),
        ("lock", f"{subject['method']}, multiplier {power(certificate['multiplier'])}"),
        ("undefended model", f"{original['name']}"),
        ("its digest", original["digest"]),
        ("task", f"{task['name']}, {task.get('samples', '?')} samples"),
        ("task digest", task["digest"]),
        ("target, chance", f"{number(task['target'])}, {number(task['chance'])}"),
        ("utility budget", f"perplexity of general text at most {number(utility['factor'])} times that at step 0"),
        ("undefended perplexity", "not measured" if reference is None else number(reference)),
        ("general text digest", utility["text_digest"]),
        ("ordinary recipe", recipe_text(certificate)),
        (
            "working learning rates",
            listed([rate(lr) for lr in certificate[UNLOCKED]["working_learning_rates"]]) or "none",
        ),
        ("seeds", listed([str(seed) for seed in certificate["seeds"]])),
        ("commit", where.get("commit") or "not recorded"),
        ("hardware", where.get("hardware") or "not recorded"),
        ("threads per cell", where.get("threads_per_cell") or "not recorded"),
        ("Python", where.get("python") or "not recorded"),
        ("libraries", libraries or "not recorded"),
        ("time", f"{seconds(certificate['seconds'])}; the cells took {seconds(certificate['cell_seconds'])} in all"),
    ]
    return [(label, plain(value)) for label, value in pairs]


def listed(names: list[str]) -> str:
    """Names as a sentence has them.

    >>> listed(["T0"]), listed(["T0", "T1", "T2"])
    ('T0', 'T0, T1 and T2')
    """
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def seconds(value: float | None) -> str:
    """A duration.

    >>> seconds(None), seconds(3.25), seconds(61.7), seconds(4000)
    ('—', '3.2 s', '62 s', '67 min')
    """
    if value is None:
        return "—"
    return f"{value:.1f} s" if value < 10 else f"{value:.0f} s" if value < 600 else f"{value / 60:.0f} min"


def shortened(text: str, most: int = 72) -> str:
    """A long text with its middle left out."""
    half = (most - 3) // 2
    return text if len(text) <= most else f"{text[:half]} … {text[-half:]}"


def plain(value: object) -> str:
    """Text on one line without control characters, direction marks or anything that cannot be written as UTF-8."""
    text = " ".join(str(value).split())
    return "".join("\N{REPLACEMENT CHARACTER}" if unicodedata.category(c) in ("Cc", "Cf", "Cs") else c for c in text)
