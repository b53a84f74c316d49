"""What running a cell gives: what the attack came to, and what was measured on the way."""

from __future__ import annotations

from dataclasses import dataclass

from specdef.certify.environment import Environment
from specdef.training.outcome import Evaluation, Outcome, StopReason


@dataclass(frozen=True)
class RewriteFacts:
    """What an attack that rewrites weights did before training.

    Attributes:
        kind: name of the intervention.
        tensors: how many were changed.
        added_parameters: numbers the model has more than before; negative where it has fewer.
        detail: what was done, in words.
        knowledge: what an attacker must know for it, besides the published folder.
    """

    kind: str
    tensors: int
    added_parameters: int
    detail: str
    knowledge: str


@dataclass(frozen=True)
class CellResult:
    """What an attack came to: the same on every run.

    Attributes:
        outcome: see `Outcome`.
        step: where the target was first reached within the utility budget; None when it was not.
        best: the evaluation with the highest score within the utility budget; None where nothing was measured.
        diverged_at: first evaluation with utility outside the budget; None when there was none.
        recovered: utility was lost and later regained.
        reason: why the loop ended; None where it never began.
        steps: optimizer steps done.
        trained_parameters: how many numbers were trained; None where nothing was.
        note: why the run does not count, or "".
        evaluations: every measurement, step 0 first.
        rewrites: what was done to the weights before training, in order.
    """

    outcome: Outcome
    step: int | None = None
    best: Evaluation | None = None
    diverged_at: int | None = None
    recovered: bool = False
    reason: StopReason | None = None
    steps: int = 0
    trained_parameters: int | None = None
    note: str = ""
    evaluations: tuple[Evaluation, ...] = ()
    rewrites: tuple[RewriteFacts, ...] = ()

    @property
    def is_broken(self) -> bool:
        """Whether the attack reached its target within the utility budget."""
        return self.outcome is Outcome.BROKEN

    @property
    def counts(self) -> bool:
        """Whether the cell says anything about the defence."""
        return self.outcome.counts


@dataclass(frozen=True)
class Measured:
    """What a cell's identity does not hold, or only as a digest. None where it was not measured or noted.

    Attributes:
        seconds: of the whole attack.
        train_seconds: in training steps only.
        peak_memory_bytes: of the process, or of the GPU.
        environment: the machine.
        rewrite_seconds: of rewriting weights before training.
        subject_name: what people call the model.
        train: the file that was trained on, as the user gave it.
        eval: the file that was asked.
        text: the general data's file.
        scorer: what counted as success, where the user said so.
        target: the score to reach.
        processes: how many made the attack together; None where it was one.
        compared: whether the undefended model is another than the one attacked; None where the configuration says it.
    """

    seconds: float | None = None
    train_seconds: float | None = None
    peak_memory_bytes: int | None = None
    environment: Environment | None = None
    rewrite_seconds: float | None = None
    subject_name: str | None = None
    train: str | None = None
    eval: str | None = None
    text: str | None = None
    scorer: str | None = None
    target: float | None = None
    processes: int | None = None
    compared: bool | None = None


@dataclass(frozen=True)
class FinishedCell:
    """What running a cell gives."""

    result: CellResult
    measured: Measured


def crashed(note: str) -> FinishedCell:
    """What is stored for a cell whose process died: an outcome of its own, never `held`, and tried again."""
    return FinishedCell(CellResult(Outcome.CRASHED, note=note), Measured())


def refused(note: str) -> FinishedCell:
    """What is stored for an attack that this model cannot be given, such as adapters on layers it has not."""
    return FinishedCell(CellResult(Outcome.INVALID, note=note), Measured())
