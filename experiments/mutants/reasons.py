"""Faults that no test can see, and why."""

from __future__ import annotations

STATISTICS, OUTCOME = "certify/statistics.py", "training/outcome.py"
SAME_LENGTH = "both lists are made from the same evaluations: their lengths never differ"
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
    ("certify/rates.py", "valid[0].lr >= reach.lowest", "a rate that was tried is not tried again"),
    ("attacks/rewrites/scales.py", "abs(apart) >= MOST_APART", "equality of two floating-point numbers"),
    ("attacks/rewrites/scales.py", "astype(None)", "numpy's own type is float64, the one that stands there"),
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
