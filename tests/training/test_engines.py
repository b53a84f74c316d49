"""One attack in several processes: what one process computes, to the noise of sums in another order."""

from __future__ import annotations

from pathlib import Path

import pytest
import together

from specdef.core import processes
from specdef.errors import SpecdefError
from specdef.training import engines
from specdef.training.engines import refuse_optimizer
from specdef.training.optimizers import OPTIMIZERS
from specdef.training.recipe import Recipe

PLAIN = Recipe(lr=1e-2, steps=6, batch_size=5)
EVERY_DAY = {
    "plain": PLAIN,
    "accumulated": Recipe(lr=1e-2, steps=6, batch_size=3, gradient_accumulation_steps=2, max_grad_norm=0.1),
    "fewer rows than processes": Recipe(lr=1e-2, steps=6, batch_size=1, clip_each=True),
    "bf16-master": Recipe(lr=1e-3, steps=6, precision="bf16-master"),
}
NOISE = {"bf16-master": 2e-2, "muon": 1e-3, "soap": 2e-2, "lbfgs": 1e-2}
"""Bfloat16's arithmetic, which muon uses inside; eigenvectors; a line search. All else: float32's sums."""
TOLERANCE = 1e-5


def agree(recipes: dict[str, Recipe], environment: dict[str, str], folder: Path) -> None:
    alone = together.trained(folder, recipes, {})
    first, second = together.run(together.trained, folder, recipes, environment)
    for name, expected in alone.items():
        tolerance = NOISE.get(name, TOLERANCE)
        assert first[name]["losses"] == pytest.approx(expected["losses"], rel=tolerance), name
        assert second[name]["losses"] == first[name]["losses"], "all processes see the same figures"
        assert first[name]["moved"]
        assert first[name]["sharded"] is bool(environment)
        shared = first[name]["held"] + second[name]["held"]
        assert shared == expected["held"] * (1 if environment else 2)


@pytest.mark.parametrize("environment", [{}, together.SHARDED], ids=["replicas", "shards"])
def test_two_processes_train_as_one(environment: dict[str, str], toy_model: Path) -> None:
    agree(EVERY_DAY, environment, toy_model)


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{}, together.SHARDED], ids=["replicas", "shards"])
def test_every_optimizer_that_is_not_refused_trains_as_in_one(environment: dict[str, str], toy_model: Path) -> None:
    usual = {"sgd": 0.1, "lbfgs": 0.5, "adafactor": 3e-2, "adahessian": 1e-2, "sophia": 6e-2, "adadelta": 1.0}
    fit = {name: spec for name, spec in OPTIMIZERS.items() if not spec.alone and (spec.parts or not environment)}
    assert len(fit) == (6 if environment else len(OPTIMIZERS) - 1)
    agree({name: Recipe(name, lr=usual.get(name, 3e-3), steps=6) for name in fit}, environment, toy_model)


def test_a_process_that_dies_ends_the_others_with_a_sentence(toy_model: Path) -> None:
    first, second = together.run(together.killed_at_work, toy_model)
    assert second is None
    assert "All 2 processes of this attack must live until it ends; process 0 lost another" in first
    assert "this attack is not stored" in first


def test_what_no_process_of_several_can_compute_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_optimizer(Recipe("kfac"))
    refuse_optimizer(Recipe("soap"))
    monkeypatch.setattr(engines, "size", lambda: 2)
    refuse_optimizer(Recipe("soap"))
    with pytest.raises(SpecdefError, match=r"`optimizer` must be one that looks at gradients alone where 2 proc.*kfac"):
        refuse_optimizer(Recipe("kfac"))
    for name, value in together.SHARDED.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(
        SpecdefError, match=r"`optimizer` must be one that works on parts of tensors.*adamw, .*got soap"
    ):
        refuse_optimizer(Recipe("soap"))
    refuse_optimizer(Recipe("adamw"))
    monkeypatch.setenv("FSDP_OFFLOAD_PARAMS", "true")
    with pytest.raises(SpecdefError, match="`fsdp_offload_params` must be false"):
        refuse_optimizer(Recipe("adamw"))
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(SpecdefError, match="`fsdp_version` must be 2; got 1"):
        refuse_optimizer(Recipe("adamw"))


def test_a_process_alone_is_never_sharded(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in together.SHARDED.items():
        monkeypatch.setenv(name, value)
    assert processes.size() == 1
    assert not engines.is_sharded()
