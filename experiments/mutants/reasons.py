"""Faults that no test can see, and why."""

from __future__ import annotations

STATISTICS, OUTCOME = "certify/statistics.py", "training/outcome.py"
SAME_LENGTH = "both lists are made from the same evaluations: their lengths never differ"
SAME_TENSORS = "both lists are made of the same tensors: their lengths never differ"
LEFT_OUT = "the same: what is left out is what holds anyway"
FLOATS = "equality of two floating-point numbers"
WIDE = "numpy's own type is float64, the one that stands there"
PAIRED = ("compared", "factor_chain", "heads", "scales")
NO_EQUALITY = "a lower end is the target in no case but 0, and targets lie above chance"
REASONS = (
    (OUTCOME, "strict=", SAME_LENGTH),
    (OUTCOME, "inside, )", "the same: strict left out"),
    (STATISTICS, "if parts.groups else 1.0", "where groups do not differ, every share of their mean square is 0"),
    (STATISTICS, "half >= 1e-12", "equality of two floating-point numbers"),
    (STATISTICS, "found.low >= target", NO_EQUALITY),
    (STATISTICS, "low >= target", NO_EQUALITY),
    (STATISTICS, "range(groups + 2)", "more right answers than questions are never the fewest that are enough"),
    (STATISTICS, "range(31)", "one halving more than thirty"),
    (STATISTICS, ") > power else", "equality of two floating-point numbers"),
    ("certify/findings.py", "return (2.0,", "1.0 and 2.0 are both above the 0.0 of an attack that failed"),
    *(
        (f"attacks/rewrites/{file}.py", "strict=", SAME_TENSORS)
        for file in ("compared", "factor_chain", "heads", "scales")
    ),
    *((f"attacks/rewrites/{file}.py", ", )", LEFT_OUT) for file in ("compared", "factor_chain", "heads", "scales")),
    *((f"attacks/rewrites/{file}.py", "astype(None)", WIDE) for file in ("channel_factors", "compared", "differences")),
    ("attacks/rewrites/scales.py", "astype(None)", WIDE),
    ("attacks/rewrites/scales.py", "abs(apart) >= MOST_APART", FLOATS),
    ("attacks/rewrites/channel_factors.py", "spread <= MOST_SPREAD", FLOATS),
    ("attacks/rewrites/channel_factors.py", "np.abs(logs - power) < np.maximum", FLOATS),
    ("attacks/rewrites/channel_factors.py", "(np.abs(logs) >= np.maximum", FLOATS),
    ("attacks/rewrites/channel_factors.py", "more.any()", "one sweep more, or a last one less, finds the same medians"),
    ("attacks/rewrites/compared.py", "dtype=None", "the sum of an array and a number has the array's type"),
    ("attacks/rewrites/compared.py", "np.abs(side)) < LEAST", FLOATS),
    ("attacks/rewrites/compared.py", "<= unit * most) or", FLOATS),
    ("attacks/rewrites/compared.py", "np.abs(one) < unit * most", FLOATS),
    ("attacks/rewrites/compared.py", "reshape(None)", "the tensor's bytes are the same in any shape"),
    ("attacks/rewrites/differences.py", "wide.T @ wide", "the larger product has the same eigenvalues, and zeros"),
    ("attacks/rewrites/differences.py", "clip(min=None)", "an eigenvalue below zero by rounding moves no share"),
    ("attacks/rewrites/factor_chain.py", "dtype=None", "the product is made in the wider type anyway"),
    ("attacks/rewrites/factor_chain.py", "clamp(None, 1)", "no ratio of a real layer is as small as 1e-12"),
    ("attacks/rewrites/factor_chain.py", "rtol=None", "torch's own cut lies where ours does"),
    ("attacks/rewrites/heads.py", "probe = ", "other probes tell as well how far two products are apart"),
    ("locks/hub_card.py", "width=10001", "no name is as long as the line that would be folded"),
    ("locks/lock.py", "spool = None", "a kind that spools gets a folder below, no other kind looks"),
    ("locks/model_tensors.py", "count < 2**32", "a parameter of two billion numbers is too large for a test"),
    ("locks/verify.py", "lambda stage: 0", "nobody asks what it returns"),
    ("linalg/svd.py", "left.split(rows), strict=", "a matrix and its left vectors have as many rows"),
    ("checkpoint/small_files.py", "ensure_ascii=None", "None is as false as False"),
    ("checkpoint/writer.py", "num_workers: int = 3", "one shard more at once writes the same files"),
    ("checkpoint/writer.py", 'cast("b")', "bytes with or without a sign are the same bytes"),
    ("linalg/svd.py", "result.residual < tol", "equality of two floating-point numbers"),
)
"""(module, a part of the changed lines, why no test can see it)."""
