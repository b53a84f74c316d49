"""The loop against a bare torch loop written beside it: the same weights, to the bit."""

from __future__ import annotations

import copy
from pathlib import Path

import pico_text
import pytest
import torch
from transformers import get_linear_schedule_with_warmup

from specdef.errors import SpecdefError
from specdef.models.base import MODEL_KINDS, Batch, LoadedModel
from specdef.tasks.kinds.facts import facts
from specdef.tasks.text.prose import bundled_prose
from specdef.tasks.utilities.perplexity import KIND as PERPLEXITY
from specdef.training.batches import batches
from specdef.training.loop import make_trainer, train
from specdef.training.optimizers import OPTIMIZERS, build_optimizer
from specdef.training.outcome import Evaluation, StopReason
from specdef.training.recipe import Recipe

CAUSAL = MODEL_KINDS.get("causal-lm")


def data(loaded: LoadedModel) -> tuple[Batch, Batch]:
    general = PERPLEXITY.prepare(bundled_prose(), loaded).retained
    assert general is not None
    return CAUSAL.encode(facts().samples[:24], loaded), general


def bare_loss(model: torch.nn.Module, batch: Batch) -> torch.Tensor:
    """The loss as transformers' own loss would have it, with no line of specdef."""
    ids, labels, mask = batch
    logits = model(input_ids=ids, attention_mask=mask).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())


