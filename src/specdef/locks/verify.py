"""`verify`: are the files as published, is the lock in the weights, is the function the original's?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specdef.checkpoint.digests import file_digest, read_digests
from specdef.checkpoint.reader import Checkpoint, open_checkpoint
from specdef.core.results import Records, brief
from specdef.errors import CheckpointError, SpecdefError
from specdef.locks.base import LOCKS, Check, without_added
from specdef.locks.manifest import MANIFEST, Manifest, read_manifest
from specdef.locks.prose import is_prose
from specdef.models.equivalence import Equivalence, compare
from specdef.models.memory import is_module
from specdef.models.sources import find_model

if TYPE_CHECKING:
    from torch import nn

    from specdef.runtimes.base import Runtime
    from specdef.runtimes.compare import InRuntime

SHOWN = 3
"""Files of a kind of difference that are named."""


@dataclass(frozen=True, repr=False)
class VerifyReport(Records):
    """The checks `verify` made.

    Attributes:
        checks: integrity, lock, and with an original: function.
        equivalence: the comparison with the original, when one was given.
        runtimes: what was measured in runtimes that were named, one a format.
    """

    checks: tuple[Check, ...]
    equivalence: Equivalence | None
    runtimes: tuple[InRuntime, ...] = ()

    @property
    def passed(self) -> bool:
        """No check failed; a check that the given files cannot decide (its `passed` is None) does not fail."""
        return all(check.passed is not False for check in self.checks)

    @property
    def complete(self) -> bool:
        """Every check could be decided."""
        return all(check.passed is not None for check in self.checks)

    def summary(self) -> dict[str, str]:
        """See `Result`."""
        words = {True: "holds", False: "FAILS", None: "cannot tell"}
        return {
            "passed": brief(self.passed),
            **{check.name: f"{words[check.passed]}: {check.detail}" for check in self.checks},
        }

    def records(self) -> list[dict[str, Any]]:
        """A row a check."""
        return [asdict(check) for check in self.checks]


def verify(
    locked: Path | str | nn.Module,
    *,
    original: Path | str | nn.Module | None = None,
    runtimes: Sequence[str] = (),
    progress: Callable[[str], None] | None = None,
) -> VerifyReport:
    """Check a locked folder against its manifest, its weights and, if given, the original model.

    Args:
        locked: the locked folder; or a model in memory. That has no manifest, nor has a folder that another program
            saved again: the weights are searched for a lock, and the function may differ from the original's by
            rounding, as said below.
        original: the unlocked model, a folder or in memory; both are then run on the same probes in the model's own
            dtype, and compared bit for bit where the manifest claims that, else within twice the dtype's own noise
            (KL).
        runtimes: programs to run the folder in, each as ``llama.cpp`` or ``llama.cpp:q8_0,f16``, beside the original's
            folder in the same format.
        progress: called with the name of each stage as it starts.

    Raises:
        SpecdefError: a folder is no sound checkpoint, or has neither a manifest nor a lock that stands out. A check
            that fails is a result, not an error.
    """
    say = progress or (lambda stage: None)
    chosen = _runtimes(runtimes, locked, original)
    if is_module(locked, argument="locked"):
        from specdef.locks.verify_weights import check_module

        return VerifyReport(*check_module(locked, _in_memory_or_found(original), say))
    folder = Path(locked)
    checkpoint = open_checkpoint(folder, publishing=False)
    source = _in_memory_or_found(original)
    if MANIFEST in checkpoint.others:
        checks, equivalence = _against_manifest(checkpoint, source, say)
    else:
        from specdef.locks.verify_weights import check_saved_again

        checks, equivalence = check_saved_again(checkpoint, source, say)
    measured: tuple[InRuntime, ...] = ()
    if chosen:
        from specdef.runtimes.compare import in_runtimes

        measured = tuple(in_runtimes(folder, source if isinstance(source, Path) else None, chosen, say))
        checks += tuple(Check(f"{one.runtime} {one.format}", one.passed, one.sentence) for one in measured)
    return VerifyReport(checks, equivalence, measured)


def _against_manifest(
    checkpoint: Checkpoint, source: Path | nn.Module | None, say: Callable[[str], None]
) -> tuple[tuple[Check, ...], Equivalence | None]:
    manifest = read_manifest(checkpoint.folder)
    unlocked = _open_original(source, checkpoint) if isinstance(source, Path) else None
    kind = LOCKS.get(manifest.method)
    say("digests")
    checks = [integrity(checkpoint, manifest)]
    say("lock in the weights")
    checks.append(kind.check(checkpoint, manifest.strength, unlocked))
    if source is None:
        return tuple(checks), None
    say("function, against the original")
    equivalence = compare(source, checkpoint.folder)
    return (*checks, kind.function(equivalence, manifest.exactness)), equivalence


def _runtimes(
    named: Sequence[str], locked: Path | str | nn.Module, original: Path | str | nn.Module | None
) -> list[tuple[Runtime, tuple[str, ...]]]:
    """The runtimes with their formats; a typing mistake is answered before a model is read."""
    if not named:
        return []
    from specdef.runtimes.compare import parse_runtime

    for argument, model in (("locked", locked), ("original", original)):
        if model is not None and is_module(model, argument=argument):
            raise SpecdefError(f"`{argument}` must be a folder with `runtimes`, which read files. Save it first.")
    return [parse_runtime(text) for text in named]


def _in_memory_or_found(original: Path | str | nn.Module | None) -> Path | nn.Module | None:
    """The original model: in memory, its folder, or None."""
    if original is None or is_module(original, argument="original"):
        return original
    return find_model(str(original), argument="original")


def integrity(checkpoint: Checkpoint, manifest: Manifest) -> Check:
    """Whether weights, code and configuration are as published; prose that differs is said and passes."""
    tensors: dict[str, str] = {}
    files: dict[str, str] = {}
    for shard, digests in read_digests(checkpoint).items():
        files[shard] = digests.source
        tensors |= digests.tensors
    wrong = [
        name for name in tensors.keys() | manifest.tensors.keys() if tensors.get(name) != manifest.tensors.get(name)
    ]
    intact = not wrong and all(files[shard] == manifest.files.get(shard) for shard in files)
    files |= {name: file_digest(checkpoint.folder / name) for name in checkpoint.others if name != MANIFEST}
    differing = {
        "missing": manifest.files.keys() - files,
        "changed": {name for name in files if name in manifest.files and files[name] != manifest.files[name]},
        "unknown": files.keys() - manifest.files.keys(),
    }
    faults = {word: sorted(name for name in names if not is_prose(name)) for word, names in differing.items()}
    faults["changed"] += sorted(wrong)
    prose = {word: sorted(name for name in names if is_prose(name)) for word, names in differing.items()}
    prose["added"] = prose.pop("unknown")
    weights = f"the weights are intact: all {len(tensors)} tensors match their BLAKE3 digests"
    said = f"; prose differs, which changes nothing that runs: {_listed(prose)}" if any(prose.values()) else ""
    if any(faults.values()):
        rest = f"; {weights}" if intact else ""
        return Check("integrity", False, f"not as published: {_listed(faults)}{rest}{said}")
    same = len(files.keys() & manifest.files.keys()) - len(prose["changed"])
    return Check("integrity", True, f"{weights}, and {same} of {len(manifest.files)} files theirs{said}")


def _listed(names: Mapping[str, Sequence[str]]) -> str:
    """Counts, kinds and the first names of what differs.

    Example:
        >>> _listed({"changed": ["a", "b"], "added": []})
        '2 changed (a, b)'
    """
    shown = {word: ", ".join(found[:SHOWN]) + (", ..." if len(found) > SHOWN else "") for word, found in names.items()}
    return "; ".join(f"{len(found)} {word} ({shown[word]})" for word, found in names.items() if found)


def _open_original(original: Path, locked: Checkpoint) -> Checkpoint:
    if (original / MANIFEST).exists():
        raise CheckpointError(f"`original` must be the unlocked model; {original} is locked itself. Give the original.")
    source = open_checkpoint(original, publishing=False, argument="original")
    shapes = {name: locked.shapes[name] for name in without_added(locked.shapes)}
    if source.shapes != shapes:
        odd = sorted(
            name for name in shapes.keys() | source.shapes.keys() if shapes.get(name) != source.shapes.get(name)
        )
        raise CheckpointError(
            f"`original` must be the model that was locked; {original} differs in tensor {odd[0]}. Give that model."
        )
    dtypes, stored = ({t.name: t.dtype for h in c.shards.values() for t in h.tensors} for c in (source, locked))
    other = sorted(name for name in dtypes if dtypes[name] != stored[name])
    if other:
        raise CheckpointError(
            f"`original` must be the model that was locked; tensor {other[0]} is {dtypes[other[0]]} in {original} and "
            f"{stored[other[0]]} in the locked model. Give that model."
        )
    return source
