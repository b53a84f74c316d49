"""Anchor: what the public base weights give away of a lock and of another defence, and what pulling back leaves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pico
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from specdef import lock
from specdef.attacks.base import Attack, RewriteReport, parse_intervention
from specdef.attacks.interventions.anchor import Anchor
from specdef.attacks.rewrites import compared
from specdef.attacks.rewrites.channel_factors import Factors, Floats, _median, _sample, channel_factors, powers_of_two
from specdef.attacks.rewrites.differences import Difference, in_words, numerical_rank, without_leading
from specdef.attacks.wire import attack_from_wire, attack_to_wire
from specdef.certify.cell import Cell, Subject, cell_from_json
from specdef.checkpoint.reader import open_checkpoint
from specdef.cli.main import app
from specdef.errors import SpecdefError
from specdef.tasks.base import TaskSpec

QUERY = "model.layers.1.self_attn.q_proj.weight"
Tensors = dict[str, torch.Tensor]


def tensors(folder: Path) -> Tensors:
    return load_file(folder / "model.safetensors")


def changed(source: Path, out: Path, change: Callable[[Tensors], object]) -> Path:
    """A copy of a model with other weights."""
    held = tensors(source)
    change(held)
    out.mkdir()
    (out / "config.json").write_bytes((source / "config.json").read_bytes())
    save_file({name: tensor.contiguous() for name, tensor in held.items()}, out / "model.safetensors", {"format": "pt"})
    return out


def anchored(model: Path, base: Path, out: Path, rank: str = "0") -> RewriteReport:
    report = parse_intervention(f"anchor:base={base},rank={rank}").rewrite(model, out)
    assert report is not None
    return report


def equal(first: Path, second: Path) -> bool:
    a, b = tensors(first), tensors(second)
    return a.keys() == b.keys() and all(a[name].dtype == b[name].dtype and torch.equal(a[name], b[name]) for name in a)


def low_rank(rank: int) -> Callable[[Tensors], object]:
    """Adds a difference of a rank, a tenth as large as the matrix, to one query matrix."""

    def change(held: Tensors) -> None:
        generator = torch.Generator().manual_seed(3)
        shape = held[QUERY].shape
        added = torch.linalg.qr(torch.randn(shape[0], rank, generator=generator))[0]
        added = added @ torch.linalg.qr(torch.randn(shape[1], rank, generator=generator))[0].T
        held[QUERY] = held[QUERY] + 0.1 * held[QUERY].norm() / rank**0.5 * added

    return change


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2", "mixtral"])
@pytest.mark.parametrize("preset", ["exact", "ladder"])
def test_a_lock_of_scaled_channels_gives_the_base_back_bit_for_bit(family: str, preset: str, tmp_path: Path) -> None:
    """Norms with an offset, matrices stored [in, out] and experts in a stack included."""
    base = pico.build(family, tmp_path / "base")
    lock(base, tmp_path / "locked", preset=preset)
    assert not equal(tmp_path / "locked", base)
    report = anchored(tmp_path / "locked", base, tmp_path / "out")
    assert equal(tmp_path / "out", base)
    assert report.function_error == 0.0
    assert "by a change of variables alone; undone: " in report.detail
    assert report.detail.endswith(" 0 compensations multiplied in; nothing else differs")


@pytest.mark.parametrize("family", ["llama", "resnet"])
@pytest.mark.parametrize("basis", ["svd", "axis"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_inject_lock_gives_the_base_back(family: str, basis: str, dtype: torch.dtype, tmp_path: Path) -> None:
    """Merged, its layers are the base's but for rounding: the base's own numbers are what an attacker takes."""
    base = pico.build(family, tmp_path / "base", dtype)
    lock(base, tmp_path / "locked", preset="paper", multiplier=2.0**10, rank=3, num_matrices=3, basis=basis)
    report = anchored(tmp_path / "locked", base, tmp_path / "out")
    assert equal(tmp_path / "out", base)
    assert "quantization_config" not in json.loads((tmp_path / "out" / "config.json").read_text())
    assert report.tensors == 3
    assert report.added_parameters < 0
    assert "3 compensations multiplied in; nothing else differs" in report.detail


def test_a_model_published_narrower_than_its_base_is_compared_in_what_it_is_stored_in(tmp_path: Path) -> None:
    """Rounding to bfloat16 is no difference: the rest of the comparison would be of full rank."""
    base = pico.build("llama", tmp_path / "base")
    narrow = pico.build("llama", tmp_path / "narrow", torch.bfloat16)
    lock(narrow, tmp_path / "locked", preset="exact")
    report = anchored(tmp_path / "locked", base, tmp_path / "out")
    assert report.detail.endswith("nothing else differs")
    assert equal(tmp_path / "out", narrow)
    with pytest.raises(SpecdefError, match="`base` must differ from the model"):
        anchored(narrow, base, tmp_path / "again")


def test_factors_that_are_no_powers_of_two_are_found_on_matrices_and_norms(llama: Path, tmp_path: Path) -> None:
    norm = "model.layers.0.input_layernorm.weight"
    factors = torch.linspace(0.3, 3.0, 32)

    def scale(held: Tensors) -> None:
        held[norm] = held[norm] * factors
        for name in "qkv":
            held[f"model.layers.0.self_attn.{name}_proj.weight"] /= factors

    model = changed(llama, tmp_path / "model", scale)
    report = anchored(model, llama, tmp_path / "out")
    for name, tensor in tensors(tmp_path / "out").items():
        torch.testing.assert_close(tensor, tensors(llama)[name], rtol=1e-6, atol=0)
    assert report.detail.endswith("nothing else differs")
    assert report.function_error is not None
    assert 0 < report.function_error < 1e-6


def test_a_difference_of_rank_two_is_told_with_its_place_and_removed(llama: Path, tmp_path: Path) -> None:
    model = changed(llama, tmp_path / "model", low_rank(2))
    seen = anchored(model, llama, tmp_path / "seen")
    assert seen.detail == (
        "1 of 21 tensors differs from the base, 0 by a change of variables alone; 1 differs by more: relative size "
        "0.1, rank 2 (99% of the squared norm), in layer 1: self_attn.q_proj 100%"
    )
    assert equal(tmp_path / "seen", model), "nothing is a change of variables: the weights stay as published"
    first = anchored(model, llama, tmp_path / "first", "1")
    assert first.function_error is None
    assert first.detail.endswith("1 leading component of each removed")
    left = tensors(tmp_path / "first")[QUERY].double() - tensors(llama)[QUERY]
    assert torch.linalg.matrix_rank(left, rtol=1e-3) == 1
    whole = tensors(model)[QUERY].double() - tensors(llama)[QUERY]
    assert torch.linalg.matrix_rank(whole - left, rtol=1e-3) == 1, (
        "what is left is part of the difference, not its mirror"
    )
    both = anchored(model, llama, tmp_path / "both", "2")
    assert both.tensors == 1
    torch.testing.assert_close(tensors(tmp_path / "both")[QUERY], tensors(llama)[QUERY], rtol=0, atol=1e-7)
    anchored(model, llama, tmp_path / "all", "all")
    assert equal(tmp_path / "all", llama)


def test_several_differences_are_counted_and_what_is_removed_is_said(llama: Path, tmp_path: Path) -> None:
    def change(held: Tensors) -> None:
        low_rank(2)(held)
        other = QUERY.replace("layers.1", "layers.0")
        held[other] = held[other] + 0.05 * held[QUERY]

    model = changed(llama, tmp_path / "model", change)
    told = {rank: anchored(model, llama, tmp_path / f"rank-{rank}", rank).detail for rank in ("0", "2", "all")}
    start = "2 of 21 tensors differ from the base, 0 by a change of variables alone; 2 differ by more: relative size "
    assert all(detail.startswith(start) for detail in told.values())
    assert told["0"].endswith("%")
    assert told["2"] == told["0"] + "; 2 leading components of each removed"
    assert told["all"] == told["0"] + "; the base weights taken back"


def test_a_lock_over_a_difference_hides_its_rank_only_where_the_factors_stay(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wrong variant, which subtracts the base from the weights as published, sees a difference of high rank."""
    model = changed(llama, tmp_path / "model", low_rank(2))
    lock(model, tmp_path / "locked", preset="exact")
    report = anchored(tmp_path / "locked", llama, tmp_path / "out")
    assert ", rank 2 (99% of the squared norm), in layer 1: self_attn.q_proj 100%" in report.detail
    assert equal(tmp_path / "out", model), "the lock is gone, the difference stays"
    anchored(tmp_path / "locked", llama, tmp_path / "both", "2")
    torch.testing.assert_close(tensors(tmp_path / "both")[QUERY], tensors(llama)[QUERY], rtol=0, atol=1e-7)

    def none(found: Floats, base: Floats) -> Factors:
        return Factors(np.zeros(len(found)), np.zeros(found.shape[1]))

    monkeypatch.setattr(compared, "channel_factors", none)
    blind = anchored(tmp_path / "locked", llama, tmp_path / "blind")
    assert "rank 2 (" not in blind.detail
    assert ", 0 by a change" not in report.detail


