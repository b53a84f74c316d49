"""What the documents say of the tree and of each other is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import specdef

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *(path for path in (ROOT / "docs").rglob("*.md")),
    ROOT / "experiments" / "README.md",
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_leads_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not missing


def test_the_tree_in_contributing_is_the_tree_on_disk() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    tree = text.split("```")[1]
    told = re.findall(r"^  ([\w/.]+)  ", tree, re.MULTILINE)
    source = ROOT / "src" / "specdef"
    for name in told:
        assert (source / name).exists(), name
    hidden = {"__init__.py", "__init__.pyi", "__main__.py", "py.typed", "__pycache__"}
    found = {path.name + ("/" if path.is_dir() else "") for path in source.iterdir() if path.name not in hidden}
    assert found == set(told)
    for name in re.findall(r"^(\w+)/", tree, re.MULTILINE):
        assert (ROOT / name).is_dir(), name


def test_the_readme_fits_its_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


def test_the_names_the_readme_and_python_page_call_exist() -> None:
    for page in (ROOT / "README.md", ROOT / "docs" / "python.md"):
        for name in set(re.findall(r"\bspecdef\.(\w+)\(", page.read_text(encoding="utf-8"))):
            assert hasattr(specdef, name), f"{page.name} calls specdef.{name}"


def test_the_page_of_the_command_line_is_what_the_command_line_says() -> None:
    import typer

    from specdef.cli.main import app

    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        assert f"## `specdef {name}`" in text, "run `make docs-cli`"
        for parameter in command.params:
            for option in parameter.opts if parameter.param_type_name == "option" else []:
                assert option in text, f"{option} of {name}: run `make docs-cli`"
