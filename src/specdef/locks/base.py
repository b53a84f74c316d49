"""What a lock is: a change of weights that keeps the function, or says how far not, with an exact inverse.

A kind is one file of `kinds`.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from specdef.core.registry import Registry
from specdef.core.results import Result
from specdef.errors import PlanError

if TYPE_CHECKING:
    from torch import nn

    from specdef.architectures.channels import PairImbalance
    from specdef.architectures.resolve import ResolvedModel
    from specdef.checkpoint.edits import ShardEdits
    from specdef.checkpoint.reader import Checkpoint
    from specdef.locks.key import Key
    from specdef.models.equivalence import Equivalence


@dataclass(frozen=True)
class Check:
    """One thing that was checked.

    Attributes:
        name: what.
        passed: whether it holds; None where the given files cannot tell.
        detail: what was found, in words.
    """

    name: str
    passed: bool | None
    detail: str


@dataclass(frozen=True)
class LockFacts:
    """What an attacker's search needs to know of a locked folder, from its manifest.

    Attributes:
        multiplier: alpha.
        modules: modules the lock replaced; empty where it replaces none.
    """

    multiplier: float
    modules: tuple[str, ...] = ()


@dataclass(frozen=True)
class PreparedLock:
    """A planned lock: what to write and what to say about it.

    Attributes:
        strength: multiplier, channels or rank, layers: goes into the manifest.
        exactness: in which dtypes the function is the original's, and how closely: goes into the manifest.
        checked: what was checked while planning, in words.
        num_values: weights that change.
        left_out: what could not be locked exactly -> why.
        edits: shard -> changes.
        changed_files: small files with new contents.
        key_edits: scalings the key must hold, as plain data.
        blobs: original bytes the key must hold.
        remarks: how strong the lock is and where it runs, in sentences for whoever locks.
    """

    strength: Mapping[str, Any]
    exactness: Mapping[str, Any]
    checked: tuple[str, ...]
    num_values: int
    edits: Mapping[str, ShardEdits]
    left_out: Mapping[str, str] = field(default_factory=dict)
    changed_files: Mapping[str, bytes] = field(default_factory=dict)
    key_edits: tuple[Mapping[str, Any], ...] = ()
    blobs: Mapping[str, bytes] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Evidence:
    """What the weights of a folder show, for kinds to recognise themselves in.

    Attributes:
        checkpoint: the folder.
        model: its architecture, resolved past what locks add.
        pairs: channel scales of every pair.
        jumps: matrix -> largest ratio of neighbouring singular values; empty when spectra were not computed.
    """

    checkpoint: Checkpoint
    model: ResolvedModel
    pairs: Sequence[PairImbalance]
    jumps: Mapping[str, float]


@dataclass(frozen=True)
class Sign:
    """A lock recognised in the weights.

    Attributes:
        lock: name of the kind.
        exponent: log2 of the multiplier most channels (or matrices) show; None when not computed.
        found: what stands out, in words.
        pairs: kind of pair -> pairs with scaled channels.
        tensors: matrices that stand out.
        layers: layers touched.
        specificity: of several kinds that recognise themselves, the one with the highest is told.
    """

    lock: str
    exponent: int | None
    found: str
    pairs: Mapping[str, int] = field(default_factory=dict)
    tensors: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    specificity: int = 0


@dataclass(frozen=True, repr=False)
class ModuleLock(Result):
    """What `lock_module` did to a model in memory.

    Attributes:
        lock: name of the kind.
        key: what `unlock_module` needs; it holds original weights, so keep it.
        report: the kind's own figures.
    """

    secret: ClassVar[frozenset[str]] = frozenset({"key"})

    lock: str
    key: ModuleKey
    report: Any


@dataclass(frozen=True)
class ModuleKey:
    """What undoes a lock in memory. It can be pickled.

    Attributes:
        lock: name of the kind.
        originals: name in the model -> what stood there; the kind knows what it is.
    """

    lock: str
    originals: Mapping[str, Any] = field(repr=False)


class LockKind(ABC):
    """One kind of lock. Everything that locks, unlocks, verifies or inspects asks the kind; nobody asks its name.

    Attributes:
        name: as manifests, keys and users write it; frozen once a model has been published.
        Options: a frozen dataclass; its fields are what users may set, with defaults.
        spools: whether planning needs a scratch folder.
        keeps_function: whether the locked model computes what the original does; False needs a `function` of its own.
    """

    name: ClassVar[str]
    Options: ClassVar[type]
    spools: ClassVar[bool] = False
    keeps_function: ClassVar[bool] = True

    def options(self, given: Mapping[str, Any]) -> Any:
        """Checked options from what a user gave; nothing heavy is imported, so a mistyped one is answered at once.

        Raises:
            PlanError: an option of another kind, or a value no model could satisfy.
        """
        self.refuse_unknown(given)
        options = self.Options(
            **{name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
        )
        self.check_options(options)
        return options

    def refuse_unknown(self, names: Iterable[str]) -> None:
        """Raise PlanError for a name that is no option of this kind."""
        known = _option_names(self)
        for name in names:
            if name not in known:
                has = f"which has {', '.join(known)}" if known else "which has none"
                others = [kind.name for kind in LOCKS if name in _option_names(kind)]
                rest = f"Leave it out, or give `preset` {' or '.join(others)}." if others else "Leave it out."
                raise PlanError(f"`{name}` is no option of lock {self.name}, {has}. {rest}")

    @abstractmethod
    def check_options(self, options: Any) -> None:
        """Raise PlanError for options no model could satisfy."""

    @abstractmethod
    def prepare(self, checkpoint: Checkpoint, model: ResolvedModel, options: Any, spool: Path) -> PreparedLock:
        """Plan the lock of a checkpoint; nothing of the output is written. `spool` is a scratch folder that lasts.

        Raises:
            PlanError: it cannot be applied as asked.
        """

    def reach(self, checkpoint: Checkpoint, model: ResolvedModel, options: Any) -> Mapping[str, int]:
        """How much of a checkpoint the lock would change, by name, such as ``matrices``; weights may be random ones.

        Empty for a kind that must run the model to know.

        Raises:
            PlanError: it cannot be applied as asked.
        """
        return {}

    @abstractmethod
    def claims_hold(self, strength: Mapping[str, Any]) -> bool:
        """Whether a manifest's strength has this kind's entries, of the right types and agreeing with each other."""

    @abstractmethod
    def check(self, checkpoint: Checkpoint, strength: Mapping[str, Any], original: Checkpoint | None) -> Check:
        """Recompute the lock from the weights and compare with what the manifest claims (its `strength`)."""

    def function(self, found: Equivalence, exactness: Mapping[str, Any]) -> Check:
        """Judge a comparison with the original by what the manifest claims: bit identity, else the dtype's own noise.

        A kind that changes the function overrides this and says by how much.
        """
        if exactness.get("bit_exact"):
            different = f"different: largest error {found.max_error:.3g}, KL {found.kl:.3g}"
            what = "identical to the bit" if found.bit_identical else different
            return Check("function", found.bit_identical, f"{found.num_outputs:,} outputs in {found.dtype} are {what}")
        return Check("function", found.kl <= found.tolerance, found.sentence)

    @abstractmethod
    def recognise(self, evidence: Evidence) -> Sign | None:
        """This kind's trace in the weights, without a manifest; None where there is none."""

    @abstractmethod
    def invert(self, checkpoint: Checkpoint, key: Key) -> dict[str, ShardEdits]:
        """The edits that put the original bytes back.

        Raises:
            KeyError, IndexError, TypeError, ValueError: the key does not fit the checkpoint.
        """

    @abstractmethod
    def facts(self, strength: Mapping[str, Any]) -> LockFacts:
        """What an attacker's search needs to know."""

    @abstractmethod
    def promise(self, exactness: Mapping[str, Any]) -> str:
        """One or two sentences for the model card: is it the original's function, and where does it load."""

    @abstractmethod
    def lock_module(self, module: nn.Module, given: Mapping[str, Any]) -> ModuleLock:
        """Lock a model in memory, in place; all of it or, on an error, nothing.

        Raises:
            PlanError: it cannot be applied as asked.
        """

    @abstractmethod
    def unlock_module(self, module: nn.Module, originals: Mapping[str, Any]) -> None:
        """Undo `lock_module` with the originals of its key, to the bit; all of it or, on an error, nothing.

        Raises:
            PlanError: the originals are not this model's.
        """

    def owns_tensor(self, name: str) -> bool:
        """Whether a tensor of a locked folder is one this kind adds beside the architecture's own."""
        return False


def _option_names(kind: LockKind) -> list[str]:
    return [part.name for part in dataclasses.fields(kind.Options)]


QUANT_METHOD = "specdef"
"""What ``quantization_config`` in config.json says that a folder with layers of ours needs."""

LOCKS: Registry[LockKind] = Registry("preset", "specdef.locks.kinds", "specdef.locks", error=PlanError)


def recognised(evidence: Evidence) -> Sign | None:
    """The lock that the weights show; the first of the most specific where several kinds recognise themselves."""
    signs = [sign for kind in LOCKS if (sign := kind.recognise(evidence)) is not None]
    return max(signs, key=lambda sign: sign.specificity, default=None)


def without_added(names: Iterable[str]) -> list[str]:
    """Tensor names of the architecture itself, without those that a lock adds beside them."""
    kinds = list(LOCKS)
    return [name for name in names if not any(kind.owns_tensor(name) for kind in kinds)]
