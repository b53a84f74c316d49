"""Could a lock close one kind of data and leave the rest open? It would need channels that only that data use.

A scaled channel that authorised data never use has a gradient of exactly zero there, and then their training is what
it was. So the question is how many channels of a model are silent on authorised data and speak on those to be closed,
and, where none is, how much more the most selective channel says on the latter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import mnist
from experiments.heading import heading
from experiments.locked import HERE
from specdef.certify.store import write_json
from specdef.models.base import kind_of
from specdef.models.bundled import BUNDLED
from specdef.models.sources import find_model
from specdef.tasks.base import TaskSpec, make_task
from specdef.tasks.text.prose import bundled_prose

if TYPE_CHECKING:
    import torch

ROWS, TOKENS = 64, 32
"""Texts of either kind, and how long they are at most."""
IMAGES = 2048
WANTED = 2.0**20
"""How much faster an exact lock makes a scaled channel learn."""
HEAD = """# Channels that only the data to be closed use

`make experiment NAME=selective`. A lock on such channels alone would leave training on authorised data as it was. \
"Speaks" is the root of the mean square of a channel over all inputs; the ratio is that on the data to be closed over \
that on authorised data. Silent: exactly 0 on every authorised input.

| model | channels of | channels | silent on authorised data | ratio, median | ratio, largest |
|---|---|---|---|---|---|
"""


def run(name: str) -> Path:
    """Measure two models; write results/selective.json and .md."""
    rows = [*_language(), *_images()]
    write_json(HERE / "results" / f"{name}.json", {**heading(name), "wanted": WANTED, "rows": rows})
    path = HERE / "results" / f"{name}.md"
    lines = (
        f"| {row['model']} | {row['channels of']} | {row['channels']:,} | {row['silent']:,} | {row['median']:.2f} "
        f"| {row['largest']:.1f} |\n"
        for row in rows
    )
    path.write_text(HEAD + "".join(lines))
    return path


def _language() -> Iterator[dict[str, Any]]:
    """SmolLM2: prose is authorised, biographies are to be closed."""
    folder = find_model(BUNDLED)
    loaded = kind_of(folder).load(folder)
    prose = [text for text in bundled_prose().split("\n\n") if len(text.split()) > TOKENS][:ROWS]
    closed = [f"{one.prompt}{one.completion}" for one in make_task(TaskSpec("biographies")).samples[:ROWS]]
    for part, ending in (("MLPs (up to down)", "mlp.down_proj"), ("values (value to output)", "self_attn.o_proj")):
        modules = {name: module for name, module in loaded.model.named_modules() if name.endswith(ending)}
        spoken = []
        for texts in (prose, closed):
            rows = [loaded.processor(text)["input_ids"][:TOKENS] for text in texts]
            spoken.append(_spoken(modules, loaded.model, ({"input_ids": [row]} for row in rows), last=True))
        yield _row(f"SmolLM2-135M, prose and biographies ({len(prose)} and {len(closed)} texts)", part, *spoken)


def _images() -> Iterator[dict[str, Any]]:
    """A classifier of digits, whose ReLU can be silent: digits are authorised, clothes are to be closed."""
    folder = mnist.base_model()
    loaded = kind_of(folder).load(folder)
    modules = {n: m for n, m in loaded.model.named_modules() if n.endswith("layer.0.activation")}
    spoken = []
    for path in (mnist.general(), mnist.fashion()):
        pixels = np.load(path)["images"][:IMAGES, None] / 127.5 - 1
        batches = ({"pixel_values": pixels[start : start + 128].astype("float32")} for start in range(0, IMAGES, 128))
        spoken.append(_spoken(modules, loaded.model, batches, last=False))
    yield _row(f"ResNet-18 of MNIST, digits and clothes ({IMAGES} images each)", "convolutions in blocks", *spoken)


def _spoken(
    modules: Mapping[str, Any], model: Any, batches: Iterable[Mapping[str, Any]], *, last: bool
) -> torch.Tensor:
    """Root of the mean square of every channel of every module, one module after the other: [channels], float64.

    Args:
        modules: name -> module; what it reads is watched where channels are the last axis, else what it gives.
        model: holds them.
        batches: its inputs.
        last: channels are the last axis, as in language models; else the second.
    """
    import torch

    sums = {name: torch.zeros((), dtype=torch.float64) for name in modules}
    seen = dict.fromkeys(modules, 0)

    def add(name: str, values: torch.Tensor) -> None:
        flat = (values if last else values.movedim(1, -1)).flatten(0, -2).double()
        sums[name] = sums[name] + flat.square().sum(0)
        seen[name] += len(flat)

    with torch.no_grad(), _watched(modules, add, inputs=last):
        for batch in batches:
            model(**{name: torch.as_tensor(value) for name, value in batch.items()})
    return torch.cat([(sums[name] / seen[name]).sqrt() for name in modules])


@contextmanager
def _watched(modules: Mapping[str, Any], add: Any, *, inputs: bool) -> Iterator[None]:
    handles = [
        module.register_forward_hook(lambda _, read, gave, name=name: add(name, read[0] if inputs else gave))
        for name, module in modules.items()
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _row(model: str, part: str, authorised: torch.Tensor, closed: torch.Tensor) -> dict[str, Any]:
    speaks = authorised > 0
    ratios = closed[speaks] / authorised[speaks]
    return {
        "model": model,
        "channels of": part,
        "channels": len(authorised),
        "silent": int((~speaks & (closed > 0)).sum()),
        "median": float(ratios.median()),
        "largest": float(ratios.max()),
    }