def test_a_full_rank_lock_of_every_channel_is_of_full_rank_as_published(llama: Path, tmp_path: Path) -> None:
    """A scaling of random factors on every row: the difference of the published weights has full rank, none after."""
    generator = torch.Generator().manual_seed(0)
    exponents = torch.randint(-3, 4, (32, 1), generator=generator)
    base = tensors(llama)[QUERY].double().numpy()
    found = np.ldexp(base, exponents.numpy())
    assert numerical_rank(found - base) > 10
    factors = channel_factors(found, base)
    assert np.array_equal(factors.undo(found), base)
    assert numerical_rank(factors.undo(found) - base) == 0


@pytest.mark.parametrize("size", [1e-3, 0.3, 1.0])
def test_what_training_changes_is_no_change_of_variables(size: float) -> None:
    """Dense, sparse and low-rank changes of any size up to the matrix's own leave no factor."""
    generator = np.random.default_rng(0)
    base = generator.standard_normal((48, 40))
    dense = size * generator.standard_normal(base.shape)
    sparse = np.where(generator.random(base.shape) < 0.1, 10 * dense, 0)
    steep = size * np.outer(generator.standard_normal(48), generator.standard_normal(40))
    row = np.zeros_like(base)
    row[3] = 500 * generator.standard_normal(40)
    for change in (dense, sparse, steep, row):
        assert channel_factors(base + change, base).count == 0


