"""A kind's name stands in its own file only: adding, renaming or removing a kind touches nothing else."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import specdef
from specdef.attacks.base import INTERVENTIONS
from specdef.certify.threat_model import THREATS
from specdef.core.registry import Registry
from specdef.defences.base import DEFENCES
from specdef.locks.base import LOCKS
from specdef.models.base import MODEL_KINDS
from specdef.tasks.base import TASKS
from specdef.tasks.utility import UTILITIES

SOURCE = Path(specdef.__file__).parent
REGISTRIES = (LOCKS, DEFENCES, INTERVENTIONS, TASKS, THREATS, MODEL_KINDS, UTILITIES)
PRESETS = ("locks/presets.py",)
"""The files that may name kinds: what a user's word stands for."""
VERDICT_WORDS = (
    "broken",
    "held by collapse",
    "held by stall",
    "slowed",
    "undone",
    "not measured",
    "invalid",
    "crashed",
)


def _constants(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every text in a file that is no docstring."""
    tree = ast.parse(path.read_text())
    docstrings = {
        id(node.body[index].value)  # type: ignore[attr-defined]
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        for index, statement in enumerate(node.body)
        if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value


def _own_place(registry: Registry[object], name: str) -> str:
    package = registry.package.split(".", 1)[1].replace(".", "/")
    return f"{package}/{name.lower().replace('-', '_')}"


@pytest.mark.parametrize("registry", REGISTRIES, ids=lambda registry: registry.argument)
def test_no_file_names_another_files_kind(registry: Registry[object]) -> None:
    wrong = []
    for name in registry.names():
        own = _own_place(registry, name)
        for path in SOURCE.rglob("*.py"):
            file = path.relative_to(SOURCE).as_posix()
            if file in PRESETS or file.removesuffix(".py") == own or file.startswith(own + "/"):
                continue
            wrong += [f"{file}:{line}: {text!r}" for line, text in _constants(path) if text == name]
    assert not wrong


def test_nothing_compares_with_the_words_of_a_verdict() -> None:
    wrong = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Compare):
                sides = [side.value for side in (node.left, *node.comparators) if isinstance(side, ast.Constant)]
                if any(word in VERDICT_WORDS for word in sides):
                    wrong.append(f"{path.relative_to(SOURCE)}:{node.lineno}")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "startswith":
                texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                if any(re.match("|".join(VERDICT_WORDS), text) for text in texts):
                    wrong.append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    assert not wrong
