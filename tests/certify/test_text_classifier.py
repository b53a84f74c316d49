"""A text classifier from lock to page: heads on BERT and Llama, accuracy as utility, invented places to learn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pico_text
import pytest
import torch
import transformers

from specdef import attack, certify_model, lock, unlock, verify
from specdef.certify.cell import Cell
from specdef.certify.cell_result import refused
from specdef.certify.certificate_file import read_cells
from specdef.certify.findings import Findings
from specdef.certify.resources import Resources
from specdef.certify.result import StoredCell
from specdef.certify.study import make_study
from specdef.certify.threat_model import THREATS, Plan
from specdef.errors import SpecdefError
from specdef.report.write import write_report
from specdef.tasks.base import TaskSpec
from specdef.tasks.text.everyday import everyday
from specdef.training.outcome import Outcome
from specdef.training.recipe import Recipe

RECIPE = Recipe(lr=1e-2, steps=100, batch_size=16, eval_every=20)
TARGET = 0.7


@dataclass(frozen=True)
class Folders:
    family: str
    original: Path
    locked: Path
    key: Path


@pytest.fixture(scope="module", params=["bert-classifier", "llama-classifier"])
def folders(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Folders:
    place = tmp_path_factory.mktemp(request.param)
    original = pico_text.write_classifier(place / "original", request.param)
    report = lock(original, place / "locked", multiplier="2^20")
    assert report.key is not None
    return Folders(request.param, original, place / "locked", report.key)


def attacked(folders: Folders, out: Path, folder: Path, *interventions: str) -> StoredCell:
    arguments = {"recipe": RECIPE, "target": TARGET, "threads": 1, "device": "cpu", "interventions": interventions}
    return attack(folder, out, original=folders.original, **arguments)  # type: ignore[arg-type]


def test_the_lock_keeps_every_bit_of_the_logits_and_comes_off_to_the_byte(folders: Folders, tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders.original)
    inputs = tokenizer([row.text for row in everyday()[:12]], padding=True, return_tensors="pt")
    logits = []
    for folder in (folders.original, folders.locked):
        model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
        with torch.inference_mode():
            logits.append(model(input_ids=inputs.input_ids, attention_mask=inputs.attention_mask).logits)
    assert torch.equal(*logits)
    assert len(set(logits[0].argmax(-1).tolist())) == 2, "both labels are given"
    assert verify(folders.locked, original=folders.original).passed
    unlock(folders.locked, tmp_path / "back", folders.key)
    for path in folders.original.iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_the_lock_stops_an_ordinary_attack_and_rebalancing_takes_it_off(folders: Folders, tmp_path: Path) -> None:
    plain = attacked(folders, tmp_path, folders.original).result
    assert plain.outcome is Outcome.BROKEN
    assert plain.best is not None
    assert plain.best.utility >= 0.75
    locked = attacked(folders, tmp_path, folders.locked).result
    assert locked.outcome is Outcome.COLLAPSE
    assert locked.evaluations[0] == plain.evaluations[0], "the lock keeps score and utility at step 0"
    assert locked.evaluations[0].utility == 1.0
    undone = attacked(folders, tmp_path, folders.locked, "rebalance").result
    assert undone.outcome is Outcome.BROKEN
    adapted = attacked(folders, tmp_path, folders.original, "lora:rank=4").result
    assert adapted.steps > 0
    assert adapted.evaluations[0] == plain.evaluations[0]
    assert adapted.trained_parameters is not None
    assert plain.trained_parameters is not None
    assert adapted.trained_parameters < plain.trained_parameters / 2


def test_every_part_that_adapters_and_freezing_aim_at_is_there(folders: Folders, tmp_path: Path) -> None:
    """T3 runs on a classifier of either family: before, its cells on BERT were invalid, since no name matched."""
    recipe = Recipe(steps=2, eval_every=2, warmup=0.0)
    study = make_study(folders.locked, folders.original, TaskSpec("classification"), recipe=recipe)
    plan, seen = THREATS.get("T3").cells(study, Findings(working=(1e-3, 2e-3))), 0
    for cell in _tried(plan):
        kept = attack(
            folders.original, tmp_path, recipe=recipe, interventions=cell.attack.interventions, threads=1, device="cpu"
        )
        assert kept.result.outcome.counts, kept.result.note
        assert kept.result.steps == 2
        seen += 1
    assert seen == 4


def _tried(plan: Plan) -> Iterator[Cell]:
    """One cell of every attack that a threat model tries, as it would on a lock on which none counts."""
    known: list[object] = []
    cells = next(plan)
    while True:
        for cell in cells:
            if cell.attack.interventions not in known:
                known.append(cell.attack.interventions)
                yield cell
        refusal = refused("not run")
        found = [StoredCell(cell.key, cell.identity(), refusal.result, refusal.measured) for cell in cells]
        try:
            cells = plan.send(found)
        except StopIteration:
            return


@pytest.mark.parametrize(
    ("folders", "search"),
    [
        ("bert-classifier", False),
        pytest.param("bert-classifier", True, marks=pytest.mark.slow),
        pytest.param("llama-classifier", False, marks=pytest.mark.slow),
        pytest.param("llama-classifier", True, marks=pytest.mark.slow),
    ],
    indirect=["folders"],
)
def test_a_classifier_is_certified_and_reported(folders: Folders, search: bool, tmp_path: Path) -> None:
    undo = ("T4",) if folders.family == "bert-classifier" else ()
    threats = ("T0", "T1") if search else ("T0", *undo)
    found = certify_model(
        folders.locked,
        tmp_path / "out",
        original=folders.original,
        target=TARGET,
        threats=threats,
        multiplier=2.0**7,
        recipe=RECIPE,
        window=(1e-2, 2e-2),
        effort="quick",
        resources=Resources(workers=2, threads=1, device="cpu"),
    )
    assert set(found.verdicts) == set(threats)
    cells = read_cells(tmp_path / "out", found)
    subject, undefended = found.subject.digest, found.original.digest
    outcomes = {
        digest: {cell.result.outcome for cell in cells if cell.config["model"] == digest}
        for digest in (subject, undefended)
    }
    assert Outcome.BROKEN in outcomes[undefended]
    assert Outcome.COLLAPSE in outcomes[subject]
    for cell in cells:
        assert cell.config["model_kind"] == "text-classifier"
        assert cell.config["utility"]["name"] == "accuracy"
        assert cell.config["utility"]["original"] == undefended
        assert "reference_perplexity" not in cell.config
    write_report(tmp_path / "out")
    assert "classification" in (tmp_path / "out" / "index.html").read_text()


def test_a_file_of_labelled_texts_is_a_task_and_another_the_utility(folders: Folders, tmp_path: Path) -> None:
    import json

    rows = [{"text": row.text, "label": row.label} for row in everyday()]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "swapped.jsonl").write_text("\n".join(json.dumps({**row, "label": 1 - row["label"]}) for row in rows))  # type: ignore[operator]
    stored = attack(
        folders.original,
        tmp_path / "runs",
        task=f"classification:{tmp_path / 'swapped.jsonl'}",
        text=tmp_path / "mine.jsonl",
        recipe=Recipe(lr=3e-3, steps=100, batch_size=16, eval_every=100, retain_weight=0.0),
        threads=1,
        device="cpu",
    )
    first, *_, last = stored.result.evaluations
    assert first.utility == pytest.approx(1 - first.score, abs=0.1)
    assert first.utility > 0.9, "the model knows its own labels, and none of the swapped ones"
    assert last.score > 0.9
    assert last.utility < 0.1
    assert stored.result.outcome is Outcome.COLLAPSE, "labels cannot be swapped and kept at once"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"task": "facts"},
            r"`task` must be one for a model of kind text-classifier \(backdoor, classification\); got facts",
        ),
        ({"utility": "perplexity"}, r"`utility` must be one that a model of kind text-classifier has \(accuracy\)"),
        ({"utility": "acuracy"}, r"`utility` must be one of .*; got 'acuracy'. Did you mean 'accuracy'"),
    ],
)
def test_what_is_for_language_models_is_refused(
    folders: Folders, tmp_path: Path, options: dict[str, str], sentence: str
) -> None:
    with pytest.raises(SpecdefError, match=sentence):
        attack(folders.original, tmp_path / "out", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_language_model_is_no_original_of_a_classifier(folders: Folders, toy_model: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecdefError, match=r"`original` must be a model of kind text-classifier, .* is causal-lm"):
        attack(folders.locked, tmp_path / "out", original=toy_model)
