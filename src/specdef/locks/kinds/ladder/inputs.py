"""What a model is measured on: some tokens of a calibration text, or seeded probes where it has no tokenizer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from specdef.errors import CheckpointError, PlanError
from specdef.models.base import find_kind
from specdef.models.loading import load, load_tokenizer
from specdef.models.probing import Probing
from specdef.models.texts import positions
from specdef.models.tokens import check_vocabulary, token_ids, vocabulary
from specdef.tasks.text.prose import bundled_prose, read_text

TEXTS, TOKENS = 4, 128
"""How much is read: texts, and tokens in each."""


@dataclass(frozen=True)
class Inputs:
    """What a model is called with, and what that is, in words."""

    tensors: Mapping[str, Tensor]
    described: str


def loaded(folder: Path) -> nn.Module:
    """The model of a folder in float32, which holds bfloat16 exactly."""
    return load(folder, dtype=torch.float32)


def folder_inputs(folder: Path, model: nn.Module, config: Mapping[str, Any], calibration: str | None) -> Inputs:
    """Inputs for a model from a folder.

    Args:
        folder: holds the tokenizer, if there is one.
        model: loaded from it.
        config: its ``config.json``.
        calibration: a text file; the bundled prose when None.

    Raises:
        PlanError: a file was named and the folder has no tokenizer, or the file is too short.
        SpecdefError: the file cannot be read.
    """
    text = bundled_prose() if calibration is None else read_text(Path(calibration), argument="calibration")
    try:
        tokenizer = load_tokenizer(folder)
    except CheckpointError:
        if calibration is not None:
            raise PlanError(
                f"`calibration` must be left out for {folder}, which has no tokenizer to read a text with."
            ) from None
        return probes(model, config)
    ids = torch.tensor(token_ids(tokenizer, text, truncation=False, verbose=False)[: TEXTS * TOKENS])
    width = min(len(ids), TOKENS, positions(model))
    if width < 2 and calibration is None:  # a tokenizer without a vocabulary
        return probes(model, config)
    if width < 2:
        raise PlanError(
            f"`calibration` must hold at least two tokens; {calibration} holds {len(ids)}. Give a longer text."
        )
    check_vocabulary(ids, vocabulary(model))
    rows = ids[: len(ids) // width * width].view(-1, width)
    source = "the bundled prose" if calibration is None else Path(calibration).name
    seq2seq = getattr(getattr(model, "config", None), "is_encoder_decoder", False)
    tensors = dict.fromkeys(("input_ids", "decoder_input_ids") if seq2seq else ("input_ids",), rows)
    return Inputs(tensors, f"{rows.numel()} tokens of {source}")


def probes(model: nn.Module, config: Mapping[str, Any]) -> Inputs:
    """Seeded random tokens or pixels, on the model's device."""
    found = (find_kind(config) or Probing()).probes(config, TEXTS, length=min(TOKENS, positions(model)))
    device = next(model.parameters()).device
    ids = found.get("input_ids")
    described = f"{TEXTS} random images" if ids is None else f"{ids.numel()} random tokens"
    return Inputs({name: tensor.to(device) for name, tensor in found.items()}, described)
