"""Fixtures: shapes are enforced by beartype, every test gets its own cache folder and no network."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["OMP_NUM_THREADS"] = "1"  # of every process a test starts: threads that share a core wait for each other
os.environ.pop("COLUMNS", None)  # pytest-xdist sets it, and a console made then keeps that width

import jaxtyping
import pico
import pico_text
import pytest
import torch
from jaxtyping import install_import_hook

torch.set_num_threads(1)  # tiny models: threads only wait for each other


def writes_shapes() -> list[str]:
    """Every module of the library that writes shapes; a new one is enforced without being named here."""
    spec = importlib.util.find_spec("specdef")
    assert spec is not None
    assert spec.origin is not None
    source = Path(spec.origin).parent
    found = [path for path in source.rglob("*.py") if "from jaxtyping import" in path.read_text()]
    return [".".join(path.relative_to(source.parent).with_suffix("").parts) for path in sorted(found)]


HEAVY = (
    "certify/test_text_classifier.py",
    "certify/test_study_run.py",
    "core/test_kills.py",
    "cli/test_certify.py",
    "analysis/curvature/test_curvature.py",
    "plugin/test_plugin.py",
    "certify/test_sweep.py",
    "locks/test_crash.py",
    "attacks/test_undoing.py",
    "attacks/test_plugin.py",
    "cli/test_main.py",
    "locks/kinds/fold/test_check.py",
    "defences/test_staged.py",
    "defences/test_defend.py",
)
"""Files that take longest, first: a worker that gets one of them last works on while the others have nothing to do."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    places = {Path(__file__).parent / name: number for number, name in enumerate(HEAVY)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


def pytest_collection_finish() -> None:
    """What is imported by now stays: looking through it for garbage took half a second, at each of thousand times."""
    gc.collect()
    gc.freeze()


install_import_hook(writes_shapes(), "shape_check.check")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECDEF_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def any_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arguments reach the library unchecked, as they do outside of tests."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama folder; read only."""
    return pico.build("llama", tmp_path_factory.mktemp("llama") / "model")


@pytest.fixture(scope="session")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny pipeline of diffusers; read only."""
    import pico_diffusion

    return pico_diffusion.build(tmp_path_factory.mktemp("pipeline") / "model")


@pytest.fixture(scope="session")
def toy_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama folder with a tokenizer of single characters; read only."""
    return pico_text.write_model(tmp_path_factory.mktemp("toy") / "model")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGINT raises KeyboardInterrupt, also where the tests were started with it ignored (a shell's background job)."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
