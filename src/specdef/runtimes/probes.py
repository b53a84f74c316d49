"""What models are asked in every runtime: one text for their distributions, and prompts for their greedy text."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

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
    """The bundled prose and prompts as a model's tokens; random tokens where its tokenizer does not fit it, or is none.

    Args:
        folder: a model folder.
        num_prompts: the first so many.
    """
    config = load_json_object(folder / "config.json")
    longest = config.get("max_position_embeddings") or config.get("n_positions") or TEXT_TOKENS
    length = min(TEXT_TOKENS, longest)
    found = _written(folder, num_prompts, length)
    if found is not None and max(map(max, (found.text, *found.prompts))) < config.get("vocab_size", 0):
        return found
    text = Probing().probes(config, 1, seed=0, length=length)["input_ids"][0].tolist()
    prompts = Probing().probes(config, num_prompts, seed=1, length=PROMPT_TOKENS)["input_ids"].tolist()
    return Probes(tuple(text), tuple(map(tuple, prompts)))


def _written(folder: Path, num_prompts: int, longest: int) -> Probes | None:
    """The probes as the folder's tokenizer writes them; None without one, or with one that knows no words."""
    try:
        tokenizer = load_tokenizer(folder)
    except CheckpointError:
        return None
    data = files("specdef.data")
    prose = token_ids(tokenizer, data.joinpath("prose.txt").read_text(encoding="utf-8"), special=True)
    lines = data.joinpath("runtime_prompts.txt").read_text(encoding="utf-8").splitlines()[:num_prompts]
    begun = [token_ids(tokenizer, line, special=True) for line in lines]
    length = min(PROMPT_TOKENS, *map(len, begun))
    if not prose or not length:
        return None
    return Probes(tuple(prose[:longest]), tuple(tuple(prompt[:length]) for prompt in begun))
