"""Whole texts as tensors, and what a classifier says of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from specdef.models.tokens import MAX_LENGTH, bare, check_vocabulary, tokenizer_faults, vocabulary

if TYPE_CHECKING:
    import torch


Text = str | tuple[str, str]
"""What a classifier reads at once: a text, or a pair of texts, which the tokenizer joins as it does."""


def encode_texts(texts: Sequence[Text], model: Any, tokenizer: Any) -> tuple[torch.Tensor, ...]:
    """Token ids and attention mask of some texts, each [texts, tokens], padded on the right.

    Special tokens are put in as the tokenizer puts them; a text that is too long loses its end, a pair that of the
    longer text, token by token. Where some are pairs and both the tokenizer and the model tell first from second, a
    third tensor [texts, tokens] says which is which.

    Raises:
        CheckpointError: the tokenizer fails, or writes a token that the model does not know.
    """
    import torch

    longest = min(tokenizer.model_max_length, MAX_LENGTH, positions(model))
    with tokenizer_faults():
        read = [tokenizer(*_parts(text), truncation=True, max_length=longest) for text in texts]
    rows = [list(one.input_ids) or [padding(tokenizer)] for one in read]
    width = max(map(len, rows))
    ids = torch.full((len(rows), width), padding(tokenizer))
    mask, types = torch.zeros_like(ids), torch.zeros_like(ids)
    for at, (row, one) in enumerate(zip(rows, read, strict=True)):
        ids[at, : len(row)] = torch.tensor(row)
        mask[at, : len(row)] = 1
        if "token_type_ids" in one and one.input_ids:
            types[at, : len(row)] = torch.tensor(one.token_type_ids)
    check_vocabulary(ids, vocabulary(model))
    told_apart = types.any() and (getattr(bare(model).config, "type_vocab_size", None) or 0) > 1
    return (ids, mask, types) if told_apart else (ids, mask)


def model_inputs(ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    """The tensors of `encode_texts` under the names that models call them by."""
    found = {"input_ids": ids, "attention_mask": mask}
    return found if types is None else {**found, "token_type_ids": types}


def label_logits(model: Any, tokenizer: Any, texts: Sequence[Text], *, rows_per_batch: int = 64) -> torch.Tensor:
    """What a classifier in evaluation mode says of some texts: logits [texts, labels] in float32, on the CPU.

    Raises:
        CheckpointError: as `encode_texts`.
    """
    import torch

    device = next(model.parameters()).device
    found = []
    for start in range(0, len(texts), rows_per_batch):
        tensors = encode_texts(texts[start : start + rows_per_batch], model, tokenizer)
        with torch.inference_mode():
            found.append(model(**model_inputs(*(one.to(device) for one in tensors))).logits.float().cpu())
    return torch.cat(found)


def _parts(text: Text) -> tuple[str, ...]:
    return (text,) if isinstance(text, str) else text


def padding(tokenizer: Any) -> int:
    """The token that rows are filled up with."""
    return next((int(t) for t in (tokenizer.pad_token_id, tokenizer.eos_token_id) if t is not None), 0)


def positions(model: Any) -> int:
    """How many tokens of a text a model has positions for; the first two of RoBERTa's are taken."""
    return max(1, (getattr(bare(model).config, "max_position_embeddings", None) or 2**30) - 2)
