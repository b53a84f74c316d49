"""`find_multiplier`: the smallest power of two whose fold lock holds, or the finding that none does."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.certify.api import certify_model
from specdef.certify.store import write_json
from specdef.certify.threat_model import THREATS
from specdef.certify.verdict_kinds import Verdict, holds
from specdef.core.folders import scratch_folder
from specdef.core.leftovers import remove_leftovers
from specdef.core.results import Result, brief
from specdef.core.schema import plain
from specdef.errors import PlanError, SpecdefError
from specdef.locks.lock import lock
from specdef.models.sources import find_model

if TYPE_CHECKING:
    from specdef.certify.certificate import Certificate

COARSE = tuple(range(4, 61, 8))
RESULT = "multiplier.json"
Certify = Callable[..., "Certificate"]


@dataclass(frozen=True, repr=False)
class MultiplierSearch(Result):
    """What the search found.

    Attributes:
        threats: threat models that had to hold.
        smallest: exponent of the smallest power of two that held them all; None when none did.
        tried: exponent -> threat model -> verdict, in order of exponents.
        refused: exponent -> why no lock could be made with it.
    """

    threats: tuple[str, ...]
    smallest: int | None
    tried: dict[int, dict[str, Verdict]]
    refused: dict[int, str] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """One sentence for people."""
        names = ", ".join(self.threats)
        if self.smallest is None:
            none = f"No multiplier from 2^{min(self.tried)} to 2^{max(self.tried)} holds {names}."
            return " ".join([none, *(f"2^{exponent} is refused: {why}" for exponent, why in self.refused.items())])
        return f"2^{self.smallest} is the smallest multiplier tried that holds {names}."

    def summary(self) -> dict[str, str]:
        """See `Result`."""
        tried = {f"2^{exponent}": brief(found) for exponent, found in self.tried.items()}
        return {"found": self.sentence, **tried}

    def to_wire(self) -> dict[str, Any]:
        """As JSON data."""
        return {**plain(self), "sentence": self.sentence}


def find_multiplier(
    model: Path | str,
    out: Path | str,
    *,
    threats: Sequence[str] | None = None,
    exponents: Sequence[int] = COARSE,
    certify: Certify = certify_model,
    **options: Any,
) -> MultiplierSearch:
    """Lock with growing multipliers and certify each, until one holds; then look between it and the one before.

    A larger multiplier is not assumed to hold more than a smaller one: every exponent up to the first that holds is
    tried, and the gap below it is filled by halving. The first that the model cannot be locked with ends the search.

    Args:
        model: the unlocked model.
        out: folder for certificates (one per exponent, their cells shared) and ``multiplier.json``.
        threats: threat models that must all hold; the weakest when None.
        exponents: first exponents to try, ascending.
        certify: what measures; another function only in tests.
        **options: of `certify_model`.

    Raises:
        SpecdefError: bad input, a task the unlocked model does not learn, or a model that cannot be locked.
    """
    threats = THREATS.names()[:1] if threats is None else threats
    original, folder = find_model(str(model)), Path(out)
    if not exponents or list(exponents) != sorted(set(exponents)) or not all(1 <= e <= 60 for e in exponents):
        raise SpecdefError(f"`exponents` must ascend between 1 and 60; got {', '.join(map(str, exponents))}.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SpecdefError(f"`out` must be a folder; {folder} cannot be used ({error.strerror}).") from error
    remove_leftovers(folder)
    tried: dict[int, dict[str, Verdict]] = {}
    refused: dict[int, str] = {}

    def held(exponent: int) -> bool | None:
        with scratch_folder(folder) as scratch:
            locked = scratch / f"locked-2^{exponent}"
            try:
                lock(original, locked, preset="exact", multiplier=f"2^{exponent}")
            except PlanError as error:
                if not tried:
                    raise
                refused[exponent] = str(error)
                return None
            certificate = certify(
                locked, folder / f"2^{exponent}", original=original, threats=threats, cells=folder / "cells", **options
            )
        tried[exponent] = certificate.verdicts
        return all(map(holds, certificate.verdicts.values()))

    smallest = _search(exponents, held)
    result = MultiplierSearch(tuple(threats), smallest, dict(sorted(tried.items())), refused)
    write_json(folder / RESULT, result.to_wire())
    return result


def _search(exponents: Sequence[int], held: Callable[[int], bool | None]) -> int | None:
    before = 0
    for exponent in exponents:
        if (found := held(exponent)) is None:
            return None
        if found:
            return min(_between(before, exponent, held), default=exponent)
        before = exponent
    return None


def _between(low: int, high: int, held: Callable[[int], bool | None]) -> Iterator[int]:
    """Exponents that hold between one that does not and one that does, by halving."""
    while high - low > 1:
        middle = (low + high) // 2
        if held(middle):
            high = middle
            yield middle
        else:
            low = middle
