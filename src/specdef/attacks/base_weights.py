"""The public base weights that a model was made of: found, named by their content, and checked against the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

from blake3 import blake3

from specdef.attacks.base import Intervention
from specdef.checkpoint.digests import file_digest
from specdef.checkpoint.reader import Checkpoint, open_checkpoint
from specdef.core.text import shown
from specdef.errors import SpecdefError, UnreadyError
from specdef.models.sources import find_model


@dataclass(frozen=True)
class HoldsBase(Intervention):
    """An intervention of an attacker who may hold the base weights.

    Attributes:
        base: the base weights: a folder, a hub id or ``smollm2-135m``. Where they lie is no part of an attack's
            identity, and results do not tell it.
        digest: of the base's weights, see `bound`; whoever gives it wants these weights and no others.
    """

    base: str = field(default="", compare=False)
    digest: str = ""

    def bound(self) -> Self:
        """The same with the digest of the base weights, which is what a result depends on.

        Raises:
            SpecdefError: there are no such weights.
        """
        if self.digest or not self.base:
            return self
        folder, digest = find_base(self.base)
        return replace(self, base=folder, digest=digest)

    def places(self) -> Mapping[str, str]:
        """The base's folder."""
        return {self.digest: self.base} if self.digest and self.base else {}

    def placed(self, places: Mapping[str, str]) -> Self:
        """The same with the base's folder, where it is known."""
        return self if self.base or self.digest not in places else replace(self, base=places[self.digest])


def weights_digest(folder: Path) -> str:
    """BLAKE3 of a model's shards and their names, hexadecimal; its configuration and tokenizer play no part.

    Raises:
        SpecdefError: the folder is no model that can be read.
    """
    hasher = blake3()
    for name in sorted(open_checkpoint(folder, publishing=False, argument="base").shards):
        hasher.update(f"{name}\0{file_digest(folder / name)}\0".encode())
    return hasher.hexdigest()


def find_base(base: str) -> tuple[str, str]:
    """(folder, digest of its weights) of base weights given as a folder, a hub id or ``smollm2-135m``.

    Raises:
        SpecdefError: there is none.
    """
    folder = find_model(base, argument="base")
    return str(folder), weights_digest(folder)


def open_base(base: str, digest: str) -> Checkpoint:
    """The base weights, which must be those the digest names where there is one.

    Raises:
        UnreadyError: they changed.
        SpecdefError: there are none.
    """
    if not base:
        raise SpecdefError(
            f"`base` must be the base weights' folder; only their digest {digest[:8]} is known. Give it."
        )
    folder, found = find_base(base)
    if digest and found != digest:
        raise UnreadyError(
            f"`base` must hold the weights of digest {digest[:8]}; {folder} holds {found[:8]}. Start again."
        )
    return open_checkpoint(Path(folder), publishing=False, argument="base")


def check_base(checkpoint: Checkpoint, base: Checkpoint, names: Iterable[str]) -> None:
    """Refuse base weights that the model cannot have been made of.

    Args:
        checkpoint: the model.
        base: the base weights.
        names: tensors of the model that the base must have as well.

    Raises:
        SpecdefError: another architecture, a tensor that is missing, or one of another shape.
    """
    kinds = [one.config.get("model_type") for one in (checkpoint, base)]
    if kinds[0] != kinds[1]:
        raise SpecdefError(
            f"`base` must be of the model's architecture, {kinds[0]}; {shown(base.folder)} is {kinds[1]}."
        )
    ours, theirs = checkpoint.shapes, base.shapes
    for name in names:
        if name not in theirs:
            raise SpecdefError(
                f"`base` must hold every tensor of the model; {shown(base.folder)} has no {shown(name)}."
            )
        if theirs[name] != ours[name]:
            raise SpecdefError(
                f"`base` must have the model's shapes; its {shown(name)} is {list(theirs[name])}, the model's "
                f"{list(ours[name])}."
            )
