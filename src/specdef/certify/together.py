"""What several processes can do together in one attack; the rest is refused before anything is loaded."""

from __future__ import annotations

from specdef.attacks.base import Attack, Intervention
from specdef.core.processes import size
from specdef.errors import SpecdefError
from specdef.models.base import ModelKind
from specdef.training.engines import is_sharded, refuse_optimizer


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
        if type(one).attach is not Intervention.attach:
            raise SpecdefError(
                f"`{one.name}` must be left out where a model is sharded: it changes steps of whole tensors. Start "
                "without `--use_fsdp`."
            )
