"""Curvature against dense twins: every operator equals the matrix autograd builds, every eigenvalue its exact one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pico
import pico_text
import pytest
import torch
from typer.testing import CliRunner

from specdef import lock
from specdef.analysis.curvature.blocks import block_norm, hessian_lipschitz
from specdef.analysis.curvature.eigen import extreme_eigenpairs, power_iteration
from specdef.analysis.curvature.measure import measure_curvature, task_problem
from specdef.analysis.curvature.operators import curvature_operator, spectral_density
from specdef.analysis.curvature.problem import LossProblem, loss_problem, mean_loss
from specdef.attacks.interventions.merge import Merge
from specdef.attacks.interventions.rebalance import Rebalance
from specdef.cli.main import app
from specdef.errors import SpecdefError
from specdef.training.batches import second_derivatives

SMALL = r"h\.1\.ln_2|h\.0\.ln_1\.weight|attn\.c_proj\.(bias|compensation)"
"""Some two hundred numbers: small enough for the dense Hessian."""


def dense_hessian(problem: LossProblem) -> torch.Tensor:
    """Row by row, by plain autograd: no line shared with the code under test."""
    with second_derivatives():
        gradients = torch.autograd.grad(mean_loss(problem), problem.parameters, create_graph=True)
        flat = torch.cat([g.reshape(-1) for g in gradients])
        rows = [torch.autograd.grad(entry, problem.parameters, retain_graph=True) for entry in flat]
    return torch.stack([torch.cat([part.reshape(-1) for part in row]) for row in rows])


def test_products_equal_central_differences_of_the_gradient(toy: Path) -> None:
    """Also for the weights of layer norms, where forward-over-reverse differentiation is wrong."""
    problem = task_problem(toy, params=SMALL, num_samples=2, dtype="fp64")
    vector = np.random.default_rng(0).standard_normal(problem.dimension)
    parts = torch.from_numpy(vector).split([p.numel() for p in problem.parameters])

    def gradient(step: float) -> torch.Tensor:
        with torch.no_grad():
            for parameter, part in zip(problem.parameters, parts, strict=True):
                parameter.add_(step * part.view_as(parameter))
        found = torch.autograd.grad(mean_loss(problem), problem.parameters)
        with torch.no_grad():
            for parameter, part in zip(problem.parameters, parts, strict=True):
                parameter.sub_(step * part.view_as(parameter))
        return torch.cat([g.reshape(-1) for g in found])

    wanted = (gradient(1e-5) - gradient(-1e-5)) / 2e-5
    found = curvature_operator(problem).matvec(vector)
    assert np.allclose(found, wanted.numpy(), rtol=1e-5, atol=1e-6 * float(wanted.abs().max()))


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GPT-2: unlike Llama's, its norms stay in float64, so that second derivatives are exact to 1e-12."""
    folder = pico.build("gpt2", tmp_path_factory.mktemp("toy") / "model")
    pico_text.write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def folders(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("curvature")
    lock(toy, place / "fold", preset="exact", multiplier="2^10")
    paper = {"preset": "paper", "multiplier": 1e3, "rank": 3, "form": "low_rank"}
    lock(toy, place / "inject", layers=[1], components=["attn_c_proj"], **paper)
    return {"unlocked": toy, "fold": place / "fold", "inject": place / "inject"}


@pytest.mark.parametrize("name", ["unlocked", "fold", "inject"])
def test_eigenvalues_equal_the_dense_hessians(name: str, folders: dict[str, Path]) -> None:
    """In float64, both ends and the largest singular value agree to 1e-6, before and after a lock."""
    problem = task_problem(folders[name], params=SMALL, num_samples=2, dtype="fp64")
    dense = dense_hessian(problem)
    assert torch.allclose(dense, dense.T, atol=1e-8 * float(dense.abs().max()))
    exact = torch.linalg.eigvalsh(dense)
    operator = curvature_operator(problem)
    vector = np.random.default_rng(0).standard_normal(problem.dimension)
    wanted = dense @ torch.from_numpy(vector)
    assert np.allclose(operator.matvec(vector), wanted.numpy(), atol=1e-9 * float(wanted.abs().max()))
    top = extreme_eigenpairs(operator, num_eigenvalues=3, end="largest", tolerance=1e-9)
    assert [pair.value for pair in top] == pytest.approx(exact.flip(0)[:3].tolist(), rel=1e-6)
    low = extreme_eigenpairs(operator, num_eigenvalues=2, end="smallest", tolerance=1e-9)
    assert [pair.value for pair in low] == pytest.approx(exact[:2].tolist(), rel=1e-6)
    sigma = extreme_eigenpairs(operator, tolerance=1e-9)[0]
    assert abs(sigma.value) == pytest.approx(float(torch.linalg.matrix_norm(dense, 2)), rel=1e-6)
    assert all(pair.residual < 1e-6 for pair in (*top, *low, sigma))
    power, products = power_iteration(operator, tolerance=1e-3, max_products=2000)
    assert products > 1
    assert power.value == pytest.approx(sigma.value, rel=1e-4)


def test_gauss_newton_equals_jacobian_loss_hessian_jacobian(toy: Path) -> None:
    problem = task_problem(toy, params="h.1.ln_2.weight", num_samples=2, dtype="fp64")
    (ids, labels, mask), weight = problem.batches[0], problem.parameters[0]
    kept = labels[:, 1:].flatten() != -100

    def logits(w: torch.Tensor) -> torch.Tensor:
        out = torch.func.functional_call(
            problem.model, {problem.names[0]: w}, kwargs={"input_ids": ids, "attention_mask": mask}
        )
        return out.logits[:, :-1].flatten(0, 1)[kept]

    jacobian = torch.func.jacrev(logits)(weight.detach()).reshape(int(kept.sum()), -1, weight.numel())
    p = logits(weight.detach()).softmax(-1)
    inner = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]
    dense = torch.einsum("nia,nij,njb->ab", jacobian, inner, jacobian) / kept.sum()
    operator = curvature_operator(problem, "gauss-newton")
    vector = np.random.default_rng(1).standard_normal(problem.dimension)
    assert np.allclose(operator.matvec(vector), (dense @ torch.from_numpy(vector)).detach().numpy(), atol=1e-9)
    exact = torch.linalg.eigvalsh(dense)
    assert exact[0] > -1e-12
    assert extreme_eigenpairs(operator, tolerance=1e-9)[0].value == pytest.approx(float(exact[-1]), rel=1e-8)
    hessian = curvature_operator(problem).matvec(vector)
    assert not np.allclose(hessian, operator.matvec(vector), rtol=1e-3), "the network's own curvature is not nothing"


