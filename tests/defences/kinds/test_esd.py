"""Erased Stable Diffusion: its target by hand, what each variant trains, and that it turns the concept round."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pico_diffusion
import pytest
import torch
from diffusers import DDIMScheduler

from specdef import defend
from specdef.defences.base import Given
from specdef.defences.data import DefenceData, encode
from specdef.defences.descent import descend
from specdef.defences.kinds.esd import EsdObjective, EsdOptions, erased_names
from specdef.defences.objective import Rows
from specdef.errors import SpecdefError
from specdef.models.base import kind_of
from specdef.tasks.base import TaskSpec, make_task
from specdef.tasks.utilities.denoising_loss import KIND

SMALL: dict[str, Any] = {"denoising_steps": 4, "batch_size": 2}


@pytest.fixture(scope="module")
def place(pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("esd")
    (found / "model").symlink_to(pipeline)
    pico_diffusion.write_concept(found)
    return found


def given_at(place: Path, *, seed: int = 0) -> Given:
    folder = place / "model"
    loaded = kind_of(folder).load(folder)
    general = KIND.prepare(KIND.read(place / "concept.yaml"), loaded)
    task = make_task(TaskSpec("concept", str(place / "concept.yaml")))
    rows = encode(DefenceData(task.samples, None, task), loaded, general)
    return Given(folder, loaded, KIND, general, seed, data_rows=rows)


def rows(given: Given) -> tuple[Rows, Rows]:
    assert given.data_rows is not None
    parts = (given.data_rows.forget, given.data_rows.retain)
    forget, retain = (Rows(tuple(part[:2] for part in batch), (0, 1)) for batch in parts)
    return forget, retain


def test_the_loss_is_the_distance_to_the_opposite_of_the_concept(place: Path) -> None:
    """With components of diffusers alone; the weights moved away from the given ones first."""
    given = given_at(place)
    objective = EsdObjective(given, EsdOptions(**SMALL, eta=1.5, guidance=2.0))
    forget, retain = rows(given)
    fresh = given_at(place).loaded.model
    with torch.no_grad():
        for name, parameter in given.loaded.model.named_parameters():
            parameter.add_(0.01 * name.count("attn2.to_k.weight"))
    torch.manual_seed(5)
    found = float(objective.loss(0, forget, retain).detach())
    torch.manual_seed(5)
    done = int(torch.randint(4, ()))
    latents = torch.randn_like(forget.batch[0])
    scheduler = DDIMScheduler.from_pretrained(place / "model" / "scheduler")
    scheduler.set_timesteps(4)
    assert done > 0, "the seed interrupts after a step, so that guidance is seen"
    tokens = forget.batch[1]
    empty = torch.tensor([[0, 1, 1, 1, 1, 1, 1, 1]] * 2)

    def said(model: Any, x: torch.Tensor, time: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return model.unet(x, time, model.text_encoder(ids)[0]).sample

    for time in scheduler.timesteps[:done]:
        without, with_ = (said(fresh, latents, time, ids) for ids in (empty, tokens))
        latents = scheduler.step(without + 2.0 * (with_ - without), time, latents).prev_sample
    time = scheduler.timesteps[done]
    without, with_ = (said(fresh, latents, time, ids) for ids in (empty, tokens))
    target = with_ - 1.5 * (with_ - without)
    by_hand = float((said(given.loaded.model, latents, time, tokens) - target).square().mean())
    assert found == pytest.approx(by_hand, rel=1e-4)
    wrong = float((said(given.loaded.model, latents, time, tokens) - without).square().mean())
    assert found != pytest.approx(wrong, rel=1e-2), "the empty prompt's own prediction is another target"


def test_each_variant_trains_what_it_names(place: Path) -> None:
    model = given_at(place).loaded.model
    named = {variant: set(erased_names(model, variant)) for variant in ("x", "x-strict", "u", "all")}
    assert named["x"] | named["u"] == named["all"]
    assert not named["x"] & named["u"]
    assert all(".attn2." in name for name in named["x"])
    assert {name.split(".attn2.")[1] for name in named["x-strict"]} == {"to_k.weight", "to_v.weight"}
    assert {name.split(".attn2.")[1] for name in named["x"]} == {
        *("to_q.weight", "to_k.weight", "to_v.weight", "to_out.0.weight", "to_out.0.bias"),
    }
    assert "unet.conv_in.weight" in named["u"]
    assert not any("norm" in name or name.startswith("text_encoder") for name in named["all"])


def test_the_concept_is_turned_round(place: Path) -> None:
    """Of the way from the empty prompt to the concept the given model goes all, the defended one towards 1 - eta."""
    given = given_at(place)
    objective = EsdObjective(given, EsdOptions(**SMALL, lr=1e-2, steps=12, eval_every=12, utility_factor=1e9))
    descend(objective, given, objective.options)
    forget, _ = rows(given)
    noise, times = pico_diffusion.noise(2, seed=3), torch.tensor([600, 300])
    with torch.no_grad():
        concept, empty = (
            objective.reference(latents=noise, times=times, input_ids=ids)[0]
            for ids in (forget.batch[1], objective.empty.expand(2, -1))
        )
        now = given.loaded.model(latents=noise, times=times, input_ids=forget.batch[1])[0]
    way = concept - empty
    share = float(((now - empty) * way).sum() / (way * way).sum())
    assert share < 0.4


def test_it_is_written_as_a_pipeline(place: Path, tmp_path: Path) -> None:
    concept = str(place / "concept.yaml")
    options = {**SMALL, "steps": 2, "eval_every": 2, "variant": "x-strict", "lr": 1e-5, "utility_factor": 2.0}
    report = defend(
        "esd", place / "model", tmp_path / "out", options=options, text=concept, data={"task": f"concept:{concept}"}
    )
    assert list(report.scores) == ["score of concept"]
    changed = given_at(place).loaded.model.state_dict()
    written = kind_of(tmp_path / "out").load(tmp_path / "out").model.state_dict()
    moved = {name for name, value in written.items() if not torch.equal(value, changed[name])}
    assert moved == set(erased_names(kind_of(tmp_path / "out").load(tmp_path / "out").model, "x-strict"))
    assert (tmp_path / "out" / "specdef_defence.json").is_file()


def test_options_and_other_models_are_refused(place: Path, llama: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecdefError, match=r"`variant` must be one of x, x-strict, u, all; got 'y'\."):
        EsdOptions(variant="y")
    with pytest.raises(SpecdefError, match=r"`eta` must be above 0; got 0"):
        EsdOptions(eta=0)
    data = {"task": f"concept:{place / 'concept.yaml'}"}
    with pytest.raises(SpecdefError, match=r"`method` esd must be given a model of kind diffusion; .* causal-lm"):
        defend("esd", llama, tmp_path / "out", data=data)
    with pytest.raises(
        SpecdefError, match=r"`method` npo must be given a model of kind causal-lm or image-classifier; .* diffusion"
    ):
        defend("npo", place / "model", tmp_path / "out", data=data)
    assert not (tmp_path / "out").exists()
