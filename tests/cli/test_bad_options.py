"""Every option that can be bad is refused in its own name before a model is looked for or anything heavy is imported.

The rows run in one child process, where importing torch, transformers, peft or accelerate fails, and so does looking
for a model. The CPU time of saying no is measured in forks of a process that has started.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from cli.forks import Done, forks

from specdef.cli.main import app

MODEL = "smollm2-135m"
BASE: dict[str, tuple[str, ...]] = {
    "lock": (MODEL, "out"),
    "unlock": ("locked", "out"),
    "sign": ("locked",),
    "verify": ("locked",),
    "publish": ("locked", "--check"),
    "attack": (MODEL, "--out", "out"),
    "certify": (MODEL, "--original", MODEL, "--out", "out"),
    "compare": ("locked", "foreign"),
    "report": ("locked",),
    "run": ("study.yaml", "--out", "out"),
    "defend": ("npo", MODEL, "out", "--task", "facts"),
    "inspect": (MODEL,),
    "map": (MODEL,),
    "similarity": ("a", "b", "c"),
    "curvature": (MODEL,),
    "harness": (MODEL, "--tasks", "arc_easy"),
    "fetch": (MODEL, "out"),
    "demo": (),
}
"""What stands before the bad option; of an option given twice, click reads the last."""
RECIPE = {
    "--optimizer": "adamv",
    "--option": "betas",
    "--steps": "0",
    "--batch-size": "0",
    "--retain-weight": "1",
    "--eval-every": "0",
    "--precision": "fp8",
    "--task": "factz",
    "--train": "none.csv --task facts",
    "--eval": "none.csv",
    "--fields": "prompt=q",
    "--task-seed": "-1",
    "--target": "2",
    "--scorer": "exact",
    "--text": "none.txt",
    "--utility": "perplexitty",
    "--utility-factor": "1",
    "--threads": "0",
    "--device": "tpu",
}
BAD: dict[str, dict[str, str]] = {
    "lock": {
        "--preset": "magic",
        "--multiplier": "many --preset exact",
        "--rank": "0 --preset paper",
        "--channels": "0 --preset exact",
        "--layers": "a",
        "--num-layers": "0 --preset exact",
        "--num-matrices": "0 --preset paper",
        "--pairs": "xyz --preset exact",
        "--map": "llama --preset exact",
        "--runtimes": "vllm --preset exact",
        "--direction": "left --preset exact",
        "--basis": "x --preset paper",
        "--form": "x --preset paper",
        "--option": "channels --preset exact",
        "--key": "out/key",
    },
    "unlock": {"--key": "none.key"},
    "sign": {"--key": "none.pem", "--certificate": "none.pem --key none.pem", "--out": "none/x.sig --key none.pem"},
    "verify": {
        "--runtime": "vllm",
        "--signature": "none.sig --public-key file",
        "--public-key": "none.pem --signature file",
        "--root-certificate": "none.pem --signature file",
        "--identity": "me --signature file",
        "--issuer": "url --signature file",
    },
    "publish": {"--repo": "org/name"},
    "attack": RECIPE
    | {
        "--out": "file",
        "--lr": "0",
        "--seed": "-1",
        "--gradient-accumulation-steps": "0",
        "--warmup": "1",
        "--schedule": "steep",
        "--max-grad-norm": "much",
        "--weight-decay": "-1",
        "--eps": "0",
        "--lora": "big",
        "--freeze": "(",
        "--train-smallest-gradients": "2",
        "--rewrite": "lora",
        "--intervention": "mergge",
        "--plot": "run.jpg",
        "--recipe": "none.yaml",
        "--track": "tensorbored",
    },
    "certify": RECIPE
    | {
        "--out": "foreign",
        "--threats": "T9",
        "--base": "smollm2-135m",
        "--multiplier": "many",
        "--also": "none.yaml",
        "--effort": "much",
        "--minutes": "0",
        "--window": "1e-4",
        "--cells": "file",
        "--workers": "0",
        "--gpus-per-cell": "-1",
        "--devices-per-cell": "0",
    },
    "compare": {"--out": "page.txt"},
    "report": {"--formats": "doc"},
    "run": {
        "--out": "foreign",
        "--workers": "0",
        "--threads": "0",
        "--device": "tpu",
        "--gpus-per-cell": "1",
        "--formats": "doc",
        "--devices-per-cell": "0",
        "--tflops": "0 --dry-run",
    },
    "defend": {
        "--forget": "none.jsonl",
        "--retain": "none.jsonl",
        "--task": "factz",
        "--eval": "none.jsonl --forget none.jsonl",
        "--fields": "prompt",
        "--option": "stepz=4",
        "--seed": "-1",
        "--text": "none.txt",
        "--device": "tpu",
    },
    "inspect": {"--plot": "x.jpg", "--rank": "0"},
    "map": {"--write": "family.txt"},
    "similarity": {"--measure": "clip"},
    "curvature": {
        "--task": "factz",
        "--params": "(",
        "--num-eigenvalues": "0",
        "--kind": "hess",
        "--samples": "0",
        "--dtype": "fp8",
        "--tolerance": "0",
        "--device": "tpu",
        "--seed": "-1",
        "--plot": "x.jpg",
    },
    "harness": {"--tasks": ",", "--include": "none", "--limit": "0"},
    "fetch": {"--dtype": "fp8"},
    "demo": {"--out": "file", "--kind": "sound", "--steps": "0"},
}
"""Command -> option -> a bad value, and what is given besides."""
A_CLUSTER = "only a cluster says whether it is there"
A_MODEL = "a model: whether it can be found is what the rows must not ask; test_main.py does"
CANNOT_BE_BAD = {
    "lock": {
        "--seed": "any whole number decides a draw",
        "--exclude": "only the model's files say what matches",
        "--components": "only the model's family says what it has",
    },
    "verify": {"--original": A_MODEL},
    "publish": dict.fromkeys(
        ("--certificate", "--signature", "--public-key"), "what is not there is a finding of the checklist"
    ),
    "attack": {"--original": A_MODEL},
    "certify": {"--original": A_MODEL, "--ray": A_CLUSTER},
    "run": {"--ray": A_CLUSTER},
    "inspect": {"--baseline": A_MODEL},
}
ROWS = [(command, option, value) for command, options in BAD.items() for option, value in options.items()]
STUDY = "specdef_study: 1\ntitle: Two\nmodels: [smollm2-135m]\nattacks: [{lr: 1e-4}]\n"
CHILD = """
import contextlib, io, json, sys
sys.modules.update(dict.fromkeys(("torch", "transformers", "peft", "accelerate")))
import specdef.models.sources
def find_model(*_, **__):
    raise AssertionError("a model was looked for")
