"""Where experiments run: two processes on the CPU, or as the environment says.

``EXPERIMENT_DEVICE=cuda EXPERIMENT_WORKERS=12 make experiment NAME=calibration`` runs twelve cells at once on a GPU.
"""

from __future__ import annotations

import os

from specdef.certify.resources import Resources


def resources() -> Resources:
    """One thread a cell: the number is part of a cell's identity."""
    device = os.environ.get("EXPERIMENT_DEVICE", "cpu")
    return Resources(int(os.environ.get("EXPERIMENT_WORKERS", "2")), 1, device)
