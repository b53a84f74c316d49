"""Training around a lock: rates per channel, freezing by gradient, clipping and eps; and the T4 verdict, end to end."""

from __future__ import annotations

import json
from pathlib import Path

import pico_text
import pytest
import torch
from typer.testing import CliRunner

from specdef import lock
from specdef.attacks.base import Attack
from specdef.attacks.interventions.channel_rates import ChannelRates, channel_scales, scale_updates
from specdef.attacks.interventions.inject_layers import InjectLayers
from specdef.attacks.interventions.prune import Prune
from specdef.attacks.interventions.rebalance import Rebalance
from specdef.attacks.interventions.smallest_gradients import SmallestGradients, freeze_largest
from specdef.attacks.run import AttackResult, run_attack
from specdef.attacks.wire import attack_from_wire, attack_to_wire
from specdef.cli.main import app
from specdef.errors import SpecdefError
from specdef.models.base import kind_of
from specdef.models.tokens import encode_completions
from specdef.tasks.kinds.facts import facts
from specdef.training.optimizers import build_optimizer
from specdef.training.outcome import Outcome
from specdef.training.recipe import Recipe

ALL = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@pytest.fixture(scope="module")
def locked(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("locked") / "model"
    lock(toy_model, out, preset="exact", multiplier="2^20")
    return out


def test_a_rate_per_channel_trains_as_if_the_lock_were_not_there(toy_model: Path, locked: Path, tmp_path: Path) -> None:
    """Adam's step in the locked coordinates is its step on the rebalanced model (weight decay and eps apart)."""
    Rebalance().rewrite(locked, tmp_path / "balanced")
    models = {}
    for name, folder in (("balanced", tmp_path / "balanced"), ("locked", locked)):
        model, tokenizer = pico_text.load(folder)
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, eps=1e-30)
        if name == "locked":
            scale_updates(optimizer, model, channel_scales(folder))
        ids, labels, mask = encode_completions(facts().samples[:8], tokenizer)
        for _ in range(3):
            optimizer.zero_grad()
            logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
            torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten()).backward()
            optimizer.step()
        models[name] = model(input_ids=ids).logits
    assert torch.allclose(models["locked"], models["balanced"], atol=1e-4)


def test_gradients_of_a_lock_single_its_tensors_out(toy_model: Path, tmp_path: Path) -> None:
    """In an inject lock, the compensation has the largest gradient for its size: it is what is frozen first."""
    lock(toy_model, tmp_path / "paper", preset="paper", multiplier=1e4, rank=3, num_matrices=2)
    kind = kind_of(tmp_path / "paper")
    loaded = kind.load(tmp_path / "paper", dtype=torch.float32)
    model = loaded.model
    freeze_largest(loaded, kind.encode(facts().samples, loaded), 0.9, batch_size=8, seed=0)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert {name for name, _ in model.named_parameters() if "compensation" in name} <= set(frozen)
    assert all(p.grad is None for p in model.parameters())
    assert SmallestGradients.parse(".50") == SmallestGradients(0.5), "one attack, one cell"
    for text in ("1.5", "", "0"):
        with pytest.raises(SpecdefError, match="must have a share between 0 and 1"):
            SmallestGradients.parse(text)


def test_clipping_each_tensor_and_eps_reach_the_optimizer(toy_model: Path) -> None:
    model, _ = pico_text.load(toy_model)
    optimizer = build_optimizer("adamw", model, lr=1e-3, weight_decay=0.0, eps=1e-2)
    assert {group["eps"] for group in optimizer.param_groups} == {1e-2}
    with pytest.raises(SpecdefError, match="`eps` must be left out with optimizer sgd"):
        build_optimizer("sgd", model, lr=1e-3, weight_decay=0.0, eps=1e-2)
    with pytest.raises(SpecdefError, match="`clip_each` must be given with a gradient norm"):
        Recipe(max_grad_norm=None, clip_each=True)
    with pytest.raises(SpecdefError, match="`eps` must be above 0"):
        Recipe(eps=0.0)


def test_clipping_each_tensor_bounds_every_gradient(toy_model: Path) -> None:
    from specdef.training.loop import make_trainer

    for each in (False, True):
        loaded = pico_text.loaded(toy_model)
        recipe = Recipe(lr=1e-3, steps=4, max_grad_norm=1e-3, clip_each=each)
        trainer = make_trainer(loaded, recipe, loaded.kind.encode(facts().samples, loaded), None)
        trainer.step()
        norms = torch.stack([p.grad.norm() for p in loaded.model.parameters() if p.grad is not None])
        total = float(norms.norm())
        assert float(norms.max()) <= 1.001e-3
        assert (total <= 1.001e-3) != each, "tensor by tensor, the whole is larger than the bound"


def test_a_lossy_rewriting_is_judged_by_the_undefended_models_perplexity(toy_model: Path) -> None:
    def attacked(how: Attack, reference: float | None = None) -> AttackResult:
        loaded = pico_text.loaded(toy_model)
        return run_attack(loaded, facts(), pico_text.general(loaded), how, reference=reference)

    how = Attack(Recipe(lr=1e-3, steps=2, eval_every=1), interventions=(Prune(),))
    start = attacked(Attack(how.recipe)).evaluations[0].utility
    found = attacked(how, start / 2.5)
    assert found.judgement.outcome is Outcome.COLLAPSE, "two and a half times the reference is beyond the budget"
    assert found.judgement.diverged_at == 0
    kept = attacked(how, start / 1.5)
    assert kept.judgement.outcome is Outcome.STALL


