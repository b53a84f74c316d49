"""`tar`: tampering attack resistance: what is left after a simulated attack on the forget rows shall be uncertainty."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdef.defences.base import Given
from specdef.defences.descent import evaluating
from specdef.defences.hidden import hidden_states, mean_distance
from specdef.defences.objective import Objective, Rows, TrainingOptions, require
from specdef.defences.trained import ObjectiveDefence
from specdef.training.batches import drawn
from specdef.training.optimizers import build_optimizer

if TYPE_CHECKING:
    import torch

DECAY = 0.01
"""Weight decay of the attacker's AdamW."""


@dataclass(frozen=True)
class TarOptions(TrainingOptions):
    """Options of `tar`.

    Attributes:
        attack_steps: steps of the simulated attack, 64 in the paper; 0 leaves training on what is kept.
        attack_every: steps of the attack between two looks at what it has found.
        attack_lr: learning rates of the attack; one is drawn in every step.
        tamper_weight: of the loss under attack.
        retain_weight: of the loss on what is kept.
    """

    lr: float = 2e-5
    attack_steps: int = 8
    attack_every: int = 4
    attack_lr: tuple[float, ...] = (2e-6, 2e-5, 4e-5)
    tamper_weight: float = 4.0
    retain_weight: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.attack_steps >= 0, "attack_steps", "be 0 or more", self.attack_steps)
        most = max(1, self.attack_steps)
        within = 1 <= self.attack_every <= most
        require(within, "attack_every", f"be 1 to {most}, the steps of the attack", self.attack_every)
        good = bool(self.attack_lr) and all(0 < rate < 1 for rate in self.attack_lr)
        require(good, "attack_lr", "be learning rates between 0 and 1", list(self.attack_lr))
        for name in ("tamper_weight", "retain_weight"):
            require(getattr(self, name) >= 0, name, "be 0 or more", getattr(self, name))


class TarObjective(Objective):
    """tamper_weight (-mean entropy of the forget rows under attack) + retain_weight (NLL + |h - h0|)(retain).

    Math: Tamirisa et al. 2024, "Tamper-resistant safeguards for open-weight LLMs", algorithm 1 and the losses of
    section 4. The attack is AdamW on forget rows that are not the step's own. At every `attack_every`-th of its steps
    the entropy of the step's forget rows is taken, at the attacked weights, over their labelled tokens; its gradients
    are averaged and applied to the weights as they were (first order). h are the outputs of all layers and the
    embeddings, h0 the given model's, and the distance a mean over layers and tokens.

    Two loops of the published code take the forget loss on the retain rows; this does not. The paper's outer optimizer
    is schedule-free AdamW, which no library here has: the loop's AdamW is used. The paper starts from a model whose
    forget rows were first mapped to noise; this starts from the given model. Beside what training holds in any case,
    the given weights are held, and in an attack the attacked ones, their gradients and two moments.
    """

    def __init__(self, given: Given, options: TarOptions) -> None:
        assert given.data_rows is not None
        self.model, self.kind, self.options = given.loaded.model, given.loaded.kind, options
        self.rows, self.seed = given.data_rows.forget, given.seed
        self.given = [parameter.detach().clone() for parameter in self._trained()]

    def _trained(self) -> list[Any]:
        return [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    @contextmanager
    def _weights(self, weights: list[torch.Tensor]) -> Iterator[None]:
        """Other weights in the model's place; the model's own come back untouched."""
        trained = self._trained()
        own = [parameter.data for parameter in trained]
        try:
            for parameter, weight in zip(trained, weights, strict=True):
                parameter.data = weight
            yield
        finally:
            for parameter, weight in zip(trained, own, strict=True):
                parameter.data = weight

    def retain_loss(self, retain: Rows) -> torch.Tensor:
        """The second term, without its weight."""
        with self._weights(self.given), evaluating(self.model):
            before = hidden_states(self.model, retain.batch)
        moved = mean_distance(hidden_states(self.model, retain.batch), before, retain.batch[2])
        return self.kind.loss(self.model, retain.batch) + moved

    def certainty(self, forget: Rows) -> torch.Tensor:
        """Minus the mean entropy (nats) of the predictions at the labelled tokens."""
        logs = self.kind.predictions(self.model, forget.batch)[0].float().log_softmax(-1)
        return (logs.exp() * logs).sum(-1).mean()

    def attack(self, step: int, forget: Rows) -> tuple[float, list[torch.Tensor]]:
        """Attack a copy of the weights.

        Returns:
            The mean certainty under attack, and its gradients by the attacked weights; no gradients without steps.
        """
        import torch

        options, total = self.options, 0.0
        looks = options.attack_steps // options.attack_every
        if not looks:
            return 0.0, []
        draw = random.Random((self.seed << 20) + step)
        rate, batches = draw.choice(options.attack_lr), self._attackers_batches(draw, forget)
        trained = self._trained()
        found = [torch.zeros_like(parameter) for parameter in trained]
        with self._weights([parameter.detach().clone() for parameter in trained]):
            optimizer = build_optimizer("adamw", self.model, lr=rate, weight_decay=DECAY)
            for number in range(1, options.attack_steps + 1):
                optimizer.zero_grad(set_to_none=True)
                self.kind.loss(self.model, next(batches)).backward()
                optimizer.step()
                if number % options.attack_every == 0:
                    certainty = self.certainty(forget) / looks
                    gradients = torch.autograd.grad(certainty, trained, allow_unused=True)
                    for sum_, gradient in zip(found, gradients, strict=True):
                        if gradient is not None:
                            sum_ += gradient
                    total += float(certainty.detach())
            optimizer.zero_grad(set_to_none=True)
        return total, found

    def _attackers_batches(self, draw: random.Random, forget: Rows) -> Iterator[Any]:
        """Endless batches of forget rows that are not the step's own, where there are others."""
        own = set(forget.chosen)
        others = [row for row in range(len(self.rows[0])) if row not in own] or list(range(len(self.rows[0])))
        for chosen in drawn(len(others), self.options.batch_size, draw.randrange(2**32)):
            yield self.kind.batch(self.rows, [others[place] for place in chosen])

    def backward(self, step: int, forget: Rows, retain: Rows) -> float:
        """Both terms' gradients, at the weights as they were; see the class."""
        tampered, gradients = self.attack(step, forget)
        kept = self.options.retain_weight * self.retain_loss(retain)
        kept.backward()
        for parameter, gradient in zip(self._trained(), gradients, strict=bool(gradients)):
            gradient *= self.options.tamper_weight
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return float(kept.detach()) + self.options.tamper_weight * tampered


class Tar(ObjectiveDefence):
    """Tampering attack resistance (Tamirisa et al. 2024)."""

    name = "tar"
    summary = "stays uncertain of the forget rows under simulated fine-tuning"
    Options = TarOptions

    def objective(self, given: Given, options: Any) -> Objective:
        """All weights are trained."""
        return TarObjective(given, options)


KIND = Tar()
