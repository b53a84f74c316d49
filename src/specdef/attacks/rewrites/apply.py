"""Attacks that rewrite weights and train nothing: a model folder in, a model folder out, no key.

Each kind plans edits from the structure and the numbers of the published folder alone, and is applied by the streaming
writer that locks are applied by.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from specdef.checkpoint.blocks import Progress
from specdef.checkpoint.edits import ShardEdits
from specdef.checkpoint.reader import Checkpoint, open_checkpoint
from specdef.checkpoint.small_files import changed_index, copy_others, json_bytes
from specdef.checkpoint.writer import write_shards
from specdef.core.folders import new_folder, refuse_target, scratch_folder
from specdef.errors import SpecdefError
from specdef.locks.manifest import CARD, MANIFEST

DEFAULTS: dict[str, dict[str, Any]] = {
    "merge": {},
    "rebalance": {"form": "axis"},
    "inject-layers": {"factors": 1, "order": "interleaved", "dtype": "fp32"},
    "prune": {},
    "sharpen": {"multiplier": 4.0, "top_k": 25, "matrices": 20, "seed": 0},
}
"""Kind -> its options and their defaults."""
VERSIONS = {"inject-layers": 2}
"""Raised whenever a kind's algorithm or a default changes, so that cells finished before run again; 1 if not listed."""
CHOICES = {
    "form": ("axis", "svd"),
    "order": ("interleaved", "literal"),
    "dtype": ("fp32", "bf16", "fp64"),
}
MAX_FACTORS = 32
KNOWLEDGE = {
    "merge": "that config.json lists compensated layers, and that two linear layers in a row are one",
    "rebalance": "which weights of the architecture feed which (public), and that channels may be rescaled there",
    "inject-layers": "which matrices are deformed (their spectra show it), and the singular value decomposition",
    "prune": "which weights of the architecture feed which (public)",
    "sharpen": "the papers' own construction",
}
"""What an attacker must know, besides the published folder."""
UNDOING = ("merge", "rebalance", "inject-layers")
"""Kinds that undo a lock."""
LOSSY = frozenset({"prune"})
"""Kinds that change the function by design; every other kind must keep it."""


@dataclass(frozen=True)
class Rewriting:
    """One way of rewriting a model's weights.

    Attributes:
        kind: a key of `DEFAULTS`.
        options: those of its options that differ from the defaults.
    """

    kind: str
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in DEFAULTS:
            raise SpecdefError(f"`rewrite` must be one of {', '.join(DEFAULTS)}; got {self.kind!r}.")
        known = DEFAULTS[self.kind]
        for name, value in self.options.items():
            if name not in known:
                listed = ", ".join(known) or "no options"
                raise SpecdefError(f"`{name}` must be left out with {self.kind}, which takes {listed}; got {value!r}.")
            if type(value) is not type(known[name]):
                raise SpecdefError(f"`{name}` must be of type {type(known[name]).__name__}; got {value!r}.")
            if name in CHOICES and value not in CHOICES[name]:
                raise SpecdefError(f"`{name}` must be one of {', '.join(CHOICES[name])}; got {value!r}.")
            if isinstance(value, float) and not math.isfinite(value):
                raise SpecdefError(f"`{name}` must be a finite number; got {value}.")
        if "factors" in known and not 1 <= self.settings["factors"] <= MAX_FACTORS:
            raise SpecdefError(f"`factors` must lie between 1 and {MAX_FACTORS}; got {self.settings['factors']}.")

    @property
    def lossy(self) -> bool:
        """Whether the function changes by design."""
        return self.kind in LOSSY

    @property
    def label(self) -> str:
        """Short text for tables."""
        options = ", ".join(f"{name} {value}" for name, value in sorted(self.options.items()))
        return self.kind + (f" ({options})" if options else "")

    @property
    def settings(self) -> dict[str, Any]:
        """All options, defaults included."""
        return {**DEFAULTS[self.kind], **self.options}


