"""The arrows of the house, file by file: who may import whom, and no circle. Holds for imports wherever they stand."""

from __future__ import annotations

import ast
import functools
import graphlib
from pathlib import Path

import pytest

import specdef

SOURCE = Path(specdef.__file__).parent
ORDER = (
    "errors",
    "core",
    "linalg",
    "theory",
    "checkpoint",
    "architectures",
    "models",
    "mapping",
    "runtimes",
    "tasks",
    "training",
    "locks",
    "analysis",
    "attacks",
    "defences",
    "certify",
    "report",
    "integrations",
    "demo",
    "cli",
)
"""A part imports only itself and what stands before it."""
HEAVY_HOMES = {
    "matplotlib": {"report/plots.py"},
    "curvlinops": {"analysis/curvature/operators.py"},
    "diffusers": {"integrations/diffusers.py", "models/pipeline.py"},
    "peft": {"attacks/interventions/lora.py", "defences/adapters.py", "locks/peft_layer.py"},
    "datasets": {"tasks/text/saved_data.py"},
    "pandas": {"core/results.py"},
    "singd": {"training/optimizers.py"},
    "ray": {"certify/executors/ray.py"},
    "lm_eval": {"tasks/text/harness.py"},
    "PIL": {"tasks/images/pictures.py"},
    "cyllama": {"runtimes/kinds/llama_cpp.py"},
    "onnxruntime": {"runtimes/kinds/onnxruntime.py"},
    "torchmetrics": {"analysis/image_features.py"},
    "torchao": {"runtimes/kinds/torchao.py"},
    "model_signing": {"integrations/signing/library.py"},
    "cryptography": {"integrations/signing/library.py", "integrations/signing/certificates.py"},
}


@functools.cache
def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _module(name: str) -> str | None:
    """The file of the house a dotted name lies in; None for other libraries."""
    parts = name.split(".")
    if parts[0] != "specdef":
        return None
    for end in range(len(parts), 0, -1):
        place = SOURCE.joinpath(*parts[1:end])
        if end > 1 and place.with_suffix(".py").is_file():
            return place.with_suffix(".py").relative_to(SOURCE).as_posix()
        if (place / "__init__.py").is_file():
            return (place / "__init__.py").relative_to(SOURCE).as_posix()
    return None


@functools.cache
def _graph() -> dict[str, set[str]]:
    """The files of the house that every file imports. Not made by looking for tests, which every worker does."""
    return {
        path.relative_to(SOURCE).as_posix(): {found for name in _imports(path) if (found := _module(name))}
        for path in SOURCE.rglob("*.py")
    }


def _part(file: str) -> str:
    return file.split("/")[0].removesuffix(".py")


def test_no_file_imports_against_the_arrows() -> None:
    top = {"__init__", "__main__"}
    wrong = [
        f"{file} imports {other}"
        for file, others in _graph().items()
        for other in others
        if _part(file) not in top and _part(other) not in top and ORDER.index(_part(other)) > ORDER.index(_part(file))
    ]
    assert not wrong


def test_no_circle_of_files() -> None:
    graph = {file: others - {file, "__init__.py"} for file, others in _graph().items()}
    assert len(list(graphlib.TopologicalSorter(graph).static_order())) == len(graph)


def test_theory_stands_alone() -> None:
    found = {_part(other) for file, others in _graph().items() if _part(file) == "theory" for other in others}
    assert found <= {"errors", "theory", "__init__"}


@pytest.mark.parametrize("name", ["experiments", "benchmarks", "tests"])
def test_nothing_imports_what_uses_the_library(name: str) -> None:
    for path in SOURCE.rglob("*.py"):
        assert not any(found.split(".")[0] == name for found in _imports(path)), path


def test_heavy_libraries_stay_behind_one_file_each() -> None:
    for path in SOURCE.rglob("*.py"):
        for name in _imports(path):
            homes = HEAVY_HOMES.get(name.split(".")[0])
            assert homes is None or path.relative_to(SOURCE).as_posix() in homes, f"{path} imports {name}"


def test_few_modules_at_the_top() -> None:
    assert len(list(SOURCE.glob("*.py"))) <= 5
