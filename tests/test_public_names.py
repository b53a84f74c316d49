"""`import specdef`: the public names, listed once, each where the list says."""

from __future__ import annotations

import subprocess
import sys

import pytest

import specdef


@pytest.mark.parametrize("name", specdef.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(specdef, name) is not None
    assert name in dir(specdef)


IN_PYTHON = {
    **{verb: verb for verb in ("lock", "unlock", "sign", "verify", "attack", "undo", "defend", "fetch", "publish")},
    "certify": "certify_model",
    "compare": "write_comparison",
    "curvature": "measure_curvature",
    "inspect": "inspect_model",
    "map": "map_model",
    "report": "write_reports",
    "run": "run_study",
    "runs": "stored_cells",
    "similarity": "similarity_gap",
}
"""Verb of the command line -> its function."""
ONLY_COMMANDS = {"demo", "harness"}


def test_every_verb_of_the_command_line_is_a_function() -> None:
    import typer

    from specdef.cli.main import app

    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    assert commands == IN_PYTHON.keys() | ONLY_COMMANDS
    assert set(IN_PYTHON.values()) <= set(dir(specdef))


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="module 'specdef' has no attribute 'unlok'"):
        _ = specdef.unlok  # type: ignore[attr-defined]


def test_importing_it_is_cheap() -> None:
    code = "import sys, specdef; dir(specdef); print({'torch', 'numpy', 'transformers', 'typer'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