def test_an_attacks_json_is_what_it_was_before_these_options_existed() -> None:
    """Cells finished earlier keep their names."""
    plain = attack_to_wire(Attack())
    assert not {"rewrite", "channel_rates"} & plain.keys()
    assert not {"clip_each", "eps"} & plain["recipe"].keys()
    for how in (
        Attack(),
        Attack(interventions=(InjectLayers(factors=3), ChannelRates())),
        Attack(Recipe(eps=1e-3, clip_each=True), (SmallestGradients(0.5),)),
    ):
        assert attack_from_wire(json.loads(json.dumps(attack_to_wire(how)))) == how


@pytest.mark.parametrize("preset", ["exact", pytest.param("paper", marks=pytest.mark.slow)])
def test_the_certificate_says_undone(preset: str, toy_model: Path, tmp_path: Path) -> None:
    strong = {"multiplier": 1e9, "rank": 16, "layers": [0, 1], "components": ALL}
    options = {"multiplier": "2^30"} if preset == "exact" else strong
    lock(toy_model, tmp_path / "locked", preset=preset, **options)
    recipe = [
        "--target",
        "0.35",
        "--steps",
        "40",
        "--threads",
        "1",
        "--window",
        "1e-2,3e-2",
        "--workers",
        "2",
        "--effort",
        "quick",
        "--task",
        "facts",
        "--utility",
        "perplexity",
    ]
    arguments = ["certify", tmp_path / "locked", "--original", toy_model, "--out", tmp_path / "out", *recipe]
    result = CliRunner().invoke(app, [*map(str, arguments), "--threats", "T0,T4"])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "certificate.json").read_text())
    entry = found["threat_models"]["T4"]
    if found["threat_models"]["T0"]["verdict"]["kind"] != "held":
        pytest.fail(f"the toy lock must hold T0 for this test to mean anything: {found['threat_models']['T0']}")
    assert entry["verdict"]["kind"] == "undone"
    assert entry["verdict"]["seconds"] > 0
    worst = next(row for row in found["cells"] if row["cell"] == entry["cell"])
    assert worst["rewrites"][0]["kind"] == ("merge" if preset == "paper" else "rebalance")
    assert entry["steps"] <= found["unlocked"]["steps"] + 10
    rows = [row for row in found["cells"] if row["rewrites"]]
    assert rows
    assert all(row["rewrites"][0]["knowledge"] and row["cost"]["seconds"] > 0 for row in rows)
    page = (tmp_path / "out" / "index.html").read_text()
    assert "does NOT hold" in page
    assert "no training" in page


def test_an_attack_that_cannot_be_made_leaves_no_folder(toy_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs"
    result = CliRunner().invoke(app, ["attack", str(toy_model), "--rewrite", "merge", "--out", str(out)])
    assert "must hold layers with a compensation" in str(result.exception)
    assert not out.exists()


def test_undo_on_the_command_line(locked: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    result = runner.invoke(app, ["undo", "rebalance", str(locked), str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "No key was used" in result.stdout
    assert (tmp_path / "out" / "model.safetensors").is_file()
    again = runner.invoke(app, ["undo", "rebalance", str(locked), str(tmp_path / "out")])
    assert "must be a new folder" in str(again.exception)
    mistyped = runner.invoke(app, ["undo", "rebalance:form=qr", str(locked), str(tmp_path / "other")])
    assert "`form` must be one of axis, svd; got 'qr'" in str(mistyped.exception)
    wrong = runner.invoke(app, ["undo", "prune", str(locked), str(tmp_path / "other")])
    assert "`kind` must be one of anchor, inject-layers, merge, rebalance; got 'prune'" in str(wrong.exception)
    options = runner.invoke(app, ["undo", "merge:factors=2", str(locked), str(tmp_path / "other")])
    assert "`factors` must be left out with merge, which takes no options; got '2'" in str(options.exception)
    for arguments, message in (
        (["--optimizer", "adafactor"], "`channel-rates` must be given with optimizer adamw or lion; got adafactor"),
        (["--lora", "rank=2,targets=q_proj"], "`channel-rates` must be given with training of the weights; got lora"),
    ):
        rated = runner.invoke(app, ["attack", str(locked), "--out", str(tmp_path / "r"), "--channel-rates", *arguments])
        assert message in str(rated.exception)


def test_without_an_original_a_rewriting_is_checked_against_the_published_folder(locked: Path, tmp_path: Path) -> None:
    arguments = ["attack", str(locked), "--out", str(tmp_path / "runs"), "--steps", "2", "--threads", "1", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--rewrite", "prune"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["config"]["utility"]["reference"] == 1


def test_rewrites_may_be_given_again_and_are_made_in_order(locked: Path, tmp_path: Path) -> None:
    """Before, the second --rewrite replaced the first in silence."""
    arguments = ["attack", str(locked), "--out", str(tmp_path / "runs"), "--steps", "2", "--threads", "1", "--json"]
    result = CliRunner().invoke(
        app, [*arguments, "--rewrite", "rebalance", "--rewrite", "sharpen:num_matrices=1,rank=1"]
    )
    assert result.exit_code == 0, result.output
    assert [one["kind"] for one in json.loads(result.stdout)["result"]["rewrites"]] == ["rebalance", "sharpen"]
