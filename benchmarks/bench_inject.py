"""The inject lock on a real model: divergence from the original per multiplier and dtype of C, parameters, speed.

MODEL is a Hugging Face folder with float32 weights. Five matrices are drawn, seed 0, among gate_proj, o_proj and
v_proj of all layers, k = 25, svd basis, as in the paper's preset. Everything is locked in memory; tolerance is off, so
that rows the planner would refuse are shown, too. KL is the mean over tokens of KL(original || locked), softmax in
float64, on the prompts of this folder read as one text.
"""

from __future__ import annotations

import argparse
import copy
import math
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from specdef.errors import PlanError
from specdef.locks.in_memory import ModuleLock, lock_module
from specdef.models.bundled import BUNDLED
from specdef.models.sources import find_model

MULTIPLIERS = (1e3, 1e4, 1e6, 1e9)
TOP_K = 25
REPEATS = 5


def draw_targets(model: torch.nn.Module, number: int, seed: int) -> list[str]:
    linears = [n for n, _ in model.named_modules() if n.endswith((".gate_proj", ".o_proj", ".v_proj"))]
    return sorted(random.Random(seed).sample(linears, number))


@torch.inference_mode()
def log_probabilities(model: Any, tokens: Tensor) -> Tensor:
    return torch.log_softmax(model(tokens).logits[0].double(), dim=-1)


def divergence(original: Tensor, other: Tensor) -> float:
    return (original.exp() * (original - other)).sum(dim=-1).mean().item()


def locked(model: Any, targets: list[str], **options: Any) -> tuple[Any, ModuleLock]:
    copied = copy.deepcopy(model)
    return copied, lock_module(copied, targets=targets, k=TOP_K, **{"tolerance": math.inf, **options})


def kl_table(model: Any, tokens: Tensor, targets: list[str]) -> Table:
    table = Table(title=f"KL to the original, mean of {tokens.shape[1]} tokens (worst relative layer error)")
    for column in ("weights / C", "form", *(f"{m:g}" for m in MULTIPLIERS)):
        table.add_column(column)
    reference = log_probabilities(model, tokens)
    narrow = copy.deepcopy(model).to(torch.bfloat16)
    narrow_reference = log_probabilities(narrow, tokens)
    noise = divergence(reference, narrow_reference)
    rows = [
        (model, torch.float32, "dense", "svd"),
        (model, torch.float64, "dense", "svd"),
        (model, torch.float32, "low_rank", "svd"),
        (model, torch.float64, "low_rank", "svd"),
        (model, torch.float32, "dense", "axis"),
        (narrow, torch.float32, "dense", "svd"),
        (narrow, torch.float64, "dense", "svd"),
        (narrow, torch.float32, "low_rank", "svd"),
        (narrow, torch.float32, "dense", "axis"),
    ]
    for base, dtype, form, basis in rows:
        cells = []
        for multiplier in MULTIPLIERS:
            other, report = locked(
                base, targets, multiplier=multiplier, form=form, basis=basis, compensation_dtype=dtype
            )
            error = max(layer.function_error for layer in report.layers)
            cells.append(f"{divergence(reference, log_probabilities(other, tokens)):.1e} ({error:.0e})")
        name = "float32" if base is model else "bfloat16"
        table.add_row(f"{name} / {str(dtype)[6:]}", form if basis == "svd" else "axis", *cells)
    table.add_row("bfloat16 model itself", "", *[f"{noise:.1e}"] * len(MULTIPLIERS))
    return table


def choice_table(model: Any, targets: list[str]) -> Table:
    table = Table(title="What the plan picks: dtypes of C (tolerance on), or refuses")
    for column in ("weights", "form", *(f"{m:g}" for m in MULTIPLIERS)):
        table.add_column(column)
    for dtype in (torch.float32, torch.bfloat16):
        base = copy.deepcopy(model).to(dtype)
        for form in ("dense", "low_rank"):
            cells = []
            for multiplier in MULTIPLIERS:
                try:
                    _, report = locked(base, targets, multiplier=multiplier, form=form, tolerance=None)
                    cells.append(", ".join(sorted({layer.entry.dtype for layer in report.layers})))
                except PlanError:
                    cells.append("refused")
            table.add_row(str(dtype)[6:], form, *cells)
    return table


