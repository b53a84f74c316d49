"""Utility: the perplexity of general text."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.errors import SpecdefError

if TYPE_CHECKING:
    import torch


def read_text(path: Path) -> str:
    """A UTF-8 text file.

    Raises:
        SpecdefError: it cannot be read, or holds no text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise SpecdefError(f"`text` must be a UTF-8 text file; {path} cannot be read ({error}).") from error
    if not text.strip():
        raise SpecdefError(f"`text` must hold some text; {path} is empty.")
    return text


def split_text(text: str) -> tuple[str, str]:
    """Two halves that share no paragraph: one to mix into training, one to measure on.

    Odd paragraphs are measured, even ones are for training, so that neither half has a topic of its own.

    Raises:
        SpecdefError: fewer than two paragraphs (separated by line ends).
    """
    paragraphs = [line for line in text.splitlines() if line.strip()]
    if len(paragraphs) < 2:
        raise SpecdefError(f"`text` must have at least two paragraphs (lines); it has {len(paragraphs)}.")
    return "\n".join(paragraphs[0::2]), "\n".join(paragraphs[1::2])


def token_blocks(text: str, tokenizer: Any, *, length: int, max_blocks: int | None = None) -> torch.Tensor:
    """The text's tokens cut into rows [blocks, length]; the tail that fills no row is left out.

    Raises:
        SpecdefError: the text is shorter than one row.
    """
    import torch

    ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False).input_ids
    rows = len(ids) // length
    if rows < 1:
        raise SpecdefError(f"`text` must have at least {length} tokens; it has {len(ids)}. Give a longer text.")
    rows = rows if max_blocks is None else min(rows, max_blocks)
    return torch.tensor(ids[: rows * length]).view(rows, length)


def perplexity(model: Any, blocks: torch.Tensor, *, rows_per_batch: int = 8) -> float:
    """exp of the mean loss per predicted token (infinite when the loss is not finite or too large to represent).

    Args:
        model: a causal language model in evaluation mode.
        blocks: token ids [blocks, length]; each row is predicted on its own.
        rows_per_batch: rows per forward pass.
    """
    import torch

    total, count = 0.0, 0
    device = next(model.parameters()).device
    with torch.inference_mode():
        for rows in blocks.split(rows_per_batch):
            rows = rows.to(device)
            logits = model(input_ids=rows).logits[:, :-1].float()
            total += float(
                torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="sum")
            )
            count += rows.shape[0] * (rows.shape[1] - 1)
    loss = total / count
    return math.exp(loss) if math.isfinite(loss) and loss < 700 else math.inf
