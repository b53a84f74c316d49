"""Programs that people load a model folder with, as small scripts: each gives the numbers that it computes.

``python tests/clients/programs.py PAGE`` runs all on a tiny Llama, original, exact lock and inject lock, and writes the
table of `docs/runtimes.md` between its marks.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import math
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specdef import lock
from specdef.runtimes.base import RUNTIMES

IDS = torch.tensor([[1, 5, 9, 33, 60, 71, 20, 4]])
TEXT = "the quick brown fox jumps over it."
NEAR = 1e-4
"""Largest difference of an inject lock, of the largest number: it computes in float64 and rounds once a layer."""
START, END = "<!-- made by tests/clients/programs.py -->\n", "<!-- end -->\n"


@dataclass(frozen=True)
class Program:
    """One way to run a model.

    Attributes:
        name: shown in the table.
        package: whose version is shown; the program is left out where it is not installed.
        does: what the script does.
        run: (model folder, scratch folder) -> what is computed.
        near: largest difference of an inject lock; None where it does not come through.
    """

    name: str
    package: str
    does: str
    run: Callable[[Path, Path], Tensor]
    near: float | None = NEAR

    @property
    def available(self) -> bool:
        return importlib.util.find_spec(self.package.replace("-", "_")) is not None


def load(folder: Path, **options: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, **options).eval()


def _tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def logits(model: Any) -> Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits.detach().clone()  # type: ignore[no-any-return]


def from_pretrained(folder: Path, scratch: Path) -> Tensor:
    return logits(load(folder))


def in_bfloat16(folder: Path, scratch: Path) -> Tensor:
    return logits(load(folder, dtype=torch.bfloat16)).float()


def pipeline(folder: Path, scratch: Path) -> Tensor:
    from transformers import pipeline as make

    generator = make("text-generation", model=str(folder), tokenizer=str(folder), device="cpu")
    (found,) = generator(TEXT, max_new_tokens=12, do_sample=False, return_tensors=True)
    return torch.tensor(found["generated_token_ids"])


def generate(folder: Path, scratch: Path) -> Tensor:
    """Greedy with a static cache, then three beams, then samples: logits, and tokens as shares of the vocabulary."""
    model, found = load(folder), []
    for options in ({"cache_implementation": "static"}, {"num_beams": 3}, {"do_sample": True, "top_k": 20}):
        torch.manual_seed(0)
        made = model.generate(
            IDS, max_new_tokens=8, output_logits=True, return_dict_in_generate=True, pad_token_id=0, **options
        )
        found += [made.sequences.flatten() / model.config.vocab_size, *(one.flatten() for one in made.logits)]
    return torch.cat(found)


def saved_again(folder: Path, scratch: Path) -> Tensor:
    load(folder).save_pretrained(scratch / "again")
    return logits(load(scratch / "again"))


def trainer(folder: Path, scratch: Path) -> Tensor:
    from transformers import Trainer, TrainingArguments

    rows = [{"input_ids": IDS[0], "labels": IDS[0]}] * 4
    arguments = TrainingArguments(str(scratch), report_to=[], use_cpu=True, per_device_eval_batch_size=2)
    return torch.tensor(Trainer(load(folder), arguments, eval_dataset=rows).evaluate()["eval_loss"])  # type: ignore[arg-type]


def adapters(folder: Path, scratch: Path) -> Tensor:
    """LoRA that has not learned yet: added, saved, loaded, merged, saved, loaded."""
    from peft import LoraConfig, PeftModel, get_peft_model

    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj", "down_proj"], task_type="CAUSAL_LM")
    get_peft_model(load(folder), config).save_pretrained(scratch / "adapter")
    merged = PeftModel.from_pretrained(load(folder), scratch / "adapter").merge_and_unload()
    merged.save_pretrained(scratch / "merged")
    return logits(load(scratch / "merged"))


def offloaded(folder: Path, scratch: Path) -> Tensor:
    """Layers on disk, read when they are needed."""
    places = {"model.embed_tokens": "cpu", "model.layers.0": "cpu", "model.layers.1": "disk"}
    places |= {"model.norm": "cpu", "model.rotary_emb": "cpu", "lm_head": "disk"}
    return logits(load(folder, device_map=places, offload_folder=str(scratch / "offload")))


def compiled(folder: Path, scratch: Path) -> Tensor:
    torch.compiler.reset()
    return logits(torch.compile(load(folder)))


def exported(folder: Path, scratch: Path) -> Tensor:
    from torch.export import export

    class Plain(torch.nn.Module):
        def __init__(self, model: Any) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: Tensor) -> Tensor:
            return self.model(input_ids=ids, use_cache=False).logits  # type: ignore[no-any-return]

    with torch.no_grad():
        program = export(Plain(load(folder)), (IDS,))
        return program.module()(IDS).detach().clone()  # type: ignore[no-any-return]


def trl(folder: Path, scratch: Path) -> Tensor:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    rows = Dataset.from_list([{"text": TEXT}] * 4)
    config = SFTConfig(
        str(scratch), report_to=[], use_cpu=True, max_length=32, bf16=False, per_device_eval_batch_size=2
    )
    made = SFTTrainer(
        load(folder), args=config, train_dataset=rows, eval_dataset=rows, processing_class=_tokenizer(folder)
    )
    return torch.tensor(made.evaluate()["eval_loss"])


def harness(folder: Path, scratch: Path) -> Tensor:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    judged = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=2)
    asked = [Instance("loglikelihood", {}, (TEXT, f" {word}"), 0) for word in ("yes", "no", "a dog")]
    return torch.tensor([found[0] for found in judged.loglikelihood(asked, disable_tqdm=True)], dtype=torch.float64)


def mergekit(folder: Path, scratch: Path) -> Tensor:
    """The folder merged with nothing: all layers passed through."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import MergeOptions, run_merge

    slices = [{"sources": [{"model": str(folder), "layer_range": [0, 2]}]}]
    config = MergeConfiguration.model_validate({"merge_method": "passthrough", "slices": slices, "dtype": "float32"})
    run_merge(config, str(scratch / "merged"), MergeOptions(device="cpu", copy_tokenizer=False, quiet=True))
    return logits(load(scratch / "merged"))


