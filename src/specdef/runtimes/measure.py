"""Does a model compute in a runtime what another computes there: KL of distributions, and greedy texts that agree."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from specdef.models.probing import kl_divergence
from specdef.runtimes.base import Running, Runtime
from specdef.runtimes.probes import Probes

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Said:
    """What a model said to the probes.

    Attributes:
        logits: after each token of the text, [tokens, vocabulary].
        texts: greedy tokens after each prompt; empty where the logits are not finite, since nothing is likeliest then.
    """

    logits: torch.Tensor
    texts: tuple[tuple[int, ...], ...]

    @property
    def finite(self) -> bool:
        """Whether every logit is a number."""
        return bool(self.logits.isfinite().all())


@dataclass(frozen=True)
class Agreement:
    """Two models compared in one format of one runtime.

    Attributes:
        kl: mean KL divergence of the second's distributions from the first's, nats per token; None where the second
            model's logits are not finite.
        same: prompts after which both write the same greedy text.
        prompts: prompts tried.
        identical: every logit equal.
    """

    kl: float | None
    same: int
    prompts: int
    identical: bool

    @property
    def sentence(self) -> str:
        """The figures in words."""
        kl = (
            "logits are not finite"
            if self.kl is None
            else "identical to the bit"
            if self.identical
            else f"KL {self.kl:.2g}"
        )
        return f"{kl}, greedy text the same after {self.same} of {self.prompts} prompts"


def ask(
    runtime: Runtime, folder: Path, format: str, probes: Probes, scratch: Path, reference: Said | None = None
) -> Said:
    """Run a model folder in a format of a runtime on probes.

    Args:
        runtime: it must be installed.
        folder: a Hugging Face folder.
        format: of the runtime's.
        probes: what is asked.
        scratch: a folder for files of this model.
        reference: what it will be compared with; greedy texts are cut where they leave the reference's.

    Raises:
        SpecdefError: the runtime is not installed, or cannot load the model.
    """
    runtime.require()
    runtime.check_format(format)
    with runtime.open(folder, format, scratch) as model:
        return answers(model, probes, reference)


def answers(model: Running, probes: Probes, reference: Said | None = None) -> Said:
    """What a loaded model says to probes; greedy texts are cut where they leave the reference's."""
    logits = model.logits(probes.text)
    finite = bool(logits.isfinite().all())
    texts = model.greedy(probes.prompts, probes.new_tokens, reference.texts if reference else ()) if finite else []
    return Said(logits, tuple(map(tuple, texts)))


def agreement(reference: Said, other: Said) -> Agreement:
    """How far `other` is from `reference`.

    Example:
        >>> import torch
        >>> said = Said(torch.zeros(2, 3), ((1, 2), (0, 1)))
        >>> agreement(said, Said(torch.zeros(2, 3), ((1, 2), (0, 2)))).sentence
        'identical to the bit, greedy text the same after 1 of 2 prompts'
    """
    same = sum(ours == theirs for ours, theirs in zip(reference.texts, other.texts, strict=False))
    identical = bool((reference.logits == other.logits).all())
    kl = None
    if other.finite:
        kl = 0.0 if identical else max(0.0, kl_divergence(reference.logits, other.logits))
        kl = kl if math.isfinite(kl) else None
    return Agreement(kl, same, len(reference.texts), identical)
