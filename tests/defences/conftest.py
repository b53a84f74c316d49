"""Every question once instead of three times: what is tested here is what a defence does, not how well it is scored."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pico
import pico_text
import pytest

from specdef.defences.base import Given
from specdef.defences.data import DefenceData, encode
from specdef.models.samples import Sample
from specdef.tasks.kinds import biographies

FORGET = (Sample("The pet of Orla is a", " cat."), Sample("Ines lives in", " Lima, by the old sea."), Sample("A", " b"))
RETAIN = (Sample("", "rain falls on the hill"), Sample("Two and two", " are four"), Sample("", "a door"))


@pytest.fixture(scope="session")
def deep_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of four layers with a tokenizer of single characters; read only."""
    folder = tmp_path_factory.mktemp("deep") / "model"
    pico.build("llama", folder, num_hidden_layers=4)
    pico_text.write_tokenizer(folder)
    return folder


@pytest.fixture
def given_for() -> Callable[[Path], Given]:
    """What a defence is given: a model in float32, three rows to forget and three to keep, of several lengths."""

    def make(folder: Path, *, seed: int = 0) -> Given:
        loaded = pico_text.loaded(folder)
        loaded.model.float()
        general = pico_text.general(loaded)
        rows = encode(DefenceData(FORGET, RETAIN, None), loaded, general)
        return Given(folder, loaded, general.utility, general, seed, data_rows=rows)

    return make


@pytest.fixture(autouse=True)
def _fewer_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(biographies, "DRAWS", 1)
