"""The workshop paper at full scale: study files for users' own data, in order but for the models that they name."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from experiments.tables import STUDIES
from specdef.certify.study_file import read_study
from specdef.certify.study_plan import plan_study
from specdef.tasks.images.digits import digits

FULL = sorted((STUDIES / "workshop").glob("*.yaml"))


def own(path: Path) -> None:
    """A file of the form that its name says."""
    if path.suffix == ".npz":
        drawn = digits(40)
        np.savez(path, images=np.stack([one.pixels for one in drawn]), labels=[one.label for one in drawn])
    else:
        rows = [f"a first sentence {number}\ta second sentence {number}\t{number % 2}" for number in range(8)]
        path.write_text("\n".join(["text\tsecond\tlabel", *rows]) + "\n")


@pytest.mark.parametrize("path", FULL, ids=lambda path: path.stem)
def test_it_is_in_order_but_for_the_models(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = read_study(path)
    assert path.read_text().startswith("# yaml-language-server: $schema=../../../docs/study.schema.json\n")
    monkeypatch.chdir(tmp_path)
    for name in set(re.findall(r"[\w-]+\.(?:npz|tsv)", path.read_text())):
        own(tmp_path / name)
    plan = plan_study(read)
    assert [one.label for one in plan.defences] == ["none", "exact 2^20", "inject 1e4", "trained x100"]
    rates = [attack.lr for attack in read.attacks if attack.lr is not None]
    assert min(rates) <= max(rates) / 1e3, "rates are swept down"


def test_every_table_is_there() -> None:
    assert [path.stem for path in FULL] == [
        "figure4",
        "table1-images",
        "table1-texts",
        "table2-guard",
        "table3-unlearning",
    ]
