"""What `verify` says of every kind of difference: files, weights, originals, functions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from specdef import lock, verify
from specdef.checkpoint.reader import open_checkpoint
from specdef.errors import CheckpointError, SpecdefError
from specdef.locks.base import LOCKS, Check
from specdef.locks.manifest import MANIFEST, read_manifest
from specdef.locks.verify import VerifyReport, integrity
from specdef.models.equivalence import Equivalence
from specdef.models.loading import load
from specdef.runtimes.compare import InRuntime

WEIGHTS = "model.safetensors"
NORM = "model.norm.weight"
INTACT = "the weights are intact: all 21 tensors match their BLAKE3 digests"


@pytest.fixture(scope="module")
def place(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A locked folder with some prose in it."""
    place = tmp_path_factory.mktemp("verify")
    shutil.copytree(llama, place / "model")
    (place / "model" / "NOTES.md").write_text("notes")
    (place / "model" / "tokenizer.json").write_text("{}")
    lock(place / "model", place / "locked", preset="exact", pairs=["vo"])
    return place


@pytest.fixture
def locked(place: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(place / "locked", tmp_path / "locked"))


def edit_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


@pytest.mark.parametrize(
    ("passed", "words", "whole", "complete"),
    [
        ([True, True], ["holds: a", "holds: b"], True, True),
        ([True, False], ["holds: a", "FAILS: b"], False, True),
        ([None, True], ["cannot tell: a", "holds: b"], True, False),
        ([None, False], ["cannot tell: a", "FAILS: b"], False, False),
    ],
)
def test_a_report_is_its_checks(passed: list[bool | None], words: list[str], whole: bool, complete: bool) -> None:
    checks = tuple(Check(f"check {name}", value, name) for name, value in zip("ab", passed, strict=True))
    report = VerifyReport(checks, None)
    assert (report.passed, report.complete) == (whole, complete)
    assert report.summary() == {"passed": "yes" if whole else "no", "check a": words[0], "check b": words[1]}
    assert report.records() == [
        {"name": f"check {name}", "passed": value, "detail": name} for name, value in zip("ab", passed, strict=True)
    ]


