"""A locked folder beside the original in formats of a runtime: does the lock cost more there than the format does?"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from specdef.checkpoint.layout import is_pipeline
from specdef.errors import SpecdefError
from specdef.models.equivalence import FLOAT32_KL
from specdef.runtimes.base import RUNTIMES, Runtime
from specdef.runtimes.in_transformers import loaded
from specdef.runtimes.measure import Agreement, Said, agreement, answers, ask
from specdef.runtimes.probes import Probes, probes

PROMPTS = 20
"""Greedy texts that are compared; the experiment compares 50."""


@dataclass(frozen=True)
class InRuntime:
    """A locked folder in one format of a runtime.

    Attributes:
        runtime: by name.
        format: by name.
        versions: of the packages that ran it.
        found: against the original in the same format, or against the locked folder's own function where there was no
            original; None where the runtime refuses the locked folder.
        own: KL of the original in this format from the original as stored; None without an original.
        refusal: what the runtime said.
    """

    runtime: str
    format: str
    versions: str
    found: Agreement | None
    own: float | None
    refusal: str = ""

    @property
    def passed(self) -> bool | None:
        """Whether the lock costs no more than the format costs the original; None where that cannot be told."""
        if self.found is None or self.found.kl is None:
            return False
        return None if self.own is None else self.found.kl <= max(self.own, FLOAT32_KL)

    @property
    def sentence(self) -> str:
        """The figures in words."""
        if self.found is None:
            return self.refusal
        if self.own is None:
            return f"{self.found.sentence}, beside transformers; give --original to tell the format's own loss apart"
        return f"{self.found.sentence}, beside the original there; the format itself costs KL {self.own:.2g}"


def parse_runtime(text: str) -> tuple[Runtime, tuple[str, ...]]:
    """A runtime as users type it, ``NAME`` or ``NAME:FORMAT,FORMAT``, with the formats to try.

    Raises:
        SpecdefError: an unknown runtime or format, or its packages are missing.

    Example:
        >>> runtime, formats = parse_runtime("transformers-bf16")
        >>> runtime.name, formats
        ('transformers-bf16', ('bf16',))
    """
    name, _, listed = text.partition(":")
    runtime = RUNTIMES.get(name)
    formats = tuple(part.strip() for part in listed.split(",") if part.strip())
    for format in formats:
        runtime.check_format(format)
    runtime.require()
    return runtime, formats or runtime.default_formats


def in_runtimes(
    locked: Path,
    original: Path | None,
    runtimes: Sequence[tuple[Runtime, Sequence[str]]],
    say: Callable[[str], None] = lambda stage: None,
    *,
    num_prompts: int = PROMPTS,
) -> list[InRuntime]:
    """Run a locked folder in formats of some runtimes.

    Args:
        locked: the folder.
        original: the unlocked model.
        runtimes: each with formats.
        say: called with each stage as it starts.
        num_prompts: prompts whose greedy texts are compared.

    Raises:
        SpecdefError: a package is missing, the folder is a pipeline, or a runtime cannot load the original.
    """
    if is_pipeline(locked):
        raise SpecdefError(f"`runtime` must be left out for a pipeline, which none of them runs; {locked} is one.")
    asked = probes(original or locked, num_prompts=num_prompts)
    say("function, in transformers")
    with loaded(original or locked) as model:
        stored = answers(model, asked)
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for runtime, formats in runtimes:
            places = [Path(scratch) / f"{runtime.name}-{which}" for which in ("locked", "original")]
            for place in places:
                place.mkdir()
            for format in formats:
                say(f"function, in {runtime.name} {format}")
                found.append(_one(locked, original, runtime, format, asked, stored, places))
    return found


def _one(
    locked: Path,
    original: Path | None,
    runtime: Runtime,
    format: str,
    asked: Probes,
    stored: Said,
    places: Sequence[Path],
) -> InRuntime:
    reference, own = stored, None
    if original is not None:
        reference = ask(runtime, original, format, asked, places[1])
        own = agreement(stored, reference).kl
        if own is None:
            raise SpecdefError(
                f"`original` must run in {runtime.name} {format}; its logits are not finite there. Name other formats."
            )
    try:
        said = ask(runtime, locked, format, asked, places[0], reference)
    except SpecdefError as refusal:
        if original is None:
            raise
        return InRuntime(runtime.name, format, runtime.versions, None, own, str(refusal))
    return InRuntime(runtime.name, format, runtime.versions, agreement(reference, said), own)
