"""Devices: the one the user asked for, or the best there is."""

from __future__ import annotations

from specdef.errors import SpecdefError

DEVICES = ("cpu", "cuda")


def check_device(device: str | None) -> None:
    """Refuse a name that is none of `DEVICES`; None is allowed.

    Raises:
        SpecdefError: it is another.
    """
    if device is not None and device not in DEVICES:
        raise SpecdefError(f"`device` must be {' or '.join(DEVICES)}; got {device!r}.")


def find_device(device: str | None) -> str:
    """The device of this name; the GPU where there is one when None.

    Raises:
        SpecdefError: another name, or a GPU is asked for and there is none.
    """
    check_device(device)
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise SpecdefError("`device` must be cpu on this machine: torch finds no GPU; got cuda.")
    return device or ("cuda" if torch.cuda.is_available() else "cpu")
