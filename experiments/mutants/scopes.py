"""The parts of the library that mutmut tries, and the tests nearest to each."""

from __future__ import annotations

from dataclasses import dataclass

SEARCH = (
    "ahead",
    "calibration",
    "certify_study",
    "rates",
    "search",
    "seeds",
    "stages",
    "sweep",
    "timed_cells",
    "trials",
)
VERIFY = ("locks/verify*.py", "models/equivalence.py", "locks/kinds/fold/check.py", "locks/kinds/inject/check.py")
KILLS = "tests/locks/test_crash.py"
"""Ends processes at many instants; mutmut counts CPU time, and another process does not hold the fault."""
IMPORTS = "tests/locks/test_deformed_linear.py::test_any_import_order_registers"
"""Starts processes, which import the library without the fault."""

FAMILIES = (
    "tests/locks/kinds/test_fold.py::test_every_family_locks_reloads_and_unlocks",
    "tests/locks/kinds/test_fold.py::test_a_wrong_pair_is_caught_by_verify",
    "tests/locks/kinds/test_inject.py::test_every_family_locks_loads_and_unlocks",
    "tests/locks/kinds/fold/test_check.py::test_several_channels_of_every_family_are_all_found",
    "tests/locks/test_in_memory.py::test_every_family_in_memory_is_the_folders",
)
"""Two minutes together, once a family."""


@dataclass(frozen=True)
class Scope:
    """One part.

    Attributes:
        files: patterns below ``src/specdef``.
        tests: paths of tests.
        but_files: patterns that another scope has.
        but_tests: tests left out, since they are slow or start processes of their own.
        sample: mutants drawn when nothing else is asked for; None means all.
        page: the page's name below ``results``.
    """

    files: tuple[str, ...]
    tests: tuple[str, ...]
    page: str
    but_files: tuple[str, ...] = ()
    but_tests: tuple[str, ...] = ()
    sample: int | None = 60


SCOPES = {
    "judge": Scope(
        files=(
            "certify/findings.py",
            "certify/statistics.py",
            "certify/verdict.py",
            "certify/verdict_kinds.py",
            "tasks/score.py",
            "training/outcome.py",
        ),
        tests=(
            "tests/certify/test_findings.py",
            "tests/certify/test_statistics.py",
            "tests/certify/test_verdict.py",
            "tests/tasks/test_score.py",
            "tests/training/test_outcome.py",
        ),
        page="mutants.md",
        sample=None,
    ),
    "search": Scope(
        files=tuple(f"certify/{name}.py" for name in SEARCH),
        tests=(
            "tests/certify/test_ahead.py",
            "tests/certify/test_minutes.py",
            "tests/certify/test_replay.py",
            "tests/certify/test_search.py",
            "tests/certify/test_seeds.py",
            "tests/certify/test_task_controls.py",
            "tests/certify/test_threat_contents.py",
            "tests/certify/test_threat_model.py",
            "tests/certify/test_threats.py",
            "tests/certify/test_timed_cells.py",
        ),
        page="mutants-search.md",
        sample=120,
    ),
    "verify": Scope(
        files=VERIFY,
        tests=(
            "tests/locks/test_honesty.py",
            "tests/locks/test_in_memory.py",
            "tests/locks/test_manifest.py",
            "tests/locks/test_verify.py",
            "tests/locks/kinds",
            "tests/models/test_equivalence.py",
        ),
        page="mutants-verify.md",
        but_tests=FAMILIES,
    ),
    "locks": Scope(
        files=("locks/*",),
        tests=("tests/locks",),
        page="mutants-locks.md",
        but_files=VERIFY,
        but_tests=(KILLS, IMPORTS, *FAMILIES, "tests/locks/kinds/fold/test_check.py"),
    ),
    "checkpoint": Scope(files=("checkpoint/*",), tests=("tests/checkpoint",), page="mutants-checkpoint.md"),
    "linalg": Scope(files=("linalg/*",), tests=("tests/linalg",), page="mutants-linalg.md"),
    "rewrites": Scope(
        files=("attacks/rewrites/*",),
        tests=("tests/attacks/test_rewrites.py", "tests/attacks/test_rewriting.py", "tests/attacks/test_anchor.py"),
        page="mutants-rewrites.md",
    ),
}
