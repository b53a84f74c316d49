"""One cell, start to end: a pure function of its configuration, run in a process of its own."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from specdef.attacks.base import RewriteReport
from specdef.attacks.run import AttackResult, run_attack
from specdef.certify.cell import Cell, cell_from_json, digest_of
from specdef.certify.cell_result import CellResult, FinishedCell, Measured, RewriteFacts
from specdef.certify.environment import environment
from specdef.certify.events import Listen, Teller
from specdef.core.folders import scratch_folder
from specdef.core.processes import on_this_machine, size
from specdef.errors import UnreadyError
from specdef.models.base import MODEL_KINDS, LoadedModel
from specdef.tasks.base import make_task
from specdef.tasks.utility import UTILITIES, UtilityData
from specdef.training.engines import is_sharded, place
from specdef.training.outcome import Evaluation

_LAUNCHER = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_SETTINGS = ("ACCELERATE_", "FSDP_")
"""How the names of a launcher's further variables begin."""
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Names of glibc's malloc.h."""


def run_cell(data: Mapping[str, Any], listen: Listen | None = None) -> FinishedCell:
    """Attack the cell's model.

    Args:
        data: `Cell.to_json`.
        listen: told where the cell is, while it runs.

    Returns:
        The result (the same on every run) and what was measured (seconds and memory, which are not).
    """
    settle()
    return run_settled(data, listen)


def run_settled(data: Mapping[str, Any], listen: Listen | None = None) -> FinishedCell:
    """`run_cell` in a process that was made ready by `settle`, alone or one of several."""
    cell = cell_from_json(data)
    teller = Teller(cell, listen)
    return measure_cell(cell, progress=teller.on_evaluation, on_step=teller.on_step)


def settle() -> None:
    """Make this process one that runs a cell: alone, repeatable, with memory that is used again."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    for name in [name for name in os.environ if name.startswith(_SETTINGS) or name in _LAUNCHER]:
        del os.environ[name]  # a scheduler's settings must not change what a cell computes
    # peft asks transformers by names that are about to change; nothing that whoever watches could do anything about.
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    keep_freed_memory()


def keep_freed_memory() -> None:
    """Let glibc reuse freed gradients instead of handing them back: page faults took a quarter of a step on a CPU."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def measure_cell(
    cell: Cell,
    *,
    progress: Callable[[Evaluation], None] | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> FinishedCell:
    """`run_cell` in this process, with a call after every evaluation and after every step."""
    started = time.perf_counter()
    with _repeatable(cell.threads), _rewritten(cell) as (ready, reports):
        attacked = attack_cell(ready, progress=progress, on_step=on_step)
    measured = Measured(
        seconds=round(time.perf_counter() - started, 3),
        train_seconds=round(attacked.train_seconds, 3),
        peak_memory_bytes=_peak_memory(cell.device),
        environment=environment(cell.device),
        rewrite_seconds=round(sum(report.seconds for report in reports), 3) if reports else None,
        target=attacked.target,
        processes=size() if size() > 1 else None,
    )
    return FinishedCell(cell_result(attacked, reports), measured)


@contextmanager
def _rewritten(cell: Cell) -> Iterator[tuple[Cell, list[RewriteReport]]]:
    """The cell with its model's weights rewritten as the attack says, in a folder that is removed afterwards."""
    if not cell.attack.rewrites:
        yield cell, []
        return
    with scratch_folder(None) as scratch:
        folder = Path(cell.subject.path)
        reports: list[RewriteReport] = []
        for number, one in enumerate(cell.attack.rewrites):
            out = scratch / f"rewritten-{number}"
            if (report := one.rewrite(folder, out)) is not None:
                reports.append(report)
                folder = out
        yield replace(cell, subject=replace(cell.subject, path=str(folder))), reports


def attack_cell(
    cell: Cell,
    *,
    progress: Callable[[Evaluation], None] | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> AttackResult:
    """Load the cell's model, its weights rewritten already, and attack it in this process."""
    loaded, general = _load(cell)
    task = make_task(cell.task)
    if digest_of(task.fingerprint()) != cell.task_digest:
        raise UnreadyError(f"Task file {cell.task.path} must stay as it is during a sweep; it changed. Start again.")
    return run_attack(
        loaded,
        task,
        general,
        cell.attack,
        reference=cell.reference,
        changed=cell.changed,
        folder=Path(cell.subject.path),
        progress=progress,
        on_step=on_step,
    )


def reference_utility(cell: Cell) -> float:
    """Utility of the cell's model, before any training."""
    with _repeatable(cell.threads):
        loaded, general = _load(cell)
        if is_sharded():
            place(loaded.model, cell.device)
        found = general.measure(loaded.model)
    if cell.device == "cuda":
        import torch

        del loaded, general
        torch.cuda.empty_cache()  # cells of other processes need the room
    return found


@contextmanager
def _repeatable(threads: int) -> Iterator[None]:
    """A fixed number of threads, shared with other processes of this attack, and deterministic kernels; the caller's
    settings back afterwards."""
    import torch

    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(max(1, threads // on_this_machine()))
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=warn_only)


def check_readable(cell: Cell) -> None:
    """Read the cell's general data, and what the model reads it with: a fault is said before anything is written.

    Raises:
        SpecdefError: the model lacks what reads its data, or the data is of no use or changed.
    """
    processor = MODEL_KINDS.get(cell.model_kind).load_processor(Path(cell.subject.path))
    UTILITIES.get(cell.utility).check(_content(cell), processor)


def _load(cell: Cell) -> tuple[LoadedModel, UtilityData]:
    import torch

    kind = MODEL_KINDS.get(cell.model_kind)
    loaded = kind.load(Path(cell.subject.path), dtype=torch.float32)
    if not is_sharded():  # its parts are moved one by one, after interventions changed the whole
        loaded.model.to(cell.device)
    undefended = cell.original
    if undefended is None or (undefended.digest == cell.subject.digest and not is_sharded()):
        original = None
    else:
        folder = Path(undefended.path)

        def original() -> LoadedModel:
            found = kind.load(folder, dtype=torch.float32)
            place(found.model, cell.device)
            return found

    return loaded, UTILITIES.get(cell.utility).prepare(_content(cell), loaded, original=original)


def _content(cell: Cell) -> str:
    content = UTILITIES.get(cell.utility).read(None if cell.text is None else Path(cell.text))
    if blake3(content.encode()).hexdigest() != cell.text_digest:
        raise UnreadyError(f"`text` must stay as it is during a sweep; {cell.text} changed. Start again.")
    return content


def cell_result(result: AttackResult, reports: Sequence[RewriteReport] = ()) -> CellResult:
    """What an attack achieved, as it is stored: without the times."""
    judgement = result.judgement
    facts = [RewriteFacts(*(getattr(report, name) for name in _FACTS)) for report in reports]
    return CellResult(
        outcome=judgement.outcome,
        step=judgement.step,
        best=judgement.best,
        diverged_at=judgement.diverged_at,
        recovered=judgement.recovered,
        reason=result.reason,
        steps=result.steps,
        trained_parameters=result.trained,
        note=result.note,
        evaluations=tuple(result.evaluations),
        rewrites=tuple(facts),
    )


_FACTS = ("kind", "tensors", "added_parameters", "detail", "knowledge")


def _peak_memory(device: str) -> int:
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
