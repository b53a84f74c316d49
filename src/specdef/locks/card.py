"""The text that goes into a locked folder: what the model is, where it is exact, what the lock does not stop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from specdef.locks.base import LockKind

_TEMPLATE = """# This model is locked by specdef

{function} Fine-tuning it as usual is made to diverge. Method `{method}`, multiplier {multiplier}.

{claimed}- {kv_cache}.
- {quantisation}.
{runtimes}{map}{left_out}
A lock raises the cost of fine-tuning for people who do not look. It is not security: anyone who studies the weights can
find the scaling and undo it, at linear cost, and lower learning rates or adapters on other layers may get past it. Ask
the publisher for the certificate, and read what it did not try.

`specdef verify DIR` checks the digests in `specdef_lock.json` and recomputes the lock from the weights.
"""


def model_card(kind: LockKind, strength: Mapping[str, Any], exactness: Mapping[str, Any]) -> str:
    """The Markdown text for a locked folder.

    Args:
        kind: the lock.
        strength: as in the manifest.
        exactness: as in the manifest.
    """
    left_out = exactness.get("left_out") or {}
    reason = f" ({next(iter(left_out.values()))})" if left_out else ""
    return _TEMPLATE.format(
        function=kind.promise(exactness),
        method=kind.name,
        multiplier=strength["multiplier"],
        claimed=claimed_line(exactness),
        kv_cache=exactness["kv_cache"].capitalize(),
        quantisation=exactness["quantisation"].capitalize(),
        runtimes=runtimes_line(exactness),
        map=map_line(exactness),
        left_out=f"- Left out: {len(left_out)} pairs{reason}\n" if left_out else "",
    )


def claimed_line(exactness: Mapping[str, Any]) -> str:
    r"""In which dtypes the function is the original's; empty where it is in none, which the kind's promise says.

    Example:
        >>> claimed_line({"exact_in": ["float32"], "not_claimed_in": []})
        '- Function claimed in: float32. Not claimed in: any other dtype.\n'
    """
    if not exactness["exact_in"]:
        return ""
    others = ", ".join(exactness["not_claimed_in"]) or "any other dtype"
    return f"- Function claimed in: {', '.join(exactness['exact_in'])}. Not claimed in: {others}.\n"


def runtimes_line(exactness: Mapping[str, Any]) -> str:
    r"""Where the lock is planned to run, by rule; empty where its kind says nothing of runtimes.

    Example:
        >>> runtimes_line({"runtimes": {"planned_for": ["q8_0"], "survives": ["f32", "q8_0"], "breaks": {"f16": "vo"}}})
        '- Runs as the original, by rule, in: f32, q8_0. Damaged in: f16. Planned for: q8_0.\n'
    """
    claims = exactness.get("runtimes")
    if not claims:
        return ""
    planned = f" Planned for: {', '.join(claims['planned_for'])}." if claims["planned_for"] else ""
    lost = ", ".join(claims["breaks"]) or "none of those with a rule"
    return f"- Runs as the original, by rule, in: {', '.join(claims['survives'])}. Damaged in: {lost}.{planned}\n"


def map_line(exactness: Mapping[str, Any]) -> str:
    r"""That the pairs were found by a program and declared by nobody; empty where the family's map is declared.

    Example:
        >>> map_line({"map": "automatic map of nobert (4 pairs)"})
        '- Where it is scaled: automatic map of nobert (4 pairs). No person reviewed it.\n'
    """
    found = exactness.get("map")
    return f"- Where it is scaled: {found}. No person reviewed it.\n" if found else ""
