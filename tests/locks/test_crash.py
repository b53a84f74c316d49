"""Killed at any instant, out of disk, no permission: no half-written folder is ever visible under its final name."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType

import numpy as np
import pytest

from specdef import lock, verify
from specdef.architectures.resolve import resolve
from specdef.checkpoint.header import write_header
from specdef.checkpoint.reader import open_checkpoint
from specdef.core import atomic, folders, leftovers
from specdef.core.atomic import remove_unfinished
from specdef.errors import CheckpointError
from specdef.locks import lock as publish
from specdef.locks.key import Key
from specdef.locks.kinds.fold import KIND

LOCK = "import sys; from specdef import lock; lock(sys.argv[1], sys.argv[2])"
LIMITED = """
import resource, signal, sys
from specdef.cli.main import main
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
sys.argv = ["specdef", "lock", *sys.argv[2:]]
main()
"""


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint big enough (60 MB) that a kill lands while shards are being written."""
    folder = tmp_path_factory.mktemp("larger") / "model"
    folder.mkdir()
    shapes = {
        "embed_tokens.weight": (15000, 1000),
        "layers.0.self_attn.q_proj.weight": (64, 1000),
        "layers.0.self_attn.k_proj.weight": (64, 1000),
        "layers.0.self_attn.v_proj.weight": (64, 1000),
        "layers.0.self_attn.o_proj.weight": (1000, 64),
        "layers.0.mlp.gate_proj.weight": (100, 1000),
        "layers.0.mlp.up_proj.weight": (100, 1000),
        "layers.0.mlp.down_proj.weight": (1000, 100),
        "layers.0.input_layernorm.weight": (1000,),
        "layers.0.post_attention_layernorm.weight": (1000,),
    }
    rng = np.random.default_rng(0)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(write_header({"model." + name: ("F32", shape) for name, shape in shapes.items()}, None))
        for shape in shapes.values():
            file.write(rng.standard_normal(shape).astype(np.float32).tobytes())
    (folder / "config.json").write_text(
        '{"model_type": "llama", "hidden_size": 1000, "num_hidden_layers": 1, "num_attention_heads": 1,'
        ' "head_dim": 64, "intermediate_size": 100, "tie_word_embeddings": true}'
    )
    return folder


def test_kill_9_at_many_instants_leaves_nothing_or_everything(larger: Path, tmp_path: Path) -> None:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-c", LOCK, larger, tmp_path / "whole"], check=True)
    whole = time.perf_counter() - started
    seen = set()
    for number in range(6):
        out = tmp_path / f"out{number}"
        child = subprocess.Popen([sys.executable, "-c", LOCK, larger, out])
        time.sleep(number * whole / 5)
        child.send_signal(signal.SIGKILL)
        child.wait()
        seen.add(out.exists())
        if out.exists():
            assert verify(out).passed
            assert out.with_name(f"{out.name}.specdef-key").exists()
        else:
            out.with_name(f"{out.name}.specdef-key").unlink(missing_ok=True)
            lock(larger, out, preset="exact")
            assert verify(out).passed
    assert not list(tmp_path.glob(".*.specdef-*")), "what a killed run left is removed by the next"
    assert False in seen, "the first is killed at once"


@pytest.mark.parametrize("missing", [60_000_000, 1])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(larger: Path, tmp_path: Path, missing: int) -> None:
    """A last block that fits but for a byte is no error to write(2), which then says how much it wrote."""
    limit = (larger / "model.safetensors").stat().st_size - missing
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), larger, tmp_path / "out"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert "failed (File too large); nothing was left behind" in result.stderr
    assert not list(tmp_path.iterdir())


def test_no_space_left(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("specdef.locks.locked_folder.write_shards", full)
    with pytest.raises(CheckpointError, match=r"failed \(No space left on device\); nothing was left behind"):
        lock(llama, tmp_path / "out", preset="exact")
    assert not list(tmp_path.iterdir())


def test_a_read_only_target(llama: Path, tmp_path: Path) -> None:
    """/sys, where not even root may create a folder."""
    with pytest.raises(CheckpointError, match=r"Writing /sys/out failed .*; nothing was left behind"):
        lock(llama, Path("/sys/out"), preset="exact", key=tmp_path / "key")
    assert not list(tmp_path.iterdir())


def test_ctrl_c_cleans_up(larger: Path, tmp_path: Path) -> None:
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from specdef.cli.main import main; main()",
            "lock",
            larger,
            tmp_path / "out",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    while child.poll() is None and not list(tmp_path.glob(".out.specdef-*")):
        time.sleep(0.005)
    child.send_signal(signal.SIGINT)
    _, message = child.communicate()
    assert child.returncode in (130, 0, -signal.SIGINT), "interrupted, finished, or finished and on its way out"
    if child.returncode == 130:
        assert "Interrupted; nothing half-written was left behind" in message
    assert _nothing_or_everything(tmp_path)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_ctrl_c_between_any_two_instructions(
    every: int, llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGINT at instructions of the code that makes, names and removes files, not when a sleep happens to end."""
    instruction, interrupted = 0, 0

    def watch(frame: FrameType, event: str, _: object) -> Callable[..., object] | None:
        nonlocal instruction
        if not _makes_files(frame.f_code):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            instruction += 1
            if instruction == at:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return watch

    checkpoint = open_checkpoint(llama)
    prepared = KIND.prepare(checkpoint, resolve(checkpoint.config, checkpoint.shapes), KIND.options({}), tmp_path)
    monkeypatch.setattr("specdef.locks.locked_folder.write_locked", lambda *_: Key("fold", {}, {}))
    for at in itertools.count(1, every):
        instruction = 0
        folder = tmp_path / str(at)
        folder.mkdir()
        sys.settrace(watch)
        try:
            publish._write(checkpoint, folder / "out", folder / "out.specdef-key", KIND, prepared, None)
        except KeyboardInterrupt:
            interrupted += 1
        finally:
            sys.settrace(None)
        remove_unfinished()
        assert _nothing_or_everything(folder), f"after instruction {at}"
        if instruction < at:
            break
    assert interrupted > 300 / every


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_while_a_writing_thread_starts(llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool does not know that thread yet; it must have ended all the same before the folder is removed."""
    start = threading.Thread.start

    def start_and_interrupt(thread: threading.Thread) -> None:
        start(thread)
        signal.raise_signal(signal.SIGINT)

    def slow(*_: object) -> None:
        time.sleep(0.3)

    monkeypatch.setattr("specdef.checkpoint.writer._write_shard", slow)
    monkeypatch.setattr(threading.Thread, "start", start_and_interrupt)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        lock(llama, tmp_path / "out", preset="exact")
    assert threading.active_count() == before
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_stops_at_the_next_block(larger: Path, tmp_path: Path) -> None:
    """Of a hundred shards, not the ninety-nine that are waiting are written first."""
    read: list[int] = []

    def interrupt(count: int) -> None:
        read.append(count)
        if len(read) == 1:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.3)

    with pytest.raises(KeyboardInterrupt):
        lock(larger, tmp_path / "out", preset="exact", progress=interrupt)
    assert len(read) == 1
    assert not list(tmp_path.iterdir())


def _makes_files(code: CodeType) -> bool:
    files = {atomic.__file__, folders.__file__, contextlib.__file__}
    return code.co_filename in files or code in {leftovers.remove.__code__, publish._write.__code__}


def _nothing_or_everything(folder: Path) -> bool:
    return {path.name for path in folder.iterdir()} in (set(), {"out", "out.specdef-key"})
