"""A kind's name stands in its own file only: adding, renaming or removing a kind touches nothing else."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import specdef
from specdef.attacks.base import INTERVENTIONS
from specdef.certify.threat_model import THREATS
from specdef.core.registry import Registry
from specdef.defences.base import DEFENCES
from specdef.locks.base import LOCKS
from specdef.tasks.base import TASKS

SOURCE = Path(specdef.__file__).parent
MAY_NAME = {
    "locks/presets.py": "what a user's word stands for",
    "attacks/wire.py": "field names of version 1, frozen",
    "core/yaml_data.py": "YAML's own word for what may be referred to",
    "tasks/base.py": "the task that a user's own files make",
    "tasks/images/npz.py": "what a numpy archive calls its images",
    "tasks/images/concept_file.py": "what such a file calls its images and its class",
    "cli/attack.py": "options that are short for --intervention",
}
KINDS = ("/kinds/", "/interventions/", "/threats/", "/utilities/")
"""A kind may say which kinds of other nouns it is made for or of."""
WORDS = ("broken", "held by collapse", "held by stall", "slowed", "undone", "not measured", "invalid", "crashed")


def _texts(path: Path) -> Iterator[tuple[int, str]]:
    """(line, text) of every text in a file that is no docstring and no rich option."""
    tree = ast.parse(path.read_text())
    left_out = {
        id(statement.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        for statement in node.body
        if isinstance(statement, ast.Expr)
    }
    left_out |= {
        id(keyword.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "overflow"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in left_out:
            yield node.lineno, node.value


@pytest.mark.parametrize("registry", [LOCKS, DEFENCES, INTERVENTIONS, TASKS, THREATS], ids=lambda r: r.package)
def test_no_file_names_another_files_kind(registry: Registry[object]) -> None:
    names = set(registry.names())
    assert names
    wrong = [
        f"{file}:{line}: {text!r}"
        for path in SOURCE.rglob("*.py")
        if (file := path.relative_to(SOURCE).as_posix()) not in MAY_NAME and not any(part in file for part in KINDS)
        for line, text in _texts(path)
        if text in names
    ]
    assert not wrong


def test_nothing_compares_with_the_words_of_a_verdict() -> None:
    """Words are for people; what a verdict or an outcome is, its type says."""
    wrong = []
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            compared: list[ast.expr] = []
            if isinstance(node, ast.Compare):
                compared = [node.left, *node.comparators]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                compared = node.args if node.func.attr in ("startswith", "removeprefix", "endswith") else []
            texts = [part.value for part in compared if isinstance(part, ast.Constant) and isinstance(part.value, str)]
            if any(text.startswith(WORDS) for text in texts):
                wrong.append(f"{path.relative_to(SOURCE)}:{node.lineno}: {texts}")
    assert not wrong
