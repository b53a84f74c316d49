"""User-facing failures. Each message is one sentence: what is wrong, where, what to do."""

from __future__ import annotations


class SpecdefError(Exception):
    """Bad input; the command line prints the message and exits with code 2."""


class UnreadyError(SpecdefError):
    """A package is missing, or a file changed under a sweep: true of the machine today, of no model or attack."""


class CheckpointError(SpecdefError):
    """A model folder or one of its files cannot be read as a safetensors checkpoint."""


class ArchitectureError(SpecdefError):
    """The checkpoint does not match a declared architecture."""


class PlanError(SpecdefError):
    """The requested lock cannot be applied exactly to this checkpoint."""


class KeyFileError(SpecdefError):
    """The private key is missing, malformed, or belongs to another model."""


class TaskError(SpecdefError):
    """A task, a file it reads, or one of its samples is not usable."""


class SignatureError(SpecdefError):
    """A signature does not hold, or what it is of cannot be signed."""
