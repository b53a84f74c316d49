"""What the result file of an experiment begins with."""

from __future__ import annotations

from typing import Any

from specdef.certify.environment import environment
from specdef.core.schema import plain


def heading(name: str, device: str = "cpu") -> dict[str, Any]:
    """The experiment, the command that runs it again, and the commit, libraries and machine that ran it.

    Args:
        name: of the experiment.
        device: its models were on.
    """
    return {
        "experiment": name,
        "command": f"make experiment NAME={name}",
        "environment": plain(environment(device)),
    }
