"""What the ladder's plan costs on a model of the shape of Llama-3.2-1B: random weights, two threads.

The plan measures every channel on a calibration text and takes one backward pass. Reading and writing the checkpoint is
what `exact` also does, whose plan costs nothing; so the two are timed in one run, each in a process of its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

THREADS = 2
SHAPE = {
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 16,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "tie_word_embeddings": True,
}
"""Of Llama-3.2-1B: 1.24e9 parameters."""
CHILD = """
import json, resource, sys, time
import torch
torch.set_num_threads(int(sys.argv[4]))
from specdef import lock
started = time.perf_counter()
lock(sys.argv[1], sys.argv[2], preset=sys.argv[3])
print(json.dumps([time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024]))
"""


def build(folder: Path) -> int:
    """Write the model in bfloat16 with the bundled model's tokenizer; say how many parameters it has."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from specdef.models.bundled import BUNDLED
    from specdef.models.sources import find_model

    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(find_model(BUNDLED)).save_pretrained(folder)
    return sum(p.numel() for p in model.parameters())


def main() -> None:
    """Build, lock both ways, print."""
    with tempfile.TemporaryDirectory() as work:
        source = Path(work) / "model"
        print(f"{build(source) / 1e9:.2f}e9 parameters, bfloat16, {THREADS} threads")
        found = {}
        for preset in ("exact", "ladder"):
            out = Path(work) / preset
            command = [sys.executable, "-c", CHILD, str(source), str(out), preset, str(THREADS)]
            output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            seconds, peak = json.loads(output.splitlines()[-1])
            found[preset] = seconds
            shutil.rmtree(out)
            print(f"{preset}: {seconds:.0f} s, peak memory {peak / 2**30:.1f} GiB")
        print(f"the ladder takes {found['ladder'] / found['exact']:.1f} times the exact lock")


if __name__ == "__main__":
    main()