def test_blocks_equal_the_dense_ones(toy: Path) -> None:
    problem = task_problem(toy, num_samples=2, dtype="fp64")
    first, second = r"h\.0\.ln_1\.weight", r"h\.1\.ln_2\.weight"
    both = problem.restricted(f"{first}|{second}")
    dense, cut = dense_hessian(both), dict(both.model.named_parameters())[both.names[0]].numel()
    for rows, columns, block in (
        (both.names[0], both.names[1], dense[:cut, cut:]),
        (both.names[1], both.names[0], dense[cut:, :cut]),
        (both.names[0], both.names[0], dense[:cut, :cut]),
    ):
        found = block_norm(problem, f"^{rows}$", f"^{columns}$", tolerance=1e-8)
        assert found == pytest.approx(float(torch.linalg.matrix_norm(block, 2)), rel=1e-6)
    assert float(torch.linalg.matrix_norm(dense[:cut, cut:], 2)) <= float(torch.linalg.matrix_norm(dense, 2))


def test_the_change_along_a_line_equals_the_dense_difference_and_puts_the_weights_back(toy: Path) -> None:
    problem = task_problem(toy, params=r"h\.0\.(ln_1|ln_2)", num_samples=2, dtype="fp64")
    direction = np.random.default_rng(2).standard_normal(problem.dimension)
    before = [parameter.detach().clone() for parameter in problem.parameters]
    here = dense_hessian(problem)
    found = hessian_lipschitz(problem, direction, 0.1, tolerance=1e-8)
    assert all(torch.equal(now, old) for now, old in zip(problem.parameters, before, strict=True))
    with torch.no_grad():
        moves = torch.from_numpy(0.1 * direction / np.linalg.norm(direction)).split([p.numel() for p in before])
        for parameter, move in zip(problem.parameters, moves, strict=True):
            parameter.add_(move.view_as(parameter))
    change = torch.linalg.matrix_norm(dense_hessian(problem) - here, 2)
    assert found == pytest.approx(float(change) / 0.1, rel=1e-6)


