"""Running studies: killed and resumed, extended, every copy made once, every fault said of its place."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pico_text
import pytest
import synthetic
import torch
from safetensors.torch import load_file

from specdef.certify import study_models
from specdef.certify.cell import Cell
from specdef.certify.cell_result import FinishedCell
from specdef.certify.certificate_file import read_cells, read_certificate
from specdef.certify.resources import Resources
from specdef.certify.store import StoreError, stored_cells
from specdef.certify.study_faults import StudyError
from specdef.certify.study_file import parse_study
from specdef.certify.study_results import StudyResults, read_results
from specdef.certify.study_run import run_study
from specdef.defences.base import DEFENCES, Applied, Defence, Given
from specdef.errors import SpecdefError
from specdef.locks.verify import verify
from specdef.report.compare import write_comparison
from specdef.report.study import write_study
from specdef.training.outcome import Outcome

HERE = Path(__file__).parent
ONE = Resources(2, 1, "cpu")
STUDY = """
specdef_study: 1
title: Two models, two locks, three attacks
models: [{first}, {{model: {second}, label: other}}]
defences:
  - {{preset: exact, multiplier: 2^10}}
  - {{preset: paper, multiplier: "1e3", rank: 4, seed: 1}}
tasks: [facts]
seeds: [{seeds}]
recipe: {{steps: 4, eval_every: 4, batch_size: 2}}
attacks:
  - {{lr: 1e-4}}
  - {{lr: 1e-2, label: fast}}
  - {{lr: 1e-3, interventions: [merge]}}
"""
PROGRAM = """
import sys
from pathlib import Path
from specdef.certify.resources import Resources
from specdef.certify.study_run import run_study
if __name__ == "__main__":
    run_study(Path(sys.argv[1]), Path(sys.argv[2]), resources=Resources(2, 1, "cpu"))
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    place = tmp_path_factory.mktemp("models")
    return pico_text.write_model(place / "one", seed=1), pico_text.write_model(place / "two", seed=2)


class Pretended:
    """An executor that trains nothing: every attack breaks at step 20, with another seed later."""

    def run(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, FinishedCell]]:
        for cell in cells:
            seed = cell.attack.recipe.seed
            yield cell, synthetic.result("stall 0.4" if seed == 9 else "broken 20", target=0.6, seed=seed)


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Resources, "executor", lambda self, listen=None: Pretended())


def write(path: Path, models: tuple[Path, Path], seeds: str = "0") -> Path:
    path.write_text(STUDY.format(first=models[0], second=models[1], seeds=seeds))
    return path


def small(pair: tuple[Path, Path], **changes: str) -> str:
    """A study of one attack, as YAML."""
    parts = {
        "specdef_study": "1",
        "title": "small",
        "models": f"[{pair[0]}]",
        "tasks": "[facts]",
        "utility": "perplexity",
        "recipe": "{steps: 2, eval_every: 2, batch_size: 2}",
        "attacks": "[{lr: 1e-4}]",
        **changes,
    }
    return "".join(f"{name}: {value}\n" for name, value in parts.items())


def run(text: str, out: Path, **options: Any) -> StudyResults:
    return run_study(parse_study(text.encode()), out, resources=ONE, **options)


def start(program: Path, study: Path, out: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen([sys.executable, str(program), str(study), str(out)], text=True, env=environment)


def files(out: Path) -> dict[str, int]:
    found = [*(out / "cells").glob("*.json"), *(out / "models").glob("*/*")]
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in found}


def facts_of(out: Path) -> dict[str, Any]:
    """Every finished cell; a note may name the folder, which is not the same in two studies."""
    found = {cell.key: (cell.config, replace(cell.result, note="")) for cell in stored_cells(out)}
    assert len(found) == len(list((out / "cells").iterdir()))
    return found


