"""Immunisation against adaptation: its two steps by hand, and that the order of its signs is what resists adapters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pico_diffusion
import pytest
import torch

from specdef.defences.base import Given
from specdef.defences.data import DefenceData, encode
from specdef.defences.descent import descend
from specdef.defences.kinds.imma import ImmaObjective, ImmaOptions
from specdef.defences.objective import Rows
from specdef.errors import SpecdefError
from specdef.models.base import kind_of
from specdef.tasks.base import TaskSpec, make_task
from specdef.tasks.utilities.denoising_loss import KIND


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("imma")
    pico_diffusion.build(found / "model", odd=False)
    pico_diffusion.write_concept(found)
    return found


@pytest.fixture
def make(place: Path) -> Callable[[], Given]:
    def given() -> Given:
        loaded = kind_of(place / "model").load(place / "model")
        general = KIND.prepare(KIND.read(place / "concept.yaml"), loaded)
        task = make_task(TaskSpec("concept", str(place / "concept.yaml")))
        rows = encode(DefenceData(task.samples, None, task), loaded, general)
        return Given(place / "model", loaded, KIND, general, 0, data_rows=rows)

    return given


def some(given: Given) -> Rows:
    assert given.data_rows is not None
    return Rows(tuple(part[:4] for part in given.data_rows.forget), (0, 1, 2, 3))


def options(**changes: Any) -> ImmaOptions:
    return ImmaOptions(**{"batch_size": 4, "inner_lr": 1e-2, "inner_steps": 3, **changes})


def test_adapters_descend_and_the_loss_is_taken_with_them(make: Callable[[], Given]) -> None:
    given = make()
    forget = some(given)
    objective = ImmaObjective(given, options())
    assert len(objective.layers) == 8 * len(
        [name for name, _ in given.loaded.model.unet.named_modules() if name.endswith("transformer_blocks.0")]
    )
    before = {name: value.clone() for name, value in given.loaded.model.state_dict().items()}
    plain = float(given.loaded.kind.loss(given.loaded.model, forget.batch).detach())
    torch.manual_seed(0)
    loss = objective.loss(0, forget, forget)
    adapters = {name: value.detach().clone() for name, value in objective.adapters.items()}
    assert all(bool(value.any()) for value in adapters.values()), "every adapter was trained"
    merged = make()
    with torch.no_grad():
        for path, layer in ImmaObjective(merged, options()).layers.items():
            layer.weight.add_(adapters[f"{path}.up"] @ adapters[f"{path}.down"])
    with_adapters = float(given.loaded.kind.loss(merged.loaded.model, forget.batch).detach())
    assert float(loss.detach()) == pytest.approx(-with_adapters, rel=1e-4)
    assert with_adapters < plain, "adapters came nearer to the concept"
    assert all(torch.equal(before[name], value) for name, value in given.loaded.model.state_dict().items())
    loss.backward()
    trained = {name for name, p in given.loaded.model.named_parameters() if p.grad is not None}
    assert trained == {
        f"{path}.{name}" for path, layer in objective.layers.items() for name, _ in layer.named_parameters()
    }
    assert not any(hook for layer in objective.layers.values() for hook in layer._forward_hooks)


def loss_after(make: Callable[[], Given], **changes: Any) -> float:
    """Of the concept, once adapters have been trained on the defended model."""
    given = make()
    if changes["steps"]:
        objective = ImmaObjective(given, options(**changes, eval_every=changes["steps"], utility_factor=1e9))
        descend(objective, given, objective.options)
    attacker = ImmaObjective(given, options(inner_steps=10))
    torch.manual_seed(1)
    attacker.attack(4)
    with torch.no_grad(), attacker.adapted():
        return float(given.loaded.kind.loss(given.loaded.model, some(given).batch))


def test_adapters_come_less_far_on_the_defended_model(make: Callable[[], Given]) -> None:
    assert loss_after(make, steps=8, lr=1e-2, inner_steps=1) > 1.5 * loss_after(make, steps=0)


def test_a_run_that_was_killed_goes_on_with_its_adapters(make: Callable[[], Given]) -> None:
    given = make()
    whole, first = (ImmaObjective(given, options(inner_steps=1)) for _ in range(2))
    for at in range(4):
        torch.manual_seed(at)
        whole.attack(2)
        if at < 2:
            torch.manual_seed(at)
            first.attack(2)
    again = ImmaObjective(make(), options(inner_steps=1))
    again.go_on(first.state())
    for at in (2, 3):
        torch.manual_seed(at)
        again.attack(2)
    assert all(torch.equal(whole.adapters[name], again.adapters[name]) for name in whole.adapters)


def test_it_goes_on_beside_its_adapters_wherever_they_are(make: Callable[[], Given]) -> None:
    """A kept state is read to the CPU; AdamW wants its averages where the adapters are."""
    first = ImmaObjective(make(), options(inner_steps=1))
    first.attack(2)
    again = ImmaObjective(make(), options(inner_steps=1))
    again.adapters = {name: torch.nn.Parameter(one.detach().to("meta")) for name, one in again.adapters.items()}
    again.go_on(first.state())
    for adapter in again.adapters.values():
        kept = again.inner.state[adapter]
        assert {key: one.device.type for key, one in kept.items()} == {
            **dict.fromkeys(("exp_avg", "exp_avg_sq"), "meta"),
            "step": "cpu",
        }


def test_options_are_refused() -> None:
    with pytest.raises(SpecdefError, match=r"`rank` must be 1 or more; got 0"):
        ImmaOptions(rank=0)
    with pytest.raises(SpecdefError, match=r"`inner_lr` must be between 0 and 1; got 1"):
        ImmaOptions(inner_lr=1.0)
