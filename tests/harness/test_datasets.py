"""Data sets that Hugging Face `datasets` saved, which lm-eval brings along (`make test-harness`)."""

import datasets

from specdef.models.samples import Sample
from specdef.tasks.text.rows import read_rows


def test_a_saved_data_set_gives_its_rows(tmp_path):
    row = {"question": "Which is red?", "choices": ["grass", "blood"], "answer": 1}
    datasets.Dataset.from_list([row, row]).save_to_disk(tmp_path / "saved")
    found = [one.sample for one in read_rows(tmp_path / "saved")]
    assert found == [Sample("Question: Which is red?\nAnswer:", " blood")] * 2
