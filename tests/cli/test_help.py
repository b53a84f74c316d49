"""The help: groups, an example for every command that its own parser accepts, and nothing heavy imported."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from specdef.attacks.base import INTERVENTIONS
from specdef.attacks.interventions.merge import Merge
from specdef.cli.main import GROUPS, app

COMMANDS: dict[str, Any] = typer.main.get_command(app).commands  # type: ignore[attr-defined]


def help_of(*arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments, "--help"], env={"COLUMNS": "100"})
    assert done.exit_code == 0
    return done.output


def test_commands_are_shown_in_groups() -> None:
    found = help_of()
    places = [found.index(f"─ {group} ─") for group in ("Lock", "Attack and certify", "Defend", "Analyse", "Models")]
    assert places == sorted(places)
    assert {function.__name__ for group in GROUPS.values() for function in group} == COMMANDS.keys()


def test_options_of_attack_are_shown_in_panels() -> None:
    found = help_of("attack")
    for panel in ("Training", "Adapters and freezing", "Rewriting", "Evaluation", "Output"):
        assert f"─ {panel} ─" in found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_it_accepts(name: str) -> None:
    command = COMMANDS[name]
    prefix, _, line = command.epilog.partition(": ")
    assert prefix == "Example"
    program, verb, *arguments = shlex.split(line)
    assert (program, verb) == ("specdef", name)
    assert command.make_context(name, arguments).params


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help(name: str) -> None:
    assert not [parameter.name for parameter in COMMANDS[name].params if not parameter.help]


def test_run_as_a_module_it_has_its_own_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "specdef", "lock", "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage: specdef lock" in done.stdout


def test_shells_can_complete_commands_and_names() -> None:
    settings = {"_SPECDEF_COMPLETE": "complete_bash", "COMP_CWORD": "2", "COMP_WORDS": "specdef defend u"}
    command = [sys.executable, "-m", "specdef"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | settings)
    assert done.stdout.split() == ["unlearned"]
    settings |= {"COMP_CWORD": "1", "COMP_WORDS": "specdef att"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | settings)
    assert done.stdout.split() == ["attack"]


def test_kinds_in_help_are_those_of_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """One of another package is listed, one whose package does not import is not, and neither stops the help."""
    names = INTERVENTIONS.names()
    monkeypatch.setattr(INTERVENTIONS, "names", lambda: (*names, "theirs", "broken"))
    monkeypatch.setitem(INTERVENTIONS._loaded, "theirs", type("Theirs", (Merge,), {"name": "theirs"}))
    for command in ("undo", "attack"):
        found = " ".join(help_of(command).replace("│", " ").split())
        assert "inject-layers, merge, " in found
        assert "rebalance" in found
        assert "theirs" in found
        assert "broken" not in found
        assert "{" not in found.replace("{KIND} {MODEL} {OUT}", "").replace("{MODEL}", "")
