"""What several processes can do together in one attack; the rest is refused, or left to one, before anything loads."""

from __future__ import annotations

from enum import Enum

from specdef.attacks.base import Attack, Intervention
from specdef.core.processes import size
from specdef.errors import SpecdefError
from specdef.models.base import ModelKind
from specdef.training.engines import is_sharded, refuse_optimizer
from specdef.training.optimizers import optimizer_spec


class Sharing(Enum):
    """How several processes make one attack."""

    SHARDS = "each holds a part of every tensor (FSDP2)"
    REPLICAS = "each holds the model (DDP)"
    ALONE = "one makes it by itself"


def sharing_of(attack: Attack, kind: ModelKind) -> Sharing:
    """The way that needs the least memory a process, of those that compute what one process computes."""
    optimizer = optimizer_spec(attack.recipe.optimizer)
    if not kind.splits or optimizer.alone:
        return Sharing.ALONE
    parts = optimizer.parts and not any(map(_changes_steps, attack.interventions))
    return Sharing.SHARDS if parts else Sharing.REPLICAS


def refuse_unshared(attack: Attack, kind: ModelKind) -> None:
    """Refuse an attack that several processes cannot share; one process alone can do everything.

    Raises:
        SpecdefError: batches of the model's kind cannot be split; the optimizer needs what no process of several has;
            or the model is sharded, and an intervention needs whole tensors.
    """
    if size() == 1:
        return
    if not kind.splits:
        raise SpecdefError(
            f"`model` must be of a kind whose batches {size()} processes can share (causal-lm); it is of kind "
            f"{kind.name}. Start specdef by itself, without torchrun or accelerate launch."
        )
    refuse_optimizer(attack.recipe)
    if not is_sharded():
        return
    for one in attack.interventions:
        if _changes_steps(one):
            raise SpecdefError(
                f"`{one.name}` must be left out where a model is sharded: it changes steps of whole tensors. Start "
                "without `--use_fsdp`."
            )


def _changes_steps(one: Intervention) -> bool:
    return type(one).attach is not Intervention.attach
