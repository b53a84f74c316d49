"""Several processes of one attack, as a launcher starts them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pico_text
import torch

from specdef.certify.api import attack
from specdef.certify.executors.local import PRELOADED
from specdef.core.processes import from_first, is_first, joined, rank
from specdef.errors import SpecdefError
from specdef.models.base import LoadedModel
from specdef.tasks.kinds.facts import facts
from specdef.tasks.text.prose import bundled_prose
from specdef.tasks.utilities.perplexity import KIND as PERPLEXITY
from specdef.training.engines import is_sharded
from specdef.training.loop import Trainer, make_trainer, weight_checksums
from specdef.training.recipe import Recipe

SHARDED = {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}


def variables(number: int, count: int, port: int) -> dict[str, str]:
    """What a launcher sets."""
    told = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    return {**{name: str(value) for name, value in told.items()}, "MASTER_ADDR": "127.0.0.1"}


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


def run(function: Callable[..., Any], *arguments: Any, count: int = 2) -> list[Any]:
    """What the function gives in every process: a value, the sentence of a refusal, or None where one died."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*PRELOADED])
    port, running = free_port(), []
    for number in range(count):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_one, args=(sender, variables(number, count, port), function, arguments))
        process.start()
        sender.close()
        running.append((process, receiver))
    found = []
    for process, receiver in running:
        value = None
        with suppress(EOFError):
            value = receiver.recv() if receiver.poll(90) else "it never ended"
        found.append(value)
        process.join(1)
        process.kill()
    return found


def _one(sender: Any, told: Mapping[str, str], function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.environ.update(told)
    torch.set_num_threads(1)
    try:
        with joined("cpu"):
            sender.send(function(*arguments))
    except SpecdefError as error:
        sender.send(str(error))


def trainer_of(folder: Path, recipe: Recipe) -> tuple[Trainer, LoadedModel]:
    torch.manual_seed(0)
    loaded = pico_text.loaded(folder)
    general = PERPLEXITY.prepare(bundled_prose(), loaded)
    rows = loaded.kind.encode(facts().samples[:24], loaded)
    return make_trainer(loaded, recipe, rows, general.retained), loaded


def trained(folder: Path, recipes: Mapping[str, Recipe], environment: Mapping[str, str]) -> dict[str, Any]:
    """Per recipe: the loss of every step, perplexity before and after, whether weights moved, whether it is sharded."""
    os.environ.update(environment)
    found: dict[str, Any] = {}
    for name, recipe in recipes.items():
        trainer, loaded = trainer_of(folder, recipe)
        general = PERPLEXITY.prepare(bundled_prose(), loaded)
        before, marks = general.measure(trainer.model), weight_checksums(trainer.model)
        losses = [trainer.step() for _ in range(recipe.steps)]
        moved = weight_checksums(trainer.model) != marks
        after = general.measure(trainer.model)  # what an evaluation gathers is let go
        held = sum(p.to_local().numel() if hasattr(p, "to_local") else p.numel() for p in trainer.model.parameters())
        found[name] = {
            "losses": [before, *losses, after],
            "moved": moved,
            "held": held,
            "sharded": is_sharded(),
        }
    return found


def killed_at_work(folder: Path) -> str:
    """The second process dies of a signal after two steps; the first trains on."""
    trainer, _ = trainer_of(folder, Recipe(lr=1e-3, steps=20, batch_size=4))
    for step in range(20):
        if step == 2 and rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        trainer.step()
    return "trained on alone"


def refused_by_the_first() -> str:
    """The first process alone finds a fault; and the first alone makes what all get."""
    made = from_first(lambda: f"made by the first: {is_first()}")

    def refuse() -> str:
        raise SpecdefError("`out` must be a folder; x is none.")

    try:
        from_first(refuse)
    except SpecdefError as error:
        return f"{made}; {error}"
    return made


def attacked(model: Path, original: Path, out: Path, environment: Mapping[str, str], recipe: Recipe) -> tuple[str, Any]:
    """The cell's key and result of an attack through the library, as every process gets them."""
    os.environ.update(environment)
    stored = attack(model, out, original=original, task="facts", recipe=recipe, threads=2, target=0.4)
    return stored.key, stored.result
