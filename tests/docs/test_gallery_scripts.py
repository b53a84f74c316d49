"""The gallery's scripts run as they are written, and their transcripts are of these scripts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docs.gallery.transcript import GALLERY, MARKS, commands, transcript

SCRIPTS = sorted([*GALLERY.glob("*.sh"), *(path for path in GALLERY.glob("*.py") if path.name != "transcript.py")])
FACTS = {
    "engineer": (
        r"ModuleLock\n +lock +fold",
        r" lock +True ",
        r"\nfunction +True .*identical to the bit",
        r"best score in the budget",
        r"\n +4 +\d",
        r"\nTrue\n$",
    ),
    "publisher": (
        r"ok   function: [\d,]+ outputs in float32 are identical to the bit",
        r"1 changed \(README\.md\); 2 added \(LICENSE, specdef\.sig\)",
        r"fails   signature: .*README\.md was changed; LICENSE was added\. Sign again with --replace\.",
        r"ok      signature: ",
        r"Fit to be published: 11 files; what is missing is advice\.",
        r"Weights restored to the byte",
    ),
    "researcher": (
        r"Page: runs/index\.html",
        r"adamw, lr 3e-4, betas 0\.9 0\.95",
        r"Wrote runs/runs\.csv",
        r"\\toprule",
        r"%PDF-",
    ),
}
"""What a transcript must say, in this order; a script that is not named here must only end well."""


def _name(script: Path) -> str:
    return script.stem


def _says(text: str, script: Path) -> None:
    place = 0
    for fact in FACTS.get(script.stem, ()):
        found = re.compile(fact).search(text, place)
        assert found, f"{fact} is not in what follows:\n{text[place:]}"
        place = found.end()


@pytest.mark.parametrize("script", SCRIPTS, ids=_name)
def test_the_transcript_is_of_this_script(script: Path) -> None:
    text = script.with_suffix(".txt").read_text(encoding="utf-8")
    mark = MARKS[script.suffix]
    shown = [line.removeprefix(mark) for line in text.splitlines() if line.startswith(mark)]
    assert shown == commands(script), f"run `python -m docs.gallery.transcript {script.stem}`"
    _says(text, script)
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)
    assert not re.search("\x1b", text)


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=_name)
def test_the_script_runs(script: Path, tmp_path: Path) -> None:
    text = transcript(script, tmp_path)
    assert [line for line in commands(script) if MARKS[script.suffix] + line not in text.splitlines()] == []
    _says(text, script)


def test_a_script_that_fails_is_an_error(tmp_path: Path) -> None:
    script = tmp_path / "x.sh"
    script.write_text("# before\necho $((1 + 1))\npwd\nfalse | cat\necho never\n")
    with pytest.raises(RuntimeError, match=r"x\.sh ended with 1:\n# before\n\$ echo .*\n2\n\$ pwd\nDIR\n\$ false"):
        transcript(script, tmp_path)


def test_a_python_script_is_shown_with_what_it_prints(tmp_path: Path) -> None:
    script = tmp_path / "x.py"
    script.write_text("# before\nn = 1\nprint(n + 1)\n\n1 / 0\nprint('never')\n")
    with pytest.raises(RuntimeError) as caught:
        transcript(script, tmp_path)
    said = str(caught.value).split("\n")
    assert said[:6] == ["x.py ended with 1:", "# before", ">>> n = 1", ">>> print(n + 1)", "2", ""]
    assert "ZeroDivisionError" in str(caught.value)
    assert "never" not in str(caught.value)


def test_a_step_in_python_takes_three_lines_at_most() -> None:
    steps = re.split(r"\n(?=#)", (GALLERY / "engineer.py").read_text(encoding="utf-8"))
    assert len(steps) >= 7
    assert [step for step in steps if len([line for line in step.splitlines()[1:] if line]) > 3] == []


def test_the_page_lists_every_script() -> None:
    page = (GALLERY / "README.md").read_text(encoding="utf-8")
    assert [script.name for script in SCRIPTS if f"({script.name})" not in page] == []
