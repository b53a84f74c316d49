"""Signing and checking with model-signing. The one file that imports it.

Its public interface does the hashing, the statement and the cryptography; here it is told which files, and its
exceptions become sentences. It reads a private key once, where it lies, so that a pipe will do.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from model_signing import hashing, manifest, signing, verifying

from specdef.core.folders import scratch_folder
from specdef.core.text import shown
from specdef.errors import SignatureError, SpecdefError
from specdef.integrations.signing.bundle import HASH, Bundle, MadeWith, signed_digests
from specdef.integrations.signing.certificates import (
    in_order,
    read_certificates,
    refuse_useless,
    subject,
    trusted_chain,
)
from specdef.integrations.signing.folders import Folders, differences, refuse_unfinished

CURVES = "an elliptic-curve key (P-256, P-384 or P-521) in PEM"


class _Files(hashing.Config):
    """Hashes the files of a statement and no others, whatever a signature says should be left out."""

    def __init__(self, folders: Folders) -> None:
        super().__init__()
        self.use_file_serialization(hashing_algorithm=HASH)
        self.set_ignored_paths(paths=folders.ignored(), ignore_git_paths=False)
        self._folders = folders
        self.found: dict[str, str] | None = None
        """Name -> digest, once a statement turned out to be genuine."""

    def hash(self, model_path: Any, *, files_to_hash: Iterable[Any] | None = None) -> manifest.Manifest:
        names = self._folders.files()
        try:
            found = super().hash(model_path, files_to_hash=[Path(model_path) / name for name in names])
        except OSError as error:
            where = shown(error.filename or self._folders.name)
            raise SignatureError(f"{where} cannot be read ({error.strerror or error}).") from error
        self.found = {item.identifier: item.digest.digest_hex for item in found.resource_descriptors()}
        return found

    def add_ignored_paths(self, *, model_path: Any, paths: Iterable[Any]) -> None:
        """Nothing: what a statement leaves out counts as added."""


Signer = Callable[[Path], signing.Config]
"""Given a scratch folder."""


def with_key(key: Path) -> Signer:
    """Sign with a private key."""

    def configure(_: Path) -> signing.Config:
        with _key_faults("key", key, f"{CURVES}, without a passphrase"):
            return signing.Config().use_elliptic_key_signer(private_key=key)

    return configure


def with_certificate(key: Path, files: Sequence[Path]) -> Signer:
    """Sign with a private key and its certificate, the first in `files`; the others lead to a root."""
    chain = in_order([certificate for file in files for certificate in read_certificates(file, "certificate")])
    refuse_useless(chain[0])

    def configure(scratch: Path) -> signing.Config:
        (scratch / "signer.pem").write_bytes(chain[0].public_bytes(Encoding.PEM))
        rest = chain[1:] or chain  # the library takes no empty chain
        (scratch / "chain.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in rest))
        what = f"{CURVES}, without a passphrase, and the one that the certificate of {subject(chain[0])} is for"
        with _key_faults("key", key, what):
            return signing.Config().use_certificate_signer(
                private_key=key,
                signing_certificate=scratch / "signer.pem",
                certificate_chain=[scratch / "chain.pem"],
            )

    return configure


def keyless(_: Path) -> signing.Config:
    """Sign as whoever logs in, or as the machine says it is; through Sigstore's servers."""
    try:
        return signing.Config().use_sigstore_signer(use_ambient_credentials=True)
    except Exception as error:  # whatever the network makes the library raise
        raise _out_of_reach(error) from error


def write_signature(folders: Folders, signer: Signer) -> tuple[bytes, int]:
    """A signature file's bytes, and how many files it is of.

    Raises:
        SpecdefError: there is nothing to sign, a key or a certificate is of no use, or Sigstore is out of reach.
    """
    with _root(folders) as (scratch, root):
        config = signer(scratch)
        files = _Files(folders)
        refuse_unfinished(folders.files())
        try:
            config.set_hashing_config(files).sign(root, scratch / "signature")
        except SpecdefError:
            raise
        except Exception as error:  # only keyless signing asks others
            raise _out_of_reach(error) from error
        return (scratch / "signature").read_bytes(), len(files.found or {})


