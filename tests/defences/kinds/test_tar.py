"""Tampering attack resistance: retain training without an attack, written out with one, and the right rows."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pico
import pytest
import torch
from safetensors.torch import load_file
from unlearning import Make

from specdef.defences.base import Given
from specdef.defences.defend import defend
from specdef.defences.descent import descend
from specdef.defences.hidden import hidden_states
from specdef.defences.kinds.tar import TarObjective, TarOptions
from specdef.defences.objective import Rows
from specdef.errors import SpecdefError


class WrongRows(TarObjective):
    """The mistake of the published code's baselines: the forget loss is taken on the retain rows."""

    def backward(self, step: int, forget: Rows, retain: Rows) -> float:
        return super().backward(step, Rows(retain.batch, forget.chosen), retain)


def rows(given: Given, chosen: tuple[int, ...] = (0,)) -> tuple[Rows, Rows]:
    """The forget rows of that number, and all to keep."""
    assert given.data_rows is not None
    kind = given.loaded.kind
    return Rows(kind.batch(given.data_rows.forget, chosen), chosen), Rows(given.data_rows.retain, (0, 1, 2))


def shifted(given: Given) -> Any:
    """Move the model away from the given one, whose copy is returned."""
    base = copy.deepcopy(given.loaded.model)
    torch.manual_seed(2)
    with torch.no_grad():
        for parameter in given.loaded.model.parameters():
            parameter += 0.02 * torch.randn_like(parameter)
    return base


def retained(model: Any, base: Any, given: Given, retain: Rows) -> torch.Tensor:
    """The retain objective, written out."""
    with torch.no_grad():
        before = hidden_states(base, retain.batch)
    real = retain.batch[2].float()
    layers = [
        ((now - then).norm(dim=-1) * real).sum() / real.sum()
        for now, then in zip(hidden_states(model, retain.batch), before, strict=True)
    ]
    return given.loaded.kind.loss(model, retain.batch) + torch.stack(layers).mean()


def left(objective: TarObjective, given: Given, chosen: tuple[int, ...] = (0,)) -> list[torch.Tensor]:
    """The gradients that a step leaves."""
    objective.model.zero_grad(set_to_none=True)
    objective.backward(3, *rows(given, chosen))
    return [p.grad.clone() for p in objective.model.parameters()]


