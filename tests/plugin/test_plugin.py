"""A small package of somebody else's, really installed: one of each kind, through the command line, `src` untouched."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
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


PROGRAM = """
import contextlib, io, json, sys
from specdef.cli.main import main
for line in sys.stdin:
    said, complaint, code = io.StringIO(), io.StringIO(), 0
    sys.argv = ["specdef", *json.loads(line)]
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(complaint):
        try:
            main()
        except SystemExit as stop:
            code = stop.code or 0
    print(json.dumps([code, said.getvalue(), complaint.getvalue()]), flush=True)
"""
Run = Callable[..., str]


@pytest.fixture(scope="module")
def run(installed: Path) -> Iterator[Run]:
    """Runs commands one after another in one process that finds the package; what was printed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(installed), *sys.path])}
    command = [sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:

        def ask(*arguments: str | Path) -> str:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps([*map(str, arguments)]) + "\n")
            process.stdin.flush()
            code, said, complaint = json.loads(process.stdout.readline())
            assert code == 0, complaint
            return str(said)

        yield ask


def test_a_lock_of_another_package(run: Run, llama: Path, tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    own = ("-o", "note=mine", "-o", "times=3")
    report = json.loads(run("lock", llama, locked, "--preset", "toy-lock", *own, "--json"))
    assert report["strength"] == {"multiplier": "4", "note": "mine", "times": 3}
    assert json.loads(run("verify", locked, "--json"))["passed"]
    assert "toy-lock" in run("inspect", locked, "--no-spectra")
    run("unlock", locked, tmp_path / "back", "--key", f"{locked}.specdef-key")
    assert (tmp_path / "back/model.safetensors").read_bytes() == (llama / "model.safetensors").read_bytes()


def test_a_defence_of_another_package(run: Run, toy_model: Path, tmp_path: Path) -> None:
    assert "Wrote" in run("defend", "toy-defence", toy_model, tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").read_bytes() != (toy_model / "model.safetensors").read_bytes()


def test_model_task_utility_interventions_and_threat_model_of_another_package(
    installed: Path, run: Run, tmp_path: Path
) -> None:
    model = tmp_path / "line"
    writing = f"import sys, pathlib; sys.path.insert(0, {str(installed)!r}); import toy_kinds; "
    writing += f"toy_kinds.write_line(pathlib.Path({str(model)!r}))"
    subprocess.run([sys.executable, "-c", writing], check=True, capture_output=True)
    common = ("--steps", "40", "--threads", "1")
    attacked = ("--lr", "0.2", "--intervention", "toy-rewrite", "--json")
    cell = json.loads(run("attack", model, "--out", tmp_path / "runs", *attacked, *common))
    assert cell["result"]["outcome"] == "broken"
    assert cell["config"]["model_kind"] == "toy-model"
    assert cell["config"]["utility"]["name"] == "toy-utility"
    certified = ("--threats", "T9", "--effort", "quick", "--window", "0.2,0.3", "--out", tmp_path / "certificate")
    run("certify", model, "--original", model, *certified, *common)
    certificate = json.loads((tmp_path / "certificate/certificate.json").read_text())
    assert list(certificate["threat_models"]) == ["T9"]
    assert certificate["threat_models"]["T9"]["num_cells"] >= 1
    assert (tmp_path / "certificate/index.html").is_file()