def test_killed_resumed_extended_by_a_seed_and_compared(
    models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models x two locks x three attacks. Killed while copies are made and among cells; nothing is lost."""
    program, out = tmp_path / "program.py", tmp_path / "out"
    program.write_text(PROGRAM)
    study = write(tmp_path / "study.yaml", models)
    for wanted in ("models/*", "cells/*.json"):
        before = len(list(out.glob(wanted)))
        process = start(program, study, out)
        while len(list(out.glob(wanted))) <= before and process.poll() is None:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
    kept = files(out)
    assert kept
    assert not (out / "results.json").exists()
    first = run_study(study, out, resources=ONE)
    assert {name: when for name, when in files(out).items() if name in kept} == kept
    assert {path.name for path in out.iterdir()} == {"study.json", "results.json", "cells", "models", "references"}
    assert all(not path.name.startswith(".") for path in (out / "models").iterdir())
    assert read_results(out) == first
    assert [len(row.entries) for table in first.tables for row in table.rows] == [3, 3, 3, 3]
    done, seen = facts_of(out), files(out)
    assert len(done) == 12

    alone = tmp_path / "alone.yaml"
    alone.write_text(study.read_text().replace(f", {{model: {models[1]}, label: other}}", ""))
    whole = run_study(alone, tmp_path / "whole", resources=ONE)
    found = facts_of(tmp_path / "whole")
    assert len(found) == 6
    assert found == {key: done[key] for key in found}
    assert [row.entries[0].cells for row in whole.tables[0].rows] == [
        row.entries[0].cells for row in first.tables[0].rows
    ]

    # what is new need not be trained to be seen
    monkeypatch.setattr(Resources, "executor", lambda self, listen=None: Pretended())
    ran: list[str] = []
    later = run_study(
        write(study, models, "0, 1"), out, resources=ONE, on_cell=lambda cell, done, total: ran.append(cell.key)
    )
    assert len(ran) == 12
    assert not set(ran) & set(done)
    assert {name: when for name, when in files(out).items() if name in seen} == seen
    entries = [entry for table in later.tables for row in table.rows for entry in row.entries]
    assert [entry.cells[0] for entry in entries] == [
        e.cells[0] for t in first.tables for r in t.rows for e in r.entries
    ]
    assert all(len(entry.cells) == 2 for entry in entries)

    page = {path.name: path.read_bytes() for path in write_study(out)}
    assert set(page) == {"study.md", "results.csv", "picture.png", "index.html"}
    html = page["index.html"].decode()
    for word in ("one, task facts", "other, task facts", "exact 2^10", "paper 1e3, rank 4", "fast", "2 seeds"):
        assert word in html
    assert html.count("<td class=") - html.count('<td class="value"') == 12


def test_an_entry_says_what_its_cells_say(models: tuple[Path, Path], tmp_path: Path, pretended: None) -> None:
    text = small(models, defences="[none, {preset: exact, multiplier: 2^4}]", seeds="[0, 2, 9]")
    results = run(text, tmp_path)
    table = results.tables[0]
    cells = {cell.key: cell for cell in stored_cells(tmp_path)}
    for row in table.rows:
        (entry,) = row.entries
        found = [cells[key] for key in entry.cells]
        assert [cell.attack.recipe.seed for cell in found] == [0, 2, 9]
        assert (entry.steps, entry.steps_std, entry.seeds, entry.seeds_broken) == (30.0, 10.0, 3, 2)
        assert entry.score == sum(cell.result.best.score for cell in found if cell.result.best is not None) / 3
        assert entry.outcome is Outcome.BROKEN
        assert [point.step for point in entry.curve] == [0, 10, 20]
    assert [row.undefended for row in table.rows] == [True, False]
    plain, locked = (cells[row.entries[0].cells[0]].config for row in table.rows)
    assert plain["reference_perplexity"] is None
    assert locked["reference_perplexity"] == table.reference
    assert read_results(tmp_path) == results


def test_copies_are_named_by_what_they_are_made_of(
    models: tuple[Path, Path], tmp_path: Path, pretended: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []
    lock = study_models.lock

    def counting(*arguments: Any, **options: Any) -> Any:
        made.append(options)
        return lock(*arguments, **options)

    monkeypatch.setattr(study_models, "lock", counting)
    run(small(models, defences="[{preset: exact, multiplier: 2^4}]"), tmp_path)
    run(small(models, defences="[{preset: exact, multiplier: 2^4, label: renamed}]"), tmp_path)
    assert len(made) == 1
    run(small(models, defences="[{preset: exact, multiplier: 2^5, label: renamed}]"), tmp_path)
    run(small(models, defences="[{preset: exact, multiplier: 2^5, seed: 1}]"), tmp_path)
    assert len(made) == 3
    names = [path.name for path in (tmp_path / "models").iterdir()]
    assert len(names) == 3
    assert not [name for name in names if name.endswith("key")]


def test_a_prepared_model_counts_as_the_undefended_one(
    models: tuple[Path, Path], tmp_path: Path, pretended: None
) -> None:
    entry = f"[{{model: {models[0]}, label: taught, prepare: {{method: unlearned, steps: 2}}}}]"
    results = run(small(models, models=entry, tasks="[unlearned]"), tmp_path)
    (folder,) = (tmp_path / "models").iterdir()
    assert (folder / "specdef_defence.json").is_file()
    assert results.tables[0].rows[0].undefended
    assert results.tables[0].model == "taught"


def test_a_defence_is_a_defence_like_a_lock(models: tuple[Path, Path], tmp_path: Path, pretended: None) -> None:
    results = run(small(models, defences="[none, {method: unlearned, steps: 2}]"), tmp_path)
    assert [row.defence for row in results.tables[0].rows] == ["none", "unlearned, steps 2"]


def test_a_method_is_told_its_data_and_another_copy_is_made_of_other_data(
    models: tuple[Path, Path], tmp_path: Path, pretended: None
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "The cat is", "completion": " grey"}\n')
    method = f"{{method: npo, steps: 2, forget: {rows}, seed: 3, label: forgets}}"
    results = run(small(models, defences=f"[none, {method}]"), tmp_path / "out")
    assert [row.defence for row in results.tables[0].rows] == ["none", "forgets"]
    (first,) = (tmp_path / "out" / "models").glob("npo-*")
    record = json.loads((first / "specdef_defence.json").read_text())
    assert (record["seed"], record["options"]["steps"], set(record["data"])) == (3, 2, {"forget", "general data"})
    judged = {cell.config["model"]: cell.config.get("changed", False) for cell in stored_cells(tmp_path / "out")}
    assert sorted(judged.values()) == [False, True]
    rows.write_text('{"prompt": "The cat is", "completion": " white"}\n')
    run(small(models, defences=f"[none, {method}]"), tmp_path / "out")
    assert len(list((tmp_path / "out" / "models").glob("npo-*"))) == 2


def test_a_lock_on_top_of_a_method_is_made_of_the_methods_copy(
    models: tuple[Path, Path], tmp_path: Path, pretended: None
) -> None:
    method = "{method: npo, steps: 2, task: facts, label: npo}"
    both = f"{{chain: [{method}, {{preset: exact}}], label: both}}"
    run(small(models, defences=f"[none, {method}, {both}]"), tmp_path)
    (first,) = (tmp_path / "models").glob("npo-*")
    (second,) = (tmp_path / "models").glob("exact-*")
    assert (second / "specdef_defence.json").read_bytes() == (first / "specdef_defence.json").read_bytes()
    assert verify(second, original=first).passed
    assert not verify(second, original=models[0]).passed


class Halve(Defence):
    """A defence of another package: halves the output head."""

    name = "halve"
    summary = "halves the head"

    def apply(self, given: Given, options: Any) -> Applied:
        given.loaded.model.lm_head.weight.data *= 0.5
        return Applied()


def test_a_defence_of_another_package(
    models: tuple[Path, Path], tmp_path: Path, pretended: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    points = {"halve": [SimpleNamespace(name="halve", value="toy:KIND", dist=None, load=Halve)]}
    monkeypatch.setattr(DEFENCES, "_foreign", lambda: points)
    monkeypatch.setattr(DEFENCES, "_loaded", {})
    results = run(small(models, defences="[none, {method: halve}]"), tmp_path)
    assert [row.defence for row in results.tables[0].rows] == ["none", "halve"]
    (folder,) = (tmp_path / "models").glob("halve-*")
    before, after = (load_file(place / "model.safetensors")["lm_head.weight"] for place in (models[0], folder))
    assert torch.equal(after, 0.5 * before)


def test_a_study_can_certify(models: tuple[Path, Path], tmp_path: Path, pretended: None) -> None:
    text = small(models, attacks="[]", certify="[T0]", defences="[none, {preset: exact, multiplier: 2^4}]")
    results = run(text, tmp_path)
    assert len(set(results.certificates)) == 2
    found = [json.loads((tmp_path / name / "certificate.json").read_text()) for name in results.certificates]
    assert [list(certificate["threat_models"]) for certificate in found] == [["T0"], ["T0"]]
    originals, subjects = ([one[name]["digest"] for one in found] for name in ("original", "subject"))
    assert originals == [originals[0]] * 2
    assert subjects[0] == originals[0] != subjects[1]
    written = write_study(tmp_path)
    assert {path.name for path in written if path.parent == tmp_path} == {"study.md", "results.csv", "index.html"}
    for name in results.certificates:
        assert f'href="{name}/index.html"' in (tmp_path / "index.html").read_text()
        assert (tmp_path / name / "index.html").is_file()
    compared = write_comparison([tmp_path / name for name in results.certificates], tmp_path / "compared.html")
    assert all(name.rsplit("/", 1)[-1] in compared.read_text() for name in results.certificates)
    again: list[str] = []
    assert (
        run(text, tmp_path, on_cell=lambda cell, done, total: again.append(cell.key)).certificates
        == results.certificates
    )
    assert not again
    thorough = run(text.replace("certify:", "effort: thorough\ncertify:"), tmp_path).certificates
    assert not set(thorough) & set(results.certificates), "another effort is another certificate"
    files = [
        json.loads((tmp_path / found[0] / "certificate.json").read_text()) for found in (results.certificates, thorough)
    ]
    assert any("effort thorough" in text for text in files[1]["not_tried"])
    ended = [any("such a run is ended" in text for text in file["not_tried"]) for file in files]
    assert ended == [True, False], "a thorough search takes every run to its end, and no other says it does"
    for name, stop in ((results.certificates[0], "ruin"), (thorough[0], "budget")):
        cells = read_cells(tmp_path / name, read_certificate(tmp_path / name))
        assert {cell.attack.stop for cell in cells} == {stop}
    growth = run(text.replace("utility: perplexity", "utility: perplexity-growth"), tmp_path).certificates
    assert not set(growth) & {*results.certificates, *thorough}, "so is another utility"
    assert run(text.replace("utility: perplexity\n", ""), tmp_path).certificates == growth, "the kind's own"


def test_the_reference_is_measured_once(
    models: tuple[Path, Path], tmp_path: Path, pretended: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(small(models), tmp_path)
    monkeypatch.setattr("specdef.certify.reference.reference_utility", lambda cell: pytest.fail("measured again"))
    assert run(small(models), tmp_path).tables == first.tables


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"models": "[no/such/model]"}, r"`models\[0\]` must be a folder"),
        ({"models": "[{model: a, label: x}, {model: b, label: x}]"}, r"`models\[1\]` must differ .* x stands"),
        ({"defences": "[exact]"}, r"`defences\[0\]` must be none, or a mapping .* Write {preset: exact} for a lock"),
        ({"defences": "[{preset: exacd}]"}, r"`defences\[0\].preset` must be .*exacd"),
        ({"defences": "[{preset: exact, method: guard}]"}, r"`defences\[0\]` must have preset .* or method"),
        (
            {"defences": "[{preset: none, method: rmu, steps: 3}]"},
            r"`defences\[0\]` must have preset none and label alone, .*; it has method, steps too",
        ),
        ({"defences": "[{multiplier: 2^4}]"}, r"`defences\[0\]` must have preset"),
        ({"defences": "[none, {preset: exact, components: [q]}]"}, r"`defences\[1\].components` "),
        ({"defences": "[{method: guards}]"}, r"`defences\[0\].method` must be one of .*guard, .*; got 'guards'"),
        ({"defences": "[{method: guard, steps: few}]"}, r"`defences\[0\].steps` must be an integer in defence guard"),
        ({"defences": "[{method: guard, label: 3}]"}, r"`defences\[0\].label` must be a text; got 3"),
        ({"defences": "[{method: guard, seed: x}]"}, r"`defences\[0\].seed` must be a whole number; got 'x'"),
        ({"defences": "[{method: npo}]"}, r"`defences\[0\].forget` must be given with method npo, or a `task` whose"),
        ({"defences": "[{method: npo, task: factz}]"}, r"`defences\[0\].task` must be one of .*'factz'"),
        ({"defences": "[{method: guard, forget: a}]"}, r"`defences\[0\].option` of defence guard must be one of"),
        ({"defences": "[{chain: []}]"}, r"`defences\[0\].chain` must be a list of defences"),
        ({"defences": "[{chain: [{preset: exacd}]}]"}, r"`defences\[0\].chain\[0\].preset` must be .*exacd"),
        ({"defences": "[{chain: [none], seed: 1}]"}, r"`defences\[0\]` must have chain and label alone; it has seed"),
        ({"defences": "[none, none]"}, r"`defences\[1\]` must differ from the others; none stands there twice"),
        (
            {"models": "[{model: a, prepare: {method: gard}}]"},
            r"`models\[0\].prepare.method` must .*Did you mean 'guard'",
        ),
        ({"tasks": "[fact]"}, r"`tasks\[0\]` must be one of .*Did you mean 'facts'"),
        ({"tasks": '["mcqa:absent"]'}, r"tasks\[0\].*absent"),
        ({"attacks": "[{interventions: [merg]}]"}, r"`attacks\[0\].interventions\[0\]` must be one of .*merge.*'merg'"),
        ({"attacks": "[{lr: 1e-4}, {lr: 1e-4}]"}, r"`attacks\[1\]` must differ from the others"),
        ({"attacks": "[]", "certify": "[T9]"}, "`certify` must be any of T0"),
    ],
)
def test_a_fault_is_said_of_its_place_before_anything_is_written(
    models: tuple[Path, Path], tmp_path: Path, changes: dict[str, str], fault: str
) -> None:
    with pytest.raises(StudyError, match=fault):
        run(small(models, **changes), tmp_path / "out")
    assert not (tmp_path / "out" / "cells").exists() or "models" in changes


def test_a_copy_that_cannot_be_made_is_said_of_its_place(models: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"`defences\[0\].rank` must be at most 16 .* got 25"):
        run(small(models, defences="[{preset: paper}]"), tmp_path)
    with pytest.raises(StudyError, match=r"`defences\[0\].steps` must suffice to refuse 90 %"):
        run(small(models, defences="[{method: guard, steps: 2}]"), tmp_path)
    assert list((tmp_path / "models").iterdir()) == []


def test_a_folder_of_something_else_is_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match=r"`out` must be a new folder or one of `specdef run`; .* is neither"):
        run(small(models), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_results_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(SpecdefError, match="must hold results of `specdef run`"):
        read_results(tmp_path)
    (tmp_path / "results.json").write_text(json.dumps({"specdef_study_results": 2}))
    with pytest.raises(SpecdefError, match=r"results.json must be as `specdef run` writes it; it is not \(.*2"):
        read_results(tmp_path)


def test_several_studies_share_copies_and_cells(models: tuple[Path, Path], tmp_path: Path, pretended: None) -> None:
    text = small(models, defences="[{preset: exact, multiplier: 2^4}]")
    run(text, tmp_path / "a", shared=tmp_path / "shared")
    ran: list[str] = []
    run(text, tmp_path / "b", shared=tmp_path / "shared", on_cell=lambda cell, done, total: ran.append(cell.key))
    assert not ran
    assert {path.name for path in (tmp_path / "b").iterdir()} == {"study.json", "results.json"}