def parse_rewriting(text: str) -> Rewriting:
    """Read ``merge``, ``rebalance:form=svd``, ``inject-layers:factors=2,order=literal`` and the like.

    Raises:
        SpecdefError: not of that form, or an unknown kind or option.
    """
    kind, _, rest = text.partition(":")
    options: dict[str, Any] = {}
    for part in filter(None, rest.split(",")):
        name, equals, value = part.partition("=")
        if not equals or not value:
            raise SpecdefError(f"`rewrite` must look like inject-layers:factors=2,order=literal; got {text!r}.")
        default = DEFAULTS.get(kind, {}).get(name)
        try:
            options[name] = type(default)(value) if isinstance(default, int | float) else value
        except ValueError as error:
            raise SpecdefError(f"`{name}` must be a number; got {value!r}.") from error
    changed = {name: value for name, value in options.items() if DEFAULTS.get(kind, {}).get(name) != value}
    return Rewriting(kind, changed)


@dataclass(frozen=True)
class RewritePlan:
    """What a rewriting changes.

    Attributes:
        edits: per shard.
        config: the new ``config.json``; None keeps it.
        tensors: how many tensors change.
        added_parameters: stored numbers the model gains (negative when it loses some).
        detail: what was found, in words.
        errors: relative difference of each rewritten layer from the published one, as stored; filled while the plan is
            written, and empty where the rewriting is exact or changes the function by design.
    """

    edits: Mapping[str, ShardEdits]
    config: Mapping[str, Any] | None
    tensors: int
    added_parameters: int
    detail: str
    errors: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class RewriteReport:
    """What a rewriting did and cost.

    Attributes:
        seconds: wall time, reading and writing included.
        function_error: largest relative difference of a rewritten layer from the published one; 0 where the rewriting
            is exact, None where it changes the function by design.
        knowledge: what the attacker must know besides the published folder.
    """

    kind: str
    seconds: float
    tensors: int
    added_parameters: int
    detail: str
    function_error: float | None
    knowledge: str


def rewrite(folder: Path, out: Path, rewriting: Rewriting, *, progress: Progress | None = None) -> RewriteReport:
    """Write a rewritten copy of a model folder.

    Args:
        folder: a published model, locked or not; nothing but it is used.
        out: the folder to create.
        rewriting: how.
        progress: called with the number of bytes just read.

    Raises:
        SpecdefError: the rewriting finds nothing to work on, or a folder is not usable; nothing is left behind.
    """
    started = time.perf_counter()
    refuse_target(out, folder)
    checkpoint = open_checkpoint(folder, publishing=False)
    with scratch_folder(out.parent) as spool, new_folder(out, source=folder) as target:
        plan = _plan(checkpoint, spool, rewriting)
        files = dict(changed_index(checkpoint, plan.edits))
        if plan.config is not None:
            files["config.json"] = json_bytes(plan.config)
        copy_others(checkpoint, target, skip=(MANIFEST, CARD, *files))
        for name, data in files.items():
            (target / name).write_bytes(data)
        write_shards(checkpoint, target, plan.edits, progress=progress)
    return RewriteReport(
        kind=rewriting.kind,
        seconds=time.perf_counter() - started,
        tensors=plan.tensors,
        added_parameters=plan.added_parameters,
        detail=plan.detail,
        function_error=None if rewriting.lossy else max(plan.errors, default=0.0),
        knowledge=KNOWLEDGE[rewriting.kind],
    )


def _plan(checkpoint: Checkpoint, spool: Path, rewriting: Rewriting) -> RewritePlan:
    """Plan a rewriting of its kind; each is imported late, since it needs torch."""
    from specdef.attacks.rewrites import layer_injection, merge, prune, rebalance, sharpen

    planners: dict[str, Callable[..., RewritePlan]] = {
        "merge": merge.plan_merge,
        "rebalance": rebalance.plan_rebalance,
        "inject-layers": layer_injection.plan_layer_injection,
        "prune": prune.plan_prune,
        "sharpen": partial(sharpen.plan_sharpen, spool=spool),
    }
    return planners[rewriting.kind](checkpoint, **rewriting.settings)
