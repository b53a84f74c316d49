"""Keys and certificates made on the spot, and a signed release: a locked model and its results in one statement."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID
from synthetic import certify, falls_to_search

from specdef import lock, sign
from specdef.report.write import write_report

NOW = datetime.now(UTC)
DAY = timedelta(days=1)


def _key(folder: Path, name: str, curve: ec.EllipticCurve | None = None) -> ec.EllipticCurvePrivateKey:
    key = ec.generate_private_key(curve or ec.SECP256R1())
    (folder / f"{name}.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / f"{name}.pub").write_bytes(public)
    return key


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


class Authority:
    """A root, or one below another."""

    def __init__(self, folder: Path, name: str, above: Authority | None = None) -> None:
        self.folder, self.name, self.key = folder, name, _key(folder, name)
        self.issue(name, self.key, by=above, authority=True, days=(-400, 400))

    def issue(
        self,
        name: str,
        key: ec.EllipticCurvePrivateKey,
        *,
        by: Authority | None,
        authority: bool = False,
        signs: bool = True,
        days: tuple[int, int] = (-10, 10),
    ) -> None:
        usage = dict.fromkeys(
            (
                "content_commitment",
                "key_encipherment",
                "data_encipherment",
                "key_agreement",
                "encipher_only",
                "decipher_only",
            ),
            False,
        )
        usage |= {"key_cert_sign": authority, "digital_signature": signs and not authority, "crl_sign": authority}
        certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(by.name if by else name))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(NOW + days[0] * DAY)
            .not_valid_after(NOW + days[1] * DAY)
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .sign(by.key if by else key, hashes.SHA256())
        )
        (self.folder / f"{name}.pem").write_bytes(certificate.public_bytes(Encoding.PEM))

    def signer(self, name: str, **how: object) -> None:
        """A key and the certificate of it."""
        self.issue(name, _key(self.folder, name), by=self, **how)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``NAME.key``, ``NAME.pub`` and ``NAME.pem`` of several signers; read only."""
    folder = tmp_path_factory.mktemp("keys")
    for name, curve in (("own", None), ("other", None), ("p384", ec.SECP384R1()), ("koblitz", ec.SECP256K1())):
        _key(folder, name, curve)
    secret = ec.generate_private_key(ec.SECP256R1())
    (folder / "secret.key").write_bytes(
        secret.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))
    )
    large = rsa.generate_private_key(65537, 2048)
    (folder / "rsa.key").write_bytes(large.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / "rsa.pub").write_bytes(large.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    root = Authority(folder, "root")
    middle = Authority(folder, "middle", above=root)
    middle.signer("signer")
    root.signer("direct")
    root.signer("soon_expired", days=(-10, 10))
    root.signer("expired", days=(-20, -10))
    root.signer("early", days=(10, 20))
    root.signer("server", signs=False)
    Authority(folder, "stranger").signer("impostor")
    return folder


@pytest.fixture(scope="session")
def release(keys: Path, llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``locked`` and ``results``, signed together as ``release.sig`` and one by one beside; read only."""
    place = tmp_path_factory.mktemp("release")
    lock(llama, place / "locked", preset="exact", multiplier="2^20")
    (place / "locked.specdef-key").unlink()
    certify(place / "results", falls_to_search, threats=("T0",))
    write_report(place / "results")
    both = place / "locked", place / "results"
    sign(*both, key=keys / "own.key", out=place / "release.sig")
    sign(*both, key=keys / "other.key", out=place / "other.sig")
    sign(both[0], key=keys / "own.key", out=place / "locked.sig")
    chain = [keys / "signer.pem", keys / "middle.pem"]
    sign(*both, key=keys / "signer.key", certificate=chain, out=place / "certified.sig")
    return place


@pytest.fixture
def copy(release: Path, tmp_path: Path) -> Path:
    """A release that a test may alter."""
    return Path(shutil.copytree(release, tmp_path / "release"))
