"""A certificate of many hours is made in parts: what one machine finished and committed, the next does not run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import synthetic

from experiments import certificates
from specdef.certify.cell import Cell
from specdef.certify.cell_result import FinishedCell
from specdef.certify.certificate import Certificate
from specdef.certify.certify_study import certify_study
from specdef.certify.store import Store


class Machine:
    """Runs so many cells, then goes away."""

    def __init__(self, cells: int) -> None:
        self.left, self.ran = cells, list[str]()

    def run(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, FinishedCell]]:
        for cell, found in synthetic.Pretended(synthetic.holds).run(cells):
            if len(self.ran) == self.left:
                raise KeyboardInterrupt
            self.ran.append(cell.key)
            yield cell, found

    def certify(
        self, folder: Path, out: Path, *, cells: Path, threats: Sequence[str], command: str, **asked: Any
    ) -> Certificate:
        study = synthetic.study(multiplier=2.0**20)
        store, seen = Store(out, study.identity(), cells=cells), asked["on_cell"]
        return certify_study(study, store, self, threats=threats, on_cell=seen, command=command)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(certificates, "KEPT", tmp_path / "kept")
    monkeypatch.setenv("EXPERIMENT_THREATS", "T0,T1")

    def run(machine: Machine, name: str) -> list[str]:
        """The cells that lie beside the certificate."""
        work = tmp_path / name
        monkeypatch.setattr(certificates, "WORK", work)
        monkeypatch.setattr(certificates, "certify_model", machine.certify)
        out = tmp_path / "results" / "locked"
        certificates.certify("certificates-locked", Path("locked"), Path("model"), out, work / "cells")
        return sorted(path.stem for path in (out / "cells").iterdir())

    return run


def test_the_second_machine_goes_on_where_the_first_one_stopped(
    made: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = made(alone := Machine(10**6), "alone")
    (tmp_path / "results").rename(tmp_path / "done")
    monkeypatch.setenv("EXPERIMENT_GO_ON", "1")
    with pytest.raises(KeyboardInterrupt):
        made(first := Machine(5), "first")
    assert {path.stem for path in (tmp_path / "kept" / "certificates-locked").iterdir()} == set(first.ran)
    assert made(second := Machine(10**6), "second") == whole
    assert first.ran + second.ran == alone.ran, "no cell ran twice"
    assert not (tmp_path / "kept" / "certificates-locked").exists(), "all of it lies beside the certificate"
    assert made(third := Machine(0), "third") == whole
    assert not third.ran, "a committed certificate is gone on with as well"


def test_who_makes_a_certificate_again_makes_all_of_it(made: Any, tmp_path: Path) -> None:
    for name in ("one", "other"):
        made(machine := Machine(10**6), name)
        assert len(machine.ran) > 5
    assert not (tmp_path / "kept").exists()
