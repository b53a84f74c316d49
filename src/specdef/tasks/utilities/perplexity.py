"""Perplexity of general text: how well a language model still predicts ordinary words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.core.processes import part_of, size, summed, without_gradients
from specdef.errors import SpecdefError
from specdef.models.base import Batch, LoadedModel
from specdef.models.tokens import check_vocabulary, token_ids, vocabulary
from specdef.tasks.text.prose import bundled_prose, read_text, split_text
from specdef.tasks.utility import Cost, UtilityData

if TYPE_CHECKING:
    import torch

TRAIN_LENGTH, TRAIN_BLOCKS = 32, 512
MEASURE_LENGTH, MEASURE_BLOCKS = 128, 32


class Perplexity(Cost):
    """exp of the mean loss per token on general text; the budget is how often the start's it may be."""

    name = "perplexity"
    unit = "perplexity of general text"
    model_kinds = ("causal-lm",)

    def read(self, path: Path | None) -> str:
        """A UTF-8 text file, or the bundled prose."""
        return bundled_prose() if path is None else read_text(path)

    def check(self, content: str, processor: Any) -> None:
        """The text must fill a row to train on and one to measure."""
        _blocks(content, processor)

    def prepare(
        self, content: str, loaded: LoadedModel, *, original: Callable[[], LoadedModel] | None = None
    ) -> UtilityData:
        """Rows of tokens: odd paragraphs are measured, even ones mixed into training."""
        measured, mixed = _blocks(content, loaded.processor)
        for rows in (measured, mixed):
            check_vocabulary(rows, vocabulary(loaded.model))
        return UtilityData(self, measured, whole_rows(mixed))

    def measure(self, model: Any, data: UtilityData) -> float:
        """See `perplexity`."""
        return perplexity(model, data.measured)


def _blocks(text: str, tokenizer: Any) -> tuple[torch.Tensor, torch.Tensor]:
    measure, mix = split_text(text)
    mixed = token_blocks(mix, tokenizer, length=TRAIN_LENGTH, max_blocks=TRAIN_BLOCKS)
    return token_blocks(measure, tokenizer, length=MEASURE_LENGTH, max_blocks=MEASURE_BLOCKS), mixed


def whole_rows(ids: torch.Tensor) -> Batch:
    """Rows of token ids [rows, tokens] as samples whose every token is predicted."""
    import torch

    return ids, ids, torch.ones_like(ids)


def token_blocks(text: str, tokenizer: Any, *, length: int, max_blocks: int | None = None) -> torch.Tensor:
    """The text's tokens cut into rows [blocks, length]; the tail that fills no row is left out.

    Raises:
        SpecdefError: the text is shorter than one row.
    """
    import torch

    ids = token_ids(tokenizer, text, truncation=False, verbose=False)
    rows = len(ids) // length
    if rows < 1:
        raise SpecdefError(f"`text` must have at least {length} tokens; it has {len(ids)}. Give a longer text.")
    rows = rows if max_blocks is None else min(rows, max_blocks)
    return torch.tensor(ids[: rows * length]).view(rows, length)


def perplexity(model: Any, blocks: torch.Tensor, *, rows_per_batch: int = 8) -> float:
    """exp of the mean loss per predicted token (infinite when the loss is not finite or too large to represent).

    Several processes of one attack share the rows; losses and tokens are each added up over all of them.

    Args:
        model: a causal language model in evaluation mode.
        blocks: token ids [blocks, length]; each row is predicted on its own.
        rows_per_batch: rows per forward pass.
    """
    import torch

    total, count = 0.0, 0
    device = next(model.parameters()).device
    with without_gradients():
        for rows, counts in _shared(blocks, rows_per_batch):
            rows = rows.to(device)
            logits = model(input_ids=rows).logits[:, :-1].float()
            if counts:
                total += float(
                    torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="sum")
                )
                count += rows.shape[0] * (rows.shape[1] - 1)
    whole, tokens = summed([total, count])
    loss = whole / tokens
    return math.exp(loss) if math.isfinite(loss) and loss < 700 else math.inf


def _shared(blocks: torch.Tensor, rows_per_batch: int) -> Iterator[tuple[torch.Tensor, bool]]:
    """This process's rows, batch by batch, and whether they count: where a model is sharded, all must compute as often
    as the one with most rows, so that others compute some twice."""
    own = blocks[list(part_of(len(blocks)))]
    parts = [part for part in own.split(rows_per_batch) if len(part)]
    most = math.ceil(math.ceil(len(blocks) / size()) / rows_per_batch)
    for number in range(most):
        yield (parts[number], True) if number < len(parts) else (blocks[:1], False)


KIND = Perplexity()
