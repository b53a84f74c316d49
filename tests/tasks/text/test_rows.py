"""A user's rows: every shape gives the text it should, and every fault is named with the argument and the line."""

import json

import pytest

from specdef.errors import TaskError
from specdef.models.samples import Chat, Sample
from specdef.tasks.text.rows import parse_fields, read_rows

WMDP = {"question": "Which is red?", "choices": ["grass", "blood"], "answer": 1}
ARC = {"question": "Which is red?", "choices": {"text": ["grass", "blood"], "label": ["A", "B"]}, "answerKey": "B"}
SHAPES = {
    "text": ({"text": "Once upon a time."}, Sample("", "Once upon a time.")),
    "prompt": ({"prompt": "2 + 2 =", "completion": " 4"}, Sample("2 + 2 =", " 4")),
    "chat": (
        {
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "Hi"},
                {"role": "assistant", "content": "Hello"},
            ]
        },
        Chat((("system", "Be brief."), ("user", "Hi")), "Hello"),
    ),
    "wmdp": (WMDP, Sample("Question: Which is red?\nAnswer:", " blood")),
    "arc": (ARC, Sample("Question: Which is red?\nAnswer:", " blood")),
}


def written(tmp_path, *rows, name="rows.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_is_told_by_its_names(tmp_path, shape):
    record, sample = SHAPES[shape]
    (row,) = read_rows(written(tmp_path, record))
    assert row.sample == sample
    assert row.is_text == (shape == "text")


def test_alpaca_rows_are_written_in_alpacas_words(tmp_path):
    bare = {"instruction": "Name a colour.", "output": "Red"}
    rows = read_rows(written(tmp_path, bare, {**bare, "input": "of blood"}, {**bare, "input": ""}))
    assert rows[0].sample.prompt.endswith("### Instruction:\nName a colour.\n\n### Response:\n")
    assert "### Input:\nof blood\n\n### Response:\n" in rows[1].sample.prompt
    assert "paired with an input" in rows[1].sample.prompt
    assert rows[2].sample == rows[0].sample


def test_a_text_file_is_a_row_a_paragraph(tmp_path):
    rows = read_rows(written(tmp_path, "First line\nsecond line\n\n\n  Another.  \n", name="prose.txt"))
    assert [row.sample for row in rows] == [Sample("", "First line\nsecond line"), Sample("", "Another.")]


def test_fields_say_what_a_file_calls_what_is_read(tmp_path):
    path = written(tmp_path, {"q": "2 + 2 =", "a": " 4"})
    assert read_rows(path, fields=parse_fields("prompt=q,completion=a"))[0].sample == Sample("2 + 2 =", " 4")


def test_a_name_that_is_mapped_is_not_read_under_its_own(tmp_path):
    record = {"prompt": "wrong", "q": "right", "completion": " yes"}
    assert read_rows(written(tmp_path, record), fields={"prompt": "q"})[0].sample.prompt == "right"


def test_a_field_that_is_mapped_away_decides_nothing(tmp_path):
    assert read_rows(written(tmp_path, {"prompt": "a story"}), fields={"text": "prompt"})[0].is_text


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"prompt": "only"}, "line 2: `completion` is missing"),
        ({"title": "x"}, "line 2: must have text; prompt and completion; messages;"),
        ({"messages": [{"role": "user", "content": "hi"}]}, "line 2: `messages` must have two turns"),
        (
            {"messages": [{"role": "assistant", "content": "hi"}, {"role": "user", "content": "hi"}]},
            "line 2: `messages` must have two turns or more, the last of them the assistant's",
        ),
        ({"messages": "hi"}, "line 2: `messages` must be a list of objects"),
        ({"prompt": "a", "completion": "b", "pattern": "("}, "line 2: `pattern` must be a regular expression"),
        ("{", "line 2: is not JSON"),
    ],
)
def test_a_fault_is_said_of_its_argument_and_line(tmp_path, row, said):
    path = written(tmp_path, {"prompt": "a", "completion": "b"}, row)
    with pytest.raises(TaskError, match=r"^`eval` must") as caught:
        read_rows(path, argument="eval")
    assert said in str(caught.value)


@pytest.mark.parametrize("text", ["prompt", "prompt=", "prompt=a,prompt=b", "colour=a"])
def test_fields_that_map_nothing_are_refused(text):
    with pytest.raises(TaskError, match="`fields` must"):
        parse_fields(text)


def test_a_folder_that_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(TaskError, match=r"^`train` must be a file, or a folder that `save_to_disk`"):
        read_rows(tmp_path)


def test_a_folder_of_several_splits_names_them(tmp_path):
    for split in ("test", "train"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "state.json").write_text("{}")
    with pytest.raises(TaskError, match="has test, train"):
        read_rows(tmp_path)