def test_rows_and_columns_scaled_at_once_under_noise_are_told_apart() -> None:
    generator = np.random.default_rng(1)
    base = generator.standard_normal((30, 20))
    rows, columns = np.zeros(30), np.zeros(20)
    rows[[2, 5]], columns[[0, 7, 9]] = (20, -3), (1, -20, 4)
    found = np.exp2(rows)[:, None] * (base + 1e-3 * generator.standard_normal(base.shape)) * np.exp2(columns)
    factors = channel_factors(found, base)
    assert np.array_equal(factors.rows, rows)
    assert np.array_equal(factors.columns, columns)
    assert factors.count == 5


@pytest.mark.filterwarnings("error")
def test_zeros_have_no_factor() -> None:
    base = np.random.default_rng(2).standard_normal((6, 5))
    base[2] = 0
    found = base.copy()
    found[4] *= 8
    assert channel_factors(found, base).rows.tolist() == [0, 0, 0, 0, 3, 0]
    assert channel_factors(np.zeros((2, 3)), np.zeros((2, 3))).count == 0


def test_the_lower_median_is_one_of_the_numbers_and_passes_by_what_is_none() -> None:
    nan = np.nan
    assert _median(np.array([[4.0, 1.0, 3.0, 2.0], [8.0, 5.0, 6.0, 7.0]])).tolist() == [2.0, 6.0]
    assert _median(np.array([[5.0, 9.0, 7.0], [3.0, 1.0, 2.0]])).tolist() == [7.0, 2.0]
    rows = [[nan, 4.0, 1.0, 3.0, 2.0], [nan, nan, 9.0, 5.0, 7.0], [nan, 1.0, nan, nan, nan], [nan] * 5]
    assert _median(np.array(rows)).tolist() == [2.0, 7.0, 1.0, 0.0]