specdef.models.sources.find_model = find_model
from specdef.cli.main import main
answers = []
for arguments in json.load(sys.stdin):
    sys.argv, said, code = ["specdef", *arguments], io.StringIO(), None
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        except BaseException as error:
            code = repr(error)
    answers.append([code, said.getvalue()])
print(json.dumps(answers))
"""


def written(command: str, option: str, value: str) -> list[str]:
    """The arguments of a row."""
    bad, *besides = value.split(" ")
    return [command, *BASE[command], *besides, option, bad]


def place(folder: Path) -> Path:
    """A folder with what the rows name."""
    for name in ("locked", "foreign"):
        (folder / name).mkdir()
    for name in ("foreign/theirs", "file"):
        (folder / name).write_text("not ours\n")
    (folder / "study.yaml").write_text(STUDY)
    return folder


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], tuple[Any, str]]:
    """What every row says, and that none of them wrote anything."""
    folder = place(tmp_path_factory.mktemp("bad"))
    before = files(folder)
    done = subprocess.run(
        [sys.executable, "-c", CHILD],
        input=json.dumps([written(*row) for row in ROWS]),
        capture_output=True,
        text=True,
        cwd=folder,
        check=True,
    )
    assert files(folder) == before
    return {row[:2]: tuple(found) for row, found in zip(ROWS, json.loads(done.stdout), strict=True)}


@pytest.mark.parametrize(("command", "option"), [row[:2] for row in ROWS])
def test_a_bad_option_is_refused_in_its_own_name(
    command: str, option: str, answers: dict[tuple[str, str], tuple[Any, str]]
) -> None:
    code, said = answers[command, option]
    assert code == 2, (code, said)
    sentences = [line for line in said.splitlines() if line and not line.startswith("loading ")]
    assert len(sentences) == 1
    assert sentences[0].startswith("Error: ")
    assert f"`{option.removeprefix('--')}`" in sentences[0]


@pytest.mark.parametrize("command", json.loads(Path(__file__).with_name("flags.json").read_text()))
def test_every_option_has_a_bad_value_or_a_reason_why_not(command: str) -> None:
    """An option that is a flag has no value to be bad."""
    found = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    options = {one.opts[0] for one in found if one.param_type_name == "option" and not one.is_flag}
    bad, free = BAD.get(command, {}), CANNOT_BE_BAD.get(command, {})
    assert not bad.keys() & free.keys()
    assert options == bad.keys() | free.keys()


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[..., Done]]:
    with forks() as found:
        yield found.run


@pytest.mark.parametrize(
    ("command", "option"),
    [
        ("attack", "--utility"),
        ("certify", "--window"),
        ("curvature", "--params"),
        ("defend", "--text"),
        ("report", "--formats"),
        ("run", "--workers"),
    ],
)
def test_saying_no_takes_less_than_a_second_beyond_starting(
    command: str, option: str, run: Callable[..., Done], tmp_path: Path
) -> None:
    """CPU seconds of a fork of a process that has started; the lower of two."""
    arguments, folder = written(command, option, BAD[command][option]), place(tmp_path)
    found = [run(*arguments, cwd=folder) for _ in range(2)]
    assert [done.returncode for done in found] == [2, 2], found
    assert 0 < min(done.seconds for done in found) < 1
