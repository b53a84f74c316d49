"""`elm`: erasure of language memory: on the forget rows the model says what a novice would."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specdef.defences.adapters import AdapterObjective, AdapterOptions, with_adapters
from specdef.defences.base import Given
from specdef.defences.guided import continuations, continued, prefixed, steered
from specdef.defences.hidden import chosen_layers, layer_count
from specdef.defences.objective import Objective, Rows, require
from specdef.defences.trained import ObjectiveDefence
from specdef.models.tokens import token_ids

if TYPE_CHECKING:
    import torch

    from specdef.models.base import Batch

GUIDANCE = 3.0
"""How far sampled text is steered, as the published code samples it."""


@dataclass(frozen=True)
class ElmOptions(AdapterOptions):
    """Options of `elm`.

    Attributes:
        novice: what stands before a text of one who knows nothing of the subject. Naming the subject helps.
        expert: the same of one who knows all of it.
        eta: how far the target is steered from the expert to the novice, at the last labelled token of a row.
        eta_start: the same at its first labelled token; it rises evenly between them.
        layers: whose linear layers get adapters, from 0; from an eighth to a quarter of the depth when empty (4 to 7 of
            32 in the published code).
        rank: of the adapters; 256 (the published run that erases a book), or a quarter of the width where that is
            less, when None.
        retain_weight: of the retain loss.
        fluent_weight: of the loss on text that was sampled beforehand.
        fluent_rows: forget rows whose prompts such text is sampled for, at most.
        fluent_tokens: length of such text.
    """

    lr: float = 5e-5
    novice: str = "This text is by a novice, who knows nothing of the subject and talks of other things:\n"
    expert: str = "This text is by an expert, who knows the subject and gives every detail:\n"
    eta: float = 1000.0
    eta_start: float = 1.0
    layers: tuple[int, ...] = ()
    rank: int | None = None
    retain_weight: float = 1.0
    fluent_weight: float = 1.0
    fluent_rows: int = 64
    fluent_tokens: int = 32

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("eta", "eta_start"):
            require(getattr(self, name) > 0, name, "be above 0: below it, novice and expert swap", getattr(self, name))
        for name in ("retain_weight", "fluent_weight"):
            require(getattr(self, name) >= 0, name, "be 0 or more", getattr(self, name))
        for name in ("fluent_rows", "fluent_tokens"):
            require(getattr(self, name) >= 1, name, "be at least 1", getattr(self, name))
        require(self.rank is None or self.rank >= 1, "rank", "be at least 1", self.rank)
        require(self.novice != self.expert, "novice", "differ from expert", self.novice)


class ElmObjective(AdapterObjective):
    """CE(forget, target) + retain_weight CE(retain, p0) + fluent_weight NLL(sampled text); p0 is the given model.

    Math: Gandikota et al. 2024, "Erasing conceptual knowledge from language models": the target is
    p0(x) (p0(x | novice) / p0(x | expert))^eta, normalised at every token. As in the published code eta rises along
    a row; that code has the ratio upside down and a negative eta, so that a call with both "right" swaps novice and
    expert. It also samples the fluent text after a sentence that changes the subject, divides logits by a temperature
    and keeps the 50 likeliest tokens of a target; none of this is done here. The text is sampled once, before training.
    """

    def __init__(self, given: Given, options: ElmOptions) -> None:
        assert given.data_rows is not None
        model = given.loaded.model
        self.kind, self.options = given.loaded.kind, options
        layers = chosen_layers(options.layers, default_layers(layer_count(model)), model)
        rank = options.rank or max(1, min(256, model.get_input_embeddings().embedding_dim // 4))
        self.novice = token_ids(given.loaded.processor, options.novice)
        self.expert = token_ids(given.loaded.processor, options.expert)
        self.model = with_adapters(
            given.loaded, layers, rank=rank, lora_alpha=options.lora_alpha, targets=options.targets
        )
        self.fluent = self._fluent(given)

    def _fluent(self, given: Given) -> Batch:
        """Prompts of forget rows, and what the given model says after them when it is steered to the novice."""
        assert given.data_rows is not None
        ids, labels, _ = given.data_rows.forget
        count = min(len(ids), self.options.fluent_rows)
        starts = (labels[:count] != -100).int().argmax(1).tolist()
        prompts = [ids[row, : max(1, start)].tolist() for row, start in enumerate(starts)]
        with self.given_model():
            texts = continuations(
                self.model,
                prompts,
                towards=self.novice,
                away=self.expert,
                eta=GUIDANCE,
                tokens=self.options.fluent_tokens,
                stop=given.loaded.processor.eos_token_id,
                seed=given.seed,
            )
        return continued(prompts, texts)

    def etas(self, batch: Batch) -> torch.Tensor:
        """How far each labelled token's target is steered, [targets, 1]."""
        labelled: torch.Tensor = batch[1][:, 1:] != -100
        place = labelled.cumsum(1) - 1
        last = (labelled.sum(1, keepdim=True) - 1).clamp_min(1)
        first, end = self.options.eta_start, self.options.eta
        etas = first + (end - first) * place / last
        return etas[labelled][:, None]

    def target(self, batch: Batch) -> torch.Tensor:
        """Log probabilities of the target at every labelled token, [targets, vocabulary]."""
        with self.given_model():
            plain, novice, expert = (
                self.kind.predictions(self.model, rows)[0]
                for rows in (batch, prefixed(batch, self.novice), prefixed(batch, self.expert))
            )
        return steered(plain, novice, expert, self.etas(batch).to(plain.device))

    def erase_loss(self, forget: Rows) -> torch.Tensor:
        """The first term."""
        target = self.target(forget.batch)
        return _cross_entropy(self.kind.predictions(self.model, forget.batch)[0], target)

    def retain_loss(self, retain: Rows) -> torch.Tensor:
        """The second term, without its weight."""
        with self.given_model():
            before = self.kind.predictions(self.model, retain.batch)[0].float().log_softmax(-1)
        return _cross_entropy(self.kind.predictions(self.model, retain.batch)[0], before)

    def fluent_loss(self, forget: Rows) -> torch.Tensor:
        """The third term, without its weight."""
        chosen = [index % len(self.fluent[0]) for index in forget.chosen]
        return self.kind.loss(self.model, self.kind.batch(self.fluent, chosen))

    def loss(self, step: int, forget: Rows, retain: Rows) -> torch.Tensor:
        """See the class."""
        kept = self.options.retain_weight * self.retain_loss(retain)
        return self.erase_loss(forget) + kept + self.options.fluent_weight * self.fluent_loss(forget)


def _cross_entropy(logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Mean over tokens of -sum target log p; the target is given as log probabilities."""
    return -(target.exp() * logits.float().log_softmax(-1)).sum(-1).mean()


def default_layers(count: int) -> tuple[int, ...]:
    """Those from an eighth to a quarter of the depth, from 0; at least one."""
    start = count // 8
    return tuple(range(start, max(start + 1, count // 4)))


class Elm(ObjectiveDefence):
    """Erasure of language memory (Gandikota, Feucht, Marks and Bau 2024)."""

    name = "elm"
    summary = "speaks as a novice would where the forget rows ask an expert"
    Options = ElmOptions

    def objective(self, given: Given, options: Any) -> Objective:
        """Adapters are trained, and merged at the end."""
        return ElmObjective(given, options)


KIND = Elm()
