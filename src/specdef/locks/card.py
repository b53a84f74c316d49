"""The text that goes into a locked folder: what the model is, where it is exact, what the lock does not stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_TEMPLATE = """# This model is locked by specdef

Its function is the original's; fine-tuning it as usual is made to diverge. Method `{method}`, multiplier {multiplier}.

- Exact in: {exact_in}. Not in: {not_exact_in}.
- {kv_cache}.
- {quantisation}.
{extra}
A lock raises the cost of fine-tuning for people who do not look. It is not security: anyone who studies the weights can
find the scaling and undo it, at linear cost, and lower learning rates or adapters on other layers may get past it. Ask
the publisher for the certificate, and read what it did not try.

`specdef verify DIR` checks the digests in `specdef_lock.json` and recomputes the lock from the weights.
"""


def model_card(method: str, strength: Mapping[str, Any], exactness: Mapping[str, Any], extra: str = "") -> str:
    """The Markdown text for a locked folder."""
    return _TEMPLATE.format(
        method=method,
        multiplier=strength["multiplier"],
        exact_in=", ".join(exactness["exact_in"]),
        not_exact_in=", ".join(exactness["not_exact_in"]) or "none known",
        kv_cache=exactness["kv_cache"].capitalize(),
        quantisation=exactness["quantisation"].capitalize(),
        extra=extra,
    )