@pytest.mark.parametrize(("size", "taken"), [(1, 1), (7, 7), (256, 256), (1000, 256)])
def test_a_factor_is_estimated_from_entries_of_the_whole_channel(size: int, taken: int) -> None:
    found = _sample(size)
    assert (found[0], found[-1], len(found)) == (0, size - 1, taken)
    assert not len(found) > 2 or np.ptp(np.diff(found)) <= 1, "evenly"


def test_powers_of_two_are_exact() -> None:
    base = np.array([1.5, 1.5, 1.5, -1.5, 0.0, 1.5])
    assert powers_of_two(np.array([6.0, 1.5, 6.000001, -0.75, 0.0, -6.0]), base).tolist() == [
        True,
        False,
        False,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize("shape", [(9, 5), (5, 9), (6, 6)])
def test_leading_components_are_those_of_the_singular_value_decomposition(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(0).standard_normal(shape)
    u, s, vh = np.linalg.svd(matrix, full_matrices=False)
    for rank in range(7):
        np.testing.assert_allclose(without_leading(matrix, rank), (u[:, rank:] * s[rank:]) @ vh[rank:], atol=1e-12)
    assert not without_leading(matrix, min(shape)).any(), "nothing is left, not even rounding"
    assert numerical_rank(matrix) == int(np.argmax(np.cumsum(s**2) >= 0.99 * np.sum(s**2))) + 1


def test_the_place_is_said_by_layers_and_kinds_of_matrices() -> None:
    found = [Difference(f"model.layers.{n}.mlp.up_proj.weight", 1, 1.0, 100.0) for n in (0, 1, 2, 5)]
    found += [Difference("lm_head.weight", 3, 4.0, 400.0)]
    assert in_words(found) == (
        "relative size 0.1, rank 1 to 3 (99% of the squared norm), in layers 0-2, 5 and outside the layers: "
        "mlp.up_proj 50%, lm_head 50%"
    )
    outside = [Difference("lm_head.weight", rank, 1.0, 100.0) for rank in (2, 7, 4)]
    assert in_words(outside).endswith("rank 2 to 7 (99% of the squared norm), in outside the layers: lm_head 100%")
    shares = {"k_proj": 1.0, "q_proj": 5.0, "o_proj": 2.0, "v_proj": 12.0}
    many = [Difference(f"model.layers.3.{part}.weight", 1, held, 80.0) for part, held in shares.items()]
    assert in_words(many).endswith("in layer 3: v_proj 60%, q_proj 25%, o_proj 10%"), "the three that hold most"


NORM = "model.layers.0.input_layernorm.weight"


def pair_of(model: Path, base: Path) -> compared.Pair:
    return compared.Pair.of(open_checkpoint(model), open_checkpoint(base))


def test_a_vector_is_told_entry_by_entry(llama: Path, tmp_path: Path) -> None:
    """A power of two is undone, what is none stays; a rank leaves nothing of a vector's difference."""

    def scale(held: Tensors) -> None:
        held[NORM][3] *= 4
        held[NORM][5] *= 1.3

    model = changed(llama, tmp_path / "model", scale)
    ((name, found),) = pair_of(model, llama).compared().items()
    ours, theirs = (tensors(folder)[NORM].double() for folder in (model, llama))
    assert (name, found.taken.nonzero()[0].tolist(), found.channels) == (NORM, [3], 1)
    assert (found.factors, found.merged) == ((), False)
    assert found.left is not None
    assert (found.left.tensor, found.left.rank) == (NORM, 1)
    assert found.left.squared == pytest.approx(float((ours[5] - theirs[5]) ** 2), rel=1e-12)
    assert found.left.base == pytest.approx(float(theirs.square().sum()), rel=1e-12)
    anchored(model, llama, tmp_path / "out")
    wanted = tensors(model)[NORM]
    wanted[3] = theirs[3]
    assert torch.equal(tensors(tmp_path / "out")[NORM], wanted)
    anchored(model, llama, tmp_path / "one", "1")
    assert equal(tmp_path / "one", llama)


@pytest.mark.filterwarnings("error")
def test_entries_that_a_matrix_was_divided_by_are_the_bases_and_zeros_have_no_factor(llama: Path) -> None:
    pair = compared.Pair(open_checkpoint(llama), open_checkpoint(llama), {}, (), {})
    base = np.linspace(1.0, 2.0, 12)
    base[[9, 10]] = 0.0
    ours, side = base.copy(), np.zeros(12)
    odd = 1.3
    ours[1], side[1] = base[1] * odd, np.log2(odd)
    ours[2], side[2] = base[2] * odd, -np.log2(odd)
    ours[3] = base[3] * odd
    ours[4], side[4] = base[4] * odd, np.log2(1.4)
    ours[5], side[5] = base[5] * 2 * (1 + 1e-12), 1.0
    ours[6] = base[6] * 8
    ours[10] = 0.5
    found = pair._vector("v", ours, base, [np.full(5, np.log2(odd)), side])
    assert found.taken.nonzero()[0].tolist() == [1, 2, 5, 6]
    assert found.channels == 4
    assert found.left == Difference("v", 1, pytest.approx(sum((ours - base)[[3, 4, 10]] ** 2)), np.sum(base**2))
    ours[[3, 4, 10]] = base[[3, 4, 10]]
    whole = pair._vector("v", ours, base, [side])
    assert (whole.taken.nonzero()[0].tolist(), whole.channels, whole.left) == ([1, 2, 5, 6], 4, None)


def test_a_vector_with_an_offset_is_compared_as_the_runtime_adds_it(llama: Path) -> None:
    """Gemma's norms are 1 + weight in float32: factors that are exact there are not in float64."""
    one = np.float32(1)
    base = np.random.default_rng(0).uniform(-0.5, 0.5, 400).astype(np.float32)
    ours = (one + base) * np.float32(4) - one
    exact = (one + ours) == np.float32(4) * (one + base)
    base, ours = base[exact], ours[exact]
    assert len(base) > 100

    def told(offset: float) -> compared.Compared:
        pair = compared.Pair(open_checkpoint(llama), open_checkpoint(llama), {}, (), {"v": offset} if offset else {})
        shift = 0.0 if offset else 1.0  # the wrong variant adds it in float64
        return pair._vector("v", ours.astype(np.float64) + shift, base.astype(np.float64) + shift, [])

    assert told(1.0).left is None
    assert told(1.0).channels == len(base)
    assert told(0.0).channels < len(base) / 2


def _other_shape(held: Tensors) -> None:
    held[QUERY] = held[QUERY][:16]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda held: held.pop(QUERY), f"`base` must hold every tensor of the model; {{0}} has no {QUERY}."),
        (_other_shape, f"`base` must have the model's shapes; its {QUERY} is [16, 32], the model's [32, 32]."),
        (lambda held: None, "`base` must differ from the model; {0} holds the weights of {1}."),
    ],
)
def test_base_weights_that_do_not_fit_are_refused(
    change: Callable[[Tensors], object], sentence: str, llama: Path, tmp_path: Path
) -> None:
    base = changed(llama, tmp_path / "base", change)
    with pytest.raises(SpecdefError) as caught:
        anchored(llama, base, tmp_path / "out")
    assert str(caught.value) == sentence.format(base, llama)
    assert not (tmp_path / "out").exists()


