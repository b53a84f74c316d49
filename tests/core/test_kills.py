"""The kills of `killed.py`, in a process that has started no threads: forks of one that has may hang."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CASES = Path(__file__).with_name("killed.py")
LONGEST = 300
"""Seconds; only a hanging fork takes so long."""


@pytest.mark.parametrize("cases", ["not slow", pytest.param("slow", marks=pytest.mark.slow)])
def test_work_killed_at_any_instant_leaves_nothing_half_made(cases: str, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path / 'base'}"]
    done = subprocess.run(
        [*command, "-m", cases, CASES],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=LONGEST,
        cwd=CASES.parents[2],
    )
    assert done.returncode == 0, done.stdout[-3000:]
