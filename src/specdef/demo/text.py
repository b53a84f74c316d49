"""The bundled language model, which is taught the colours of invented flowers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rich.console import Console

from specdef.demo.story import Story
from specdef.models.base import LoadedModel
from specdef.models.bundled import BUNDLED
from specdef.models.loading import load, load_tokenizer
from specdef.models.sources import find_model
from specdef.tasks.base import Task
from specdef.tasks.text.flowers import flowers
from specdef.tasks.utility import UTILITIES, UtilityData
from specdef.training.recipe import Recipe

ROWS = 3
"""Of prose: enough to see a ruin."""
PROMPT = "The capital of France is"


class Flowers(Story):
    """SmolLM2-135M."""

    name = "SmolLM2-135M"
    ordinary = Recipe(lr=3e-4, steps=12, eval_every=4)
    low = 1e-7
    utility, useful = "perplexity", "perplexity"
    taught = "invented flowers"
    says = "writes"
    note = "Above: the share of questions on the invented flowers answered rightly. Below: perplexity of other prose."
    score_label = "questions answered rightly"

    def fetch(self, place: Path, console: Console) -> Path:
        """The bundled model, where it was unpacked."""
        console.print(f"[bold]1. Fetch[/bold] {BUNDLED} (SmolLM2-135M-Instruct, float32)")
        return find_model(BUNDLED)

    def said(self, folder: Path) -> str:
        """How a model goes on from a prompt."""
        tokenizer, model = load_tokenizer(folder), load(folder)
        ids = tokenizer(PROMPT, return_tensors="pt").input_ids
        generated = model.generate(ids, max_new_tokens=14, do_sample=False)  # type: ignore[operator]
        return str(tokenizer.decode(generated[0]))

    def make_task(self) -> Task:
        """The flowers."""
        return flowers()

    def general(self, loaded: LoadedModel) -> UtilityData:
        """A few rows of the bundled prose."""
        utility = UTILITIES.get(self.utility)
        general = utility.prepare(utility.read(None), loaded)
        return replace(general, measured=general.measured[:ROWS])


STORIES = (Flowers(),)
