"""What is published: sdist and wheel hold everything, and the wheel works where the source tree is not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import specdef

pytestmark = pytest.mark.packaging

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "specdef"
SKIPPED = shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.egg-info", ".*_cache", "build", "dist", "work")
VERSION = f"specdef {specdef.__version__}"
OTHER_PYTHONS = ("3.12", "3.13")


@dataclass(frozen=True)
class Built:
    """The files to publish, and the tree they were made of: a copy, so that building leaves nothing in this one."""

    tree: Path
    sdist: Path
    wheel: Path


@dataclass(frozen=True)
class Clean:
    """An interpreter with the wheel installed, and nothing of the source tree in sight."""

    binaries: Path

    def run(self, *command: str | Path, code: int = 0) -> str:
        """What a command of the clean environment prints; it must end with `code`."""
        hidden = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
        settings = {name: value for name, value in os.environ.items() if name not in hidden}
        program, *arguments = map(str, command)
        done = subprocess.run(
            [self.binaries / program, *arguments],
            capture_output=True,
            text=True,
            cwd=self.binaries,
            env=settings | {"COLUMNS": "120"},
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


def _python(*arguments: str | Path, cwd: Path) -> None:
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The sdist of the tree, and the wheel of the sdist: what is missing there is missing here."""
    place = tmp_path_factory.mktemp("built")
    tree = Path(shutil.copytree(ROOT, place / "tree", ignore=SKIPPED))
    backend = "import sys; from setuptools import build_meta; build_meta.build_{0}(sys.argv[1])"
    _python("-c", backend.format("sdist"), place, cwd=tree)
    (sdist,) = place.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(place / "unpacked", filter="data")
    (unpacked,) = (place / "unpacked").iterdir()
    _python("-c", backend.format("wheel"), place, cwd=unpacked)
    (wheel,) = place.glob("*.whl")
    return Built(tree, sdist, wheel)


def _environment(python: str | Path, folder: Path, wheel: Path) -> Clean:
    subprocess.run([python, "-m", "venv", "--without-pip", folder], check=True, capture_output=True)
    inside = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", inside, "install", "-q", "--no-index", "--no-deps", wheel]
    subprocess.run(pip, check=True, capture_output=True)
    return Clean(folder / "bin")


@pytest.fixture(scope="module")
def clean(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Clean:
    """The wheel beside the libraries of this environment, whose own (editable) specdef stays out of sight."""
    folder = tmp_path_factory.mktemp("clean") / "venv"
    found = _environment(sys.executable, folder, built.wheel)
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "libraries.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return found


def _files(folder: Path) -> set[str]:
    paths = [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(folder).as_posix() for path in paths}


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(built: Built) -> None:
    names = {name for name in zipfile.ZipFile(built.wheel).namelist() if not name.endswith("/")}
    inside = {name.removeprefix("specdef/") for name in names if name.startswith("specdef/")}
    assert inside == _files(PACKAGE)
    assert {"data/prose.txt", "py.typed", "__init__.pyi"} <= inside
    rest = {name.split("/")[0].split(".")[-1] for name in names if not name.startswith("specdef/")}
    assert rest == {"dist-info"}


@pytest.mark.parametrize("folder", ["src", "tests", "docs", "experiments", "benchmarks"])
def test_the_sdist_holds_the_tree(built: Built, folder: str) -> None:
    with tarfile.open(built.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    missing = {f"{folder}/{name}" for name in _files(built.tree / folder) if ".egg-info/" not in name} - names
    assert not missing
    assert {"README.md", "LICENSE", "CHANGELOG.md", "Makefile", "constraints.txt", ".ci/run"} <= names


def test_the_installed_command_works(clean: Clean) -> None:
    assert clean.run("specdef", "--version").strip() == VERSION
    assert clean.run("python", "-m", "specdef", "--version").strip() == VERSION
    assert "Usage: specdef lock" in clean.run("python", "-m", "specdef", "lock", "--help")
    assert "--multiplier" in clean.run("specdef", "lock", "--help")
    place = clean.run("python", "-c", "import specdef; print(specdef.__file__)")
    assert Path(place.strip()).is_relative_to(clean.binaries.parent)


def test_the_installed_package_locks_a_model_and_reads_its_data(clean: Clean, llama: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    clean.run("specdef", "lock", llama, locked)
    assert "ok   lock" in clean.run("specdef", "verify", locked, "--original", llama)
    read = "from specdef.tasks.text.prose import bundled_prose; print(len(bundled_prose()))"
    assert int(clean.run("python", "-c", read)) == len((PACKAGE / "data" / "prose.txt").read_text())


@pytest.mark.parametrize("version", OTHER_PYTHONS)
def test_other_pythons(built: Built, version: str, tmp_path: Path) -> None:
    """Every file compiles and the command line answers; torch and the like are too large to install for a test."""
    python = _interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} on this machine")
    clean = _environment(python, tmp_path / "venv", built.wheel)
    install = [sys.executable, "-m", "pip", "--python", clean.binaries / "python", "install", "-q", "typer", "rich"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"typer for Python {version} cannot be had: {done.stderr.strip()[-200:]}")
    assert clean.run("specdef", "--version").strip() == VERSION
    assert "Attack and certify" in clean.run("specdef", "--help")
    assert "`multiplier` must be" in clean.run("specdef", "lock", "a", "b", "--multiplier", "many", code=2)
    (package,) = (tmp_path / "venv").glob("lib/python*/site-packages/specdef")
    clean.run("python", "-W", "error", "-m", "compileall", "-q", "-f", package)


def _interpreter(version: str) -> Path | None:
    """A working Python of that version: on the path, or one of pyenv's, whose shims may lead nowhere."""
    places = [shutil.which(f"python{version}"), *Path.home().glob(f".pyenv/versions/{version}.*/bin/python")]
    for place in filter(None, places):
        asked = [place, "-c", "import sys, venv; print('.'.join(map(str, sys.version_info[:2])))"]
        found = subprocess.run(asked, capture_output=True, text=True, check=False)
        if found.stdout.strip() == version:
            return Path(place)
    return None
