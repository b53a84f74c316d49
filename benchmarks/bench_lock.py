"""Locking a synthetic 4 GB, 4-shard bfloat16 Llama-shaped checkpoint against `cp -r` of it, in one run.

Every pair of every layer, multiplier 2^20. Copies and locks alternate, the disk is synced before each, and medians are
compared, because a shared disk is the noisiest part. Digests are timed alone as well.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from specdef.checkpoint.header import write_header

HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, VOCAB = 2048, 8192, 16, 4, 32000
CHILD = """
import resource, sys, time
started = time.perf_counter()
from specdef import lock
if sys.argv[3] == "without":
    import specdef.checkpoint.writer as writer
    class NoDigest:
        def __init__(self, *data): pass
        def update(self, data): pass
        def hexdigest(self): return "0"
    writer.blake3 = NoDigest
report = lock(sys.argv[1], sys.argv[2], preset="exact")
print(time.perf_counter() - started, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, report.num_values)
"""


def layer_shapes(layer: int) -> dict[str, tuple[int, ...]]:
    """Tensors of one decoder layer."""
    stem, kv = f"model.layers.{layer}.", HIDDEN // HEADS * KV_HEADS
    return {
        stem + "self_attn.q_proj.weight": (HIDDEN, HIDDEN),
        stem + "self_attn.k_proj.weight": (kv, HIDDEN),
        stem + "self_attn.v_proj.weight": (kv, HIDDEN),
        stem + "self_attn.o_proj.weight": (HIDDEN, HIDDEN),
        stem + "mlp.gate_proj.weight": (INTERMEDIATE, HIDDEN),
        stem + "mlp.up_proj.weight": (INTERMEDIATE, HIDDEN),
        stem + "mlp.down_proj.weight": (HIDDEN, INTERMEDIATE),
        stem + "input_layernorm.weight": (HIDDEN,),
        stem + "post_attention_layernorm.weight": (HIDDEN,),
    }


def build(folder: Path, gigabytes: float, num_shards: int = 4) -> None:
    """Write the synthetic checkpoint."""
    per_layer = sum(int(np.prod(shape)) for shape in layer_shapes(0).values()) * 2
    num_layers = max(num_shards, round(gigabytes * 1e9 / per_layer))
    folder.mkdir()
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "num_hidden_layers": num_layers,
        "vocab_size": VOCAB,
        "tie_word_embeddings": False,
    }
    (folder / "config.json").write_text(json.dumps(config))
    groups: list[dict[str, tuple[int, ...]]] = [{} for _ in range(num_shards)]
    for layer in range(num_layers):
        groups[layer * num_shards // num_layers] |= layer_shapes(layer)
    groups[0] = {"model.embed_tokens.weight": (VOCAB, HIDDEN)} | groups[0]
    groups[-1] |= {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}
    # Plausible weights: random sign and mantissa, exponents around 2^-6.
    rng = np.random.default_rng(0)
    noise = (rng.integers(0, 2**16, 1 << 24, dtype=np.uint16) & 0x83FF) | 0x3C00
    weight_map = {}
    for number, group in enumerate(groups, 1):
        name = f"model-{number:05d}-of-{num_shards:05d}.safetensors"
        with (folder / name).open("wb") as file:
            file.write(write_header({tensor: ("BF16", shape) for tensor, shape in group.items()}, {"format": "pt"}))
            for tensor, shape in group.items():
                size = int(np.prod(shape))
                for start in range(0, size, len(noise)):
                    file.write(noise[: min(len(noise), size - start)].tobytes())
                weight_map[tensor] = name
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def timed(command: list[str]) -> tuple[float, str]:
    """Seconds a command takes after the disk has settled, and its output."""
    subprocess.run(["sync"], check=True)
    started = time.perf_counter()
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.perf_counter() - started, result.stdout


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to work (default: the system's temporary place)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as work:
        source = Path(work) / "model"
        build(source, options.gigabytes)
        shards = sorted(source.glob("*.safetensors"))
        size, largest = sum(s.stat().st_size for s in shards), max(s.stat().st_size for s in shards)
        copies, locks, bare, peaks = [], [], [], []
        for _ in range(options.rounds):
            copy, locked = Path(work) / "copy", Path(work) / "locked"
            copies.append(timed(["cp", "-r", str(source), str(copy)])[0])
            shutil.rmtree(copy)
            for digests, seconds in (("with", locks), ("without", bare)):
                taken, output = timed([sys.executable, "-c", CHILD, str(source), str(locked), digests])
                seconds.append(taken)
                peaks.append(float(output.split()[1]))
                shutil.rmtree(locked)
                locked.with_name("locked.specdef-key").unlink()
        copy_s, lock_s, bare_s = map(statistics.median, (copies, locks, bare))

        def row(name: str, median: float, rounds: list[float]) -> None:
            listed = ", ".join(f"{s:.2f}" for s in rounds)
            print(f"{name:28s}{median:7.2f} s   {median / copy_s:5.2f} x cp   (rounds: {listed})")

        print(f"Checkpoint: {size / 1e9:.2f} GB in {len(shards)} shards, largest {largest / 1e9:.2f} GB")
        row("cp -r", copy_s, copies)
        row("specdef lock", lock_s, locks)
        row("the same without digests", bare_s, bare)
        print(f"peak memory {max(peaks) / 2**30:.2f} GiB (goal: at most 1 GiB + {largest / 2**30:.2f} GiB)")
        print("goal: at most 2.0 x cp; the digests are three BLAKE3 passes: source file, locked file, locked tensors")


if __name__ == "__main__":
    main()
