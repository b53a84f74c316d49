"""A signature file as model-signing writes it, a Sigstore bundle, read without trusting a word of it.

Whether it is genuine, the library decides (`library.py`); here is refused what it would let pass: fields that nothing
signs, and second spellings of the same bytes.
"""

from __future__ import annotations

import base64
import enum
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from specdef.core.schema import SchemaError, convert, parse
from specdef.core.strict_json import MAX_BYTES
from specdef.core.text import shown
from specdef.errors import SignatureError, SpecdefError

HASH: Literal["sha256"] = "sha256"
"""The one that model-signing's own command checks."""


class MadeWith(enum.Enum):
    """What a signature was made with; the value is the words for it."""

    KEY = "a private key"
    CERTIFICATE = "a certificate"
    KEYLESS = "keyless signing"


@dataclass(frozen=True)
class Bundle:
    """What a signature file says.

    Attributes:
        data: its bytes.
        made_with: a key, a certificate, or nothing but an identity.
        certificates: DER, the signer's first; for certificates only.
        payload: the statement, JSON.
    """

    data: bytes
    made_with: MadeWith
    certificates: tuple[bytes, ...]
    payload: bytes


class _Strict(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    pass


class _PublicKey(_Strict):
    hint: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]


class _Certificate(_Strict):
    raw_bytes: str


class _Chain(_Strict):
    certificates: Annotated[list[_Certificate], msgspec.Meta(min_length=1, max_length=16)]


class _Material(_Strict):
    tlog_entries: Annotated[list[Any], msgspec.Meta(max_length=0)]
    public_key: _PublicKey | msgspec.UnsetType = msgspec.UNSET
    x509_certificate_chain: _Chain | msgspec.UnsetType = msgspec.UNSET


class _Signature(_Strict):
    sig: str
    keyid: Annotated[str, msgspec.Meta(max_length=0)]


class _Envelope(_Strict):
    payload: str
    payload_type: str
    signatures: Annotated[list[_Signature], msgspec.Meta(min_length=1, max_length=1)]


class _Offline(_Strict):
    media_type: str
    verification_material: _Material
    dsse_envelope: _Envelope


class _Keyless(msgspec.Struct, rename="camel"):
    """The rest is sigstore's to judge."""

    dsse_envelope: _KeylessEnvelope


class _KeylessEnvelope(msgspec.Struct):
    payload: str


class _Resource(msgspec.Struct):
    name: str
    digest: str


class _Serialization(msgspec.Struct):
    method: str
    hash_type: str


class _Predicate(msgspec.Struct):
    resources: list[_Resource]
    serialization: _Serialization


class _Statement(msgspec.Struct):
    predicate: _Predicate


def read_bundle(path: Path) -> Bundle:
    """A signature file.

    Raises:
        SpecdefError: there is no such file, or it cannot be read.
        SignatureError: it is a link or no file, or not of a signature's form.
    """
    if path.is_symlink():
        raise SignatureError(f"{shown(path)} is a link, which can lead elsewhere tomorrow; put the signature there.")
    if not path.is_file():
        raise SpecdefError(f"`signature` must be a file that `specdef sign` wrote; {shown(path)} is no file.")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise SpecdefError(f"`signature` must be readable; {shown(path)} is not ({error.strerror}).") from error
    if not data:
        raise SignatureError(f"{shown(path)} is empty; it holds no signature.")
    if len(data) > MAX_BYTES:
        raise SignatureError(f"{shown(path)} is no signature: it is larger than {MAX_BYTES >> 20} MiB.")
    try:
        return parse_bundle(data)
    except SchemaError as error:
        raise SignatureError(
            f"{shown(path)} is no signature, or was altered: {error}. Get it again from whoever signed."
        ) from error


def parse_bundle(data: bytes) -> Bundle:
    """The same, from its bytes.

    Raises:
        SchemaError: not of a signature's form.
    """
    content = parse(data, dict[str, Any])
    material = content.get("verificationMaterial")
    if isinstance(material, dict) and "certificate" in material:
        return Bundle(data, MadeWith.KEYLESS, (), _bytes(convert(content, _Keyless).dsse_envelope.payload))
    found = convert(content, _Offline)
    chain, key = found.verification_material.x509_certificate_chain, found.verification_material.public_key
    if (chain is msgspec.UNSET) == (key is msgspec.UNSET):
        raise SchemaError("it must name one key or one certificate chain")
    _bytes(found.dsse_envelope.signatures[0].sig)
    payload = _bytes(found.dsse_envelope.payload)
    if isinstance(chain, msgspec.UnsetType):
        return Bundle(data, MadeWith.KEY, (), payload)
    certificates = tuple(_bytes(certificate.raw_bytes) for certificate in chain.certificates)
    return Bundle(data, MadeWith.CERTIFICATE, certificates, payload)


def signed_digests(bundle: Bundle) -> dict[str, str]:
    """Name -> digest of every file of a statement; ask only once the signature is known to be genuine.

    Raises:
        SignatureError: the statement is not one of `specdef sign`.
    """
    try:
        predicate = parse(bundle.payload, _Statement).predicate
    except SchemaError as error:
        raise SignatureError(f"The signature is genuine, but of no statement about files ({error}).") from error
    kind = predicate.serialization
    if (kind.method, kind.hash_type) != ("files", HASH):
        raise SignatureError(
            f"The signature is genuine, but of {shown(kind.method)} by {shown(kind.hash_type)}; `specdef sign` signs "
            f"files by {HASH}. Check it with model_signing."
        )
    return {resource.name: resource.digest for resource in predicate.resources}


def _bytes(text: str) -> bytes:
    """Base64 in its one spelling: unused bits are zero."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        data = b""
    if not data or base64.b64encode(data).decode() != text:
        raise SchemaError("it holds text that is not base64")
    return data
