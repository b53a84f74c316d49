"""The command line as a newcomer meets it: exit codes, one-sentence errors, nothing heavy imported to say no."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pico
import pytest
from cli.forks import Done, forks
from typer.testing import CliRunner

from specdef.cli.main import app
from specdef.errors import SpecdefError

Run = Callable[..., Done]
AHEAD = (
    "lock nowhere out",
    "attack nowhere --out out",
    "certify nowhere --original nowhere --out out",
    "publish nowhere --check",
    "verify nowhere",
    "report nowhere",
)
"""What is imported to say no to these, every row finds imported. Were any of it heavy, every row would say so."""


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    with forks(*AHEAD) as found:
        yield found.run


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["lock", "nowhere", "OUT"], "`model` must be a folder, a hub id such as org/name, smollm2-135m or minilm"),
        (["lock", "MODEL", "MODEL/inside"], "`out` must lie outside the model folder"),
        (["lock", "MODEL", "MODEL"], "`out` must be a new folder"),
        (["lock", "MODEL", "OUT", "--multiplier", "1e4"], "`multiplier` must be a power of two for an exact lock"),
        (["lock", "MODEL", "OUT", "--multiplier", "many"], "`multiplier` must be a finite number above 1"),
        (["lock", "MODEL", "OUT", "--layers", "5"], "`layers` must lie between 0 and 1; got 5"),
        (["lock", "MODEL", "OUT", "--layers", "a,b"], "`layers` must be numbers such as 3,7"),
        (["lock", "MODEL", "OUT", "--layers", "7-3"], "`layers` must be ranges that rise, such as 3-7"),
        (
            ["lock", "MODEL", "OUT", "--exclude", "*.bin"],
            "`exclude` must match files of the model folder; '*.bin' matches none",
        ),
        (["lock", "MODEL", "OUT", "--exclude", "config.json"], "`exclude` must leave in what the model needs"),
        (["lock", "MODEL", "OUT", "--pairs", "norm,xyz"], "`pairs` must be drawn from"),
        (["lock", "MODEL", "OUT", "--preset", "magic"], "`preset` must be one of exact, paper"),
        (["lock", "MODEL", "OUT", "--preset", "paper", "--components", "x"], "`components` must be drawn from q_proj"),
        (["lock", "MODEL", "OUT", "--preset", "paper", "--rank", "0"], "`rank` must be at least 1"),
        (["lock", "MODEL", "OUT", "--preset", "paper", "--rank", "999"], "`rank` must be at most"),
        (["lock", "MODEL", "OUT", "--preset", "paper", "--form", "diagonal"], "`form` must be dense or low_rank"),
        (["lock", "MODEL", "OUT", "--preset", "paper", "--basis", "foo"], "`basis` must be svd or axis"),
        (["lock", "MODEL", "OUT", "-o", "strength=2"], "`strength` is no option of lock ladder, which has multiplier"),
        (
            ["lock", "MODEL", "OUT", "--preset", "exact", "-o", "strength=2"],
            "`strength` is no option of lock fold, which has multiplier",
        ),
        (
            ["lock", "MODEL", "OUT", "--preset", "exact", "-o", "channels=few"],
            "`channels` must be an integer in lock fold; got 'few'",
        ),
        (["lock", "MODEL", "OUT", "-o", "margin=few"], "`margin` must be a number in lock ladder; got 'few'"),
        (["lock", "MODEL", "OUT", "-o", "pairs=norm,xyz"], "`pairs` must be drawn from"),
        (["lock", "MODEL", "OUT", "-o", "multiplier=many"], "`multiplier` must be a finite number above 1"),
        (
            ["lock", "MODEL", "OUT", "--preset", "exact", "-o", "num-layers=1", "--num-layers", "2"],
            "`num-layers` must be given once; it is",
        ),
        (["lock", "MODEL", "OUT", "--key", "OUT/key"], "`key` must lie outside the locked folder"),
        (["unlock", "MODEL", "OUT", "--key", "nokey"], "`key` must be a specdef key file"),
        (["unlock", "MODEL", "OUT"], "`key` must be given: "),
        (["publish", "MODEL"], "`repo` must be given, such as org/name, or --check, and not both"),
        (
            ["publish", "MODEL", "--check", "--repo", "org/name"],
            "`repo` must be given, such as org/name, or --check, and not",
        ),
        (["publish", "nowhere", "--check"], "`folder` must be a locked folder; nowhere is no folder"),
        (["publish", "MODEL", "--repo", "name"], "`repo` must be a name such as org/name; got 'name'"),
        (["publish", "nowhere", "--repo", "org/name"], "`folder` must be a locked folder; nowhere is no folder"),
        (["verify", "MODEL", "OUT"], "`folders` must be one locked folder, but with `signature`"),
        (["verify", "MODEL", "--public-key", "x"], "`signature` must be given to check one"),
        (
            ["verify", "MODEL", "--signature", "x", "--original", "MODEL"],
            "`original` must be left out with `signature`",
        ),
        (["verify", "MODEL", "--signature", "x"], "`public-key`, `root-certificate` or `identity` must be given"),
        (["verify", "MODEL", "--signature", "x", "--public-key", "QUIZ"], "`signature` must be a file that"),
        (["sign", "MODEL"], "`key` must be given, or `keyless`"),
        (
            ["sign", "nowhere", "--key", "x"],
            "`folders` must be locked folders or results folders; nowhere is no folder",
        ),
        (["sign", "MODEL", "--key", "nokey"], "`key` must be readable; nokey is not"),
        (["sign", "MODEL", "--key", "QUIZ"], "`key` must be an elliptic-curve key"),
        (["inspect", "MODEL", "--plot", "x.jpg"], "`plot` must be a file ending in .png"),
        (["fetch", "gpt-5", "OUT"], "`name` must be one of the bundled models"),
        (["attack", "MODEL", "--out", "OUT", "--lr", "0"], "`lr` must be a number above 0; got 0.0"),
        (["attack", "MODEL", "--out", "OUT", "--lr", "-1e-5"], "`lr` must be a number above 0"),
        (["attack", "MODEL", "--out", "OUT", "--optimizer", "adamv"], "got 'adamv'. Did you mean 'adamw'?"),
        (
            ["attack", "MODEL", "--out", "OUT", "--max-grad-norm", "much"],
            "`max-grad-norm` must be a number above 0, or none",
        ),
        (["attack", "MODEL", "--out", "OUT", "--plot", "run.jpg"], "`plot` must be a file ending in .png"),
        (
            ["attack", "MODEL", "--out", "OUT", "--freeze", "v", "--train-smallest-gradients", "0.5"],
            "`freeze` must be left out with `train-smallest-gradients`",
        ),
        (["attack", "MODEL", "--out", "OUT", "--freeze", "("], "`freeze` must be a regular expression"),
        (["attack", "MODEL", "--out", "OUT", "--lora", "big"], "`lora` must look like rank=8,targets=all"),
        (["attack", "MODEL", "--out", "OUT", "--task", "factz"], "got 'factz'. Did you mean 'facts' or 'sft'?"),
        (["attack", "MODEL", "--out", "OUT", "--task", "mcqa"], "`task` mcqa must be given a file: write mcqa:FILE"),
        (["attack", "MODEL", "--out", "OUT", "--task", "mcqa:none.json"], "`path` must be a readable file"),
        (["attack", "MODEL", "--out", "OUT", "--task", "mcqa:QUIZ"], ", line 2: `choices` is missing"),
        (["attack", "MODEL", "--out", "OUT", "--task", "sft:QUIZ"], "`scorer` must be given with task sft"),
        (["attack", "MODEL", "--out", "OUT", "--target", "0.25"], "`target` must lie above chance (0.25)"),
        (["attack", "MODEL", "--out", "OUT", "--text", "none.txt"], "`text` must be a UTF-8 text file"),
        (["attack", "nowhere", "--out", "OUT"], "`model` must be a folder"),
        (["certify", "MODEL", "--original", "nowhere", "--out", "OUT"], "`original` must be a folder"),
        (["certify", "MODEL", "--original", "MODEL", "--out", "OUT", "--threats", "T9"], "`threats` must be any of T0"),
        (
            ["certify", "MODEL", "--original", "MODEL", "--out", "OUT", "--effort", "much"],
            "`effort` must be one of quick",
        ),
        (["certify", "MODEL", "--original", "MODEL", "--out", "OUT", "--window", "a,b"], "`window` must be learning"),
        (["certify", "MODEL", "--original", "MODEL", "--out", "OUT", "--window", "1e-4"], "`window` must be two or"),
        (["certify", "MODEL", "--original", "MODEL", "--out", "OUT", "--workers", "0"], "`workers` must be at least 1"),
        (["certify", "MODEL", "--original", "nowhere", "--out", "OUT", "--multiplier", "2^20"], "`original` must be"),
        (
            ["certify", "MODEL", "--original", "MODEL", "--out", "OUT", "--multiplier", "many"],
            "`multiplier` must be a finite number above 1, such as 2^20",
        ),
        (
            ["certify", "MODEL", "--original", "MODEL", "--out", "OUT", "--find-multiplier", "--multiplier", "4"],
            "`multiplier`, `cells` and `minutes` must be left out with --find-multiplier",
        ),
        (
            ["certify", "MODEL", "--original", "nowhere", "--out", "OUT", "--find-multiplier"],
            "`original` must be LOCKED, the unlocked model, with --find-multiplier; got nowhere.",
        ),
        (["runs", "OUT"], "must hold results of `specdef attack`"),
        (["report", "OUT"], "`folder` must hold results of `specdef attack` or `specdef certify`"),
        (["defend", "cake", "MODEL", "OUT"], "`method` must be one of elm, esd, filter, grad-diff, guard, imma, npo"),
        (["defend", "guard", "MODEL", "OUT", "-o", "steps"], "`option` must be name=value, such as steps=40"),
        (["defend", "guard", "MODEL", "OUT", "-o", "stepz=4"], "got 'stepz'. Did you mean 'steps'?"),
    ],
)
def test_bad_input_exits_2_with_one_sentence_and_nothing_heavy(
    arguments: list[str],
    sentence: str,
    run: Run,
    llama: Path,
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    quiz = tmp_path_factory.mktemp("quiz") / "quiz.jsonl"
    quiz.write_text('{"question": "Q?", "choices": ["a", "b"], "answer": 0}\n{"question": "Q?"}\n')
    places = {"MODEL": llama, "OUT": tmp_path / "out", "QUIZ": quiz}
    filled = arguments
    for name, place in places.items():
        filled = [argument.replace(name, str(place)) for argument in filled]
    result = run(*filled, cwd=tmp_path)
    assert result.returncode == 2
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert not result.stderr.startswith("\n"), "a bar where there is no terminal for it"
    assert not result.heavy
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments",
    [
        ("certify", "nowhere", "--original", "nowhere", "--out", "OUT"),
        ("run", "nowhere.yaml", "--out", "OUT"),
        ("inspect", "nowhere", "--plot", "plot.png"),
        ("curvature", "nowhere", "--plot", "plot.png"),
        ("attack", "nowhere", "--out", "OUT", "--plot", "plot.png"),
    ],
)
def test_what_always_draws_asks_for_matplotlib_first(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, a certificate of hours ended in this sentence, without a table."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, SpecdefError)
    assert str(result.exception).startswith("Plots need matplotlib, which is not installed.")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "arguments", [["--help"], ["lock", "--help"], ["no-such-verb"], ["lock"], ["lock", "a", "b", "--bad"]]
)
def test_help_and_usage_errors_import_nothing_heavy(arguments: list[str], run: Run) -> None:
    result = run(*arguments)
    assert result.returncode == (0 if "--help" in arguments else 2)
    assert not result.heavy


def test_the_flags_are_frozen() -> None:
    """Scripts depend on these; changing one is a decision, not a side effect."""
    golden = json.loads(Path(__file__).with_name("flags.json").read_text())
    import typer

    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    found = {
        name: sorted(option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts))
        for name, command in commands.items()
    }
    assert found == golden


def test_the_whole_path(llama: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    locked, back = tmp_path / "locked", tmp_path / "back"
    result = runner.invoke(
        app, ["lock", str(llama), str(locked), "--preset", "exact", "--multiplier", "2^30", "--json"]
    )
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["strength"]["multiplier"] == "2^30"
    result = runner.invoke(app, ["verify", str(locked), "--original", str(llama), "--json"])
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["passed"]
    result = runner.invoke(app, ["inspect", str(locked), "--json", "--plot", str(tmp_path / "plot.png")])
    assert result.exit_code == 0, result.output
    verdict = json.loads(result.stdout)["verdict"]
    assert (verdict["sign"]["lock"], verdict["sign"]["exponent"]) == ("fold", 30)
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    result = runner.invoke(app, ["unlock", str(locked), str(back), "--key", f"{locked}.specdef-key"])
    assert result.exit_code == 0, result.output
    assert (back / "model.safetensors").read_bytes() == (llama / "model.safetensors").read_bytes()


def test_no_name_reaches_the_terminal_as_an_order(run: Run, llama: Path, tmp_path: Path) -> None:
    """A folder's name may hold escapes; before, they were printed raw."""
    strange = Path(shutil.copytree(llama, tmp_path / "red\x1b[31m[bold]"))
    locked = tmp_path / "lock\x1b]0;title\x07ed"
    for arguments in (
        ["lock", strange, locked],
        ["lock", strange, locked],
        ["verify", locked, "--original", strange],
        ["unlock", locked, tmp_path / "back\x9b2J", "--key", f"{locked}.specdef-key"],
        ["inspect", strange, "--no-spectra"],
        ["undo", "rebalance", locked, tmp_path / "un\x1bdone"],
        ["defend", "no\x1b[2Jne", strange, tmp_path / "out"],
        ["lock", tmp_path / "no\x1bthing", tmp_path / "out"],
        ["runs", strange],
        ["report", strange],
        ["no\x1bverb"],
    ):
        result = run(*arguments)
        printed = result.stdout + result.stderr
        assert "\\x1b" in printed or "\\x9b" in printed or result.returncode == 0
        assert not {"\x1b", "\x07", "\x9b"} & set(printed)
        assert "Traceback" not in printed


