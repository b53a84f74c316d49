"""One cell, start to end: a pure function of its configuration, run in a process of its own."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from specdef.attacks.channel_rates import channel_scales
from specdef.attacks.rewrites.apply import RewriteReport, rewrite
from specdef.attacks.run import AttackResult, TextBlocks, run_attack, text_blocks
from specdef.certify.cell import Cell, cell_from_json, digest_of
from specdef.certify.environment import environment
from specdef.certify.result import CellResult, FinishedCell, Measured, RewriteFacts
from specdef.core.folders import scratch_folder
from specdef.errors import SpecdefError
from specdef.models.loading import load, load_tokenizer
from specdef.tasks.base import make_task
from specdef.tasks.text.prose import bundled_prose, read_text
from specdef.tasks.utilities.perplexity import perplexity
from specdef.training.outcome import Evaluation

_LAUNCHER = ("WORLD_SIZE", "RANK", "LOCAL_RANK")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Names of glibc's malloc.h."""


def run_cell(data: Mapping[str, Any]) -> FinishedCell:
    """Attack the cell's model.

    Args:
        data: `Cell.to_json`.

    Returns:
        The result (the same on every run) and what was measured (seconds and memory, which are not).
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    for name in [name for name in os.environ if name.startswith("ACCELERATE_") or name in _LAUNCHER]:
        del os.environ[name]  # a scheduler's settings must not change what a cell computes
    _keep_freed_memory()
    return measure_cell(cell_from_json(data))


def _keep_freed_memory() -> None:
    """Let glibc reuse freed gradients instead of handing them back: page faults took a quarter of a step on a CPU."""
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def measure_cell(cell: Cell, *, progress: Callable[[Evaluation], None] | None = None) -> FinishedCell:
    """`run_cell` in this process, with a call after every evaluation."""
    started = time.perf_counter()
    with _repeatable(cell.threads), _rewritten(cell) as (ready, rewriting):
        attacked = attack_cell(ready, progress=progress)
    measured = Measured(
        seconds=round(time.perf_counter() - started, 3),
        train_seconds=round(attacked.train_seconds, 3),
        peak_memory_bytes=_peak_memory(cell.device),
        environment=environment(cell.device),
        rewrite_seconds=None if rewriting is None else round(rewriting.seconds, 3),
    )
    return FinishedCell(cell_result(attacked, rewriting), measured)


@contextmanager
def _rewritten(cell: Cell) -> Iterator[tuple[Cell, RewriteReport | None]]:
    """The cell with its model's weights rewritten as the attack says, in a folder that is removed afterwards."""
    if cell.attack.rewrite is None:
        yield cell, None
        return
    with scratch_folder(None) as scratch:
        out = scratch / "rewritten"
        report = rewrite(Path(cell.subject.path), out, cell.attack.rewrite)
        yield replace(cell, subject=replace(cell.subject, path=str(out))), report


def attack_cell(cell: Cell, *, progress: Callable[[Evaluation], None] | None = None) -> AttackResult:
    """Load the cell's model, its weights rewritten already, and attack it in this process."""
    scales = channel_scales(Path(cell.subject.path)) if cell.attack.channel_rates else []
    model, tokenizer, text = _load(cell)
    task = make_task(cell.task)
    if digest_of(task.fingerprint()) != cell.task_digest:
        raise SpecdefError(f"Task file {cell.task.path} must stay as it is during a sweep; it changed. Start again.")
    return run_attack(
        model,
        tokenizer,
        task,
        text,
        cell.attack,
        reference_perplexity=cell.reference_perplexity,
        scales=scales,
        progress=progress,
    )


def reference_perplexity(cell: Cell) -> float:
    """Perplexity of the cell's model on its general text, before any training."""
    with _repeatable(cell.threads):
        model, _, text = _load(cell)
        return perplexity(model, text.measure)


@contextmanager
def _repeatable(threads: int) -> Iterator[None]:
    """A fixed number of threads and deterministic kernels, and the caller's settings back afterwards."""
    import torch

    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1], warn_only=warn_only)


def check_readable(cell: Cell) -> None:
    """Read the cell's tokenizer and text, so that a fault is said before anything is written.

    Raises:
        SpecdefError: the model has no tokenizer, or the text is too short or changed.
    """
    _text(cell, load_tokenizer(Path(cell.subject.path)))


def _load(cell: Cell) -> tuple[Any, Any, TextBlocks]:
    import torch

    folder = Path(cell.subject.path)
    tokenizer = load_tokenizer(folder)
    text = _text(cell, tokenizer)
    model: Any = load(folder, dtype=torch.float32)
    if not model.can_generate():
        raise SpecdefError(f"`model` must be a causal language model; {folder} is a {type(model).__name__}.")
    return model.to(cell.device), tokenizer, text


def _text(cell: Cell, tokenizer: Any) -> TextBlocks:
    text = bundled_prose() if cell.text is None else read_text(Path(cell.text))
    if blake3(text.encode()).hexdigest() != cell.text_digest:
        raise SpecdefError(f"`text` must stay as it is during a sweep; {cell.text} changed. Start again.")
    return text_blocks(text, tokenizer)


def cell_result(result: AttackResult, rewriting: RewriteReport | None = None) -> CellResult:
    """What an attack achieved, as it is stored: without the times."""
    judgement = result.judgement
    facts = [] if rewriting is None else [RewriteFacts(*(getattr(rewriting, name) for name in _FACTS))]
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
