"""Faults that no test can see, and why."""

from __future__ import annotations

STATISTICS, OUTCOME = "certify/statistics.py", "training/outcome.py"
SAME_LENGTH = "both lists are made from the same evaluations: their lengths never differ"
SAME_TENSORS = "both lists are made of the same tensors: their lengths never differ"
LEFT_OUT = "the same: what is left out is what holds anyway"
FLOATS = "equality of two floating-point numbers"
WIDE = "numpy's own type is float64, the one that stands there"
BUFFERED = "buffered or not, the same bytes are read"
ON_CPU = "the device left out is the CPU's, where the tests run"
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
    ("locks/kinds/fold/check.py", "most_common(", "the first of one, of two and of all is the same"),
    ("locks/kinds/fold/check.py", "/ np.sign(", "a sign divides as it multiplies"),
    ("locks/hub_card.py", "width=10001", "no name is as long as the line that would be folded"),
    ("locks/lock.py", "spool = None", "a kind that spools gets a folder below, no other kind looks"),
    ("locks/model_tensors.py", "count < 2**32", "a parameter of two billion numbers is too large for a test"),
    ("locks/verify.py", "publishing=None", "None is as false as False"),
    ("locks/verify.py", "lambda stage: 0", "nobody asks what it returns"),
    ("linalg/svd.py", "left.split(rows), strict=", "a matrix and its left vectors have as many rows"),
    ("checkpoint/blocks.py", "tensor.shape else 2", "a tensor without axes is one block, as one row or as two"),
    ("checkpoint/digests.py", "by_rows=", "blocks of whole rows hold the same bytes"),
    *((f"checkpoint/{file}.py", "buffering=1", BUFFERED) for file in ("digests", "writer")),
    *((f"checkpoint/{file}.py", 'open("rb", )', BUFFERED) for file in ("digests", "writer")),
    ("checkpoint/header.py", "if (prefix) or True", "a name with nothing before it is the same name"),
    ("checkpoint/small_files.py", "parents=None", "the folder of a component is there before its files"),
    ("checkpoint/writer.py", "max_workers=None", "more shards at once write the same files"),
    ("checkpoint/writer.py", "cancel_futures=None", "what still waits is stopped at its first block"),
    ("checkpoint/small_files.py", "ensure_ascii=None", "None is as false as False"),
    ("checkpoint/writer.py", "num_workers: int = 3", "one shard more at once writes the same files"),
    ("checkpoint/writer.py", 'cast("b")', "bytes with or without a sign are the same bytes"),
    ("linalg/svd.py", "result.residual < tol", FLOATS),
    ("linalg/svd.py", "a.shape[1]:", "the long side is never the first to be full"),
    ("linalg/svd.py", "width = ", "a wider or narrower space finds the same triplets, at another cost"),
    ("linalg/svd.py", "torch.empty(0, 0,", "an empty matrix of any type joins to the other's type"),
    ("linalg/svd.py", "dtype=a.dtype, )", ON_CPU),
    ("linalg/svd.py", "dtype=block.dtype, )", ON_CPU),
    ("linalg/svd.py", "found.s[1]", "a bound for rounding, by the second value instead of the first"),
    ("linalg/svd.py", "torch.linalg.svd(a.double(), )", "the vectors that are more are cut off next"),
    ("linalg/svd.py", "full_matrices=True", "the vectors that are more are cut off next"),
    ("linalg/svd.py", "short < FULL_SIZE", "which way is cheaper at equal cost; both find the same"),
    ("linalg/svd.py", ">= short:", "which way is cheaper at equal cost; both find the same"),
    ("linalg/svd.py", "short <= FULL_SIZE and", "the iteration finds the same in small matrices, at another cost"),
    ("linalg/svd.py", "1e-12 <= largest", FLOATS),
    ("linalg/svd.py", "bound >= 0.5", FLOATS),
    ("linalg/svd.py", "larger = s >= ", FLOATS),
    ("linalg/svd.py", "a.shape[1] > a.shape[1]", "a tall matrix is iterated as it is, at another cost"),
    ("linalg/svd.py", "basis.shape[1] - k > ", "a basis that is full has nothing left to be widened by"),
    ("linalg/svd.py", "basis.shape[1] + k >= ", "a basis that is nearly full is as good"),
    ("linalg/svd.py", "generator=generator, dtype=None", "drawn in float32 and widened, it starts as well"),
    ("linalg/svd.py", "dtype=a.dtype, device=None", ON_CPU),
    ("linalg/svd.py", "BLOCK, dtype=a.dtype, device=a.device", "any start finds what was missed"),
    ("linalg/svd.py", "tol / found.s[0]", "a bound for rounding: too small a one costs an iteration"),
    ("linalg/exponent.py", 'over="ignore", )', "ldexp gives no warning for what is too small"),
    ("linalg/svd.py", "rows = max(2", "some rows at a time or two give the same product"),
    ("linalg/svd.py", "dtype=torch.float64, device=None", ON_CPU),
    ("linalg/svd.py", "dtype=torch.float64, )", ON_CPU),
    ("linalg/svd.py", "left.split(rows), )", "a matrix and its left vectors have as many rows"),
    ("linalg/svd.py", "torch.empty(short, 0,", "an empty matrix of any type joins to the other's type"),
    ("linalg/multiplier.py", "range(7, 18)", "six digits or seven write a short number alike"),
    ("linalg/closeness.py", "manual_seed(1)", "other probes tell as well how far two layers are apart"),
    ("linalg/closeness.py", "OutputError(-1.0, 1", "the first output that is compared is worse than no output"),
    ("linalg/constructions.py", "torch.linalg.pinv(locked, )", "torch's own cut lies where ours does"),
    ("linalg/constructions.py", "r.shape[0] != r.shape[1]", "the other way to the same matrix, to rounding"),
)
"""(module, a part of the changed lines, why no test can see it)."""
