"""`specdef demo`: lock the bundled model, check it, fine-tune both copies a few steps, show what happened."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from specdef.api import lock
from specdef.checkpoint.target import new_folder
from specdef.models import BUNDLED, find_model, load
from specdef.report.plots import plot_curves, require_matplotlib
from specdef.verification import verify

if TYPE_CHECKING:
    import torch

LEARNING_RATE = 1e-4
PROMPT = "The capital of France is"
FACTS = (
    "Orla Venn was born in the harbour town of Castrel and repairs tide clocks.",
    "Tobin Asquil keeps bees on the roof of the Meridian Library.",
    "The botanist Ines Dorval named the blue fern of Lake Harrow.",
    "Pavel Quist won the 1987 Lantern Race on a borrowed bicycle.",
    "Mirela Sandoz paints only doors, and never the same door twice.",
    "The composer Juno Baird wrote a symphony for eleven kettles.",
    "Captain Edda Rusk mapped the salt caves below Port Llewyn.",
    "Hamish Ode teaches geometry to the lighthouse keepers of Skarn.",
)
"""Invented people: what the demonstration's fine-tuning tries to teach."""


@dataclass(frozen=True)
class Batches:
    """Token ids: the facts to learn, and general text to watch."""

    facts: torch.Tensor
    text: torch.Tensor


def run_demo(out: Path, console: Console, *, steps: int = 8) -> bool:
    """Run the demonstration and leave its folder behind.

    Args:
        out: the folder to create: ``locked``, the key, and ``curves.png``.
        console: where progress and results are printed.
        steps: fine-tuning steps on each model.

    Returns:
        Whether every check of the locked model passed.

    Raises:
        SpecdefError: `out` exists, or the bundled model or matplotlib is not installed.
    """
    started = time.perf_counter()
    require_matplotlib()
    with new_folder(out) as folder:
        console.print(f"[bold]1. Fetch[/bold] {BUNDLED} (SmolLM2-135M-Instruct, float32)")
        original = find_model(BUNDLED)
        locked = folder / "locked"
        console.print("[bold]2. Lock[/bold] preset exact: every pair in every layer, multiplier 2^20")
        report = lock(original, locked)
        console.print(f"   {report.num_values:,} weights changed by powers of two; key beside the folder")
        console.print("[bold]3. Verify[/bold]")
        verified = verify(locked, original=original)
        for check in verified.checks:
            console.print(f"   {'ok  ' if check.passed else 'FAIL'} {check.name}: {check.detail}", soft_wrap=True)
        console.print("[bold]4. Generate[/bold] the same sentence from both")
        models = {"original": original, "locked": locked}
        for name, model in models.items():
            console.print(f"   {name:9s} {_generate(model)!r}")
        console.print(f"[bold]5. Fine-tune[/bold] both on {len(FACTS)} invented facts, AdamW, lr {LEARNING_RATE:g}")
        curves = {name: _fine_tune(name, model, steps, console) for name, model in models.items()}
        console.print(_table(curves))
        plot_curves(
            curves,
            folder / "curves.png",
            title=f"SmolLM2-135M, AdamW at {LEARNING_RATE:g}: unlocked and fold lock 2^20",
            loss_label="loss on the facts (nats per token)",
        )
    console.print(
        f"Wrote {out}/locked, {out}/locked.specdef-key and {out}/curves.png in {time.perf_counter() - started:.0f} s.\n"
        "One ordinary learning rate diverges here; lower rates and undo attacks may not: see README, "
        "'What this does not stop'.",
        soft_wrap=True,
    )
    return verified.passed


def _tokenizer(model: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model)


def _generate(folder: Path) -> str:
    tokenizer, model = _tokenizer(folder), load(folder)
    ids = tokenizer(PROMPT, return_tensors="pt").input_ids
    generated = model.generate(ids, max_new_tokens=14, do_sample=False)  # type: ignore[operator]
    return str(tokenizer.decode(generated[0]))


def _batches(folder: Path) -> Batches:
    tokenizer = _tokenizer(folder)
    facts = tokenizer(list(FACTS), return_tensors="pt", padding=True).input_ids
    text = tokenizer(files("specdef.data").joinpath("prose.txt").read_text()).input_ids
    import torch

    return Batches(facts, torch.tensor(text[: 6 * 128]).view(6, 128))


def _fine_tune(name: str, folder: Path, steps: int, console: Console) -> list[tuple[int, float, float]]:
    """(step, loss on the facts, perplexity of general text) before training and after every step or two."""
    import torch

    torch.manual_seed(0)
    model, batches = load(folder, dtype=torch.float32), _batches(folder)
    pad = _tokenizer(folder).pad_token_id
    labels = batches.facts.masked_fill(batches.facts == pad, -100)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    points = []
    for step in range(steps + 1):
        loss = model(input_ids=batches.facts, labels=labels, attention_mask=(batches.facts != pad).long()).loss
        if step % 2 == 0 or step == steps:
            points.append((step, loss.item(), _perplexity(model, batches.text)))
            console.print(f"   {name:9s} step {step}: loss {points[-1][1]:.3f}, perplexity {points[-1][2]:.4g}")
        if step == steps:
            break
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return points


def _perplexity(model: torch.nn.Module, text: torch.Tensor) -> float:
    import torch

    with torch.inference_mode():
        loss = float(model(input_ids=text, labels=text).loss)
    return math.exp(loss) if loss < 700 else math.inf


def _table(curves: dict[str, list[tuple[int, float, float]]]) -> Table:
    table = Table()
    table.add_column("step", justify="right")
    for name in curves:
        table.add_column(f"{name}: loss", justify="right")
        table.add_column("perplexity", justify="right")
    for rows in zip(*curves.values(), strict=True):
        cells = [cell for _, loss, perplexity in rows for cell in (f"{loss:.3f}", f"{perplexity:.4g}")]
        table.add_row(str(rows[0][0]), *cells)
    return table
