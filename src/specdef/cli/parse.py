"""Text of one option into a value; what does not fit is refused in the option's own name."""

from __future__ import annotations

import json
from typing import Any

from specdef.core.text import did_you_mean
from specdef.errors import SpecdefError

LARGEST = 10_000
"""No model has more layers; a longer range is a slip."""


def words(text: str | None) -> list[str] | None:
    """Names separated by commas.

    Example:
        >>> words("q_proj, o_proj"), words(None)
        (['q_proj', 'o_proj'], None)
    """
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def whole_numbers(text: str | None, name: str) -> list[int] | None:
    """Numbers and ranges, both ends included, separated by commas.

    Example:
        >>> whole_numbers("1,3-5", "layers")
        [1, 3, 4, 5]
    """
    return None if text is None else [number for part in text.split(",") for number in _range(part, text, name)]


def _range(part: str, text: str, name: str) -> range:
    first, dash, last = part.strip().partition("-")
    try:
        if not first or not dash:
            return range(int(part), int(part) + 1)
        found = range(int(first), int(last) + 1)
    except ValueError:
        raise SpecdefError(f"`{name}` must be numbers such as 3,7 or ranges such as 3-7; got {text!r}.") from None
    if not found or found[-1] > LARGEST:
        raise SpecdefError(f"`{name}` must be ranges that rise, such as 3-7, up to {LARGEST}; got {text!r}.")
    return found


def rates(text: str | None) -> list[float] | None:
    """The learning rates of --window."""
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise SpecdefError(f"`window` must be learning rates such as 3e-5,1e-4; got {text!r}.") from None


def norm(text: str) -> float | None:
    """The gradient norm of --max-grad-norm; None for ``none``."""
    if text == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise SpecdefError(f"`max-grad-norm` must be a number above 0, or none; got {text!r}.") from None


def share(number: float | None, name: str) -> str | None:
    """A share of a whole, as an intervention reads it.

    Example:
        >>> share(0.5, "part")
        '0.5'
    """
    if number is not None and not 0.0001 <= number < 1:
        raise SpecdefError(f"`{name}` must be a share of at least 0.0001 and below 1, such as 0.5; got {number:g}.")
    return None if number is None else f"{number:g}"


def rewrites(texts: list[str] | None) -> list[str]:
    """The kinds of --rewrite with their options, each one that rewrites weights."""
    if not texts:
        return []
    from specdef.attacks.base import INTERVENTIONS, Intervention

    known = [kind.name for kind in INTERVENTIONS if kind.rewrite is not Intervention.rewrite]
    for name in (text.partition(":")[0] for text in texts):
        if name not in known:
            raise SpecdefError(f"`rewrite` must be one of {', '.join(known)}; got {name!r}.{did_you_mean(name, known)}")
    return texts


def once(flags: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Options given as flags of their own and those given with -o; one given both ways is refused."""
    for name in own:
        if flags.get(name) is not None:
            raise SpecdefError(f"`{name}` must be given once; it is given with -o and with --{name.replace('_', '-')}.")
    return {**flags, **own}


def settings(pairs: list[str] | None) -> dict[str, Any]:
    """Settings of an optimizer, as ``name=value``: numbers, true, false, or numbers separated by commas.

    Example:
        >>> settings(["betas=0.9,0.95", "nesterov=true"])
        {'betas': (0.9, 0.95), 'nesterov': True}
    """
    from specdef.defences.options import parse_pairs

    found: dict[str, Any] = {}
    for name, text in parse_pairs(pairs or ()).items():
        try:
            values = tuple(json.loads(part) for part in text.split(","))
        except ValueError:
            raise SpecdefError(f"`{name}` must be numbers, true or false; got {text!r}.") from None
        found[name] = values if len(values) > 1 else values[0]
    return found
