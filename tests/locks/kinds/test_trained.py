"""The trained lock on tiny models: sigma_1 as wished, the change of function said, the original bytes from the key."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pico
import pico_text
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from specdef import inspect_model, lock, unlock, verify
from specdef.certify.study import changes_function
from specdef.certify.study_models import DefencePlan
from specdef.cli.main import app
from specdef.defences.card import RECORD
from specdef.errors import PlanError, SpecdefError
from specdef.locks.base import LOCKS
from specdef.locks.kinds.trained.metric import DAMPING, SMALLEST, metrics, patches
from specdef.locks.kinds.trained.options import TrainedOptions
from specdef.locks.kinds.trained.prepare import _refuse_too_little
from specdef.locks.kinds.trained.train import ABOVE, Outcome
from specdef.locks.lock import LockReport
from specdef.locks.manifest import MANIFEST
from specdef.models.base import kind_of
from specdef.tasks.images.shapes import shapes

QUICK: dict[str, Any] = {
    "preset": "trained", "multiplier": 2, "rank": 1, "num_matrices": 2, "lr": 0.2, "steps": 30, "eval_every": 5,
    "batch_size": 4, "utility_factor": 3.0,
}  # fmt: skip
WEIGHTS = "model.safetensors"


def _files(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def _sigma(folder: Path, name: str) -> float:
    return float(torch.linalg.svdvals(load_file(folder / WEIGHTS)[name].double().flatten(1))[0])


def _images(folder: Path) -> Path:
    """Bars of four directions as a user's file."""
    samples = shapes(12)
    pixels = np.stack([np.rint(255 * sample.pixels[0]).astype(np.uint8) for sample in samples])
    np.savez(folder / "bars.npz", images=pixels, labels=np.array([sample.label for sample in samples]))
    return folder / "bars.npz"