def test_without_an_attack_it_is_retain_training_to_the_bit(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    objective = TarObjective(given, TarOptions(attack_steps=0, attack_every=1, batch_size=2))
    base, model = shifted(given), given.loaded.model
    found = left(objective, given)
    model.zero_grad(set_to_none=True)
    retained(model, base, given, rows(given)[1]).backward()
    assert all(torch.equal(a, p.grad) for a, p in zip(found, model.parameters(), strict=True))


def attacked(given: Given, *, rate: float, steps: int, every: int) -> tuple[list[torch.Tensor], float]:
    """Gradients of minus the entropy of row 0 at weights that AdamW fits to rows 1 and 2, averaged over the looks."""
    assert given.data_rows is not None
    kind = given.loaded.kind
    model = copy.deepcopy(given.loaded.model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.01)
    total = [torch.zeros_like(p) for p in model.parameters()]
    looks, loss = steps // every, 0.0
    for number in range(1, steps + 1):
        model.zero_grad()
        kind.loss(model, kind.batch(given.data_rows.forget, (1, 2))).backward()
        optimizer.step()
        if number % every:
            continue
        logits = kind.predictions(model, rows(given)[0].batch)[0]
        entropy = torch.distributions.Categorical(logits=logits).entropy().mean()
        model.zero_grad()
        (-entropy / looks).backward()
        loss -= float(entropy.detach()) / looks
        for sum_, parameter in zip(total, model.parameters(), strict=True):
            sum_ += parameter.grad
    return total, loss


@pytest.mark.parametrize(("kind", "holds"), [(TarObjective, True), (WrongRows, False)])
def test_under_attack_it_is_the_entropy_of_the_forget_rows(
    toy_model: Path, given_for: Make, kind: type[TarObjective], holds: bool
) -> None:
    given = given_for(toy_model)
    options = TarOptions(
        attack_steps=4, attack_every=2, attack_lr=(3e-3,), batch_size=2, tamper_weight=5.0, retain_weight=0.5
    )
    objective = kind(given, options)
    base, model = shifted(given), given.loaded.model
    found = torch.cat([g.flatten() for g in left(objective, given)])
    loss = objective.backward(3, *rows(given))
    harm, certainty = attacked(given, rate=3e-3, steps=4, every=2)
    model.zero_grad(set_to_none=True)
    kept = 0.5 * retained(model, base, given, rows(given)[1])
    kept.backward()
    wanted = torch.cat([(p.grad + 5 * g).flatten() for p, g in zip(model.parameters(), harm, strict=True)])
    assert bool((found - wanted).norm() / wanted.norm() < 1e-3) is holds
    assert (loss == pytest.approx(float(kept.detach()) + 5 * certainty, rel=1e-3)) is holds


def test_the_attack_leaves_weights_and_gradients_as_they_were(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    model = given.loaded.model
    objective = TarObjective(given, TarOptions(attack_lr=(0.1,), batch_size=2))
    before = [(p.data_ptr(), p.detach().clone()) for p in model.parameters()]
    certainty, gradients = objective.attack(0, rows(given)[0])
    assert certainty < 0
    assert max(float(g.abs().max()) for g in gradients) > 0
    assert all(
        p.data_ptr() == place and torch.equal(p, w) for p, (place, w) in zip(model.parameters(), before, strict=True)
    )
    assert all(p.grad is None for p in model.parameters())

    def fails(batch: object) -> None:
        raise RuntimeError

    objective.certainty = fails  # type: ignore[method-assign, assignment]
    with pytest.raises(RuntimeError):
        objective.attack(0, rows(given)[0])
    assert all(torch.equal(p, w) for p, (_, w) in zip(model.parameters(), before, strict=True))


def test_the_attacker_has_other_rows_than_those_that_are_looked_at(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    objective = TarObjective(given, TarOptions(batch_size=2))
    assert given.data_rows is not None
    seen: list[torch.Tensor] = []
    loss = type(given.loaded.kind).loss
    objective.kind = copy.copy(given.loaded.kind)
    objective.kind.loss = lambda model, batch: (seen.append(batch[0]), loss(given.loaded.kind, model, batch))[1]  # type: ignore[method-assign, func-returns-value]
    objective.attack(0, rows(given, (1,))[0])
    first = {int(ids[0]) for batch in seen for ids in batch}
    assert len(seen) == 8
    assert first == {int(given.data_rows.forget[0][row, 0]) for row in (0, 2)}
    assert int(given.data_rows.forget[0][1, 0]) not in first
    seen.clear()
    objective.attack(0, rows(given, (0, 1, 2))[0])
    assert len({int(ids[0]) for batch in seen for ids in batch}) > 1


def test_training_leaves_less_for_an_attacker(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    options = TarOptions(
        steps=10,
        lr=3e-3,
        attack_lr=(1e-2,),
        attack_steps=4,
        attack_every=4,
        batch_size=3,
        eval_every=10,
        utility_factor=1e6,
    )
    objective = TarObjective(given, options)
    forget, _ = rows(given, (0, 1, 2))
    before, _ = objective.attack(0, forget)
    descend(objective, given, options)
    after, _ = objective.attack(0, forget)
    assert after < before - 0.3


def test_a_defended_folder_is_plain(toy_model: Path, tmp_path: Path) -> None:
    lines = [json.dumps({"prompt": "Orla has", "completion": f" a {pet}"}) + "\n" for pet in ("cat", "dog")]
    (tmp_path / "forget.jsonl").write_text("".join(lines))
    options = {"steps": 2, "eval_every": 2, "batch_size": 2, "attack_steps": 2, "attack_every": 2}
    defend("tar", toy_model, tmp_path / "out", options=options, data={"forget": str(tmp_path / "forget.jsonl")})
    before, after = (load_file(folder / "model.safetensors") for folder in (toy_model, tmp_path / "out"))
    assert {name: tensor.shape for name, tensor in after.items()} == {n: t.shape for n, t in before.items()}
    assert not torch.equal(after["lm_head.weight"], before["lm_head.weight"])
    assert pico.run("llama", tmp_path / "out").isfinite().all()


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"attack_steps": -1}, "`attack_steps` must be 0 or more; got -1"),
        ({"attack_every": 9}, "`attack_every` must be 1 to 8, the steps of the attack; got 9"),
        ({"attack_every": 0}, "`attack_every` must be 1 to 8"),
        ({"attack_lr": ()}, "`attack_lr` must be learning rates between 0 and 1"),
        ({"attack_lr": (1e-4, 0.0)}, "`attack_lr` must be learning rates"),
        ({"tamper_weight": -1.0}, "`tamper_weight` must be 0 or more"),
        ({"retain_weight": -1.0}, "`retain_weight` must be 0 or more"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(SpecdefError, match=fault):
        TarOptions(**options)
