"""Top-k SVD against torch.linalg.svd on a matrix the size and spectrum of a language model's projection.

The full decomposition of the first matrix takes minutes and runs once; ``--skip-full`` leaves it out.
"""

from __future__ import annotations

import argparse
import time

import torch
from rich.console import Console
from rich.table import Table

from specdef.linalg.svd import residual_of, top_k_svd


def orthonormal(rows: int, columns: int, generator: torch.Generator) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(rows, columns, generator=generator))[0]


def trained_like(m: int, n: int, generator: torch.Generator) -> torch.Tensor:
    """A few outliers over a slow power law, as in a trained gate_proj: s_1 : s_25 : s_100 about 1 : 0.6 : 0.4."""
    i = torch.arange(1, m + 1, dtype=torch.float64)
    s = 0.9 * i**-0.15 * torch.linspace(1, 0.1, m, dtype=torch.float64) + 0.3 * torch.exp(-(i - 1) / 3)
    return (orthonormal(m, m, generator) * s.float()) @ orthonormal(n, m, generator).T


def spiked_noise(m: int, n: int, generator: torch.Generator) -> torch.Tensor:
    """Gaussian bulk, whose edge is nearly degenerate, and ten spikes: k = 25 ends inside the bulk."""
    bulk = torch.randn(m, n, generator=generator) / n**0.5
    spikes = torch.linspace(4, 2, 10)
    return bulk + (orthonormal(m, 10, generator) * spikes) @ orthonormal(n, 10, generator).T


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--columns", type=int, default=14336)
    parser.add_argument("--top-k", type=int, default=25)
    parser.add_argument("--skip-full", action="store_true")
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    table = Table(title=f"k = {arguments.top_k}, {arguments.rows} x {arguments.columns} float32, {arguments.device}")
    for column in ("matrix", "method", "passes", "seconds", "residual", "max |s - s_ref| / s_1", "full / top-k"):
        table.add_column(column)
    for number, build in enumerate((trained_like, spiked_noise)):
        a = build(arguments.rows, arguments.columns, torch.Generator().manual_seed(number)).to(arguments.device)
        start = time.perf_counter()
        top = top_k_svd(a, arguments.top_k)
        seconds = time.perf_counter() - start
        gap, ratio = "", ""
        if number == 0 and not arguments.skip_full:
            start = time.perf_counter()
            u, s, vh = torch.linalg.svd(a, full_matrices=False)
            full = time.perf_counter() - start
            k = arguments.top_k
            residual = residual_of(a, u[:, :k], s[:k], vh[:k])
            table.add_row(build.__name__, "torch.linalg.svd", "", f"{full:.2f}", f"{residual:.1e}", "", "1")
            gap, ratio = f"{((top.s - s[:k]).abs().max() / s[0]).item():.1e}", f"{full / seconds:.1f}"
        table.add_row(
            build.__name__, top.method, str(top.iterations), f"{seconds:.2f}", f"{top.residual:.1e}", gap, ratio
        )
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
