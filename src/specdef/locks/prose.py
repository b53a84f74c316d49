"""Which small files of a model folder are read by people only: the one rule that `verify` and `unlock` ask."""

from __future__ import annotations

from pathlib import PurePosixPath

from specdef.core.folders import SIGNATURE

README = "README.md"
CERTIFICATE_FOLDER = "certificate"
"""Where a certificate lies in a folder that is published with it."""
_PAGES = frozenset({".md", ".rst", ".pdf"})
_PICTURES = frozenset({".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp"})
_RESULTS = frozenset({".json", ".html", ".csv"})
_LEGAL = ("license", "licence", "notice", "copying", "copyright", "authors", "citation")
_READ_BY_TOKENIZERS = ("vocab", "merges", "token", "dict", "bpe", "spm", "label", "template", "requirements")


def is_prose(name: str) -> bool:
    """Whether a file may change, appear or vanish without a change of what the model computes.

    Prose is said and passes; everything else is code or configuration and fails. Prose is: pages (``.md``, ``.rst``,
    ``.pdf``), pictures, licences and notices without an ending or as text, other ``.txt`` files unless their name says
    that a tokenizer or an installer reads them (vocab, merges, token, dict, bpe, spm, label, template, requirements),
    ``.gitattributes`` and ``.gitignore``, the signature ``specdef.sig`` at the top, and a certificate in the folder
    ``certificate``. A name that is none of these counts as code: ``config.json``, tokenizer files, ``*.py``,
    ``*.jinja``, and whatever is not known.

    Args:
        name: path inside the folder, with forward slashes.

    Example:
        >>> [is_prose(name) for name in ("README.md", "LICENSE", "docs/plot.png", "NOTES.txt", "specdef.sig")]
        [True, True, True, True, True]
        >>> [is_prose(name) for name in ("config.json", "merges.txt", "LICENSE.py", "modeling.py")]
        [False, False, False, False]
    """
    path = PurePosixPath(name)
    stem, suffix = path.name.lower(), path.suffix.lower()
    if name in (SIGNATURE, ".gitattributes", ".gitignore") or suffix in _PAGES | _PICTURES:
        return True
    if suffix == ".txt":
        return not any(word in stem for word in _READ_BY_TOKENIZERS)
    if len(path.parts) > 1 and path.parts[0] == CERTIFICATE_FOLDER:
        return suffix in _RESULTS
    return not suffix and stem.startswith(_LEGAL)
