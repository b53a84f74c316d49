"""Representation noising: the discrepancy and the lens against float64, no hook left, and token 0 is a token."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pico
import pico_text
import pytest
import torch
from safetensors.torch import load_file
from unlearning import Make, rows

from specdef.defences.defend import defend
from specdef.defences.descent import descend
from specdef.defences.hidden import hidden_states
from specdef.defences.kinds import rep_noise
from specdef.defences.kinds.rep_noise import RepNoiseObjective, RepNoiseOptions, mmd
from specdef.defences.objective import Rows
from specdef.errors import SpecdefError
from specdef.models.base import Batch


class DropsTokenZero(RepNoiseObjective):
    """The mistake of the published code: what has id 0 is no target."""

    def forget_terms(self, forget: Rows) -> tuple[torch.Tensor, torch.Tensor]:
        ids, labels, mask = forget.batch
        return super().forget_terms(Rows((ids, torch.where(labels == 0, -100, labels), mask), forget.chosen))


def discrepancy(x: list[list[float]], y: list[list[float]]) -> float:
    """MMD with five kernels around the mean squared distance, pair by pair in float64."""

    def squared(a: list[float], b: list[float]) -> float:
        return sum((s - t) ** 2 for s, t in zip(a, b, strict=True))

    both = x + y
    pairs = [squared(a, b) for i, a in enumerate(both) for j, b in enumerate(both) if i != j]
    width = sum(pairs) / len(pairs)
    sign = [1] * len(x) + [-1] * len(y)
    total = 0.0
    for i, a in enumerate(both):
        for j, b in enumerate(both):
            kernel = sum(math.exp(-squared(a, b) / (width * scale)) for scale in (0.25, 0.5, 1, 2, 4))
            total += sign[i] * sign[j] * kernel
    return total / len(x) ** 2


@pytest.mark.parametrize("shift", [0.0, 2.0])
def test_the_discrepancy_is_the_formula(shift: float) -> None:
    torch.manual_seed(0)
    x, y = torch.randn(4, 7) + shift, torch.randn(4, 7)
    wanted = discrepancy(x.double().tolist(), y.double().tolist())
    assert float(mmd(x, y)) == pytest.approx(wanted, rel=1e-5)
    assert float(mmd(x.double(), y.double())) == pytest.approx(wanted, rel=1e-12)
    assert float(mmd(x, x.clone())) == pytest.approx(0, abs=1e-6)
    assert wanted > 0


def test_no_gradient_flows_through_the_width_of_the_kernels() -> None:
    """With it, moving all samples apart would change nothing: the discrepancy would not know a scale."""
    torch.manual_seed(0)
    x, y = torch.randn(3, 5, dtype=torch.float64, requires_grad=True), torch.randn(3, 5, dtype=torch.float64)
    both = torch.cat([x, y])
    squares = (both[:, None] - both[None]).square().sum(-1)
    width = float(squares.sum()) / 30
    signs = torch.tensor([1.0, 1, 1, -1, -1, -1], dtype=torch.float64)
    kernel = sum((-squares / (width * scale)).exp() for scale in (0.25, 0.5, 1, 2, 4))
    wanted = torch.autograd.grad((signs[:, None] * signs * kernel).sum() / 9, x)[0]
    torch.testing.assert_close(torch.autograd.grad(mmd(x, y), x)[0], wanted)


def lens_loss(model: torch.nn.Module, batch: Batch) -> float:
    """Mean over layers of the labelled tokens' mean loss, token by token in float64."""
    ids, labels, mask = batch
    with torch.no_grad():
        states = hidden_states(model, batch)[1:]
        means = []
        for number, state in enumerate(states):
            passed = state if number == len(states) - 1 else model.model.norm(state)  # type: ignore[union-attr, operator]
            logs = model.lm_head(passed).double().log_softmax(-1)  # type: ignore[operator]
            losses = [
                -float(logs[r, t - 1, ids[r, t]])
                for r in range(len(ids))
                for t in range(1, int(mask[r].sum()))
                if labels[r, t] != -100
            ]
            means.append(sum(losses) / len(losses))
    return sum(means) / len(means)


def with_zeros(rows: Rows) -> Rows:
    """The same rows, every third labelled token now token 0."""
    ids, labels, mask = (tensor.clone() for tensor in rows.batch)
    places = (labels != -100).nonzero()[::3]
    ids[places[:, 0], places[:, 1]] = 0
    labels[places[:, 0], places[:, 1]] = 0
    return Rows((ids, labels, mask), rows.chosen)


@pytest.mark.parametrize(("kind", "holds"), [(RepNoiseObjective, True), (DropsTokenZero, False)])
def test_the_lens_is_the_formula_and_token_zero_counts(
    deep_model: Path, given_for: Make, kind: type[RepNoiseObjective], holds: bool
) -> None:
    given = given_for(deep_model)
    forget = with_zeros(rows(given)[0])
    found = float(kind(given, RepNoiseOptions()).forget_terms(forget)[1].detach())
    assert (found == pytest.approx(lens_loss(given.loaded.model, forget.batch), rel=1e-4)) is holds


