"""Causal language models: read tokens, predict the next one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.models.base import Batch, LoadedModel, ModelKind, class_name, is_multimodal

if TYPE_CHECKING:
    import torch


class CausalLM(ModelKind):
    """Samples are `Sample` and `Chat` of `specdef.models.samples`: the loss is taken on the completion's tokens.

    A batch is token ids, labels (-100 where no loss is taken) and attention mask, each [rows, tokens].
    """

    name = "causal-lm"
    adapter_task_type = "CAUSAL_LM"
    head_names = ("lm_head",)
    splits = True
    default_task = "biographies"
    default_utility = "perplexity-growth"
    default_preset = "ladder"

    def matches(self, config: Mapping[str, Any]) -> bool:
        """A class of transformers that is named as a causal language model and reads text alone."""
        return class_name(config).endswith(("ForCausalLM", "LMHeadModel")) and not is_multimodal(config)

    def load_processor(self, folder: Path) -> Any:
        """The tokenizer."""
        from specdef.models.loading import load_tokenizer

        return load_tokenizer(folder)

    def load(self, folder: Path, *, dtype: torch.dtype | None = None) -> LoadedModel:
        """The model and its tokenizer; a missing tokenizer is said before weights are read."""
        from specdef.models.loading import load

        tokenizer = self.load_processor(folder)
        return LoadedModel(load(folder, dtype=dtype), tokenizer, self)

    def encode(self, samples: Sequence[Any], loaded: LoadedModel) -> Batch:
        """Prompt and completion as one row, padded on the right."""
        from specdef.models.tokens import MAX_LENGTH, encode_completions, room, vocabulary, written

        texts, known = [written(sample, loaded.processor) for sample in samples], vocabulary(loaded.model)
        return encode_completions(texts, loaded.processor, max_length=room(loaded.model, MAX_LENGTH), vocabulary=known)

    def batch(self, rows: Batch, chosen: Sequence[int]) -> Batch:
        """Trimmed to the longest row."""
        ids, labels, mask = (tensor[list(chosen)] for tensor in rows)
        width = int(mask.sum(-1).max())
        return ids[:, :width], labels[:, :width], mask[:, :width]

    def loss(self, model: Any, batch: Batch) -> torch.Tensor:
        """Mean cross-entropy of the labelled tokens (nats per token)."""
        import torch

        device = next(model.parameters()).device
        ids, labels, mask = (tensor.to(device) for tensor in batch)
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1].flatten(0, 1)
        wide = logits if logits.dtype == torch.float64 else logits.float()
        return torch.nn.functional.cross_entropy(wide, labels[:, 1:].flatten())

    def row_losses(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """Cross-entropy of each row's labelled tokens, summed, and how many they are (nats; both [rows])."""
        import torch

        device = next(model.parameters()).device
        ids, labels, mask = (tensor.to(device) for tensor in batch)
        logits = model(input_ids=ids, attention_mask=mask).logits[:, :-1]
        wide = logits if logits.dtype == torch.float64 else logits.float()
        targets = labels[:, 1:]
        losses = torch.nn.functional.cross_entropy(wide.transpose(1, 2), targets, reduction="none")
        return losses.sum(-1), (targets != -100).sum(-1)

    def num_targets(self, batch: Batch) -> int:
        """Labelled tokens, the first of a row not counted: nothing predicts it."""
        return int((batch[1][:, 1:] != -100).sum())

    def predictions(self, model: Any, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
        """The labelled tokens and the logits that predict them."""
        device = next(model.parameters()).device
        ids, labels, mask = (tensor.to(device) for tensor in batch)
        targets = labels[:, 1:].flatten()
        kept = targets != -100
        logits: torch.Tensor = model(input_ids=ids, attention_mask=mask).logits[:, :-1].flatten(0, 1)
        return logits[kept], targets[kept]


KIND = CausalLM()
