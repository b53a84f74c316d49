"""A tiny language model with a tokenizer of single characters: real training runs in fractions of a second."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

import pico
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

CHARACTERS = string.ascii_letters + string.digits + string.punctuation.replace("`", "") + " "


def build(folder: Path, seed: int = 0) -> Path:
    """Write the pico llama and its tokenizer."""
    pico.build("llama", folder, seed=seed)
    vocab = {"<pad>": 0, "<s>": 1, "</s>": 2, **{letter: 3 + index for index, letter in enumerate(CHARACTERS[:93])}}
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token="</s>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("(.|\\n)"), "isolated")
    special: dict[str, Any] = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "</s>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


def load(folder: Path) -> tuple[Any, Any]:
    """The model in float32 and its tokenizer."""
    from specdef.models import load_tokenizer

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model, load_tokenizer(folder)
