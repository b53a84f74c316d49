"""Tables for papers: LaTeX with the rules of booktabs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from specdef.report.form import plain

_ESCAPES = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "—": r"\textemdash{}",
    "`": r"\textquoteright{}",
    "†": r"\textdagger{}",
    "‡": r"\textdaggerdbl{}",
    "§": r"\S{}",
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
}


def latex_table(columns: Sequence[str], rows: Iterable[Sequence[str]], caption: str) -> str:
    """A table environment; the first column is flush left, the others are centred.

    Args:
        columns: names.
        rows: plain texts, as many each as there are columns.
        caption: plain text.
    """
    lines = [" & ".join(map(escape, row)) + r" \\" for row in rows]
    body = "\n".join([r"\toprule", " & ".join(map(escape, columns)) + r" \\", r"\midrule", *lines, r"\bottomrule"])
    return (
        "% Needs \\usepackage{booktabs}.\n\\begin{table}\n\\centering\n"
        f"\\caption{{{escape(caption)}}}\n\\begin{{tabular}}{{l{'c' * (len(columns) - 1)}}}\n{body}\n"
        "\\end{tabular}\n\\end{table}\n"
    )


def escape(text: object) -> str:
    """Plain text that LaTeX sets as it is written.

    Example:
        >>> print(escape("20 ± 5, 50 % of v_proj"))
        20 $\\pm$ 5, 50 \\% of v\\_proj
    """
    return "".join(_ESCAPES.get(sign, sign) for sign in plain(text)).replace("--", "-{}-")
