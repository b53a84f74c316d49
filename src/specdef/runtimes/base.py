"""What a runtime is: a program that loads a model folder in some format and computes its logits. A kind is one file."""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from specdef.core.registry import Registry
from specdef.errors import SpecdefError

if TYPE_CHECKING:
    import torch


class Running(ABC):
    """A model that a runtime has loaded."""

    @abstractmethod
    def logits(self, tokens: Sequence[int]) -> torch.Tensor:
        """What the model says after each token of a text: [tokens, vocabulary], float32, on the CPU."""

    def greedy(
        self, prompts: Sequence[Sequence[int]], count: int, expected: Sequence[Sequence[int]] = ()
    ) -> list[list[int]]:
        """The `count` likeliest tokens after each prompt, one by one. A runtime with a cache does it by its cache.

        Args:
            prompts: token ids; all of one length.
            count: new tokens. Text goes on past an end token.
            expected: what the texts are compared with; one that has left its own is cut there, to save time.
        """
        found: list[list[int]] = [[] for _ in prompts]
        for number, prompt in enumerate(prompts):
            for _ in range(count):
                found[number].append(int(self.logits([*prompt, *found[number]])[-1].argmax()))
                if left(found[number], expected, number):
                    break
        return found


def left(text: Sequence[int], expected: Sequence[Sequence[int]], number: int) -> bool:
    """Whether a text has left the one that is expected of it.

    Example:
        >>> left([1, 2], [[1, 2, 3]], 0), left([1, 4], [[1, 2, 3]], 0), left([1, 4], [], 0)
        (False, True, False)
    """
    return bool(expected) and list(text) != list(expected[number][: len(text)])


class Runtime(ABC):
    """One runtime. Its formats run with the settings and the cache that are its defaults, unless the name says other.

    Attributes:
        name: as users type it.
        modules: what it imports, each with the package that brings it.
        formats: what weights may be stored in, by name.
        default_formats: those that are tried where nobody names one.
    """

    name: ClassVar[str]
    modules: ClassVar[tuple[tuple[str, str], ...]]
    formats: ClassVar[tuple[str, ...]]
    default_formats: ClassVar[tuple[str, ...]]

    @abstractmethod
    def open(self, folder: Path, format: str, scratch: Path) -> AbstractContextManager[Running]:
        """Load a model folder.

        Args:
            folder: a Hugging Face folder.
            format: of `formats`.
            scratch: a folder for files of this model that lasts, so that a later format may use what an earlier made.

        Raises:
            SpecdefError: the runtime cannot load this model.
        """

    @property
    def available(self) -> bool:
        """Whether everything it imports is installed; nothing is imported."""
        return all(importlib.util.find_spec(module) for module, _ in self.modules)

    def require(self) -> None:
        """Raise SpecdefError where a package is missing."""
        for module, package in self.modules:
            if importlib.util.find_spec(module) is None:
                raise SpecdefError(
                    f"`runtime` {self.name} must have the package {package}, which is not installed. Run "
                    '`pip install "specdef[runtimes]"`.'
                )

    def check_format(self, format: str) -> None:
        """Raise SpecdefError for a format that this runtime has not."""
        if format not in self.formats:
            raise SpecdefError(
                f"`format` must be one of {', '.join(self.formats)} for runtime {self.name}; got {format!r}."
            )

    @property
    def versions(self) -> str:
        """The installed packages with their versions, in words."""
        return ", ".join(_versions(package) for package in dict.fromkeys(package for _, package in self.modules))


def _versions(package: str) -> str:
    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package


RUNTIMES: Registry[Runtime] = Registry(
    "runtime",
    "specdef.runtimes.kinds",
    "specdef.runtimes",
    spelling=lambda module: {"llama_cpp": "llama.cpp"}.get(module, module.replace("_", "-")),
)
