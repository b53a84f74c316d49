"""`sign` and `verify_signature`: one statement over every file of a locked folder, of its certificate, or of both."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from specdef.core.atomic import write_file
from specdef.core.folders import SIGNATURE
from specdef.core.results import Result
from specdef.core.schema import SchemaError
from specdef.core.text import shown
from specdef.errors import SignatureError, SpecdefError
from specdef.integrations.signing.bundle import parse_bundle, read_bundle
from specdef.integrations.signing.folders import Folders, named_folders


@dataclass(frozen=True, repr=False)
class SignReport(Result):
    """What `sign` wrote.

    Attributes:
        signature: the file.
        files: how many files it is of.
        made_with: a private key, a certificate, or keyless signing.
    """

    signature: Path
    files: int
    made_with: str


@dataclass(frozen=True, repr=False)
class SignatureReport(Result):
    """What `verify_signature` found.

    Attributes:
        passed: every file is there as it was signed, no other is, and the signature is of whom was asked for.
        detail: that, or the first fault, in one sentence.
        files: how many files were signed; None where the check failed.
    """

    passed: bool
    detail: str
    files: int | None = None


def sign(
    *folders: Path | str,
    key: Path | str | None = None,
    certificate: Sequence[Path | str] = (),
    keyless: bool = False,
    out: Path | str | None = None,
    replace: bool = False,
) -> SignReport:
    """Sign every file of one folder, or of several in one statement.

    Args:
        folders: locked folders and results folders.
        key: a private key, elliptic-curve, in PEM; or leave it out and sign `keyless`.
        certificate: PEM files: the key's certificate first, then those between it and a root.
        keyless: sign as whoever logs in, through Sigstore's servers.
        out: the signature file to write (default: ``specdef.sig`` in the folder; needed with several).
        replace: write over an older signature.

    Raises:
        SpecdefError: an argument is of no use; nothing was written.
    """
    places, certificates = [Path(folder) for folder in folders], [Path(path) for path in certificate]
    private = None if key is None else Path(key)
    if (private is not None) == keyless:
        raise SpecdefError("`key` must be given, or `keyless`, and not both. Make a key with openssl: docs/signing.md.")
    if certificates and private is None:
        raise SpecdefError("`certificate` must be left out with `keyless`, which makes its own.")
    if out is None and len(places) > 1:
        raise SpecdefError("`out` must be given with several folders: the signature file to write.")
    target = Path(out) if out is not None else (places[0] if places else Path()) / SIGNATURE
    named = named_folders(places, target)
    _refuse_out(target, replace)
    if private is not None:
        _refuse_inside(private, named)
    library_needed()
    from specdef.integrations.signing import library

    if private is None:
        signer: library.Signer = library.keyless
    else:
        signer = library.with_certificate(private, certificates) if certificates else library.with_key(private)
    data, count = library.write_signature(named, signer)
    made_with = parse_bundle(data).made_with  # what would be refused later is refused now
    _refuse_out(target, replace)
    try:
        write_file(target, data)
    except OSError as error:
        raise SpecdefError(f"`out` must be writable; {shown(target)} is not ({error.strerror or error}).") from error
    return SignReport(target, count, made_with.value)


def verify_signature(
    *folders: Path | str,
    signature: Path | str,
    public_key: Path | str | None = None,
    root_certificate: Sequence[Path | str] = (),
    identity: str | None = None,
    issuer: str | None = None,
) -> SignatureReport:
    """Check that folders are, file by file, what was signed, and by whom. A check that fails is a result, no error.

    Args:
        folders: those that were signed, all of them; several must have the names they were signed under.
        signature: the file `sign` wrote.
        public_key: of the private key it was made with, in PEM.
        root_certificate: PEM files of the roots trusted; any certificate they issued for signing passes.
        identity: who signed without a key, such as an e-mail address; goes with `issuer`.
        issuer: who vouches for that, such as ``https://accounts.google.com``.

    Raises:
        SpecdefError: an argument is of no use.
    """
    roots = [Path(path) for path in root_certificate]
    if (identity is None) != (issuer is None):
        raise SpecdefError("`identity` must be given with `issuer`, who vouches for it, and `issuer` with `identity`.")
    if sum((public_key is not None, bool(roots), identity is not None)) != 1:
        raise SpecdefError("`public_key`, `root_certificate` or `identity` must be given, one of them: who may sign.")
    for name, paths in (("public_key", () if public_key is None else (Path(public_key),)), ("root_certificate", roots)):
        if missing := [path for path in paths if not path.exists()]:
            raise SpecdefError(f"`{name}` must be readable; {shown(missing[0])} is not there.")
    named = named_folders([Path(folder) for folder in folders], Path(signature))
    library_needed()
    from specdef.integrations.signing import library

    try:
        bundle = read_bundle(named.signature)
        if public_key is not None:
            count, signer = library.check_key(named, bundle, Path(public_key)), f"the key of {shown(public_key)}"
        elif identity is not None and issuer is not None:
            count, signer = library.check_keyless(named, bundle, identity, issuer), shown(identity)
        else:
            count, signer = library.check_certificate(named, bundle, roots)
    except SignatureError as error:
        return SignatureReport(False, str(error))
    files = "The one file is as it was" if count == 1 else f"All {count} files are as they were"
    return SignatureReport(True, f"{files} when signed with {signer}, and no other is there.", count)


def library_needed() -> None:
    """Raise SpecdefError unless what signs is installed."""
    if any(importlib.util.find_spec(name) is None for name in ("model_signing", "OpenSSL")):
        raise SpecdefError("Signatures need the package model-signing. Run `pip install specdef[sign]`.")


def _refuse_out(target: Path, replace: bool) -> None:
    if not target.parent.is_dir():
        raise SpecdefError(f"`out` must be in a folder that exists; {shown(target.parent)} does not. Create it first.")
    if not target.exists() and not target.is_symlink():
        return
    try:
        parse_bundle(target.read_bytes())
    except (OSError, SchemaError) as error:
        raise SpecdefError(f"`out` must be a new file or a signature; {shown(target)} is neither.") from error
    if not replace:
        raise SpecdefError(f"`out` must be a new file; {shown(target)} is a signature. Say --replace to write over it.")


def _refuse_inside(key: Path, folders: Folders) -> None:
    place = key.parent.resolve() / key.name
    for folder in folders.parts.values():
        if place.is_relative_to(folder.resolve()) or key.resolve().is_relative_to(folder.resolve()):
            raise SpecdefError(
                f"`key` must lie outside the folders that are signed; {shown(key)} is inside {shown(folder)}, "
                "and would be published with it."
            )
