"""Threat models: what each attacker tries, in which order, and when trying more cannot change the verdict.

Each kind is one module of `specdef.certify.threats`, or comes from another package through the entry points
``specdef.threats``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import ClassVar

from specdef.certify.cell import Cell
from specdef.certify.findings import Findings
from specdef.certify.result import StoredCell
from specdef.certify.study import Study
from specdef.core.registry import Registry

Plan = Generator[list[Cell], list[StoredCell], None]
"""Yields batches of cells and receives their results."""


def follow(plan: Plan, run: Callable[[list[Cell]], list[StoredCell]]) -> Iterator[list[StoredCell]]:
    """Run what a plan asks for, batch by batch; the plan goes on once the caller has taken note of a batch."""
    found: list[StoredCell] | None = None
    while True:
        try:
            cells = next(plan) if found is None else plan.send(found)
        except StopIteration:
            return
        found = run(cells)
        yield found


class ThreatModel(ABC):
    """One attacker.

    Attributes:
        name: what users type.
        title: what is tried, in a few words.
        reads: names of the threat models this attacker also has the means of: their cells count in its verdict too, and
            they run before it.
        by_default: whether it is tried when the user names no threat model.
        on_request: whether it is tried only where it is asked for; the others are part of every full certificate.
        own: whether it is nothing without the user's own attacks; where they give some, it is tried, and it has no name
            that users type.
        needs_base: whether it needs the public base weights.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    reads: ClassVar[tuple[str, ...]] = ()
    by_default: ClassVar[bool] = False
    on_request: ClassVar[bool] = False
    own: ClassVar[bool] = False
    needs_base: ClassVar[bool] = False

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the threat models whose cells the verdict is read from, this one last."""
        return (*self.reads, self.name)

    @abstractmethod
    def cells(self, study: Study, findings: Findings) -> Plan:
        """What to run. It stops as soon as the lock is broken; what it would have tried next is noted as not tried.

        A plan is followed many times, with guesses in place of results too (`specdef.certify.ahead`): it changes
        nothing but `findings`.

        Args:
            study: the models, the task and the ordinary recipe.
            findings: what the undefended model and earlier threat models came to; the cells yielded here are noted in
                it under this threat model's name.
        """


THREATS: Registry[ThreatModel] = Registry("threats", "specdef.certify.threats", "specdef.threats", spelling=str.upper)
"""Every threat model, by name."""


def in_order(names: Sequence[str]) -> list[ThreatModel]:
    """The threat models of these names and those they read, in the registry's order, each after what it reads.

    Raises:
        SpecdefError: no threat model has such a name.
    """
    found: dict[str, ThreatModel] = {}

    def add(name: str) -> None:
        threat = THREATS.get(name)
        for other in threat.reads:
            add(other)
        found.setdefault(name, threat)

    for name in sorted(set(names), key=_place):
        add(name)
    return list(found.values())


def _place(name: str) -> int:
    known = THREATS.names()
    return known.index(name) if name in known else len(known)


def ordinary_threats() -> tuple[str, ...]:
    """The threat models that a full certificate has."""
    return tuple(threat.name for threat in THREATS if not threat.on_request)


def named_threats() -> tuple[str, ...]:
    """The threat models that users may name: the ordinary ones, and those tried on request."""
    return tuple(threat.name for threat in THREATS if not threat.own)


def needing_base(names: Sequence[str]) -> list[str]:
    """Those of some threat models that need the public base weights, and those that read one that does."""
    return [threat.name for threat in in_order(names) if threat.needs_base]


def default_threats() -> tuple[str, ...]:
    """The threat models that are tried when the user names none."""
    return tuple(threat.name for threat in THREATS if threat.by_default)