def _write(*names: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name in names:
            (folder / name).write_text("other")

    return write


def _remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _spoil(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors[NORM].add_(1))


def _add(folder: Path) -> None:
    edit_weights(folder, lambda tensors: tensors.update(more=torch.ones(1)))


@pytest.mark.parametrize(
    ("change", "passed", "detail"),
    [
        (lambda folder: None, True, f"{INTACT}, and 6 of 6 files theirs"),
        (
            _write("NOTES.md"),
            True,
            f"{INTACT}, and 5 of 6 files theirs; prose differs, which changes nothing that runs: 1 changed (NOTES.md)",
        ),
        (
            _write("PLAN.md", "IDEA.md"),
            True,
            f"{INTACT}, and 6 of 6 files theirs; prose differs, which changes nothing that runs: "
            "2 added (IDEA.md, PLAN.md)",
        ),
        (
            _remove("NOTES.md"),
            True,
            f"{INTACT}, and 5 of 6 files theirs; prose differs, which changes nothing that runs: 1 missing (NOTES.md)",
        ),
        (_write("tokenizer.json"), False, f"not as published: 1 changed (tokenizer.json); {INTACT}"),
        (_remove("tokenizer.json"), False, f"not as published: 1 missing (tokenizer.json); {INTACT}"),
        (
            _write("d.py", "c.py", "b.py", "a.py"),
            False,
            f"not as published: 4 unknown (a.py, b.py, c.py, ...); {INTACT}",
        ),
        (_write("c.py", "b.py", "a.py"), False, f"not as published: 3 unknown (a.py, b.py, c.py); {INTACT}"),
        (_spoil, False, f"not as published: 2 changed ({WEIGHTS}, {NORM})"),
        (_add, False, f"not as published: 2 changed ({WEIGHTS}, more)"),
    ],
    ids=range(10),
)
def test_every_difference_of_a_file_is_named(
    change: Callable[[Path], None], passed: bool, detail: str, locked: Path
) -> None:
    change(locked)
    found = integrity(open_checkpoint(locked, publishing=False), read_manifest(locked))
    assert found == Check("integrity", passed, detail)


def test_stages_are_said_as_they_start(place: Path) -> None:
    said: list[str] = []
    report = verify(place / "locked", original=place / "model", progress=said.append)
    assert said == ["digests", "lock in the weights", "function, against the original"]
    assert [check.name for check in report.checks] == ["integrity", "lock", "function"]
    assert report.equivalence is not None
    assert report.equivalence.bit_identical
    vocabulary = json.loads((place / "model" / "config.json").read_text())["vocab_size"]
    assert report.equivalence.num_outputs == 16 * 48 * vocabulary, "sixteen sequences of 48 tokens"
    assert report.checks[1].detail == "channels equal the original's times 2^20 in 2/2 vo pairs"
    without = verify(str(place / "locked"))
    assert (len(without.checks), without.equivalence) == (2, None)


def test_runtimes_are_asked_about_the_folders_and_what_they_say_is_a_check(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, said = [], list[str]()

    def answer(*given: Any) -> list[InRuntime]:
        asked.append(given)
        given[-1]("running")
        return [InRuntime(named.name, format, "1.0", None, None, "refused") for named, (format,) in given[2]]

    monkeypatch.setattr("specdef.runtimes.compare.in_runtimes", answer)
    named = ["transformers-bf16", "transformers-f16"]
    for original in (place / "model", None):
        report = verify(place / "locked", original=original, runtimes=named, progress=said.append)
        assert [(check.name, check.passed, check.detail) for check in report.checks[-2:]] == [
            ("transformers-bf16 bf16", False, "refused"),
            ("transformers-f16 f16", False, "refused"),
        ]
        assert [one.runtime for one in report.runtimes] == named
        assert (said[-1], report.passed) == ("running", False)
    assert [given[:2] for given in asked] == [(place / "locked", place / "model"), (place / "locked", None)]
    assert [[runtime.name for runtime, _ in given[2]] for given in asked] == [named, named]
    with pytest.raises(SpecdefError, match=r"^`runtime` must "):
        verify(place / "locked", runtimes=["nothing"])


@pytest.mark.parametrize("argument", ["locked", "original"])
def test_a_model_in_memory_runs_in_no_other_program(argument: str, place: Path) -> None:
    folders: dict[str, Any] = {"locked": place / "locked", "original": place / "model"}
    folders[argument] = load(place / "model")
    with pytest.raises(SpecdefError, match=rf"^`{argument}` must be a folder with `runtimes`, which read files. Save"):
        verify(folders["locked"], original=folders["original"], runtimes=["transformers-bf16"])


def test_an_original_with_other_weights_beside_it_is_read_as_it_is(place: Path, tmp_path: Path) -> None:
    """Only what is published must hold no other weights."""
    original = Path(shutil.copytree(place / "model", tmp_path / "model"))
    (original / "pytorch_model.onnx").write_bytes(b"x")
    assert verify(place / "locked", original=original).passed


def _reshape(tensors: dict[str, torch.Tensor]) -> None:
    tensors[NORM] = torch.ones(33)


def _leave_out(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[NORM]


def _narrow(tensors: dict[str, torch.Tensor]) -> None:
    tensors[NORM] = tensors[NORM].bfloat16()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_reshape, f"{{0}} differs in tensor {NORM}. Give that model."),
        (_leave_out, f"{{0}} differs in tensor {NORM}. Give that model."),
        (_narrow, f"tensor {NORM} is BF16 in {{0}} and F32 in the locked model. Give that model."),
    ],
)
def test_another_model_is_no_original(
    change: Callable[[dict[str, torch.Tensor]], None], message: str, place: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(place / "model", tmp_path / "other"))
    edit_weights(other, change)
    with pytest.raises(CheckpointError) as caught:
        verify(place / "locked", original=other)
    assert str(caught.value) == f"`original` must be the model that was locked; {message.format(other)}"


