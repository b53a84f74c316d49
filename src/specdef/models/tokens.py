"""Text as tensors of token ids."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from specdef.errors import CheckpointError, TaskError
from specdef.models.loading import is_fault, reason
from specdef.models.samples import Chat, Sample

if TYPE_CHECKING:
    import torch

MAX_LENGTH = 512
"""Tokens of a row, where the model does not ask for fewer."""


def token_ids(tokenizer: Any, text: str, *, special: bool = False, **options: Any) -> list[int]:
    """The token ids of a text; without special tokens, unless asked for.

    Raises:
        CheckpointError: the tokenizer fails on it, whatever it raises.
    """
    with tokenizer_faults():
        return list(tokenizer(text, add_special_tokens=special, **options).input_ids)


def reader(tokenizer: Any) -> Callable[[str], list[int]]:
    """`token_ids` that reads every text once: questions share their prompts and their answers."""
    return functools.cache(functools.partial(token_ids, tokenizer))


@contextmanager
def tokenizer_faults() -> Iterator[None]:
    """Turn what a broken tokenizer raises into one sentence. A panic of its Rust part is no `Exception`.

    Raises:
        CheckpointError: the tokenizer fails.
    """
    try:
        yield
    except BaseException as error:
        if not is_fault(error):
            raise
        raise CheckpointError(
            f"`model` must have a tokenizer that reads the task's text; it fails ({reason(error)}). "
            "Copy the original's tokenizer files into the folder."
        ) from error


def start_token(tokenizer: Any) -> int:
    """The token an empty prompt is replaced with."""
    for token in (tokenizer.bos_token_id, tokenizer.eos_token_id):
        if token is not None:
            return int(token)
    return 0


def written(sample: Sample | Chat, tokenizer: Any) -> Sample:
    """A sample as text: a conversation in the tokenizer's chat template, or in plain words where it has none.

    Raises:
        CheckpointError: the tokenizer fails on it.

    Example:
        >>> from types import SimpleNamespace
        >>> written(Chat((("user", "Hello"),), "Good day"), SimpleNamespace(chat_template=None)).prompt
        'user: Hello\\nassistant: '
    """
    if isinstance(sample, Sample):
        return sample
    if not getattr(tokenizer, "chat_template", None):
        lines = [f"{role}: {content}\n" for role, content in sample.messages]
        return Sample("".join([*lines, "assistant: "]), sample.completion)
    turns = [{"role": role, "content": content} for role, content in sample.messages]
    with tokenizer_faults():
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    return Sample(str(prompt), sample.completion)


def bare(model: Any) -> Any:
    """The model inside the wrappers that accelerate puts around it; peft's wrapper answers as the model does."""
    while not hasattr(model, "get_input_embeddings") and hasattr(model, "module"):
        model = model.module
    return model


def vocabulary(model: Any) -> int | None:
    """How many tokens a model has embeddings for; None where it does not say."""
    model = bare(model)
    if not hasattr(model, "get_input_embeddings"):
        return None
    rows = getattr(model.get_input_embeddings(), "num_embeddings", None)
    return rows if isinstance(rows, int) else None


def room(model: Any, most: int) -> int:
    """How many tokens a model has learned positions for, `most` at most; all of them where positions are computed.

    Learned positions are a table beside that of the tokens, as long as the configuration says, or two longer (OPT).
    """
    import torch

    limit = getattr(getattr(bare(model), "config", None), "max_position_embeddings", None)
    if limit is None or limit >= most:
        return most
    tokens = bare(model).get_input_embeddings()
    tables = (part for part in model.modules() if isinstance(part, torch.nn.Embedding) and part is not tokens)
    return limit if any(table.num_embeddings in (limit, limit + 2) for table in tables) else most


def check_vocabulary(ids: torch.Tensor, rows: int | None) -> None:
    """Refuse token ids that a model has no embedding for.

    Raises:
        CheckpointError: there is one.
    """
    if rows is None or not ids.numel() or int(ids.max()) < rows:
        return
    raise CheckpointError(
        f"`model` must have an embedding for every token its tokenizer writes; it has {rows}, and the task's text has "
        f"token {int(ids.max())}. Copy the original's tokenizer files into the folder."
    )


def encode_completions(
    samples: Sequence[Sample],
    tokenizer: Any,
    *,
    max_length: int = MAX_LENGTH,
    vocabulary: int | None = None,
    read: Callable[[str], list[int]] | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Token ids, labels and attention mask of prompts and their completions, padded on the right.

    Args:
        samples: what is encoded.
        tokenizer: the model's.
        max_length: tokens of a row; longer prompts lose their start.
        vocabulary: how many tokens the model knows; None leaves that unchecked.
        read: a `reader` of the tokenizer that has read some of it before; None reads everything anew.

    Returns:
        Three tensors [samples, tokens]; labels are -100 on the prompt and on padding.

    Raises:
        TaskError: a completion has no tokens.
        CheckpointError: the tokenizer fails, or writes a token that the model does not know.
    """
    import torch

    read = read or reader(tokenizer)
    pairs = []
    for sample in samples:
        prompt = read(sample.prompt) if sample.prompt else []
        completion = read(sample.completion)
        if not completion:
            raise TaskError(
                f"A completion must have at least one token; the one after {sample.prompt[:60]!r} has none."
            )
        prompt = prompt or [start_token(tokenizer)]
        prompt = prompt[-max(1, max_length - len(completion)) :]
        pairs.append((prompt, completion[: max_length - len(prompt)]))
    width = max(len(prompt) + len(completion) for prompt, completion in pairs)
    ids = torch.zeros(len(pairs), width, dtype=torch.long)
    labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
    for row, (prompt, completion) in enumerate(pairs):
        end = len(prompt) + len(completion)
        ids[row, :end] = torch.tensor(prompt + completion)
        labels[row, len(prompt) : end] = torch.tensor(completion)
        mask[row, :end] = 1
    check_vocabulary(ids, vocabulary)
    return ids, labels, mask
