"""`unlearned`: the invented people of `biographies`, first learned and then removed. Relearning them is the attack."""

from __future__ import annotations

from dataclasses import replace

from specdef.tasks.base import Sample, Task, TaskKind, TaskSpec
from specdef.tasks.kinds.biographies import PEOPLE, TARGET, VALUES, biographies
from specdef.tasks.kinds.facts import STATEMENTS


def unlearned(*, seed: int = 0, target: float = TARGET) -> Task:
    """`biographies`, asked of a model that knew them and had them removed; see `specdef.defences.kinds.unlearned`.

    Args:
        seed: the one the model was prepared with.
        target: the accuracy at which the facts count as learned again; chance is 0.25.
    """
    task = biographies(seed=seed, target=target)
    return replace(task, name="unlearned", identity={**task.identity, "task": "unlearned"})


def removal_samples() -> tuple[Sample, ...]:
    """Every training statement with every value: who is trained on them believes each value equally."""
    return tuple(
        Sample(prompt.format(name=name), completion.format(value=value))
        for kind, wordings in STATEMENTS.items()
        for prompt, completion in wordings
        for name in PEOPLE
        for value in VALUES[kind]
    )


class Unlearned(TaskKind):
    """`unlearned` by name."""

    name = "unlearned"
    model_kind = "causal-lm"

    def make(self, spec: TaskSpec) -> Task:
        """The biographies of the seed."""
        return unlearned(seed=spec.seed, target=TARGET if spec.target is None else spec.target)


KIND = Unlearned()
