"""Signing certificates: read, set in order from the signer to a root, and judged at the present time.

model-signing judges a certificate at the time it began to be valid, so that an expired one passes for ever; offline,
nothing proves when a signature was made, so here it must be valid now.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509.oid import ExtendedKeyUsageOID

from specdef.core.text import shown
from specdef.errors import SignatureError, SpecdefError


def read_certificates(path: Path, argument: str) -> list[x509.Certificate]:
    """The certificates of a PEM file.

    Raises:
        SpecdefError: it cannot be read or holds none; the sentence names `argument`.
    """
    try:
        return x509.load_pem_x509_certificates(path.read_bytes())
    except OSError as error:
        raise SpecdefError(f"`{argument}` must be readable; {shown(path)} is not ({error.strerror}).") from error
    except ValueError as error:
        raise SpecdefError(f"`{argument}` must hold certificates in PEM; {shown(path)} does not.") from error


def in_order(certificates: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """From the signer's, which comes first, each followed by its issuer; the root and what leads nowhere left out."""
    found, rest = [certificates[0]], list(certificates[1:])
    while issuer := next((other for other in rest if _issued(found[-1], other)), None):
        rest.remove(issuer)
        if not _issued(issuer, issuer):
            found.append(issuer)
    return found


def refuse_useless(certificate: x509.Certificate) -> None:
    """Raise SignatureError unless a certificate is valid now and for signing."""
    _refuse_other_times(certificate)
    if not _may_sign(certificate):
        raise SignatureError(f"The certificate of {subject(certificate)} is not for signing (its key usage says so).")


def trusted_chain(certificates: Iterable[bytes], roots: Sequence[x509.Certificate]) -> list[x509.Certificate]:
    """The chain in a signature, from the signer on; a signer without a chain stands there twice.

    Raises:
        SignatureError: it is broken, does not lead to one of `roots`, or has a link that is not valid now.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of an odd serial number; whether it matters is decided here
            chain = [x509.load_der_x509_certificate(data) for data in dict.fromkeys(certificates)]
            _refuse_untrusted(chain, roots)
    except SignatureError:
        raise
    except Exception as error:  # a stranger's certificate is read bit by bit, and every bit may be of no known kind
        raise SignatureError("The signature holds a certificate that cannot be read; it was altered.") from error
    return chain


def _refuse_untrusted(chain: Sequence[x509.Certificate], roots: Sequence[x509.Certificate]) -> None:
    refuse_useless(chain[0])
    for one, issuer in pairwise(chain):
        if not _issued(one, issuer):
            raise SignatureError(
                f"The certificate of {subject(one)} was not issued by the next in the signature, {subject(issuer)}."
            )
        _refuse_other_times(issuer)
    issuers = [root for root in roots if root == chain[-1] or _issued(chain[-1], root)]
    if not issuers:
        raise SignatureError(f"The certificate of {subject(chain[0])} does not lead to a root certificate you trust.")
    _refuse_other_times(max(issuers, key=lambda root: root.not_valid_after_utc))


def subject(certificate: x509.Certificate) -> str:
    """Whose certificate it is, fit to be shown."""
    return shown(certificate.subject.rfc4514_string() or "nobody")


def _refuse_other_times(certificate: x509.Certificate) -> None:
    now = datetime.now(UTC)
    if now > certificate.not_valid_after_utc:
        raise SignatureError(
            f"The certificate of {subject(certificate)} expired on {certificate.not_valid_after_utc:%Y-%m-%d}; "
            "nothing proves that the signature is older."
        )
    if now < certificate.not_valid_before_utc:
        raise SignatureError(
            f"The certificate of {subject(certificate)} is not valid before "
            f"{certificate.not_valid_before_utc:%Y-%m-%d}."
        )


def _issued(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, UnsupportedAlgorithm, TypeError, ValueError):
        return False
    return True


def _may_sign(certificate: x509.Certificate) -> bool:
    """As model-signing asks: for digital signatures, or for signing code."""
    try:
        extensions = certificate.extensions
    except ValueError:
        return False
    for extension in extensions:
        if isinstance(extension.value, x509.KeyUsage) and extension.value.digital_signature:
            return True
        if isinstance(extension.value, x509.ExtendedKeyUsage) and ExtendedKeyUsageOID.CODE_SIGNING in extension.value:
            return True
    return False
