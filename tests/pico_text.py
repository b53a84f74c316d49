"""Tiny models that read text: a tokenizer of single characters for the 96 tokens of `pico`."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pico
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

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


def load(folder: Path) -> tuple[Any, Any]:
    """The model in evaluation mode, and its tokenizer."""
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
