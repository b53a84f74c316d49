"""The experiments' configurations say what the library understands, at both scales, low learning rates included."""

from __future__ import annotations

import inspect
import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from specdef import lock
from specdef.attacks.lora import parse_adapter
from specdef.attacks.rewrites.apply import parse_rewriting
from specdef.attacks.run import Attack
from specdef.locks.presets import make_options
from specdef.tasks.base import TaskError, make_task, parse_task
from specdef.training.recipe import Recipe

CONFIGS = sorted((Path(__file__).parents[2] / "experiments" / "configs").glob("*.json"))


def read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text()))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_locks_and_attacks_are_understood(path: Path) -> None:
    config = read(path)
    labels = [entry["label"] for entry in config["locks"]]
    assert labels[0] == "none"
    assert len(set(labels)) == len(labels)
    common = {name for name, p in inspect.signature(lock).parameters.items() if p.kind is not p.VAR_KEYWORD}
    for entry in config["locks"][1:]:
        given = {name: value for name, value in entry.items() if name not in ("label", "preset", "multiplier")}
        shared = {name: given.pop(name) for name in list(given) if name in common}
        make_options(
            entry["preset"],
            entry["multiplier"],
            layers=shared.pop("layers", None),
            num_layers=shared.pop("num_layers", None),
            seed=0,
            method_options=given,
        )
        assert not shared
    for attack in config.get("attacks", []):
        changes = dict(attack)
        if "lora" in changes:
            parse_adapter(changes.pop("lora"))
        if "rewrite" in changes:
            parse_rewriting(changes.pop("rewrite"))
        how = {name: changes.pop(name) for name in ("freeze", "channel_rates") if name in changes}
        Attack(Recipe(**{**config["recipe"], **changes}), **how)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_tasks_are_understood(path: Path) -> None:
    config = read(path)
    if "task" in config:
        spec = parse_task(config["task"], target=config.get("target"), scorer=config.get("scorer"))
        # The files of the full scale are the user's; everything before them must be in order.
        with pytest.raises(TaskError, match=r"readable file|model folder") if spec.path else nullcontext():
            make_task(spec)


@pytest.mark.parametrize("path", [path for path in CONFIGS if path.stem.startswith(("table4", "table22"))])
def test_rates_below_the_ordinary_window_are_tried(path: Path) -> None:
    rates = [attack["lr"] for attack in read(path)["attacks"]]
    assert min(rates) <= max(rates) / 1e3


def test_every_experiment_has_a_full_scale_twin() -> None:
    names = {path.stem for path in CONFIGS}
    assert {f"{name}-full" for name in names if not name.endswith("-full")} == {n for n in names if n.endswith("-full")}
