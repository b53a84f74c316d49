"""Tiny models that read text: a tokenizer of single characters for the 96 tokens of `pico`."""

from __future__ import annotations

import string
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pico
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from specdef.models.base import LoadedModel, kind_of
from specdef.tasks.base import TaskSpec, make_task
from specdef.tasks.text.everyday import everyday
from specdef.tasks.utility import UtilityData, utility_for
from specdef.training.loop import make_trainer
from specdef.training.recipe import Recipe

CHARACTERS = string.ascii_letters + string.digits + " \n.,;:!?'\"-()[]{}<>|/=+*_&%#@"
CHAT = (
    "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}<a>{% endif %}"
)


def write_tokenizer(folder: Path, *, chat: bool = False) -> Any:
    """Save the tokenizer beside a pico model and return it."""
    vocabulary = {
        token: index for index, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *CHARACTERS][: pico.VOCAB])
    }
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    plain.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    tokenizer.chat_template = CHAT if chat else None
    tokenizer.save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def write_model(folder: Path, *, chat: bool = False, seed: int = 0) -> Path:
    """A random pico llama with its tokenizer."""
    pico.build("llama", folder, seed=seed)
    write_tokenizer(folder, chat=chat)
    return folder


def write_word_tokenizer(folder: Path, texts: Iterable[str]) -> Any:
    """Save a tokenizer that knows the words and marks of some texts, in lower case."""
    splitter = pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Punctuation()])
    words = sorted({word for text in texts for word, _ in splitter.pre_tokenize_str(text.lower())})
    vocabulary = {token: at for at, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *words])}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    plain.normalizer = normalizers.Lowercase()
    plain.pre_tokenizer = splitter
    PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def write_classifier(folder: Path, family: str, *, steps: int = 60, seed: int = 0) -> Path:
    """A pico classifier that was trained to tell weather (label 0) from music (label 1).

    Args:
        folder: to create.
        family: ``bert-classifier`` or ``llama-classifier``.
        steps: of training.
        seed: of the weights and of the order of samples.
    """
    task = make_task(TaskSpec("classification"))
    texts = [row.text for row in (*everyday(), *task.samples, *task.metric.rows)]  # type: ignore[attr-defined]
    tokenizer = write_word_tokenizer(folder, texts)
    pico.build(family, folder, seed=seed, vocab_size=len(tokenizer))
    loaded = kind_of(folder).load(folder)
    recipe = Recipe(lr=3e-3, steps=steps, batch_size=16, retain_weight=0.0, seed=seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        trainer = make_trainer(loaded, recipe, loaded.kind.encode(everyday(), loaded), None)
        for _ in range(steps):
            trainer.step()
    loaded.model.save_pretrained(folder)
    return folder


def load(folder: Path) -> tuple[Any, Any]:
    """The model in evaluation mode, and its tokenizer."""
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


def loaded(folder: Path) -> LoadedModel:
    """Model and tokenizer as attacks are given them."""
    return kind_of(folder).load(folder)


def general(model: LoadedModel) -> UtilityData:
    """The general data that ships with the package, prepared for a model."""
    utility = utility_for(model.kind)
    return utility.prepare(utility.read(None), model)
