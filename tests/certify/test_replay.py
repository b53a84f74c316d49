"""The committed certificates, derived again from their committed cells by the code of today: nothing is run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from specdef.certify import certify_study as certify_file
from specdef.certify.cell import Cell, CellConfig, Subject, digest_of
from specdef.certify.cell_result import FinishedCell
from specdef.certify.certificate import Certificate
from specdef.certify.certificate_file import read_cells, read_certificate
from specdef.certify.certify_study import certify_study
from specdef.certify.effort import QUICK, STANDARD, Effort
from specdef.certify.environment import environment
from specdef.certify.resources import Resources
from specdef.certify.result import cell_from_wire
from specdef.certify.store import Store
from specdef.certify.study import MultiplierSource, Study
from specdef.certify.verdict_kinds import Broken, Held, HeldBy, Undone, Verdict
from specdef.errors import SpecdefError
from specdef.tasks.base import TaskSpec, make_task
from specdef.tasks.utilities.perplexity import Perplexity
from specdef.training.outcome import StopReason

RESULTS = Path(__file__).parents[2] / "experiments" / "results"
COMMITTED, LATER = RESULTS / "certificates", RESULTS / "biographies"
NAMES = ("exact", "paper", "unlocked")
FALLS: list[Verdict] = [Held(HeldBy.COLLAPSE), Broken(), Broken(), Broken()]
VERDICTS: dict[str, list[Verdict]] = {
    "exact": [*FALLS, Undone(1.0)],
    "paper": [*FALLS, Undone(0.6)],
    "unlocked": [Broken()] * 5,
}
LATER_VERDICTS: dict[str, list[Verdict]] = {
    "exact": [Held(HeldBy.COLLAPSE), Broken()],
    "paper": [Held(HeldBy.COLLAPSE), Held(HeldBy.STALL)],
    "unlocked": [Broken()] * 2,
}

ENDED: dict[str, list[Verdict]] = {
    "cpu/paper": LATER_VERDICTS["paper"],
    "ladder": [Held(HeldBy.COLLAPSE), Held(HeldBy.STALL), Held(HeldBy.STALL), Undone(2.408)],
}


class Refusing:
    """An executor that must not be asked for anything."""

    def run(self, cells: Sequence[Cell]) -> Iterator[tuple[Cell, FinishedCell]]:
        asked = [(cell.attack.label, cell.subject.path) for cell in cells]
        raise AssertionError(f"cells that are not committed: {asked}")


def study_of(certificate: Certificate, effort: Effort = QUICK, device: str = "cpu") -> Study:
    """The study behind a certificate, at the effort of its day; its models are known by their digests alone."""
    spec = TaskSpec(certificate.task.name)
    task = make_task(spec)
    assert digest_of(task.fingerprint()) == certificate.task.digest
    subject = certificate.subject
    return Study(
        original=Subject(certificate.original.name, certificate.original.digest),
        locked=Subject(subject.name, subject.digest),
        method=subject.method,
        multiplier=certificate.multiplier,
        multiplier_source=MultiplierSource(certificate.multiplier_source),
        locked_modules=("model.layers.0.mlp.up_proj",) if subject.method == "inject" else (),
        spec=spec,
        task=task,
        task_digest=certificate.task.digest,
        text=None,
        text_digest=certificate.utility.text_digest,
        recipe=certificate.ordinary,
        utility_factor=certificate.utility.factor,
        effort=effort,
        utility=certificate.utility.name,
        resources=Resources(1, 1, device),
    )


@pytest.fixture(scope="module", params=NAMES)
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Certificate, Certificate]:
    """(name, the certificate as committed, the one derived again)."""
    old = read_certificate(COMMITTED, name=f"{request.param}.json")
    folder = tmp_path_factory.mktemp(request.param)
    shutil.copytree(COMMITTED / "cells", folder / "shared")
    store = Store(folder / "out", cells=folder / "shared")
    new = certify_study(study_of(old), store, Refusing(), threats=list(old.threat_models))
    assert read_certificate(folder / "out") == new
    return request.param, old, new


def test_the_verdicts_come_out_the_same(pair: tuple[str, Certificate, Certificate]) -> None:
    name, old, new = pair
    found = list(new.verdicts.values())
    assert [_rounded(verdict) for verdict in found] == list(old.verdicts.values()) == VERDICTS[name]
    for threat, entry in old.threat_models.items():
        again = new.threat_models[threat]
        assert replace(again, verdict=entry.verdict) == entry, threat
    assert (new.unlocked.steps, new.unlocked.working_learning_rates) == (
        old.unlocked.steps,
        old.unlocked.working_learning_rates,
    )


def _rounded(verdict: Verdict) -> Verdict:
    """Version 1 has one decimal place."""
    return Undone(round(verdict.seconds, 1)) if isinstance(verdict, Undone) else verdict


def test_every_stage_asks_for_the_committed_cells_in_their_order(pair: tuple[str, Certificate, Certificate]) -> None:
    _, old, new = pair
    assert new.cells == old.cells


def test_a_committed_certificate_and_its_cells_agree(pair: tuple[str, Certificate, Certificate]) -> None:
    _, old, _ = pair
    assert {cell.key for cell in read_cells(COMMITTED, old)} == {row.cell for row in old.cells}


@pytest.mark.parametrize("name", NAMES)
def test_the_certificates_of_the_stricter_rules_come_out_the_same(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Made on a GPU, at effort standard, with more seeds where three left the matter open."""
    monkeypatch.setattr(certify_file, "environment", lambda device: environment("cpu"))  # there may be no GPU here
    old = read_certificate(LATER / name)
    shutil.copytree(LATER / name / "cells", tmp_path / "shared")
    store = Store(tmp_path / "out", cells=tmp_path / "shared")
    new = certify_study(study_of(old, STANDARD, "cuda"), store, Refusing(), threats=list(old.threat_models))
    assert list(new.verdicts.values()) == list(old.verdicts.values()) == LATER_VERDICTS[name]
    assert (new.threat_models, new.controls, new.cells) == (old.threat_models, old.controls, old.cells)
    assert (new.unlocked, new.seeds, new.not_tried, new.utility) == (
        old.unlocked,
        old.seeds,
        old.not_tried,
        old.utility,
    )
    assert {path.stem for path in (LATER / name / "cells").iterdir()} == {row.cell for row in old.cells}


