"""Programs that people load models with compute from a locked folder what they compute from the original."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import programs
import pytest

import specdef.integrations.transformers  # noqa: F401  (what an inject lock asks for)
from specdef.errors import SpecdefError

NAMES = [one.name for one in programs.PROGRAMS]
Folders = tuple[Path, Path, Path, Path]


@pytest.fixture(scope="module")
def folders() -> Iterator[Folders]:
    with programs.folders() as found:
        yield found


def installed(program: programs.Program) -> programs.Program:
    if not program.available:
        pytest.skip(program.package)
    return program


@pytest.mark.parametrize("program", programs.PROGRAMS, ids=NAMES)
def test_an_exact_lock_changes_no_bit(program: programs.Program, folders: Folders, tmp_path: Path) -> None:
    assert programs.difference(installed(program), folders[0], folders[1], tmp_path) == 0.0


@pytest.mark.parametrize("program", programs.PROGRAMS, ids=NAMES)
def test_an_inject_lock_comes_near_or_does_not_come_through(
    program: programs.Program, folders: Folders, tmp_path: Path
) -> None:
    """Where it does not, the program refuses, or what it wrote is of no use: never a model that is nearly right."""
    if program.run is programs.compiled:
        pytest.skip("the types that the tests check cannot be looked at in a compiled layer")
    try:
        found = programs.difference(installed(program), folders[0], folders[2], tmp_path)
    except (ValueError, SpecdefError):
        found = math.inf
    assert math.isfinite(found) == (program.near is not None)
    assert program.near is None or found < program.near


def test_an_adapter_of_the_original_does_not_fit_the_locked_model(folders: Folders, tmp_path: Path) -> None:
    """`docs/runtimes.md` on weight arithmetic: LoRA's product is added to weights that the lock has scaled."""
    from peft import LoraConfig, PeftModel, get_peft_model

    model, exact, _, _ = folders
    config = LoraConfig(r=4, target_modules=["up_proj", "down_proj"], init_lora_weights=False)
    get_peft_model(programs.load(model), config).save_pretrained(tmp_path)
    before, after = (programs.logits(PeftModel.from_pretrained(programs.load(one), tmp_path)) for one in (model, exact))
    assert float((after - before).abs().max() / before.abs().max()) > 0.1
