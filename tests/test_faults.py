"""The faults that `make faults` tries are faults of the source of now: a text that moved would try nothing."""

from __future__ import annotations

import pytest
from faults import FAULTS, ROOT, Fault, with_fault


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_a_fault_stands_in_the_source_once_and_leaves_it_python(fault: Fault) -> None:
    """A file that does not even compile would be seen by any test."""
    compile(with_fault(fault), fault.file, "exec")
    assert all((ROOT / path).exists() for path in fault.tests)