def test_another_architecture_is_refused(llama: Path, tmp_path: Path) -> None:
    base = pico.build("qwen2", tmp_path / "base")
    with pytest.raises(SpecdefError, match=r"^`base` must be of the model's architecture, llama; \S+ is qwen2\.$"):
        anchored(llama, base, tmp_path / "out")


def test_weights_that_are_not_finite_are_refused(llama: Path, tmp_path: Path) -> None:
    model = changed(llama, tmp_path / "model", lambda held: held[QUERY][0].fill_(float("nan")))
    with pytest.raises(SpecdefError, match=f"Weights must be finite; tensor {QUERY} holds NaN or infinity"):
        anchored(model, llama, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("anchor", "`base` must be given with anchor: a model folder, a hub id or smollm2-135m."),
        ("anchor:base=x,rank=-1", "`rank` must be a whole number of at least 0, or all; got -1."),
        ("anchor:base=x,rank=most", "`rank` must be a number; got 'most'."),
        ("anchor:base", "`anchor` must have options such as base=BASE,digest=DIGEST,rank=0; got 'base'."),
    ],
)
def test_options_out_of_range_are_refused(text: str, sentence: str) -> None:
    with pytest.raises(SpecdefError) as caught:
        parse_intervention(text)
    assert str(caught.value) == sentence


