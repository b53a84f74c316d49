"""Kinds by name: those of this project, those of other packages, near misses, clashes and broken plug-ins."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from specdef.core import registry as module
from specdef.core.registry import Registry, choices
from specdef.errors import PlanError, SpecdefError

GROUP = "specdef.test_group"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A package of kinds, of its own name in every test so that nothing stays imported."""
    name = f"kinds_{tmp_path.name}".replace("-", "_")
    folder = tmp_path / name
    (folder / "folded").mkdir(parents=True)
    (folder / "__init__.py").touch()
    (folder / "folded" / "__init__.py").write_text("KIND = 'a package'")
    (folder / "inject_layers.py").write_text("KIND = 'inject layers'")
    (folder / "merge.py").write_text("KIND = 'merge'")
    (folder / "broken.py").write_text("raise RuntimeError('must not be imported')")
    (folder / "_private.py").write_text("KIND = 'no kind'")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return name


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> list[EntryPoint]:
    """The entry points other packages offer; tests append to it."""
    points: list[EntryPoint] = []
    monkeypatch.setattr(
        module.importlib.metadata, "entry_points", lambda *, group: [p for p in points if p.group == group]
    )
    return points


def _plugin(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / f"{name}.py").write_text(text)


def test_names_are_the_modules_with_hyphens_and_nothing_is_imported_for_them(package: str) -> None:
    found: Registry[str] = Registry("colour", package, GROUP)
    assert found.names() == ("broken", "folded", "inject-layers", "merge")
    assert choices(found) == "broken, folded, inject-layers, merge"
    assert "inject-layers" in found
    assert "inject_layers" not in found
    assert f"{package}.merge" not in sys.modules
    assert found.get("inject-layers") == "inject layers"
    assert found.get("folded") == "a package"
    assert found.get("merge") is found.get("merge")
    assert f"{package}.broken" not in sys.modules


def test_another_spelling(package: str) -> None:
    found: Registry[str] = Registry("threat", package, GROUP, spelling=str.upper)
    assert "MERGE" in found.names()
    assert found.get("MERGE") == "merge"
    with pytest.raises(SpecdefError, match=r"got 'merge'\. Did you mean 'MERGE'\?"):
        found.get("merge")


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("inject_layers", " Did you mean 'inject-layers'?"),
        ("Merge", " Did you mean 'merge'?"),
        ("mergre", " Did you mean 'merge'?"),
        ("zzz", ""),
        ("_private", ""),
        ("__init__", ""),
        ("", ""),
    ],
)
def test_an_unknown_name_lists_the_known_and_says_near_ones(package: str, name: str, hint: str) -> None:
    found: Registry[str] = Registry("colour", package, GROUP, error=PlanError)
    with pytest.raises(PlanError) as caught:
        found.get(name)
    assert str(caught.value) == (f"`colour` must be one of broken, folded, inject-layers, merge; got {name!r}.{hint}")


def test_other_packages_add_kinds(package: str, offered: list[EntryPoint], tmp_path: Path) -> None:
    _plugin(tmp_path, f"{package}_plugin", "KIND = 'from a stranger'")
    offered += [
        EntryPoint("ladder-2", f"{package}_plugin:KIND", GROUP),
        EntryPoint("ladder-2", f"{package}_plugin:KIND", GROUP),  # the same, seen twice on the path
        EntryPoint("other", f"{package}_plugin:KIND", "specdef.another_group"),
    ]
    found: Registry[str] = Registry("colour", package, GROUP)
    assert found.names() == ("broken", "folded", "inject-layers", "merge", "ladder-2")
    assert f"{package}_plugin" not in sys.modules, "a name costs no import"
    assert found.get("ladder-2") == "from a stranger"


def test_iterating_loads_every_kind(package: str, offered: list[EntryPoint], tmp_path: Path) -> None:
    (tmp_path / package / "broken.py").write_text("KIND = 'whole'")
    _plugin(tmp_path, f"{package}_plugin", "KIND = 'from a stranger'")
    offered.append(EntryPoint("ladder", f"{package}_plugin:KIND", GROUP))
    kinds: Registry[str] = Registry("colour", package, GROUP)
    assert list(kinds) == ["whole", "a package", "inject layers", "merge", "from a stranger"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("raise RuntimeError('no GPU')", r"cannot be imported \(RuntimeError: no GPU\)"),
        ("import no_such_library", r"cannot be imported \(ModuleNotFoundError: No module named 'no_such_library'\)"),
        ("OTHER = 1", r"cannot be imported \(AttributeError: .*KIND"),
        ("1 +", r"cannot be imported \(SyntaxError: "),
    ],
)
def test_a_plug_in_that_fails_to_import_is_named(
    package: str, offered: list[EntryPoint], tmp_path: Path, text: str, fault: str
) -> None:
    _plugin(tmp_path, f"{package}_plugin", text)
    offered.append(EntryPoint("ladder", f"{package}_plugin:KIND", GROUP))
    found: Registry[str] = Registry("colour", package, GROUP)
    assert "ladder" in found, "the name is listed all the same"
    with pytest.raises(SpecdefError, match=rf"^`colour` 'ladder' of package {package}_plugin:KIND {fault}"):
        found.get("ladder")
    assert found.get("merge") == "merge", "the others are not touched by it"


@pytest.mark.parametrize("own", ["merge", "ladder"])
def test_two_that_claim_one_name_are_refused(package: str, offered: list[EntryPoint], own: str) -> None:
    """Neither wins quietly: not even this project's own."""
    offered += [EntryPoint(own, "first:KIND", GROUP), EntryPoint(own, "second:KIND", GROUP)]
    found: Registry[str] = Registry("colour", package, GROUP)
    places = "merge, first:KIND, second:KIND" if own == "merge" else "first:KIND, second:KIND"
    with pytest.raises(SpecdefError, match=rf"must be offered once; {places} all offer it\. Uninstall one\.$"):
        found.get(own)
    assert found.names().count(own) == 1


def test_names_of_strangers_are_fit_to_be_shown(package: str, offered: list[EntryPoint]) -> None:
    offered.append(EntryPoint("red\x1b[31m", "no_such_module:KIND", GROUP))
    found: Registry[str] = Registry("colour", package, GROUP)
    for name in ("blue", "red\x1b[31m"):
        with pytest.raises(SpecdefError) as caught:
            found.get(name)
        assert str(caught.value).isprintable()