def check_key(folders: Folders, bundle: Bundle, public_key: Path) -> int:
    """The number of files, all as they were signed with the private key of `public_key`.

    Raises:
        SpecdefError: `public_key` is no such key.
        SignatureError: the signature does not hold.
    """
    with _key_faults("public_key", public_key, CURVES):
        config = verifying.Config().use_elliptic_key_verifier(public_key=public_key)
    _require(bundle, MadeWith.KEY)
    return _check(
        folders, bundle, config, f"It was not made with the private key of {shown(public_key)}, or was altered since."
    )


def check_certificate(folders: Folders, bundle: Bundle, roots: Sequence[Path]) -> tuple[int, str]:
    """The same for a certificate that leads to one of the certificates in `roots`; and whose it is."""
    trusted = [certificate for file in roots for certificate in read_certificates(file, "root_certificate")]
    config = verifying.Config().use_certificate_verifier(certificate_chain=roots)
    _require(bundle, MadeWith.CERTIFICATE)
    signer = subject(trusted_chain(bundle.certificates, trusted)[0])
    return _check(folders, bundle, config, f"It is not of {signer}, or was altered since."), signer


def check_keyless(folders: Folders, bundle: Bundle, identity: str, issuer: str) -> int:
    """The same for who logged in as `identity` at `issuer`."""
    _require(bundle, MadeWith.KEYLESS)
    try:
        config = verifying.Config().use_sigstore_verifier(identity=identity, oidc_issuer=issuer)
    except Exception as error:  # whatever the network makes the library raise
        raise _out_of_reach(error) from error
    return _check(folders, bundle, config, f"It was not made by {shown(identity)} of {shown(issuer)}, or was altered.")


def _check(folders: Folders, bundle: Bundle, config: verifying.Config, otherwise: str) -> int:
    files = _Files(folders)
    with _root(folders) as (scratch, root):
        (scratch / "signature").write_bytes(bundle.data)  # what is checked is what was read, whoever writes meanwhile
        try:
            config.set_hashing_config(files).verify(root, scratch / "signature")
        except SignatureError:
            raise
        except Exception as error:  # whatever a stranger's file makes the library raise: it is not verified
            if files.found is None:
                reason = "" if isinstance(error, InvalidSignature) else f" ({_line(error)})"
                raise SignatureError(f"The signature does not hold: {otherwise.rstrip('.')}{reason}.") from error
            raise SignatureError(differences(signed_digests(bundle), files.found)) from error
    return len(files.found or {})


@contextmanager
def _root(folders: Folders) -> Iterator[tuple[Path, Path]]:
    """A scratch folder, and a folder below which every file has the name it has in the statement."""
    with scratch_folder(None) as scratch:
        if "" in folders.parts:
            yield scratch, folders.parts[""]
            return
        root = scratch / folders.name
        root.mkdir()
        for prefix, folder in folders.parts.items():
            (root / prefix.rstrip("/")).symlink_to(os.path.abspath(folder))  # noqa: PTH100
        yield scratch, root


@contextmanager
def _key_faults(argument: str, path: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise SpecdefError(f"`{argument}` must be readable; {shown(path)} is not ({error.strerror}).") from error
    except Exception as error:  # of a foreign file, many: no PEM, a passphrase, another kind of key, another curve
        raise SpecdefError(f"`{argument}` must be {what}; {shown(path)} is not.") from error


def _require(bundle: Bundle, expected: MadeWith) -> None:
    if bundle.made_with is not expected:
        raise SignatureError(
            f"The signature was made with {bundle.made_with.value}, and {expected.value} was to be checked."
        )


def _out_of_reach(error: Exception) -> SpecdefError:
    return SpecdefError(
        f"`keyless` must reach Sigstore's servers; this machine does not ({_line(error)}). Sign with a key instead."
    )


def _line(error: Exception) -> str:
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0][:200])
