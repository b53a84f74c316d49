"""How much worse a language model predicts general text of several domains: the worst of them counts."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.errors import SpecdefError, TaskError
from specdef.models.base import LoadedModel
from specdef.models.tokens import check_vocabulary, vocabulary
from specdef.tasks.text.prose import bundled_prose, read_text, split_text
from specdef.tasks.utilities.perplexity import (
    MEASURE_LENGTH,
    TRAIN_BLOCKS,
    TRAIN_LENGTH,
    Perplexity,
    perplexity,
    token_blocks,
    whole_rows,
)
from specdef.tasks.utility import UtilityData

if TYPE_CHECKING:
    import torch

MIX = "mix.txt"
"""Of a folder, the text that is mixed into training; the others are measured."""
ROWS = 3
"""Of each text."""


@dataclass(frozen=True)
class _Measured:
    """Rows of every text, and the undefended model's perplexity on them."""

    rows: Mapping[str, torch.Tensor]
    before: Mapping[str, float]


class PerplexityGrowth(Perplexity):
    """The largest ratio of perplexity to the undefended model's, text by text; a text's perplexity is exp of its mean
    loss per token.

    The texts that ship with the package are a novel, a drama, an encyclopaedia and program code; what is mixed into
    training is another novel, by another author. A file gives two halves of one text; a folder gives ``mix.txt`` to mix
    and its other ``.txt`` files to measure.
    """

    name = "perplexity-growth"
    unit = "largest growth of perplexity over general texts"
    needs_original = True

    def read(self, path: Path | None) -> str:
        """All texts as one JSON object: ``mix`` and ``measured``, name -> text."""
        if path is None:
            folder = files("specdef.data").joinpath("general")
            texts = {file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()}
            return _joined(bundled_prose(), texts)
        if not path.is_dir():
            measured, mixed = split_text(read_text(path))
            return _joined(mixed, {path.name: measured})
        found = {file.name: read_text(file) for file in sorted(path.glob("*.txt"))}
        if MIX not in found or len(found) < 2:
            raise TaskError(
                f"`text` must be a file, or a folder with {MIX} to mix into training and other .txt files to measure; "
                f"{path} has {', '.join(found) or 'no .txt file'}."
            )
        return _joined(found.pop(MIX), found)

    def check(self, content: str, processor: Any) -> None:
        """Every text must fill a row."""
        _rows(content, processor)

    def prepare(
        self, content: str, loaded: LoadedModel, *, original: Callable[[], LoadedModel] | None = None
    ) -> UtilityData:
        """Rows of tokens, and what the undefended model makes of them.

        Raises:
            SpecdefError: a text fills no row, or the undefended model's numbers are not finite.
        """
        measured, mixed = _rows(content, loaded.processor)
        for rows in (*measured.values(), mixed):
            check_vocabulary(rows, vocabulary(loaded.model))
        source = loaded if original is None else original()
        before = {name: perplexity(source.model, rows) for name, rows in measured.items()}
        if not all(map(math.isfinite, before.values())):
            raise SpecdefError("`original` must predict general text with finite numbers; it does not.")
        return UtilityData(self, _Measured(measured, before), whole_rows(mixed))

    def measure(self, model: Any, data: UtilityData) -> float:
        """The worst ratio; infinite when a loss is not finite."""
        return max(self.by_text(model, data).values())

    def by_text(self, model: Any, data: UtilityData) -> dict[str, float]:
        """The ratio of every text."""
        found = data.measured
        return {name: perplexity(model, rows) / found.before[name] for name, rows in found.rows.items()}


def _joined(mix: str, measured: Mapping[str, str]) -> str:
    return json.dumps({"mix": mix, "measured": dict(sorted(measured.items()))}, ensure_ascii=False)


def _rows(content: str, tokenizer: Any) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    texts = json.loads(content)
    mixed = token_blocks(texts["mix"], tokenizer, length=TRAIN_LENGTH, max_blocks=TRAIN_BLOCKS)
    measured = {}
    for name, text in texts["measured"].items():
        try:
            measured[name] = token_blocks(text, tokenizer, length=MEASURE_LENGTH, max_blocks=ROWS)
        except SpecdefError as error:
            raise SpecdefError(f"{error} The text is {name}.") from error
    return measured, mixed


KIND = PerplexityGrowth()
