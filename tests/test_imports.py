"""The arrows of the house: which part may import which. Holds for every import, wherever it stands in a file."""

from __future__ import annotations

import ast
from pathlib import Path

import specdef

SOURCE = Path(specdef.__file__).parent
ALLOWED = {
    "errors": set(),
    "_register": {"transformers_hook"},
    "linalg": {"errors"},
    "theory": {"errors", "linalg"},
    "architectures": {"errors", "linalg"},
    "checkpoint": {"errors", "linalg"},
    "locks": {"errors", "linalg", "architectures", "checkpoint"},
    "factored": {"errors"},
    "modules": {"errors", "linalg", "locks"},
    "transformers_hook": {"errors", "factored", "locks", "modules"},
    "in_memory": {"errors", "linalg", "locks", "modules", "transformers_hook"},
    "data": set(),
    "models": {"errors", "checkpoint", "data"},
    "imbalance": {"errors", "linalg", "architectures", "checkpoint"},
    "equivalence": {"errors", "checkpoint", "models"},
    "baseline": {"errors", "inspection"},
    "inspection": {"errors", "linalg", "architectures", "checkpoint", "imbalance", "models"},
    "publish": {"errors", "linalg", "architectures", "checkpoint", "locks", "models", ""},
    "restore": {"errors", "linalg", "checkpoint", "locks"},
    "verification": {"errors", "checkpoint", "locks", "equivalence", "imbalance", "inspection", "models"},
    "api": {"errors", "linalg", "locks", "models", "publish"},
    "training": {"errors"},
    "tasks": {"errors", "checkpoint", "data", "training"},
    "attacks": {
        "errors",
        "linalg",
        "architectures",
        "checkpoint",
        "locks",
        "factored",
        "imbalance",
        "inspection",
        "training",
        "tasks",
    },
    "certify": {"errors", "checkpoint", "models", "training", "tasks", "attacks"},
    "curvature": {"errors", "models", "tasks", "training"},
    "report": {"errors", "checkpoint", "attacks", "curvature", "imbalance", "inspection", "training", "certify"},
    "measuring": {"errors", "checkpoint", "models", "training", "tasks", "attacks", "certify", "report"},
    "prepare": {"errors", "checkpoint", "models", "tasks", "training"},
    "lmeval": {"errors", "models"},
    "multiplier_search": {"errors", "models", "api", "certify", "measuring"},
    "commands": {"errors", "training", "certify", "measuring", "multiplier_search", "report"},
    "commands_utility": {
        "errors",
        "commands",
        "curvature",
        "lmeval",
        "measuring",
        "models",
        "prepare",
        "report",
        "tasks",
    },
    "demo": {"api", "attacks", "checkpoint", "models", "report", "tasks", "training", "verification"},
}
HEAVY_HOMES = {
    "matplotlib": {"report/plots.py"},
    "curvlinops": {"curvature/operators.py"},
    "peft": {"attacks/lora.py"},
    "ray": {"certify/ray_executor.py"},
    "lm_eval": {"lmeval.py"},
}


def _imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _part(module: str) -> str:
    """The part of the house a dotted name lies in: "" for the package itself."""
    part = [*module.split("."), ""][1]
    return part if (SOURCE / part).is_dir() or (SOURCE / f"{part}.py").is_file() else ""


def test_no_part_imports_against_the_arrows() -> None:
    wrong = []
    for path in SOURCE.rglob("*.py"):
        part = path.relative_to(SOURCE).with_suffix("").parts[0]
        if part in {"__init__", "cli"}:
            continue
        for name in _imports(path):
            if name.split(".")[0] == "specdef" and _part(name) not in ALLOWED[part] | {part}:
                wrong.append(f"{path.relative_to(SOURCE)} imports {name}")
    assert not wrong


def test_nothing_imports_the_command_line_or_the_experiments() -> None:
    for path in SOURCE.rglob("*.py"):
        assert not any(name.startswith(("specdef.cli", "experiments")) for name in _imports(path)), path


def test_heavy_libraries_stay_behind_one_file_each() -> None:
    for path in SOURCE.rglob("*.py"):
        for name in _imports(path):
            homes = HEAVY_HOMES.get(name.split(".")[0])
            assert homes is None or path.relative_to(SOURCE).as_posix() in homes, f"{path} imports {name}"
