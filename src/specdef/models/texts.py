"""Whole texts as tensors, and what a classifier says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from specdef.models.tokens import MAX_LENGTH, bare, check_vocabulary, token_ids, vocabulary

if TYPE_CHECKING:
    import torch


def encode_texts(texts: Sequence[str], model: Any, tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask of some texts, each [texts, tokens], padded on the right.

    Special tokens are put in as the tokenizer puts them; a text that is too long loses its end.

    Raises:
        CheckpointError: the tokenizer fails, or writes a token that the model does not know.
    """
    import torch

    longest = min(tokenizer.model_max_length, MAX_LENGTH, positions(model))
    rows = [token_ids(tokenizer, text, special=True, truncation=True, max_length=longest) for text in texts]
    rows = [row or [padding(tokenizer)] for row in rows]
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), padding(tokenizer))
    mask = torch.zeros_like(ids)
    for at, row in enumerate(rows):
        ids[at, : len(row)] = torch.tensor(row)
        mask[at, : len(row)] = 1
    check_vocabulary(ids, vocabulary(model))
    return ids, mask


def label_logits(model: Any, tokenizer: Any, texts: Sequence[str], *, rows_per_batch: int = 64) -> torch.Tensor:
    """What a classifier in evaluation mode says of some texts: logits [texts, labels] in float32, on the CPU.

    Raises:
        CheckpointError: as `encode_texts`.
    """
    import torch

    device = next(model.parameters()).device
    found = []
    for start in range(0, len(texts), rows_per_batch):
        ids, mask = encode_texts(texts[start : start + rows_per_batch], model, tokenizer)
        with torch.inference_mode():
            logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
        found.append(logits.float().cpu())
    return torch.cat(found)


def padding(tokenizer: Any) -> int:
    """The token that rows are filled up with."""
    return next((int(t) for t in (tokenizer.pad_token_id, tokenizer.eos_token_id) if t is not None), 0)


def positions(model: Any) -> int:
    """How many tokens of a text a model has positions for; the first two of RoBERTa's are taken."""
    return max(1, (getattr(bare(model).config, "max_position_embeddings", None) or 2**30) - 2)
