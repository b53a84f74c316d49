"""A model that transformers runs, for every runtime that starts from one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.models.loading import load, quiet
from specdef.runtimes.base import Running, left

if TYPE_CHECKING:
    import torch


class InTransformers(Running):
    """A causal language model of transformers.

    Args:
        model: in evaluation mode.
    """

    def __init__(self, model: Any) -> None:
        self._model = model

    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        """See `Running`."""
        import torch

        with torch.inference_mode():
            found: torch.Tensor = self._model(torch.tensor([list(tokens)])).logits[0]
        return found.float()

    def greedy(
        self, prompts: Sequence[Sequence[int]], count: int, expected: Sequence[Sequence[int]] = ()
    ) -> list[list[int]]:
        """See `Running`; with transformers' own cache."""
        import torch

        given, cache = torch.tensor([list(prompt) for prompt in prompts]), None
        found: list[list[int]] = [[] for _ in prompts]
        with torch.inference_mode():
            for _ in range(count):
                out = self._model(given, past_key_values=cache, use_cache=True)
                cache, given = out.past_key_values, out.logits[:, -1:].float().argmax(-1)
                for text, token in zip(found, given[:, 0].tolist(), strict=True):
                    text.append(token)
                if expected and all(left(text, expected, number) for number, text in enumerate(found)):
                    break
        return found


@contextmanager
def loaded(folder: Path, dtype: str | None = None) -> Iterator[InTransformers]:
    """A model folder loaded by transformers, in a dtype by name or in its own.

    Raises:
        CheckpointError: transformers cannot load it.
    """
    import torch

    model = load(folder, dtype=None if dtype is None else getattr(torch, dtype))
    with quiet():
        yield InTransformers(model)
