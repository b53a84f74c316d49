"""What was measured, where and with what."""

from __future__ import annotations

from specdef.certify.certificate import Certificate
from specdef.core.text import rate
from specdef.report import phrases
from specdef.report.form import listed, number, plain, power, seconds

UNKNOWN = "not recorded"


def recipe_text(certificate: Certificate) -> str:
    """The ordinary recipe in one line; attacks are named by their difference from it."""
    shown = {name: value for name, value in certificate.recipe.items() if name not in ("lr", "seed")}
    return plain(
        ", ".join(f"{name.replace('_', ' ')} {'none' if value is None else value}" for name, value in shown.items())
    )


def provenance(certificate: Certificate) -> list[tuple[str, str]]:
    """Names and values, as a table has them."""
    task, utility, where = certificate.task, certificate.utility, certificate.environment
    pairs = [
        ("model", certificate.subject.name),
        ("model digest", certificate.subject.digest),
        ("lock", f"{certificate.subject.method}, multiplier {power(certificate.multiplier)}"),
        ("undefended model", certificate.original.name),
        ("its digest", certificate.original.digest),
        ("task", f"{task.name}, {'?' if task.samples is None else task.samples} samples"),
        ("task digest", task.digest),
        ("target, chance", f"{number(task.target)}, {number(task.chance)}"),
        ("task controls", "; ".join(map(phrases.control, certificate.controls)) or "none"),
        ("utility budget", phrases.budget(utility)),
        ("general text digest", utility.text_digest),
        ("ordinary recipe", recipe_text(certificate)),
        ("working learning rates", listed([rate(lr) for lr in certificate.unlocked.working_learning_rates]) or "none"),
        ("seeds", listed([str(seed) for seed in certificate.seeds])),
        ("commit", where.commit or UNKNOWN),
        ("hardware", where.hardware or UNKNOWN),
        ("threads per cell", where.threads_per_cell or UNKNOWN),
        ("Python", where.python or UNKNOWN),
        ("libraries", ", ".join(f"{name} {version}" for name, version in where.libraries.items()) or UNKNOWN),
        ("time", f"{seconds(certificate.seconds)}; the cells took {seconds(certificate.cell_seconds)} in all"),
    ]
    return [(name, plain(value)) for name, value in pairs]
