"""The fold lock on SmolLM2-135M, float32 and bfloat16: same bits, same text, same speed, same files after unlocking.

The comparison runs in a process that never imports specdef: plain transformers loads both folders.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from specdef import fetch, lock, unlock

PROMPTS = Path(__file__).with_name("prompts.txt")
CHILD = """
import json, statistics, sys, time
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
original, locked, prompts = sys.argv[1:]
lines = open(prompts).read().splitlines()
tokenizer = AutoTokenizer.from_pretrained(original)
models = [AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval() for folder in (original, locked)]
same_logits = same_text = numbers = 0
with torch.inference_mode():
    for line in lines:
        ids = tokenizer(line, return_tensors="pt").input_ids
        a, b = (model(ids).logits for model in models)
        same_logits += torch.equal(a, b)
        numbers += a.numel()
    tokenizer.padding_side = "left"
    for first in range(0, len(lines), 16):
        batch = tokenizer(lines[first : first + 16], return_tensors="pt", padding=True)
        x, y = (model.generate(**batch, max_new_tokens=16, do_sample=False, pad_token_id=2) for model in models)
        same_text += int((x == y).all(dim=1).sum())
    ratios = []
    ids = tokenizer(lines[0], return_tensors="pt").input_ids
    for turn in range(6):  # the first warms up; A B B A within a turn, so that a drifting machine slows both
        taken = [0.0, 0.0]
        for which in (0, 1, 1, 0, 0, 1, 1, 0):
            started = time.perf_counter()
            models[which].generate(ids, max_new_tokens=16, min_new_tokens=16, do_sample=False, pad_token_id=2)
            taken[which] += time.perf_counter() - started
        ratios.append(taken[0] / taken[1])
assert not any(name.split(".")[0] == "specdef" for name in sys.modules)
print(json.dumps(dict(prompts=len(lines), same_logits=same_logits, same_text=same_text, numbers=numbers,
                      ratios=[round(ratio, 3) for ratio in ratios[1:]], speed_ratio=statistics.median(ratios[1:]))))
"""


def hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of every file."""
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def main() -> None:
    """Fetch, lock, compare, unlock, print."""
    columns = ("identical logits", "identical text", "numbers compared")
    print(f"{'dtype':10s}" + "".join(f"{name:>18s}" for name in columns) + "  speed  unlocked")
    for dtype in ("fp32", "bf16"):
        with tempfile.TemporaryDirectory() as work:
            original, locked, back = (Path(work) / name for name in ("original", "locked", "back"))
            fetch("smollm2-135m", original, dtype=dtype)
            report = lock(original, locked, preset="exact", multiplier="2^20")
            command = [sys.executable, "-c", CHILD, str(original), str(locked), str(PROMPTS)]
            result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            assert report.key is not None
            unlock(locked, back, report.key)
            restored = "SHA-256 equal" if hashes(back) == hashes(original) else "DIFFERENT"
        n = result["prompts"]
        logits, text = f"{result['same_logits']}/{n}", f"{result['same_text']}/{n}"
        speed = f"{result['speed_ratio']:6.3f}  {restored}  speed rounds {result['ratios']}"
        print(f"{dtype:10s}{logits:>18s}{text:>18s}{result['numbers']:>18,} {speed}")


if __name__ == "__main__":
    main()