@pytest.mark.parametrize("name", ENDED)
def test_where_ruined_runs_are_ended_the_verdicts_come_out_the_same(name: str, tmp_path: Path) -> None:
    """Made on two cores of a CPU, under the rule that ends a ruined run; `paper` has the verdicts of the whole runs."""
    folder = LATER / name
    old = read_certificate(folder)
    shutil.copytree(folder / "cells", tmp_path / "shared")
    store = Store(tmp_path / "out", cells=tmp_path / "shared")
    study = replace(study_of(old, STANDARD, "cpu"), stop="ruin")
    new = certify_study(study, store, Refusing(), threats=list(old.threat_models))
    assert list(new.verdicts.values()) == list(old.verdicts.values()) == ENDED[name]
    assert (new.threat_models, new.controls, new.cells) == (old.threat_models, old.controls, old.cells)
    assert (new.unlocked, new.seeds, new.not_tried, new.utility) == (
        old.unlocked,
        old.seeds,
        old.not_tried,
        old.utility,
    )
    assert {path.stem for path in (folder / "cells").iterdir()} == {row.cell for row in old.cells}
    ended = [cell for cell in read_cells(folder, old) if cell.result.reason is StopReason.RUINED]
    assert ended
    assert all(cell.result.steps < cell.attack.recipe.steps for cell in ended)


def test_a_certificate_of_version_1_needs_its_cells(tmp_path: Path) -> None:
    shutil.copyfile(COMMITTED / "exact.json", tmp_path / "certificate.json")
    with pytest.raises(SpecdefError, match="Expected the result file of every cell beside a certificate of version 1"):
        read_certificate(tmp_path)


def test_no_committed_run_came_back_from_where_certificates_end_one() -> None:
    """The evidence for `RUIN`: these runs went on to their last step."""
    ruined, seen = Perplexity().ruined, 0
    for path in sorted(RESULTS.glob("**/cells/*.json")):
        cell = cell_from_wire(json.loads(path.read_text()))
        if cell.config.get("model_kind", "causal-lm") != "causal-lm" or cell.attack.stop != "budget":
            continue
        growth = [point.utility / cell.result.evaluations[0].utility for point in cell.result.evaluations]
        lost = next((index for index, value in enumerate(growth) if ruined(1.0, value)), None)
        if lost is not None:
            seen += 1
            assert min(growth[lost:]) > 2, path
    assert seen >= 17


def test_every_committed_cell_is_named_by_its_configuration() -> None:
    paths = sorted((COMMITTED / "cells").glob("*.json"))
    assert len(paths) == 81
    for path in paths:
        data = json.loads(path.read_text())["config"]
        config = CellConfig.from_wire(data)
        assert config.to_wire() == data
        assert config.key == path.stem
