"""Programs that people load models with compute from a locked folder what they compute from the original."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import programs
import pytest


@pytest.fixture(scope="module")
def folders() -> Iterator[tuple[Path, Path, Path, Path]]:
    with programs.folders() as found:
        yield found


@pytest.mark.parametrize("program", programs.PROGRAMS, ids=[one.name for one in programs.PROGRAMS])
@pytest.mark.parametrize("kind", ["exact", "inject"])
def test_a_program_computes_what_it_did(
    program: programs.Program, kind: str, folders: tuple[Path, Path, Path, Path]
) -> None:
    if not program.available:
        pytest.skip(program.package)
    model, exact, inject, written = folders
    found = programs.difference(program, model, exact if kind == "exact" else inject, written / program.name / kind)
    assert found == 0.0 if kind == "exact" else found < programs.NEAR


def test_an_adapter_of_the_original_does_not_fit_the_locked_model(
    folders: tuple[Path, Path, Path, Path], tmp_path: Path
) -> None:
    """`docs/runtimes.md` on weight arithmetic: LoRA's product is added to weights that the lock has scaled."""
    from peft import LoraConfig, PeftModel, get_peft_model

    model, exact, _, _ = folders
    config = LoraConfig(r=4, target_modules=["up_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(programs.load(model), config).save_pretrained(tmp_path)
    before, after = (programs.logits(PeftModel.from_pretrained(programs.load(one), tmp_path)) for one in (model, exact))
    assert float((after - before).abs().max() / before.abs().max()) > 0.1