def test_spectral_density_has_the_moments_of_the_spectrum(toy: Path) -> None:
    problem = task_problem(toy, params=r"h\.1\.ln", num_samples=2, dtype="fp64")
    dense = dense_hessian(problem)
    grid, density = spectral_density(curvature_operator(problem), steps=40, probes=16)
    step = grid[1] - grid[0]
    assert float(density.sum() * step) == pytest.approx(1, abs=1e-2)
    assert float((density * grid).sum() * step) == pytest.approx(float(dense.trace()) / len(dense), abs=0.02 * grid[-1])
    exact = torch.linalg.eigvalsh(dense)
    assert grid[0] < float(exact[0])
    assert float(exact[-1]) < grid[-1]


def test_a_lock_makes_the_loss_sharper_and_merging_undoes_it(folders: dict[str, Path], tmp_path: Path) -> None:
    Merge().rewrite(folders["inject"], tmp_path / "merged")
    Rebalance().rewrite(folders["fold"], tmp_path / "balanced")
    named = {**folders, "merged": tmp_path / "merged", "balanced": tmp_path / "balanced"}
    sigma = {
        name: measure_curvature(folder, num_samples=4, dtype="fp64", params="h").sigma_1
        for name, folder in named.items()
    }
    assert sigma["fold"] > 1e4 * sigma["unlocked"]
    assert sigma["inject"] > 1e3 * sigma["unlocked"]
    assert sigma["merged"] == pytest.approx(sigma["unlocked"], rel=1e-3)
    assert sigma["balanced"] == pytest.approx(sigma["unlocked"], rel=0.5)


def test_curvature_on_the_command_line(toy_model: Path, tmp_path: Path) -> None:
    arguments = ["curvature", str(toy_model), "--samples", "4", "--params", "v_proj", "--json"]
    result = CliRunner().invoke(app, [*arguments, "--plot", str(tmp_path / "density.png")])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["sigma_1"] == max(abs(e["value"]) for e in (*found["largest"], *found["smallest"]))
    assert found["largest"][0]["residual"] < 1e-2
    assert (tmp_path / "density.png").read_bytes().startswith(b"\x89PNG")
    newton = CliRunner().invoke(app, [*arguments, "--kind", "gauss-newton"])
    assert newton.exit_code == 0, newton.output
    assert json.loads(newton.stdout)["smallest"] == []
    assert json.loads(newton.stdout)["sigma_1"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--params", "nothing"], "`params` must match a parameter's name; 'nothing' matches none"),
        (["--params", "("], "`params` must be a regular expression"),
        (["--kind", "fisher"], "`kind` must be hessian or gauss-newton; got 'fisher'"),
        (["--samples", "0"], "`samples` must be at least 1; got 0"),
        (["--dtype", "bf16"], "`dtype` must be fp32 or fp64; got 'bf16'"),
        (
            ["--params", "model.norm", "--num-eigenvalues", "32"],
            "`num_eigenvalues` must lie between 1 and 31, below the",
        ),
        (["--device", "cuda"], "torch finds no GPU"),
        (["--device", "tpu"], "`device` must be cpu or cuda; got 'tpu'"),
        (["--seed", "-1"], "`seed` must be 0 or more; got -1"),
        (["--tolerance", "0"], "`tolerance` must lie between 0 and 1; got 0"),
    ],
)
def test_bad_input_is_one_sentence(options: list[str], message: str, toy_model: Path) -> None:
    if "cuda" in options and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    result = CliRunner().invoke(app, ["curvature", str(toy_model), "--samples", "2", *options])
    assert isinstance(result.exception, SpecdefError)
    assert message in str(result.exception)


def test_bfloat16_weights_are_refused(toy_model: Path) -> None:
    loaded = pico_text.loaded(toy_model)
    batch = tuple(torch.ones(1, 4, dtype=torch.long) for _ in range(3))
    with pytest.raises(SpecdefError, match="must be loaded in float32 or float64 for curvature"):
        loss_problem(replace(loaded, model=loaded.model.to(torch.bfloat16)), [batch])
    with pytest.raises(SpecdefError, match="`batches` must hold at least one batch"):
        loss_problem(replace(loaded, model=loaded.model.float()), [])
