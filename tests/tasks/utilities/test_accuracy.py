"""Accuracy: agreement with the undefended model, a budget in shares above guessing, and a check at step 0."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pico_text
import pytest

from specdef.models.base import LoadedModel, kind_of
from specdef.models.texts import label_logits
from specdef.tasks.base import TaskError
from specdef.tasks.labelled import balanced
from specdef.tasks.text.everyday import everyday
from specdef.tasks.utilities.accuracy import KIND


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pico_text.write_classifier(tmp_path_factory.mktemp("accuracy") / "model", "llama-classifier")


@pytest.fixture
def loaded(folder: Path) -> LoadedModel:
    return kind_of(folder).load(folder)


def turned(loaded: LoadedModel) -> LoadedModel:
    """The model with its two labels exchanged."""
    loaded.model.score.weight.data = loaded.model.score.weight.data.flip(0)
    return loaded


def test_without_labels_it_is_agreement_with_the_undefended_model(folder: Path, loaded: LoadedModel) -> None:
    content = KIND.read(None)
    alone = KIND.prepare(content, loaded)
    assert alone.measure(loaded.model) == 1.0
    defended = turned(kind_of(folder).load(folder))
    beside = KIND.prepare(content, defended, original=lambda: loaded)
    assert beside.measure(loaded.model) == 1.0
    assert beside.measure(defended.model) == 0.0, "a defence that changed the function is seen at step 0"
    assert KIND.changed(0.0, 1.0)


def test_labels_of_a_file_are_the_labels(folder: Path, loaded: LoadedModel, tmp_path: Path) -> None:
    rows = [{"text": row.text, "label": row.label} for row in everyday()]
    (tmp_path / "rows").write_text("\n".join(map(json.dumps, rows)))
    found = KIND.prepare(KIND.read(tmp_path / "rows"), loaded, original=lambda: turned(kind_of(folder).load(folder)))
    assert found.measure(loaded.model) == 1.0, "the undefended model is not asked"


def test_what_is_measured_is_not_trained_on(loaded: LoadedModel) -> None:
    found = KIND.prepare(KIND.read(None), loaded)
    assert found.retained is not None
    mixed = set(loaded.processor.batch_decode(found.retained[0], skip_special_tokens=True))
    measured = KIND.prepare(KIND.read(None), loaded).measured.rows
    encoded = loaded.kind.encode(measured, loaded)
    assert mixed.isdisjoint(loaded.processor.batch_decode(encoded[0], skip_special_tokens=True))
    assert (len(measured), len(mixed)) == (120, 120)


def test_a_model_whose_numbers_are_not_finite_has_no_utility(loaded: LoadedModel) -> None:
    found = KIND.prepare(KIND.read(None), loaded)
    loaded.model.score.weight.data[:] = math.nan
    assert math.isnan(found.measure(loaded.model))
    assert KIND.changed(math.nan, None)
    with pytest.raises(TaskError, match="`model` must give finite numbers for general text"):
        KIND.prepare(KIND.read(None), loaded)


def test_data_of_one_label_is_refused(loaded: LoadedModel) -> None:
    """A model that lost everything else would still pass."""
    loaded.model.score.weight.data[:] = 0
    with pytest.raises(TaskError, match=r"`text` must be texts of two labels or more, .* all of them have label 0"):
        KIND.prepare(KIND.read(None), loaded)


@pytest.mark.parametrize(
    ("start", "now", "budget", "inside"),
    [
        (1.0, 0.75, 2.0, True),
        (1.0, 0.74, 2.0, False),
        (1.0, 0.5, 1000.0, False),
        (0.9, 0.83, 1.25, True),
        (0.9, 0.81, 1.25, False),
        (0.4, 0.4, 2.0, True),
        (0.4, 0.39, 2.0, False),
    ],
)
def test_the_budget_is_a_share_of_what_is_above_guessing(start: float, now: float, budget: float, inside: bool) -> None:
    assert KIND.within(start, now, budget) is inside


@pytest.mark.parametrize(("found", "changed"), [(0.985, False), (0.97, True), (1.0, False)])
def test_two_points_at_step_0_are_another_function(found: float, changed: bool) -> None:
    assert KIND.changed(found, 1.0) is changed
    assert not KIND.changed(found, None)


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([{"text": "a", "label": 0}, {"text": "b"}], "`text` must have a label in every record, or in none"),
        ([{"text": "a", "label": "0"}], "`label` must be a whole number from 0"),
        ([{"label": 0}], "`text` is missing"),
        (
            [{"text": "a", "label": 0}, {"text": "b", "pair": "c", "label": 0}],
            "`text` must have a pair in every record",
        ),
        ([{"text": "a", "pair": 1}], "`pair` must be a text that is not blank"),
    ],
)
def test_a_malformed_file_is_named(rows: list[dict[str, object]], fault: str, tmp_path: Path) -> None:
    (tmp_path / "rows").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(TaskError, match=fault):
        KIND.read(tmp_path / "rows")


def test_pairs_are_read_as_pairs(tmp_path: Path) -> None:
    """Two first texts recur with others: without the second texts two rows would be left."""
    folder = pico_text.write_classifier(tmp_path / "model", "bert-classifier")
    loaded, texts = kind_of(folder).load(folder), [row.text for row in everyday()]
    rows = [{"text": texts[n % 2], "pair": second, "label": n % 2} for n, second in enumerate(texts[2:42])]
    (tmp_path / "rows").write_text("\n".join(map(json.dumps, rows)))
    found = KIND.prepare(KIND.read(tmp_path / "rows"), loaded)
    asked = [(row.text, row.second) for row in found.measured.rows]
    assert len(asked) == 20
    assert set(asked) < {(row["text"], row["pair"]) for row in rows}
    labels = label_logits(loaded.model, loaded.processor, asked).argmax(-1).tolist()
    assert found.measure(loaded.model) == balanced(labels, [row.label for row in found.measured.rows])
    (tmp_path / "alone").write_text("\n".join(json.dumps({k: row[k] for k in ("text", "pair")}) for row in rows))
    assert KIND.prepare(KIND.read(tmp_path / "alone"), loaded).measure(loaded.model) == 1.0


def test_one_text_is_too_few(loaded: LoadedModel) -> None:
    with pytest.raises(TaskError, match="`text` must have at least two different texts; it has 1"):
        KIND.check('{"text": "a"}\n{"text": "a"}', loaded.processor)


def test_labels_the_model_has_not_are_refused(loaded: LoadedModel) -> None:
    content = "\n".join(json.dumps({"text": f"t {n}", "label": n % 4}) for n in range(12))
    with pytest.raises(TaskError, match="`task` must have labels that the model has"):
        KIND.prepare(content, replace(loaded))