@pytest.fixture(scope="module")
def prose(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A user's text, much shorter than what ships with the package."""
    path = tmp_path_factory.mktemp("prose") / "prose.txt"
    path.write_text(
        "\n\n".join(f"Paragraph {n} says that {n} and {n} make {2 * n}, as anybody can see." for n in range(60))
    )
    return str(path)


@pytest.fixture(scope="module")
def locked(toy_model: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, LockReport]:
    """A causal language model, locked; read only."""
    folder = tmp_path_factory.mktemp("trained") / "locked"
    return folder, lock(toy_model, folder, card=True, **QUICK)


def test_sigma_1_is_as_wished_and_nothing_else_changes(toy_model: Path, locked: tuple[Path, LockReport]) -> None:
    folder, report = locked
    raised = report.strength["sigma_1"]
    assert len(raised) == 2
    before, after = load_file(toy_model / WEIGHTS), load_file(folder / WEIGHTS)
    assert {name for name in before if not torch.equal(before[name], after[name])} == set(raised)
    for name, (start, now) in raised.items():
        assert start == pytest.approx(_sigma(toy_model, name), rel=1e-5)
        assert now == pytest.approx(_sigma(folder, name), rel=1e-5)
        assert now >= 2 * start
    assert 2 <= float(report.strength["multiplier"]) < 2 * ABOVE * 1.3
    assert report.num_values == sum(before[name].numel() for name in raised)
    assert report.strength["ended"] == "sigma_1 of every matrix is 2 times its start"
    assert report.strength["steps"] < QUICK["steps"]


def test_what_it_says_is_never_exact(toy_model: Path, locked: tuple[Path, LockReport]) -> None:
    folder, report = locked
    moved = report.exactness["utility"]
    assert report.exactness["closeness"].startswith("not the original's: perplexity-growth 1 before, ")
    assert (report.exactness["bit_exact"], report.exactness["exact_in"]) == (False, [])
    checks = {check.name: check for check in verify(folder, original=toy_model).checks}
    assert all(check.passed for check in checks.values())
    said = checks["function"].detail
    assert said.startswith(f"changed, as the manifest says: KL {report.exactness['kl']:.3g} nats on random inputs")
    assert f"perplexity-growth 1 before and {moved['after']:.4g} after" in said
    assert "times the original's, claimed at least 2" in checks["lock"].detail
    for name in ("SPECDEF_LOCK.md", "README.md"):
        text = (folder / name).read_text()
        assert "Its function is **not** the original's: training moved it. Measured on what ships with the" in text
        assert "Function claimed in" not in text
    size = sum(load_file(toy_model / WEIGHTS)[name].nbytes for name in report.strength["sigma_1"])
    assert report.remarks[-1] == f"The key holds the original bytes of what was raised ({size / 1e6:.1f} MB)."
    assert LOCKS.get("trained").facts(report.strength).multiplier == float(report.strength["multiplier"])
    alone = {check.name: check for check in verify(folder).checks}
    assert alone["lock"].passed is None
    assert alone["lock"].detail.endswith("how far it was raised only the original shows")


def test_unlock_restores_every_byte(toy_model: Path, locked: tuple[Path, LockReport], tmp_path: Path) -> None:
    folder, report = locked
    assert report.key is not None
    unlock(folder, tmp_path / "back", report.key)
    assert _files(tmp_path / "back") == _files(toy_model)


def _rewritten(source: Path, out: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> Path:
    out.mkdir()
    for name, data in _files(source).items():
        (out / name).write_bytes(data)
    tensors = load_file(out / WEIGHTS)
    change(tensors)
    save_file(tensors, out / WEIGHTS, {"format": "pt"})
    return out


def test_a_lock_that_was_taken_out_is_seen(locked: tuple[Path, LockReport], toy_model: Path, tmp_path: Path) -> None:
    name = next(iter(locked[1].strength["sigma_1"]))
    original = load_file(toy_model / WEIGHTS)[name]
    gone = _rewritten(locked[0], tmp_path / "gone", lambda tensors: tensors.update({name: original}))
    check = verify(gone).checks[1]
    assert check.passed is False
    assert f"sigma_1 of 1 of 2 matrices is not what the manifest claims: {_sigma(gone, name):.5g} in {name}" in (
        check.detail
    )
    other = _rewritten(toy_model, tmp_path / "other", lambda tensors: tensors.update({name: 1.5 * original}))
    assert verify(locked[0], original=other).checks[1].passed is False
    further = _rewritten(locked[0], tmp_path / "further", lambda tensors: tensors["lm_head.weight"].mul_(9))
    said = verify(further, original=toy_model).checks[2]
    assert said.passed is False
    assert said.detail.startswith("changed, not as the manifest says: KL ")


@pytest.mark.parametrize(
    "claim",
    [
        {"sigma_1": {}},
        {"sigma_1": {"a": [1.0]}},
        {"sigma_1": {"a": [0, 1.0]}},
        {"sigma_1": {"a": ["1", "2"]}},
        {"multiplier": "3"},
        {"multiplier": "1", "sigma_1": {"a": [1.0, 1.0]}},
    ],
)
def test_claims_that_do_not_hang_together_are_refused(
    claim: dict[str, Any], locked: tuple[Path, LockReport], tmp_path: Path
) -> None:
    folder = _rewritten(locked[0], tmp_path / "false", lambda tensors: None)
    entries = json.loads((folder / MANIFEST).read_text())
    entries["strength"] |= claim
    (folder / MANIFEST).write_text(json.dumps(entries))
    with pytest.raises(SpecdefError, match="is malformed"):
        verify(folder)


def test_a_strong_one_is_recognised_and_an_inject_lock_is_not_taken_for_it(toy_model: Path, tmp_path: Path) -> None:
    name = "model.layers.0.mlp.up_proj.weight"

    def strengthen(tensors: dict[str, torch.Tensor]) -> None:
        u, s, vh = torch.linalg.svd(tensors[name], full_matrices=False)
        tensors[name] = (u[:, :1] * s[0] * 2.0**7) @ vh[:1] + tensors[name]

    sign = inspect_model(_rewritten(toy_model, tmp_path / "strong", strengthen)).verdict.sign
    assert sign is not None
    assert (sign.lock, sign.exponent, sign.tensors, sign.layers) == ("trained", 7, (name,), (0,))
    lock(toy_model, tmp_path / "injected", preset="paper", rank=2, num_matrices=1)
    injected = inspect_model(tmp_path / "injected").verdict.sign
    assert injected is not None
    assert injected.lock == "inject"
    assert inspect_model(toy_model).verdict.sign is None


def test_the_seed_decides_every_byte(toy_model: Path, prose: str, tmp_path: Path) -> None:
    short = {
        **QUICK,
        "text": prose,
        "steps": 3,
        "eval_every": 3,
        "layers": [0],
        "components": ["v_proj"],
        "num_matrices": None,
    }
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        lock(toy_model, tmp_path / name, seed=seed, **short)
    first, again, other = ((tmp_path / name / WEIGHTS).read_bytes() for name in "abc")
    assert first == again
    assert first != other


def test_a_budget_that_no_step_keeps_writes_nothing(toy_model: Path, prose: str, tmp_path: Path) -> None:
    with pytest.raises(PlanError, match=r"`lr` must be such that sigma_1 rises.*left its budget after step 0"):
        lock(
            toy_model,
            tmp_path / "out",
            **{**QUICK, "lr": 50.0, "eval_every": 1, "utility_factor": 1.0001, "text": prose},
        )
    assert not list(tmp_path.iterdir())


def test_a_rise_too_small_to_be_written_down_is_refused() -> None:
    """Before, a multiplier of 1.0003 was written as 1, which `read_manifest` calls malformed."""
    for after, refused in ((1.0003, True), (1.0008, False)):
        outcome = Outcome(3, {"w": 2.0}, {"w": 2.0 * after}, (1.0, 1.0), "all steps done")
        with pytest.raises(PlanError, match=r"sigma_1 rises by 0.1%.*\(all steps done\)") if refused else nullcontext():
            _refuse_too_little(outcome, TrainedOptions())


def test_steps_that_are_too_few_are_said_and_what_is_reached_is_claimed(
    llama_in: Path, prose: str, tmp_path: Path
) -> None:
    report = lock(llama_in, tmp_path / "out", **{**QUICK, "text": prose, "multiplier": 1000, "steps": 5})
    assert report.strength["ended"] == "all 5 steps are done"
    assert 1 < float(report.strength["multiplier"]) < 10
    assert report.strength["wished"] == "1000"
    assert verify(tmp_path / "out", original=llama_in).passed


@pytest.fixture(scope="module")
def llama_in(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama stored in bfloat16 with tied embeddings."""
    folder = pico.build("llama-tied", tmp_path_factory.mktemp("tied") / "model", dtype=torch.bfloat16)
    pico_text.write_tokenizer(folder)
    return folder


@pytest.mark.parametrize("retain", ["loss", "both"])
@pytest.mark.parametrize("family", ["resnet", "resnet-cifar", "vit"])
def test_image_classifiers(family: str, retain: str, tmp_path: Path) -> None:
    model = pico.build(family, tmp_path / "model", **({"num_channels": 1} if family == "resnet" else {}))
    report = lock(model, tmp_path / "out", **QUICK, retain=retain, text=str(_images(tmp_path)))
    assert float(report.strength["multiplier"]) >= 2
    assert report.exactness["utility"]["data"] == "bars.npz"
    result = verify(tmp_path / "out", original=model)
    assert result.passed, result.checks
    assert report.key is not None
    unlock(tmp_path / "out", tmp_path / "back", report.key)
    assert _files(tmp_path / "back") == _files(model)


def test_a_text_classifier_keeps_its_accuracy(tmp_path: Path) -> None:
    model = pico_text.write_classifier(tmp_path / "model", "bert-classifier", steps=20)
    report = lock(model, tmp_path / "out", **{**QUICK, "utility_factor": 1.02})
    moved = report.exactness["utility"]
    assert moved["name"] == "accuracy"
    assert moved["after"] >= moved["before"] - 0.01
    assert float(report.strength["multiplier"]) >= 2
    assert verify(tmp_path / "out", original=model).passed


def test_a_lock_goes_on_top_of_a_defended_folder(toy_model: Path, prose: str, tmp_path: Path) -> None:
    defended = _rewritten(toy_model, tmp_path / "defended", lambda tensors: tensors["model.norm.weight"].mul_(1.1))
    (defended / RECORD).write_text("{}")
    for preset, options in (("exact", {}), ("paper", {"rank": 2}), ("trained", {**QUICK, "text": prose})):
        out = tmp_path / preset
        report = lock(defended, out, **{**options, "preset": preset})
        assert verify(out, original=defended).passed
        assert changes_function(out)
        assert report.key is not None
        unlock(out, tmp_path / f"{preset}-back", report.key)
        assert _files(tmp_path / f"{preset}-back") == _files(defended)


def test_step_0_of_an_attack_need_not_be_the_originals(locked: tuple[Path, LockReport], toy_model: Path) -> None:
    assert changes_function(locked[0])
    assert DefencePlan("t", lock="trained").changes_function
    assert not DefencePlan("e", lock="exact").changes_function


def test_a_model_in_memory_is_refused(toy_model: Path) -> None:
    with pytest.raises(PlanError, match=r"`model` must be a folder for lock trained.*Save it with `save_pretrained`"):
        lock(pico_text.load(toy_model)[0], preset="trained")


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("retain=maybe", "`retain` must be"),
        ("retain_weight=1", "`retain_weight` must lie between 0 and 1; got 1.0."),
        ("lr=0", "`lr` must be a number above 0; got 0.0."),
        ("utility_factor=1", "`utility_factor` must be above 1; got 1.0."),
        ("batch_size=0", "`batch_size` must be at least 1; got 0."),
        ("rank=400", "`rank` must be at most"),
        ("text=missing.txt", "`text` must be a UTF-8 text file; missing.txt does not exist."),
    ],
)
def test_bad_options_get_one_sentence_and_write_nothing(typed: str, said: str, toy_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = CliRunner().invoke(app, ["lock", str(toy_model), str(out), "--preset", "trained", "-o", typed])
    assert isinstance(result.exception, SpecdefError)  # which `main` says in one sentence, with exit code 2
    assert said in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_the_metric_is_the_inverse_of_the_moments(tmp_path: Path) -> None:
    """Of the head, whose outputs are the logits, what A and B are can be written down."""
    model = pico.build("resnet", tmp_path / "model", num_channels=1)
    loaded = kind_of(model).load(model)
    layer = loaded.model.classifier[1]
    assert isinstance(layer, nn.Linear)
    with torch.no_grad():
        layer.weight.mul_(1e-2)
    rows = loaded.kind.encode(shapes(8), loaded)
    found = metrics(loaded, {"head": layer}, [loaded.kind.batch(rows, range(len(rows[0])))], seed=0)["head"]
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    logits = loaded.kind.predictions(loaded.model, rows)[0].detach()
    handle.remove()
    drawn = torch.multinomial(torch.log_softmax(logits, -1).exp(), 1, generator=torch.Generator().manual_seed(0))
    gradient = logits.softmax(-1) - torch.nn.functional.one_hot(drawn[:, 0], 7)
    for inverse, rows_of in ((found.inputs, seen[0]), (found.outputs, gradient)):
        moment = (rows_of.T @ rows_of).double() / len(rows_of)
        sizes = moment.diagonal()
        damped = moment + (DAMPING * sizes.median() + SMALLEST * sizes.max()) * torch.eye(len(moment))
        wanted = torch.linalg.inv(damped)
        torch.testing.assert_close(inverse.double(), wanted, rtol=1e-2, atol=1e-3 * float(wanted.abs().max()))


def test_patches_are_what_a_convolution_reads() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(2, 3, (3, 2), stride=2, padding=1)
    x = torch.randn(2, 2, 6, 5)
    places = patches(conv, x) @ conv.weight.flatten(1).T + conv.bias
    expected = conv(x)
    torch.testing.assert_close(places, expected.permute(0, 2, 3, 1).reshape(-1, 3))
