"""README.md of a locked folder as the hub's model card: metadata that names the lock, and a section about it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from specdef.core.text import shown
from specdef.core.yaml_data import YamlError, parse_yaml
from specdef.errors import CheckpointError
from specdef.locks.base import LockKind
from specdef.locks.card import claimed_line, map_line, runtimes_line

TAG = "specdef"
BEGIN, END = "<!-- specdef: begin -->", "<!-- specdef: end -->"
_FRONT = re.compile(r"\A\ufeff?\s*^---[ \t]*\r?\n(.*?)^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_SECTION = """{begin}
## Locked with specdef

{function} Fine-tuning it as usual is made to diverge. Method `{method}`, multiplier {multiplier}.

{claimed}- Quantise or convert it with care: {quantisation}.
{runtimes}{map}
A lock raises the cost of fine-tuning for people who do not look; it is not security. `SPECDEF_LOCK.md` says what it
does not stop, `specdef_lock.json` holds the digests, and `specdef verify DIR` checks both.
{end}
"""


def hub_card(
    readme: bytes | None,
    kind: LockKind,
    strength: Mapping[str, Any],
    exactness: Mapping[str, Any],
    base: str | None,
    *,
    library: str = "transformers",
) -> bytes:
    """README.md of a locked folder: the user's text and metadata, with the lock's added.

    Args:
        readme: the original's, or None where there is none.
        kind: the lock.
        strength: as in the manifest.
        exactness: as in the manifest.
        base: hub id of the model that was locked, where it is known.
        library: that loads it.

    Raises:
        CheckpointError: the original is not UTF-8, or what stands between its ``---`` lines is no YAML mapping.
    """
    text = _text(readme or b"")
    front = _FRONT.match(text)
    old = _metadata(text)
    tags = old.get("tags") or []
    tags = [*([tags] if isinstance(tags, str) else tags)]
    new = {**old, "tags": tags if TAG in tags else [*tags, TAG]}
    new.setdefault("library_name", library)
    if base is not None:
        new.setdefault("base_model", base)
    body = text[front.end() :] if front else text.removeprefix("\ufeff")
    section = _SECTION.format(
        begin=BEGIN,
        end=END,
        function=kind.promise(exactness),
        method=kind.name,
        multiplier=strength["multiplier"],
        claimed=claimed_line(exactness),
        quantisation=exactness["quantisation"],
        runtimes=runtimes_line(exactness),
        map=map_line(exactness),
    )
    lines = _merged(front.group(1) if front else "", old, new)
    gap = "" if not body else "\n" if body.endswith("\n") else "\n\n"
    return f"---\n{lines}---\n{body}{gap}{section}".encode()


def has_metadata(readme: Path) -> bool:
    """Whether a README.md tells the hub that the model is locked.

    Raises:
        CheckpointError: it cannot be read as a model card.
    """
    tags = _metadata(_text(readme.read_bytes())).get("tags") if readme.is_file() else None
    return tags == TAG or (isinstance(tags, list) and TAG in tags)


def base_model(folder: Path, config: Mapping[str, Any]) -> str | None:
    """The hub id a model folder came under: from the hub's cache, or from config.json; None where neither says."""
    cached = [part for part in folder.resolve().parts if part.startswith("models--")]
    if cached:
        return cached[-1].removeprefix("models--").replace("--", "/", 1)
    named = config.get("_name_or_path")
    return named if isinstance(named, str) and _HUB_ID.fullmatch(named) and not Path(named).exists() else None


def _text(readme: bytes) -> str:
    try:
        return readme.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError("File README.md must be UTF-8 text; it is not. Mend it, or leave out `card`.") from error


def _metadata(text: str) -> dict[str, Any]:
    front = _FRONT.match(text)
    try:
        found = parse_yaml(front.group(1).encode()) if front else None
        if found is not None and not isinstance(found, dict):
            raise YamlError("it is no mapping of names to values")
    except YamlError as error:
        raise CheckpointError(
            f"File README.md must hold YAML between its --- lines; {shown(error)}. Mend it, or leave out `card`."
        ) from error
    return found or {}


def _merged(lines: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """The user's lines with the entries that differ replaced or added; written anew where that is not what they say."""
    import yaml

    def entry(name: str) -> str:
        return str(yaml.safe_dump({name: new[name]}, sort_keys=False, allow_unicode=True, width=10_000))

    text = lines.replace("\r\n", "\n")
    for name in (name for name in new if new[name] != old.get(name)):
        if name in old:
            block = re.compile(rf"^{re.escape(name)}[ \t]*:.*\n(?:(?:[ \t-].*)?\n)*", re.MULTILINE)
            text = block.sub(lambda _, name=name: entry(name), text, count=1)  # type: ignore[misc]
        else:
            text += entry(name)
    try:
        if parse_yaml(text.encode()) == new:
            return text
    except YamlError:
        pass
    return str(yaml.safe_dump(dict(new), sort_keys=False, allow_unicode=True, width=10_000))
