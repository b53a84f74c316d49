"""A small package of somebody else's, really installed: one of each kind, through the command line, `src` untouched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent / "package"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("plugin")
    shutil.copytree(PACKAGE, place / "source")
    command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--target", place / "site", place / "source"], check=True, capture_output=True)
    return place / "site"


def run(site: Path, *arguments: str | Path) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path])}
    command = [sys.executable, "-m", "specdef", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_lock_of_another_package(installed: Path, llama: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    own = ("-o", "note=mine", "-o", "times=3")
    report = json.loads(run(installed, "lock", llama, locked, "--preset", "toy-lock", *own, "--json"))
    assert report["strength"] == {"multiplier": "4", "note": "mine", "times": 3}
    assert json.loads(run(installed, "verify", locked, "--json"))["passed"]
    assert "toy-lock" in run(installed, "inspect", locked, "--no-spectra")
    run(installed, "unlock", locked, tmp_path / "back", "--key", f"{locked}.specdef-key")
    assert (tmp_path / "back/model.safetensors").read_bytes() == (llama / "model.safetensors").read_bytes()


def test_a_defence_of_another_package(installed: Path, toy_model: Path, tmp_path: Path) -> None:
    assert "Wrote" in run(installed, "defend", "toy-defence", toy_model, tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").read_bytes() != (toy_model / "model.safetensors").read_bytes()


def test_model_task_utility_interventions_and_threat_model_of_another_package(installed: Path, tmp_path: Path) -> None:
    model = tmp_path / "line"
    writing = f"import sys, pathlib; sys.path.insert(0, {str(installed)!r}); import toy_kinds; "
    writing += f"toy_kinds.write_line(pathlib.Path({str(model)!r}))"
    subprocess.run([sys.executable, "-c", writing], check=True, capture_output=True)
    common = ("--steps", "40", "--threads", "1")
    attacked = ("--lr", "0.2", "--intervention", "toy-rewrite", "--json")
    cell = json.loads(run(installed, "attack", model, "--out", tmp_path / "runs", *attacked, *common))
    assert cell["result"]["outcome"] == "broken"
    assert cell["config"]["model_kind"] == "toy-model"
    assert cell["config"]["utility"]["name"] == "toy-utility"
    certified = ("--threats", "T9", "--window", "0.2,0.3", "--out", tmp_path / "certificate")
    run(installed, "certify", model, "--original", model, *certified, *common)
    certificate = json.loads((tmp_path / "certificate/certificate.json").read_text())
    assert list(certificate["threat_models"]) == ["T9"]
    assert certificate["threat_models"]["T9"]["num_cells"] >= 1
    assert (tmp_path / "certificate/index.html").is_file()
