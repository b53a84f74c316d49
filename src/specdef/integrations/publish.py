"""`publish`: what a locked folder must and should have before the public gets it, and the way to the hub."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from specdef.checkpoint.header import read_header
from specdef.checkpoint.reader import looks_like_safetensors, open_checkpoint, stray_weights
from specdef.core.folders import SIGNATURE
from specdef.core.results import Result
from specdef.core.text import shown
from specdef.errors import CheckpointError, SpecdefError
from specdef.locks.hub_card import has_metadata
from specdef.locks.manifest import MANIFEST, read_manifest
from specdef.locks.prose import CERTIFICATE_FOLDER, README
from specdef.locks.verify import integrity

_NOT_UPLOADED = frozenset({".git", ".cache"})
_SIGN_AGAIN = "Sign again with --replace."
_SMALL = 1 << 20
"""Bytes of the largest file that may be a private key in text."""


@dataclass(frozen=True)
class Item:
    """One line of the checklist.

    Attributes:
        name: what.
        ok: whether it is there and in order.
        must: whether publishing is refused without it; the others are advice.
        detail: what was found, or what to do.
    """

    name: str
    ok: bool
    must: bool
    detail: str


@dataclass(frozen=True, repr=False)
class PublishReport(Result):
    """The checklist of a locked folder.

    Attributes:
        items: its lines.
        files: what an upload takes, paths in the folder.
        url: where it was uploaded to; None for a check.
    """

    items: tuple[Item, ...]
    files: tuple[str, ...]
    url: str | None = None

    @property
    def passed(self) -> bool:
        """Nothing that must be in order is out of it."""
        return all(item.ok or not item.must for item in self.items)


def check_release(
    folder: Path | str,
    *,
    certificate: Path | str | None = None,
    signature: Path | str | None = None,
    public_key: Path | str | None = None,
) -> PublishReport:
    """Go through the checklist of a locked folder.

    Musts: no link, no private key, no other weights, the manifest and what it says of weights, code and configuration;
    and of a signature and a certificate that are there or asked for, that they are of these files. Advice: to have
    both, and the hub's metadata in README.md.

    Args:
        folder: the locked folder.
        certificate: a results folder; looked for in ``FOLDER/certificate`` and ``FOLDER-certificate`` when None.
        signature: a signature of the folder; ``FOLDER/specdef.sig`` when None.
        public_key: of whoever signed. Without it only the digests are compared, not who signed.

    Raises:
        SpecdefError: `folder` is no folder, or `public_key` no key.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SpecdefError(f"`folder` must be a locked folder; {shown(folder)} is no folder.")
    links = _links(folder)
    files = () if links else tuple(_files(folder))
    items = [_none("links", links, "no file is a link", _links_advice(folder))]
    if not links:
        items.append(_none("private keys", _keys(folder, files), "none inside", "move it out and use another"))
        strays = stray_weights(folder, _small(folder, files))
        items.append(_none("other weights", strays, "none", "move them out; `lock --exclude` leaves them out"))
        items.append(_weights(folder))
        items.append(_signed(folder, signature, public_key))
        items.append(_certified(folder, certificate))
        items.append(_card(folder))
    return PublishReport(tuple(items), files)


def publish(
    folder: Path | str,
    repo: str,
    *,
    private: bool = False,
    certificate: Path | str | None = None,
    signature: Path | str | None = None,
    public_key: Path | str | None = None,
) -> PublishReport:
    """Check a locked folder and upload it to the hub; nothing is uploaded where a must fails.

    Args:
        folder: the locked folder.
        repo: ``org/name`` on the hub; created where there is none.
        private: of a repository that is created.
        certificate: as for `check_release`; what lies outside the folder is not uploaded.
        signature: as for `check_release`.
        public_key: as for `check_release`.

    Raises:
        SpecdefError: `folder` is no folder, a bad name, or the hub cannot be reached or refuses.
    """
    from specdef.integrations.hub import check_name, upload

    check_name(repo)
    report = check_release(folder, certificate=certificate, signature=signature, public_key=public_key)
    if not report.passed:
        return report
    return PublishReport(report.items, report.files, upload(Path(folder), report.files, repo, private=private))


def _none(name: str, found: Sequence[str], good: str, advice: str) -> Item:
    named = ", ".join(map(shown, found[:3])) + (f" and {len(found) - 3} more" if len(found) > 3 else "")
    return Item(name, not found, True, f"{named}: {advice}" if found else good)


def _links(folder: Path) -> list[str]:
    """Links among what an upload takes: what they lead to may change between the check and the upload."""
    return sorted(
        path.relative_to(folder).as_posix()
        for parent, folders, names in _walk(folder)
        for path in (parent / name for name in (*folders, *names))
        if path.is_symlink()
    )