def test_a_locked_model_is_no_original(place: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        verify(place / "locked", original=place / "locked")
    assert str(caught.value) == (
        f"`original` must be the unlocked model; {place / 'locked'} is locked itself. Give the original."
    )


def test_a_folder_without_weights_is_no_original(place: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(place / "model", tmp_path / "other"))
    (other / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match=r"`original` must hold model\.safetensors or"):
        verify(place / "locked", original=other)


def test_an_original_that_is_not_there_is_refused_by_its_own_name(place: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecdefError, match=r"^`original` must"):
        verify(place / "locked", original=tmp_path / "nothing")


SAME = Equivalence(True, 0.0, 0.0, None, 12345, "float32")
NEAR = Equivalence(False, 0.25, 9e-7, None, 12345, "float32")
FAR = Equivalence(False, 0.25, 1.1e-6, None, 12345, "float32")
NOISY = Equivalence(False, 0.25, 2.9e-3, 1.5e-3, 12345, "bfloat16")
NEAR_SAID = "KL 9e-07 (at most 1e-06), largest error 0.25, in float32"
FAR_SAID = "KL 1.1e-06 (at most 1e-06), largest error 0.25, in float32"
NOISY_SAID = "KL 0.0029 (at most 0.003, bfloat16's own noise 0.0015), largest error 0.25, in bfloat16"


@pytest.mark.parametrize(
    ("found", "exact", "passed", "detail"),
    [
        (SAME, True, True, "12,345 outputs in float32 are identical to the bit"),
        (NEAR, True, False, "12,345 outputs in float32 are different: largest error 0.25, KL 9e-07"),
        (NEAR, False, True, NEAR_SAID),
        (FAR, False, False, FAR_SAID),
        (NOISY, False, True, NOISY_SAID),
    ],
)
def test_a_function_is_compared_as_closely_as_the_manifest_claims(
    found: Equivalence, exact: bool, passed: bool, detail: str
) -> None:
    kind = LOCKS.get("fold")
    assert kind.function(found, {"bit_exact": exact}) == Check("function", passed, detail)


@pytest.fixture(scope="module")
def injected(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("injected") / "locked"
    lock(llama, folder, preset="paper", rank=4, num_matrices=2, multiplier="1e3")
    return folder


def _claim(**strength: Any) -> Callable[[Path], None]:
    def claim(folder: Path) -> None:
        entries = json.loads((folder / MANIFEST).read_text())
        entries["strength"] |= strength
        (folder / MANIFEST).write_text(json.dumps(entries))

    return claim


def _without_compensation(folder: Path) -> None:
    def drop(tensors: dict[str, torch.Tensor]) -> None:
        for name in [name for name in tensors if name.endswith(".compensation")]:
            del tensors[name]

    edit_weights(folder, drop)


def _lists(modules: object) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"]["modules"] = modules
        (folder / "config.json").write_text(json.dumps(config))

    return write


@pytest.mark.parametrize(
    ("change", "passed", "detail"),
    [
        (lambda folder: None, True, "multipliers recomputed from 2 matrices: 1000 to 1000, claimed 1000"),
        (_claim(multiplier="1040"), True, "multipliers recomputed from 2 matrices: 1000 to 1000, claimed 1040"),
        (_claim(multiplier="960"), True, "multipliers recomputed from 2 matrices: 1000 to 1000, claimed 960"),
        (_claim(multiplier="1060"), False, "multipliers recomputed from 2 matrices: 1000 to 1000, claimed 1060"),
        (_claim(multiplier="940"), False, "multipliers recomputed from 2 matrices: 1000 to 1000, claimed 940"),
        (_claim(matrices=["a"]), False, "2 locked matrices in config.json, 1 in the manifest"),
        (_claim(matrices=["a", "b"]), False, "2 locked matrices in config.json, 2 in the manifest"),
        (_claim(top_k=5), False, "layer {0} has rank 4, the manifest claims top-k 5"),
        (_without_compensation, False, "tensors of the locked layer {0} are missing"),
    ],
    ids=range(9),
)
def test_an_inject_lock_is_what_its_manifest_claims(
    change: Callable[[Path], None], passed: bool, detail: str, injected: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(injected, tmp_path / "locked"))
    first = next(iter(json.loads((folder / "config.json").read_text())["quantization_config"]["modules"]))
    change(folder)
    assert verify(folder).checks[1] == Check("lock", passed, detail.format(first))


@pytest.mark.parametrize("part", ["weight", "compensation"])
def test_an_inject_lock_of_another_dtype_than_it_says_is_refused(part: str, injected: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(injected, tmp_path / "locked"))
    name = f"{next(iter(json.loads((folder / 'config.json').read_text())['quantization_config']['modules']))}.{part}"
    edit_weights(folder, lambda tensors: tensors.update({name: tensors[name].half()}))
    with pytest.raises(CheckpointError, match=f"Tensor {name} of file {WEIGHTS} must be F32 of shape .*; it is F16 of"):
        verify(folder)


@pytest.mark.parametrize("modules", [None, [], {"a": 1}])
def test_a_config_that_lists_no_locked_layer_is_refused(modules: object, injected: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(injected, tmp_path / "locked"))
    _lists(modules)(folder)
    with pytest.raises(CheckpointError) as caught:
        verify(folder)
    assert str(caught.value) == (
        "`quantization_config.modules` in config.json must describe the locked layers. Restore it."
    )


def test_a_model_in_memory_has_its_lock_and_its_function_checked(place: Path) -> None:
    from specdef.models.loading import load

    said: list[str] = []
    model = load(place / "locked")
    report = verify(model, original=place / "model", progress=said.append)
    assert said == ["lock in the weights", "function, against the original"]
    assert [check.name for check in report.checks] == ["lock", "function"]
    assert report.checks[0].detail == "looks like fold, about 2^20: scaled channels in 2 vo pairs of 2 layers"
    assert report.checks[1].detail.endswith(" outputs in float32 are identical to the bit")
    plain = verify(load(place / "model"))
    assert plain.checks == (
        Check("lock", None, "no lock stands out in the weights; a weak one cannot be told without its key"),
    )


def saved_again(folder: Path, out: Path) -> Path:
    """As transformers writes a loaded model: the same weights, no file of ours."""
    from transformers import AutoModelForCausalLM

    AutoModelForCausalLM.from_pretrained(folder, dtype="auto").save_pretrained(out)
    assert not (out / MANIFEST).exists()
    return out


@pytest.mark.parametrize("options", [{"preset": "exact"}, {"preset": "paper", "components": ["gate_proj"], "rank": 3}])
def test_a_folder_saved_again_by_transformers_is_recognised_by_its_weights(
    options: dict[str, Any], llama: Path, tmp_path: Path
) -> None:
    lock(llama, tmp_path / "locked", **options)
    again = saved_again(tmp_path / "locked", tmp_path / "again")
    report = verify(again, original=llama)
    assert [(check.name, check.passed) for check in report.checks] == [
        ("integrity", None),
        ("lock", True),
        ("function", True),
    ]
    assert (report.passed, report.complete) == (True, False)
    assert "saving by another program" in report.checks[0].detail
    edit_weights(again, lambda tensors: tensors["model.layers.0.self_attn.q_proj.weight"].mul_(2))
    assert verify(again, original=llama).passed is False
    assert [check.name for check in verify(again).checks] == ["integrity", "lock"]


def test_a_folder_without_manifest_and_without_a_lock_that_stands_out_is_refused(llama: Path, tmp_path: Path) -> None:
    again = saved_again(llama, tmp_path / "again")
    with pytest.raises(CheckpointError, match=r"must hold specdef_lock\.json; it does not, and no lock stands out"):
        verify(again, original=llama)
