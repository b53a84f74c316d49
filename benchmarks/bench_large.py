"""Lock, verify, inspect and unlock a synthetic 16 GB, 8-shard bfloat16 checkpoint, each against `cp -r` of it.

Nothing of it is in the page cache when a command starts: the caches are dropped where the machine allows it, else the
kernel is asked to forget these files. Every command runs in a process of its own, whose peak memory is told. `verify`
reads digests and the lock in the weights; the model is not run. `inspect` reads channel scales, without spectra.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from benchmarks.bench_lock import build, timed

GOAL, MOST = 1.5, 1.0
"""Times `cp -r`, and GiB at peak."""
CHILD = """
import resource, sys
import specdef
folder, other = sys.argv[2:4]
if sys.argv[1] == "lock":
    specdef.lock(folder, other, preset="exact")
elif sys.argv[1] == "unlock":
    specdef.unlock(folder, other)
elif sys.argv[1] == "verify":
    assert specdef.verify(folder).passed
else:
    assert specdef.inspect_model(folder, spectra=False).verdict.locked
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def forget(folders: Iterable[Path]) -> None:
    """Have the kernel drop what it keeps of the folders' files."""
    subprocess.run(["sync"], check=True)
    try:
        Path("/proc/sys/vm/drop_caches").write_text("1\n", encoding="ascii")
    except OSError:
        for file in (file for folder in folders for file in folder.glob("*") if file.is_file()):
            descriptor = os.open(file, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


def main() -> None:
    """Build, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=16.0)
    parser.add_argument("--shards", type=int, default=8)
    parser.add_argument(
        "--folder", type=Path, default=None, help="where to work (default: the system's temporary place)"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as work:
        source, copy, locked, back = (Path(work) / name for name in ("model", "copy", "locked", "back"))
        build(source, options.gigabytes, options.shards)
        shards = sorted(source.glob("*.safetensors"))
        print(f"Checkpoint: {sum(shard.stat().st_size for shard in shards) / 1e9:.2f} GB in {len(shards)} shards")
        forget([source])
        base, _ = timed(["cp", "-r", str(source), str(copy)])
        shutil.rmtree(copy)
        print(f"{'cp -r':10s}{base:8.1f} s")
        for verb, folder, other in (
            ("lock", source, locked),
            ("verify", locked, locked),
            ("inspect", locked, locked),
            ("unlock", locked, back),
        ):
            forget([source, locked])
            seconds, output = timed([sys.executable, "-c", CHILD, verb, str(folder), str(other)])
            peak = float(output) / 2**30
            print(
                f"{verb:10s}{seconds:8.1f} s  {seconds / base:5.2f} x cp (goal: at most {GOAL})  {peak:.2f} GiB at "
                f"peak (goal: at most {MOST:g})",
                flush=True,
            )
        same = all(filecmp.cmp(back / shard.name, shard, shallow=False) for shard in shards)
        print(f"unlocked files equal the original's: {same}")


if __name__ == "__main__":
    main()