def _links_advice(folder: Path) -> str:
    """The hub's cache consists of links; `sign` and `verify --signature` refuse it as well."""
    place = folder.resolve()
    if place.parent.name == "snapshots" and place.parent.parent.name.startswith("models--"):
        return "this is the hub's cache; `hf download NAME --local-dir DIR`, then check DIR"
    return "put the files themselves there"


def _files(folder: Path) -> list[str]:
    """Files that an upload takes, sorted."""
    return sorted(
        (parent / name).relative_to(folder).as_posix() for parent, _, names in _walk(folder) for name in names
    )


def _walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Folders with what they hold: all but what git and the hub's client keep for themselves."""
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in _NOT_UPLOADED]
        yield Path(parent), folders, names


def _small(folder: Path, files: Sequence[str]) -> list[str]:
    """The files that are no shard of the checkpoint; all of them where it cannot be opened."""
    try:
        shards = open_checkpoint(folder, publishing=False).shards
    except SpecdefError:
        return list(files)
    return [name for name in files if name not in shards]


def _keys(folder: Path, files: Sequence[str]) -> list[str]:
    return [name for name in files if name.endswith(".specdef-key") or _is_key(folder / name)]


def _is_key(path: Path) -> bool:
    if looks_like_safetensors(path):
        try:
            return "specdef_key" in (read_header(path).metadata or {}).get("body", "")
        except CheckpointError:
            return False
    return path.stat().st_size < _SMALL and b"PRIVATE KEY-----" in path.read_bytes()


def _weights(folder: Path) -> Item:
    try:
        manifest = read_manifest(folder)
        check = integrity(open_checkpoint(folder, publishing=False), manifest)
    except SpecdefError as error:
        return Item("manifest and weights", False, True, str(error))
    return Item("manifest and weights", bool(check.passed), True, check.detail)


def _signed(folder: Path, signature: Path | str | None, public_key: Path | str | None) -> Item:
    from specdef.integrations.signing.bundle import read_bundle, signed_digests
    from specdef.integrations.signing.folders import differences, named_folders
    from specdef.integrations.signing.sign import verify_signature

    place = folder / SIGNATURE if signature is None else Path(signature)
    if signature is None and not place.exists():
        detail = "none; `specdef sign` writes one, so that others can check who published it"
        return Item("signature", False, public_key is not None, detail)
    if public_key is not None:
        report = verify_signature(folder, signature=place, public_key=public_key)
        again = "" if report.passed else f" {_SIGN_AGAIN}"
        return Item("signature", report.passed, True, report.detail + again)
    try:
        signed = signed_digests(read_bundle(place))
        found = {name: _sha256(path) for name, path in named_folders([folder], place).files().items()}
    except SpecdefError as error:
        return Item("signature", False, True, str(error))
    if signed != found:
        return Item("signature", False, True, f"{differences(signed, found)} {_SIGN_AGAIN}")
    return Item("signature", True, True, f"of these {len(found)} files; who signed is not checked without a public key")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _certified(folder: Path, certificate: Path | str | None) -> Item:
    from specdef.certify.certificate_file import CERTIFICATE, read_certificate
    from specdef.integrations.certified import is_of_folder

    beside = folder.resolve().with_name(f"{folder.resolve().name}-{CERTIFICATE_FOLDER}")
    places = (folder / CERTIFICATE_FOLDER, beside) if certificate is None else (Path(certificate),)
    place = next((place for place in places if (place / CERTIFICATE).is_file()), None)
    if place is None:
        where = "none in the folder or beside it" if certificate is None else f"none in {shown(places[0])}"
        detail = f"{where}; `specdef certify` makes one. Claim nothing without it"
        return Item("certificate", False, certificate is not None, detail)
    try:
        ok = is_of_folder(read_certificate(place).subject.digest, folder, read_manifest(folder))
    except SpecdefError as error:
        return Item("certificate", False, True, str(error))
    if not ok:
        return Item("certificate", False, True, f"{shown(place)} is of other files than these; certify this folder")
    inside = place == folder / CERTIFICATE_FOLDER
    return Item("certificate", True, True, shown(place) + ("" if inside else " (outside the folder: not uploaded)"))


def _card(folder: Path) -> Item:
    try:
        ok = has_metadata(folder / README)
    except SpecdefError as error:
        return Item("model card", False, False, str(error))
    advice = "README.md does not tag specdef; `lock --card` writes that"
    return Item("model card", ok, False, f"{README} tags specdef, beside {MANIFEST}" if ok else advice)