def onnx(folder: Path, scratch: Path) -> Tensor:
    with RUNTIMES.get("onnxruntime").open(folder, "f32", scratch) as running:
        return running.logits(IDS[0].tolist())


PROGRAMS = (
    Program("transformers", "transformers", "`from_pretrained`, float32", from_pretrained),
    Program("transformers, bfloat16", "transformers", "`from_pretrained(dtype=torch.bfloat16)`", in_bfloat16, 0.05),
    Program("pipeline", "transformers", 'a `pipeline("text-generation")`', pipeline),
    Program("generate", "transformers", "greedy with a static cache, beams, samples", generate),
    Program("save_pretrained", "transformers", "saved by transformers, loaded again", saved_again),
    Program("Trainer", "transformers", "loss of `evaluate`", trainer),
    Program("PEFT", "peft", "fresh LoRA added, saved, loaded, merged, saved, loaded", adapters, None),
    Program("accelerate", "accelerate", "`device_map` with layers on disk", offloaded),
    Program("torch.compile", "torch", "the default compiler", compiled),
    Program("torch.export", "torch", "an exported program, run", exported),
    Program("ONNX Runtime", "onnxruntime", "exported by torch, run on a CPU", onnx),
    Program("TRL", "trl", "loss of `SFTTrainer.evaluate`", trl),
    Program("lm-eval", "lm-eval", "log-likelihoods of answers", harness, None),
    Program("mergekit", "mergekit", "all layers passed through to a new folder", mergekit, None),
)


def difference(program: Program, original: Path, locked: Path, scratch: Path) -> float:
    """Largest difference of what is computed from two folders, over the largest number; 0 where no bit differs."""
    found = []
    for number, folder in enumerate((original, locked)):
        place = scratch / f"{number}"
        place.mkdir(parents=True)
        found.append(program.run(folder, place))
    before, after = found
    if torch.equal(before, after):
        return 0.0
    return float((after.double() - before.double()).abs().max() / before.double().abs().max())


@contextmanager
def folders() -> Iterator[tuple[Path, Path, Path, Path]]:
    """A tiny Llama, its exact and its inject lock, and a folder for what programs write."""
    import pico_text

    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        model = pico_text.write_model(place / "model", chat=True)
        lock(model, place / "exact", preset="exact")
        lock(model, place / "inject", preset="paper", layers=(0, 1), rank=3, multiplier="100")
        yield model, place / "exact", place / "inject", place / "written"


def _cell(program: Program, original: Path, locked: Path, scratch: Path) -> str:
    try:
        found = difference(program, original, locked, scratch)
    except Exception as error:  # a program that refuses is a row of the table
        return f"refused: {re.split(r'[(]|[.:,] ', str(error).splitlines()[0])[0]}"
    if found == 0:
        return "same bits"
    return f"within {found:.0e}" if math.isfinite(found) else "**broken**: not finite, without a word"


def main() -> None:
    import specdef.integrations.transformers  # noqa: F401  (what an inject lock asks for)

    rows = ["| program | version | what is done | exact lock | inject lock |", "|---|---|---|---|---|"]
    with folders() as (model, exact, inject, written):
        for number, program in enumerate(PROGRAMS):
            if not program.available:
                rows.append(f"| {program.name} | not installed | {program.does} | | |")
                continue
            cells = [_cell(program, model, one, written / f"{number}-{one.name}") for one in (exact, inject)]
            version = importlib.metadata.version(program.package).partition("+")[0]
            rows.append(f"| {program.name} | {version} | {program.does} | {cells[0]} | {cells[1]} |")
            print(rows[-1], flush=True)
    page = Path(sys.argv[1])
    before, _, rest = page.read_text().partition(START)
    page.write_text(before + START + "\n".join(rows) + "\n" + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
