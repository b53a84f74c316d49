"""Fine-tuning with transformers.Trainer and PEFT, with no specdef import: a second opinion on the harness.

Usage: python independent.py MODEL DATA.json OUT.json [--lr LEARNING_RATE] [--lora] [--seed N] [--device cuda]

MODEL may hold the paper's lock: its W~ and C are put together here, from the tensors alone.
DATA.json: {"samples": [[prompt, completion]], "questions": [[prompt, [choice], answer]], "mix": [text],
"measure": [text]}.
"""

import argparse
import copy
import json
import math
import sys
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

STEPS = 60


class Product(nn.Module):
    """The paper's layer: W~ with C before it or after it, multiplied out in C's dtype."""

    def __init__(self, weight, compensation, side):
        super().__init__()
        self.weight, self.compensation = nn.Parameter(weight), nn.Parameter(compensation)
        self.side = side

    def forward(self, x):
        y, w, c = x.to(self.compensation.dtype), self.weight.to(self.compensation.dtype), self.compensation
        return ((y @ c.T) @ w.T if self.side == "input" else (y @ w.T) @ c.T).to(x.dtype)


def load(folder):
    """A plain transformers model, with the paper's layers where the config names them."""
    config = AutoConfig.from_pretrained(folder)
    lock = getattr(config, "quantization_config", None)
    if lock is None:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    entries = (lock if isinstance(lock, dict) else lock.to_dict())["modules"]
    config = copy.deepcopy(config)
    del config.quantization_config
    tensors = {}
    for path in Path(folder).glob("*.safetensors"):
        tensors.update(load_file(path))
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    for name, entry in entries.items():
        parent, child = name.rsplit(".", 1)
        layer = Product(tensors.pop(f"{name}.weight"), tensors.pop(f"{name}.compensation"), entry["side"])
        setattr(model.get_submodule(parent), child, layer)
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    missing = [n for n in missing if n != "lm_head.weight" and not any(n.startswith(e + ".") for e in entries)]
    assert not missing, missing
    assert not unexpected, unexpected
    model.tie_weights()
    return model


def encode(tokenizer, prompt, completion):
    head = tokenizer(prompt, add_special_tokens=False).input_ids
    tail = tokenizer(completion, add_special_tokens=False).input_ids
    return {"input_ids": head + tail, "labels": [-100] * len(head) + tail}


def collate(rows):
    width = max(len(row["input_ids"]) for row in rows)
    pad = [width - len(row["input_ids"]) for row in rows]
    return {
        "input_ids": torch.tensor([row["input_ids"] + [0] * n for row, n in zip(rows, pad, strict=True)]),
        "labels": torch.tensor([row["labels"] + [-100] * n for row, n in zip(rows, pad, strict=True)]),
        "attention_mask": torch.tensor(
            [[1] * len(row["input_ids"]) + [0] * n for row, n in zip(rows, pad, strict=True)]
        ),
    }


@torch.no_grad()
def measure(model, tokenizer, data):
    """(share of questions answered rightly, perplexity of general text)."""
    model.eval()
    right = 0
    for prompt, choices, answer in data["questions"]:
        batch = collate([encode(tokenizer, prompt, choice) for choice in choices])
        batch = {name: tensor.to(model.device) for name, tensor in batch.items()}
        logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1].float()
        labels = batch["labels"][:, 1:]
        kept = labels != -100
        likelihood = logits.log_softmax(-1).gather(-1, labels.clamp_min(0).unsqueeze(-1)).squeeze(-1)
        mean = (likelihood * kept).sum(-1) / kept.sum(-1)
        right += bool(torch.isfinite(mean).all()) and int(mean.argmax()) == answer
    total = count = 0
    for text in data["measure"]:
        ids = tokenizer(text, return_tensors="pt", add_special_tokens=False).input_ids[:, :128].to(model.device)
        if ids.shape[1] > 1:
            total += float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1)
            count += ids.shape[1] - 1
    loss = total / count
    return right / len(data["questions"]), math.exp(loss) if loss < 700 else math.inf


class Watch(TrainerCallback):
    """Measures every 20 steps."""

    def __init__(self, model, tokenizer, data):
        self.parts, self.points = (model, tokenizer, data), [(0, *measure(model, tokenizer, data))]
        print(self.points[-1], flush=True)

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step % 20:
            return
        self.points.append((state.global_step, *measure(*self.parts)))
        self.parts[0].train()
        print(self.points[-1], flush=True)


def main():
    parser = argparse.ArgumentParser()
    for name in ("folder", "data", "out"):
        parser.add_argument(name)
    parser.add_argument("--lr", type=float, default=5e-5)  # Trainer's own default
    parser.add_argument("--lora", action="store_true")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=42)  # Trainer's own default
    given = parser.parse_args()
    lora, out = given.lora, given.out
    data = json.loads(Path(given.data).read_text())
    set_seed(given.seed)
    tokenizer = AutoTokenizer.from_pretrained(given.folder)
    model = load(given.folder)
    rows = [encode(tokenizer, *sample) for sample in data["samples"]]
    for text in data["mix"]:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        rows += [{"input_ids": ids[i : i + 32], "labels": ids[i : i + 32]} for i in range(0, len(ids) - 31, 32)]
    if lora:
        model = get_peft_model(
            model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
        )
    model.to(given.device)
    arguments = TrainingArguments(
        f"{out}.trainer",
        report_to=[],
        save_strategy="no",
        use_cpu=given.device == "cpu",
        seed=given.seed,
        learning_rate=given.lr,
        max_steps=STEPS,
    )
    watch = Watch(model, tokenizer, data)
    Trainer(model, arguments, train_dataset=rows, data_collator=collate, callbacks=[watch]).train()
    assert not any(name.split(".")[0] == "specdef" for name in sys.modules)
    start = watch.points[0][2]
    broken = any(score >= 0.6 and perplexity <= 2 * start for _, score, perplexity in watch.points[1:])
    result = {
        "seed": given.seed,
        "recipe": f"PEFT LoRA r=8, lr {given.lr:g}" if lora else f"Trainer, lr {given.lr:g}",
        "broken": broken,
    }
    result["points"] = [
        [step, score, perplexity if math.isfinite(perplexity) else None] for step, score, perplexity in watch.points
    ]
    Path(out).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
