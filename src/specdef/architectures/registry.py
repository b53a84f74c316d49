"""The families specdef knows, by ``model_type``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from specdef.architectures.bert import BERT, DEBERTA_V2
from specdef.architectures.gemma import GEMMA
from specdef.architectures.gpt2 import GPT2
from specdef.architectures.gpt_neox import GPT_NEOX
from specdef.architectures.gpt_oss import GPT_OSS
from specdef.architectures.llama import LLAMA, QWEN
from specdef.architectures.moe import MIXTRAL, QWEN3_MOE
from specdef.architectures.opt import OPT
from specdef.architectures.phi3 import PHI3
from specdef.architectures.spec import Architecture
from specdef.architectures.vit import VIT
from specdef.errors import ArchitectureError

FAMILIES: tuple[Architecture, ...] = (
    LLAMA,
    QWEN,
    PHI3,
    GEMMA,
    GPT2,
    GPT_NEOX,
    OPT,
    MIXTRAL,
    QWEN3_MOE,
    GPT_OSS,
    BERT,
    DEBERTA_V2,
    VIT,
)
_BY_TYPE = {model_type: family for family in FAMILIES for model_type in family.model_types}


def known_model_types() -> list[str]:
    """Every ``model_type`` that has a declared map, sorted."""
    return sorted(_BY_TYPE)


def architecture_of(config: Mapping[str, Any]) -> Architecture:
    """The declared family of a ``config.json``.

    Raises:
        ArchitectureError: ``model_type`` is absent or has no declared map; no other family's map is ever tried.
    """
    model_type = config.get("model_type")
    if isinstance(model_type, str) and model_type in _BY_TYPE:
        return _BY_TYPE[model_type]
    near = difflib.get_close_matches(str(model_type), _BY_TYPE, n=3)
    hint = f" Near matches: {', '.join(near)}." if near else ""
    raise ArchitectureError(
        f"`model_type` in config.json must be one of {', '.join(known_model_types())}; got {model_type!r}.{hint} "
        "Declare the family's pairs first (CONTRIBUTING.md, 'Adding a family')."
    )