def test_the_last_layers_lens_is_the_model_itself(toy_model: Path, given_for: Make) -> None:
    """Its output has passed the final norm; a second norm would make another model of it."""
    given = given_for(toy_model)
    forget, _ = rows(given)
    model = given.loaded.model
    objective = RepNoiseObjective(given, RepNoiseOptions())
    objective.norm = torch.nn.Identity()
    found = 2 * float(objective.forget_terms(forget)[1].detach())
    with torch.no_grad():
        first = model.lm_head(hidden_states(model, forget.batch)[1])[:, :-1].transpose(1, 2)
        other = float(torch.nn.functional.cross_entropy(first, forget.batch[1][:, 1:]))
    assert found - other == pytest.approx(float(given.loaded.kind.loss(model, forget.batch).detach()), rel=1e-4)


def test_the_loss_is_its_three_terms_and_noise_stands_where_tokens_do(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    forget, retain = rows(given)
    kind, model = given.loaded.kind, given.loaded.model
    outputs: list[torch.Tensor] = []
    for layer in model.model.layers:
        layer.mlp.register_forward_hook(lambda module, inputs, output: outputs.append(output.detach()))
    objective = RepNoiseObjective(given, RepNoiseOptions(alpha=0.7, beta=30.0))
    torch.manual_seed(5)
    found = float(objective.loss(0, forget, retain).detach())
    torch.manual_seed(5)
    mask = forget.batch[2].double()[..., None]
    parts = []
    for output in outputs[:2]:
        noise = torch.randn_like(output).double() * mask
        parts.append(discrepancy((output.double() * mask).flatten(1).tolist(), noise.flatten(1).tolist()))
    kept = float(kind.loss(model, retain.batch).detach())
    wanted = kept + 30 * sum(parts) / 2 - 0.7 * math.log(1 + lens_loss(model, forget.batch))
    assert found == pytest.approx(wanted, rel=1e-4)


class LeavesHooks(RepNoiseObjective):
    """The other mistake of the published code: hooks that are registered in every step and never removed."""

    @contextmanager
    def _outputs(self) -> Iterator[list[torch.Tensor]]:
        found: list[torch.Tensor] = []
        for module in self.mlps:
            module.register_forward_hook(lambda module, inputs, output: found.append(output))
        yield found


@pytest.mark.parametrize(("kind", "holds"), [(RepNoiseObjective, True), (LeavesHooks, False)])
def test_no_step_leaves_a_hook(toy_model: Path, given_for: Make, kind: type[RepNoiseObjective], holds: bool) -> None:
    given = given_for(toy_model)
    objective = kind(given, RepNoiseOptions())
    counts = []
    for step in range(3):
        objective.backward(step, *rows(given))
        counts.append(sum(len(module._forward_hooks) for module in given.loaded.model.modules()))
    mine = sum(len(module._forward_hooks) for module in objective.mlps)
    assert (counts[0] == counts[2] and mine == 0) is holds


def test_a_few_steps_lower_its_loss(toy_model: Path, given_for: Make) -> None:
    given = given_for(toy_model)
    options = RepNoiseOptions(steps=12, lr=3e-3, eval_every=12, batch_size=3, beta=1.0, utility_factor=1e6)
    objective = RepNoiseObjective(given, options)
    forget, retain = rows(given)
    torch.manual_seed(0)
    before = [float(term.detach()) for term in (*objective.forget_terms(forget), objective.loss(0, forget, retain))]
    descend(objective, given, options)
    torch.manual_seed(0)
    after = [float(term.detach()) for term in (*objective.forget_terms(forget), objective.loss(0, forget, retain))]
    assert after[1] > before[1] + 0.1
    assert after[2] < before[2] - 0.1


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "opt", "mixtral", "gemma2"])
def test_mlps_and_the_final_norm_are_found(family: str, given_for: Make, tmp_path: Path) -> None:
    length = {"n_positions": 128} if family == "gpt2" else {"max_position_embeddings": 128}
    pico_text.write_tokenizer(pico.build(family, tmp_path / family, **length))
    given = given_for(tmp_path / family)
    objective = RepNoiseObjective(given, RepNoiseOptions())
    assert len(objective.mlps) == 2
    distance, lens = objective.forget_terms(rows(given)[0])
    assert float(distance.detach()) > 0
    assert 0 < float(lens.detach()) < math.inf


def test_a_model_without_known_parts_is_refused(
    toy_model: Path, given_for: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = given_for(toy_model)
    for table, fault in (("MLPS", "have MLPs in its layers, named other"), ("NORMS", "have a norm behind its last")):
        with monkeypatch.context() as patch:
            patch.setattr(rep_noise, table, ("other",))
            with pytest.raises(SpecdefError, match=f"`model` must {fault}"):
                RepNoiseObjective(given, RepNoiseOptions())


def test_a_defended_folder_is_plain(toy_model: Path, tmp_path: Path) -> None:
    (tmp_path / "forget.jsonl").write_text(json.dumps({"prompt": "Orla has", "completion": " a cat"}) + "\n")
    options = {"steps": 2, "eval_every": 2, "batch_size": 2}
    defend("rep-noise", toy_model, tmp_path / "out", options=options, data={"forget": str(tmp_path / "forget.jsonl")})
    before, after = (load_file(folder / "model.safetensors") for folder in (toy_model, tmp_path / "out"))
    assert {name: tensor.shape for name, tensor in after.items()} == {n: t.shape for n, t in before.items()}
    assert not torch.equal(after["lm_head.weight"], before["lm_head.weight"])
    assert pico.run("llama", tmp_path / "out").isfinite().all()


def test_options_out_of_range_are_refused() -> None:
    for name in ("alpha", "beta"):
        with pytest.raises(SpecdefError, match=f"`{name}` must be 0 or more; got -1"):
            RepNoiseOptions(**{name: -1.0})
