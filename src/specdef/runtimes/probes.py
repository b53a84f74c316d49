"""What models are asked in every runtime: one text for their distributions, and prompts for their greedy text."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from specdef.checkpoint.header import load_json_object
from specdef.errors import CheckpointError
from specdef.models.loading import load_tokenizer
from specdef.models.probing import Probing
from specdef.models.tokens import token_ids

TEXT_TOKENS, PROMPT_TOKENS, NEW_TOKENS = 160, 8, 16
NUM_PROMPTS = 50


@dataclass(frozen=True)
class Probes:
    """Token ids.

    Attributes:
        text: a text whose next-token distributions are compared.
        prompts: beginnings of one length.
        new_tokens: how far each is continued.
    """

    text: tuple[int, ...]
    prompts: tuple[tuple[int, ...], ...]
    new_tokens: int = NEW_TOKENS


def probes(folder: Path, *, num_prompts: int = NUM_PROMPTS) -> Probes:
    """The bundled prose and prompts as a model's tokens; random tokens for a folder without a tokenizer.

    Args:
        folder: a model folder.
        num_prompts: the first so many.
    """
    tokenizer = _tokenizer(folder)
    if tokenizer is None:
        config = load_json_object(folder / "config.json")
        text = Probing().probes(config, 1, seed=0, length=TEXT_TOKENS)["input_ids"][0].tolist()
        prompts = Probing().probes(config, num_prompts, seed=1, length=PROMPT_TOKENS)["input_ids"].tolist()
        return Probes(tuple(text), tuple(map(tuple, prompts)))
    data = files("specdef.data")
    prose = token_ids(tokenizer, data.joinpath("prose.txt").read_text(encoding="utf-8"), special=True)
    lines = data.joinpath("runtime_prompts.txt").read_text(encoding="utf-8").splitlines()[:num_prompts]
    length = min(PROMPT_TOKENS, *(len(token_ids(tokenizer, line, special=True)) for line in lines))
    begun = (tuple(token_ids(tokenizer, line, special=True)[:length]) for line in lines)
    return Probes(tuple(prose[:TEXT_TOKENS]), tuple(begun))


def _tokenizer(folder: Path) -> Any:
    """The folder's tokenizer; None where there is none, or one without words, which transformers makes of nothing."""
    try:
        tokenizer = load_tokenizer(folder)
    except CheckpointError:
        return None
    return tokenizer if token_ids(tokenizer, "A word.") else None