def test_a_failed_check_exits_1(llama: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    assert runner.invoke(app, ["lock", str(llama), str(tmp_path / "locked")]).exit_code == 0
    with (tmp_path / "locked" / "generation_config.json").open("a") as file:
        file.write("\n")
    result = runner.invoke(app, ["verify", str(tmp_path / "locked")])
    assert result.exit_code == 1
    assert "1 changed (generation_config.json)" in result.output


def test_the_original_must_be_the_model_that_was_locked(run: Run, llama: Path, tmp_path: Path) -> None:
    other = pico.build("qwen3", tmp_path / "other")
    assert CliRunner().invoke(app, ["lock", str(llama), str(tmp_path / "locked")]).exit_code == 0
    result = run("verify", tmp_path / "locked", "--original", other)
    assert result.returncode == 2
    assert "`original` must be the model that was locked" in result.stderr


def test_a_model_named_like_a_hub_id_says_when_the_hub_is_out_of_reach(run: Run, tmp_path: Path) -> None:
    result = run("lock", "org/name", tmp_path / "out")
    assert result.returncode == 2
    assert "could not be fetched from the hub" in result.stderr


def test_a_hub_id_in_the_local_cache_is_used(
    run: Run, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "hub" / "models--org--name" / "snapshots" / "abc"
    shutil.copytree(llama, snapshot)
    (tmp_path / "hub" / "models--org--name" / "refs").mkdir()
    (tmp_path / "hub" / "models--org--name" / "refs" / "main").write_text("abc")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    result = run("lock", "org/name", tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "out" / "model.safetensors").exists()