def test_a_missing_base_is_refused_in_its_name(llama: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecdefError, match=r"^`base` must be a folder, a hub id such as org/name, smollm2"):
        anchored(llama, tmp_path / "none", tmp_path / "out")


def cell(model: Path, how: Anchor) -> Cell:
    return Cell(Subject(str(model), "a"), TaskSpec("facts"), "b", None, "c", Attack(interventions=(how,)))


def test_a_cell_is_named_by_the_content_of_the_base_and_not_by_its_place(llama: Path, tmp_path: Path) -> None:
    same = changed(llama, tmp_path / "same", lambda held: None)
    (same / "model.safetensors").write_bytes((llama / "model.safetensors").read_bytes())
    other = changed(llama, tmp_path / "other", low_rank(1))
    first, second, third = (cell(llama, Anchor(str(base))) for base in (llama, same, other))
    assert first.key == second.key != third.key
    assert str(llama) not in json.dumps(first.identity())
    sent = cell_from_json(json.loads(json.dumps(first.to_json())))
    assert sent == first
    (how,) = sent.attack.interventions
    assert isinstance(how, Anchor)
    assert how.base == str(llama), "a worker is told where the base lies today"
    (read,) = attack_from_wire(attack_to_wire(first.attack)).interventions
    assert isinstance(read, Anchor)
    with pytest.raises(SpecdefError, match="`base` must be the base weights' folder; only their digest"):
        read.rewrite(other, tmp_path / "out")


def test_a_base_that_changed_since_is_refused(llama: Path, tmp_path: Path) -> None:
    base = changed(llama, tmp_path / "base", low_rank(1))
    how = Anchor(str(base)).bound()
    assert how.bound() is how
    (base / "model.safetensors").write_bytes((llama / "model.safetensors").read_bytes())
    with pytest.raises(SpecdefError, match=r"`base` must hold the weights of digest \w{8}; .* Start again"):
        how.rewrite(llama, tmp_path / "out")


def test_labels_and_what_the_judge_must_know() -> None:
    assert Anchor(digest="0123456789ab").label == "base weights 01234567, changes of variables undone"
    assert Anchor("m", rank=4).label == "base weights m, 4 leading components of the difference removed"
    assert Anchor("m", rank="all").label == "base weights m, taken back"
    assert [Anchor("m", rank=rank).keeps_function for rank in (0, 1, "all")] == [True, False, False]  # type: ignore[arg-type]


def test_on_the_command_line(llama: Path, tmp_path: Path) -> None:
    lock(llama, tmp_path / "locked", preset="exact")
    for rank, said in ((0, "Relative difference of a layer at most 0.0e+00"), (1, "The function is another")):
        out = tmp_path / f"out{rank}"
        done = CliRunner().invoke(app, ["undo", f"anchor:base={llama},rank={rank}", str(tmp_path / "locked"), str(out)])
        assert done.exit_code == 0, done.output
        assert said in done.stdout.replace("\n", " ")
        assert equal(out, llama)