def cpu_seconds_beside(original: Callable[[], Any], other: Callable[[], Any]) -> tuple[float, float]:
    """(seconds of the original, ratio other / original), medians over runs taken in turn.

    CPU time of this process: other programs disturb it less than wall time. On a busy machine set OMP_NUM_THREADS=1.
    """
    seconds, ratios = [], []
    for number in range(REPEATS + 1):
        taken = []
        for run in (original, other) if number % 2 else (other, original):
            start = time.process_time()
            run()
            taken.append(time.process_time() - start)
        before, after = taken if number % 2 else reversed(taken)
        if number:
            seconds.append(before)
            ratios.append(after / before)
    return statistics.median(seconds), statistics.median(ratios)


@torch.inference_mode()
def cost_table(model: Any, tokens: Tensor, targets: list[str]) -> Table:
    table = Table(title=f"Cost at multiplier 1e4: CPU time, median of {REPEATS} runs in turn with the original")
    for column in ("form", "C", "extra / locked", "extra / model", "256-token forward", "32 new tokens, greedy"):
        table.add_column(column)
    tokens = tokens[:, :256]
    total = sum(p.numel() for p in model.parameters())

    def generate(some: Any) -> Callable[[], Any]:
        return lambda: some.generate(
            tokens[:, :16], max_new_tokens=32, min_new_tokens=32, do_sample=False, pad_token_id=0
        )

    rows = [("unlocked again", None), ("low_rank", torch.float32), ("low_rank", torch.float64)]
    for form, dtype in [*rows, ("dense", torch.float32), ("dense", torch.float64), ("axis", torch.float32)]:
        if dtype is None:
            other, extra, ratio = copy.deepcopy(model), 0, 0.0
        else:
            basis = "axis" if form == "axis" else "svd"
            kind = "dense" if form == "axis" else form
            other, report = locked(model, targets, multiplier=1e4, form=kind, basis=basis, compensation_dtype=dtype)
            extra, ratio = sum(x.num_extra_parameters for x in report.layers), report.extra_ratio
        forward = cpu_seconds_beside(lambda: model(tokens), lambda other=other: other(tokens))
        greedy = cpu_seconds_beside(generate(model), generate(other))
        table.add_row(
            form,
            str(dtype)[6:] if dtype else "",
            f"{ratio:.2%}",
            f"{extra / total:.2%}",
            *(f"{ratio - 1:+.1%} ({seconds:.2f} s)" for seconds, ratio in (forward, greedy)),
        )
    return table


def layer_table(model: Any, targets: list[str]) -> Table:
    table = Table(title=f"Extra parameters per locked matrix, k = {TOP_K}")
    for column in ("module", "shape", "low_rank: side", "extra", "dense: side", "extra"):
        table.add_column(column)
    reports = [locked(model, targets, multiplier=1e4, form=form)[1] for form in ("low_rank", "dense")]
    for low, dense in zip(*(report.layers for report in reports), strict=True):
        weight = model.get_submodule(low.name).weight
        cells = [c for x in (low, dense) for c in (x.entry.side, f"{x.num_extra_parameters / x.num_parameters:.2%}")]
        table.add_row(low.name, "x".join(map(str, weight.shape)), *cells)
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=BUNDLED, help="a folder, or smollm2-135m")
    parser.add_argument("--tokens", type=int, default=320)
    parser.add_argument("--modules", type=int, default=5)
    parser.add_argument("--only", choices=("kl", "choice", "cost"))
    arguments = parser.parse_args()
    folder = find_model(arguments.model)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    text = Path(__file__).with_name("prompts.txt").read_text()
    tokens = tokenizer(text, return_tensors="pt").input_ids[:, : arguments.tokens]
    targets = draw_targets(model, arguments.modules, seed=0)
    console = Console(width=140)
    console.print(f"locked: {', '.join(targets)}")
    if arguments.only in (None, "kl"):
        console.print(kl_table(model, tokens, targets))
    if arguments.only in (None, "choice"):
        console.print(choice_table(model, targets))
    if arguments.only in (None, "cost"):
        console.print(layer_table(model, targets))
        console.print(cost_table(model, tokens, targets))


if __name__ == "__main__":
    main()