@pytest.mark.parametrize("max_grad_norm", [1.0, None])
def test_the_loop_is_a_bare_torch_loop(toy_model: Path, max_grad_norm: float | None) -> None:
    loaded = pico_text.loaded(toy_model)
    plain = copy.deepcopy(loaded.model)
    task, general = data(loaded)
    recipe = Recipe(
        lr=1e-3,
        steps=6,
        batch_size=4,
        gradient_accumulation_steps=2,
        max_grad_norm=max_grad_norm,
        weight_decay=0.1,
        seed=3,
    )
    trainer = make_trainer(loaded, recipe, task, general)
    for _ in range(6):
        trainer.step()

    optimizer = torch.optim.AdamW(plain.parameters(), lr=1e-3, weight_decay=0.1, fused=True)
    schedule = get_linear_schedule_with_warmup(optimizer, 1, 6)
    rows, texts = batches(task, 4, 3, CAUSAL), batches(general, 1, 4, CAUSAL)
    plain.train()
    for _ in range(6):
        optimizer.zero_grad()
        for _ in range(2):
            (bare_loss(plain, next(rows)) * 0.375).backward()
            (bare_loss(plain, next(texts)) * 0.125).backward()
        if max_grad_norm is not None:
            torch.nn.utils.clip_grad_norm_(plain.parameters(), max_grad_norm)
        optimizer.step()
        schedule.step()
    for (name, found), expected in zip(loaded.model.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(found, expected), name


def test_every_row_is_seen_once_an_epoch_and_the_seed_decides_the_order() -> None:
    ids = torch.arange(10).unsqueeze(1).expand(10, 3).clone()
    rows = (ids, ids, torch.ones_like(ids))
    first = batches(rows, 4, 1, CAUSAL)
    epoch = torch.cat([next(first)[0][:, 0] for _ in range(5)])
    assert sorted(epoch[:10].tolist()) == sorted(epoch[10:].tolist()) == list(range(10))
    again, other = batches(rows, 4, 1, CAUSAL), batches(rows, 4, 2, CAUSAL)
    assert torch.equal(next(again)[0][:, 0], epoch[:4])
    assert not torch.equal(next(other)[0][:, 0], epoch[:4])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_learns(toy_model: Path, name: str) -> None:
    """On one batch the loss falls, warm-up and all; learning rates are the optimizers' usual ones."""
    loaded = pico_text.loaded(toy_model)
    usual = {"sgd": 0.1, "lbfgs": 0.5, "adafactor": 3e-2, "adahessian": 1e-2, "sophia": 6e-2, "lion": 1e-3}
    lr = {**usual, "adadelta": 1.0, "xmat": 3e-2}.get(name, 3e-3)
    recipe = Recipe(optimizer=name, lr=lr, steps=40, batch_size=4, retain_weight=0.0)
    trainer = make_trainer(loaded, recipe, CAUSAL.encode(facts().samples[:4], loaded), None)
    losses = [trainer.step() for _ in range(40)]
    assert losses[-1] < 0.9 * losses[0], losses


@pytest.mark.parametrize("name", ["sophia", "adahessian"])
def test_the_curvature_step_hands_over_the_diagonal_of_the_hessian(name: str) -> None:
    """For a loss with a diagonal Hessian, z * (H z) is that diagonal exactly, whatever the signs z."""

    class Separable(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(96))

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> object:
            class Output:
                logits = (self.weight**3 + 2 * self.weight).expand(*input_ids.shape, 96)

            return Output

    model = Separable()
    ids = torch.tensor([[1, 2]])
    trainer = make_trainer(
        LoadedModel(model, None, CAUSAL),
        Recipe(optimizer=name, lr=1e-3, max_grad_norm=None, weight_decay=0.0),
        (ids, ids, torch.ones_like(ids)),
        None,
    )
    seen: list[torch.Tensor] = []
    inner = trainer.optimizer.optimizer
    step = inner.step
    inner.step = lambda closure=None, hessian=None: (seen.extend(hessian), step(closure, hessian))[1]
    torch.manual_seed(0)
    trainer.step()
    # logits = 2w near 0: H = 4 (diag(p) - p p^T), p = 1/96; z * (H z) = 4 (p - p z sum(p z))
    p, z = 1 / 96, 4 / 96 - seen[0]
    assert torch.allclose(z.abs(), z.abs()[0].expand(96), rtol=1e-4, atol=1e-8)
    torch.manual_seed(0)
    signs = torch.randint_like(torch.zeros(96), 0, 2) * 2 - 1
    assert torch.allclose(seen[0], 4 * (p - p * p * signs * signs.sum()), rtol=1e-4, atol=1e-7)


def test_muon_trains_matrices_and_adamw_the_rest(toy_model: Path) -> None:
    model, _ = pico_text.load(toy_model)
    optimizer = build_optimizer("muon", model, lr=1e-3, weight_decay=0.0, is_head=CAUSAL.is_head)
    kinds = {type(part).__name__: part for part in optimizer.optimizers}  # type: ignore[attr-defined]
    muon = {id(p) for group in kinds["Muon"].param_groups for p in group["params"]}
    names = {name: id(p) in muon for name, p in model.named_parameters()}
    assert names["model.layers.0.self_attn.q_proj.weight"]
    assert not names["model.embed_tokens.weight"]
    assert not names["lm_head.weight"]
    assert not names["model.norm.weight"]
    for group in optimizer.param_groups:
        group["lr"] = 0.5
    assert all(group["lr"] == 0.5 for part in optimizer.optimizers for group in part.param_groups)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"optimizer": "adamv"}, r"`optimizer` must be one of .*; got 'adamv'. Did you mean 'adamw'"),
        ({"optimizer": "Moun"}, "Did you mean 'muon'"),
        ({"lr": 0.0}, "`lr` must be a number above 0; got 0.0"),
        ({"lr": -1e-5}, "`lr` must be a number above 0"),
        ({"lr": float("nan")}, "`lr` must be a number above 0"),
        ({"steps": 0}, "`steps` must be at least 1; got 0"),
        ({"max_grad_norm": 0.0}, "`max_grad_norm` must be above 0, or none"),
        ({"schedule": "linaer"}, "`schedule` must be one of linear, cosine, constant"),
        ({"precision": "fp8"}, "`precision` must be one of fp32, bf16, bf16-master"),
        ({"retain_weight": 1.0}, "`retain_weight` must be at least 0 and below 1"),
    ],
)
def test_recipes_refuse_what_they_cannot_do(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(SpecdefError, match=sentence):
        Recipe(**arguments)  # type: ignore[arg-type]


def test_weights_that_are_not_finite_end_the_run_and_a_loss_that_is_not_does_not(toy_model: Path) -> None:
    loaded = pico_text.loaded(toy_model)
    trainer = make_trainer(loaded, Recipe(lr=1e38, steps=50, warmup=0.0, max_grad_norm=None), *data(loaded))
    run = train(trainer, lambda _, step, loss: Evaluation(step, 0.0, 1.0, loss), lambda _: None)
    assert run.reason is StopReason.DEAD
    assert run.steps < 50
    assert run.evaluations[-1].step == run.steps


def test_every_step_is_told_once_and_after_it_its_evaluation(toy_model: Path) -> None:
    loaded, told = pico_text.loaded(toy_model), []
    trainer = make_trainer(loaded, Recipe(steps=5, eval_every=2), *data(loaded))
    train(
        trainer,
        lambda _, step, loss: Evaluation(step, 0.0, 1.0, loss),
        lambda _: None,
        progress=lambda point: told.append(("evaluation", point.step)),
        on_step=lambda step, loss: told.append(("step", step)),
    )
    assert [step for what, step in told if what == "step"] == [1, 2, 3, 4, 5]
    assert [told.index(("evaluation", step)) - told.index(("step", step)) for step in (2, 4, 5)] == [1, 1, 1]


def test_bf16_trains_bf16_weights_and_masters_stay_fp32(toy_model: Path) -> None:
    for precision, dtype in (("bf16", torch.bfloat16), ("bf16-master", torch.float32), ("fp32", torch.float32)):
        loaded = pico_text.loaded(toy_model)
        trainer = make_trainer(loaded, Recipe(precision=precision, lr=1e-3), *data(loaded))  # type: ignore[arg-type]
        assert trainer.step() > 0
        assert {p.dtype for p in trainer.model.parameters()} == {dtype}
