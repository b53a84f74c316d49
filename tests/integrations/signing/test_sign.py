"""What is signed, by whom, and what is refused; `test_tampering.py` has what is noticed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from specdef import sign, unlock, verify, verify_signature
from specdef.cli.main import app
from specdef.core.folders import SIGNATURE
from specdef.errors import SpecdefError
from specdef.integrations.signing import certificates


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "folder"
    (place / "cells").mkdir(parents=True)
    (place / "certificate.json").write_text("{}")
    (place / "cells" / "a.json").write_text("[]")
    return place


def _certified(folder: Path, keys: Path, name: str, *more: str, root: str = "root") -> tuple[bool, str]:
    files = [keys / f"{one}.pem" for one in (name, *more)]
    sign(folder, key=keys / f"{name}.key", certificate=files, replace=True)
    found = verify_signature(folder, signature=folder / SIGNATURE, root_certificate=[keys / f"{root}.pem"])
    return found.passed, found.detail


def test_a_signed_folder_may_be_moved_and_renamed(folder: Path, keys: Path, tmp_path: Path) -> None:
    report = sign(folder, key=keys / "own.key")
    assert (report.signature, report.files, report.made_with) == (folder / SIGNATURE, 2, "a private key")
    moved = folder.rename(tmp_path / "moved")
    found = verify_signature(moved, signature=moved / SIGNATURE, public_key=keys / "own.pub")
    assert found.passed, found.detail
    assert found.files == 2


def test_another_curve(folder: Path, keys: Path) -> None:
    sign(folder, key=keys / "p384.key")
    assert verify_signature(folder, signature=folder / SIGNATURE, public_key=keys / "p384.pub").passed


def test_the_signature_is_one_that_model_signing_accepts(folder: Path, keys: Path) -> None:
    from model_signing import hashing, verifying

    sign(folder, key=keys / "own.key")
    config = verifying.Config().use_elliptic_key_verifier(public_key=keys / "own.pub")
    config.verify(folder, folder / SIGNATURE)
    config.set_hashing_config(hashing.Config().set_ignored_paths(paths=[SIGNATURE]))  # as its command does
    config.verify(folder, folder / SIGNATURE)
    (folder / "certificate.json").write_text("{ }")
    with pytest.raises(ValueError, match=r"Hash mismatch for 'certificate\.json'"):
        config.verify(folder, folder / SIGNATURE)


def test_a_signature_of_model_signing_passes_unless_its_digests_are_others(
    folder: Path, keys: Path, tmp_path: Path
) -> None:
    from model_signing import hashing, signing

    config = signing.Config().use_elliptic_key_signer(private_key=keys / "own.key")
    config.sign(folder, tmp_path / "s.sig")
    assert verify_signature(folder, signature=tmp_path / "s.sig", **_own(keys)).passed
    files = hashing.Config().use_file_serialization(hashing_algorithm="blake3")
    config.set_hashing_config(files).sign(folder, tmp_path / "s.sig")
    found = verify_signature(folder, signature=tmp_path / "s.sig", **_own(keys))
    assert not found.passed
    assert "genuine, but of files by blake3" in found.detail


def test_what_git_and_a_hub_put_beside_is_not_signed(folder: Path, keys: Path) -> None:
    sign(folder, key=keys / "own.key")
    (folder / ".gitattributes").write_text("*.safetensors filter=lfs\n")
    (folder / ".git").mkdir()
    (folder / ".git" / "HEAD").write_text("ref")
    (folder / ".cache" / "huggingface").mkdir(parents=True)
    assert verify_signature(folder, signature=folder / SIGNATURE, public_key=keys / "own.pub").passed


def test_a_signed_lock_is_verified_and_unlocked_as_before(llama: Path, keys: Path, tmp_path: Path) -> None:
    from specdef import lock

    lock(llama, tmp_path / "locked", preset="exact")
    sign(tmp_path / "locked", key=keys / "own.key")
    report = verify(tmp_path / "locked")
    assert report.passed
    assert f"1 added ({SIGNATURE})" in report.checks[0].detail
    unlock(tmp_path / "locked", tmp_path / "back", tmp_path / "locked.specdef-key")
    assert not (tmp_path / "back" / SIGNATURE).exists()
    assert verify_signature(tmp_path / "locked", signature=tmp_path / "locked" / SIGNATURE, **_own(keys)).passed


def _own(keys: Path) -> dict[str, Any]:
    return {"public_key": keys / "own.pub"}


def test_the_key_is_read_once_where_it_is(folder: Path, keys: Path, tmp_path: Path) -> None:
    """So a key that is decrypted into a pipe never lies on a disk."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes((keys / "own.key").read_bytes()))
    writer.start()
    sign(folder, key=pipe)
    writer.join()
    assert verify_signature(folder, signature=folder / SIGNATURE, **_own(keys)).passed
    body = (keys / "own.key").read_bytes().splitlines()[1]
    assert not any(body in path.read_bytes() for path in folder.rglob("*") if path.is_file())


# Certificates


def test_a_certificate_below_the_root_and_one_two_steps_below(folder: Path, keys: Path) -> None:
    assert _certified(folder, keys, "direct")[0]
    passed, detail = _certified(folder, keys, "signer", "middle")
    assert passed
    assert "CN=signer" in detail
    assert _certified(folder, keys, "signer", "root", "middle")[0]  # in any order, with the root or without


def test_a_certificate_of_another_root(folder: Path, keys: Path) -> None:
    passed, detail = _certified(folder, keys, "impostor", "stranger")
    assert not passed
    assert detail == "The certificate of CN=impostor does not lead to a root certificate you trust."
    passed, detail = _certified(folder, keys, "signer")
    assert not passed
    assert "CN=signer does not lead to" in detail


class _Later(datetime):
    @classmethod
    def now(cls, tz: Any = None) -> Any:
        return datetime.now(tz) + timedelta(days=30)


def test_a_certificate_that_has_expired_since(folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """model-signing itself passes it."""
    assert _certified(folder, keys, "soon_expired")[0]
    monkeypatch.setattr(certificates, "datetime", _Later)
    found = verify_signature(folder, signature=folder / SIGNATURE, root_certificate=[keys / "root.pem"])
    assert not found.passed
    assert "The certificate of CN=soon_expired expired on " in found.detail


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("expired", "expired on "), ("early", "is not valid before "), ("server", "is not for signing")],
)
def test_a_certificate_that_cannot_sign(name: str, sentence: str, folder: Path, keys: Path) -> None:
    with pytest.raises(SpecdefError, match=f"The certificate of CN={name} {sentence}"):
        sign(folder, key=keys / f"{name}.key", certificate=[keys / f"{name}.pem"])
    assert not (folder / SIGNATURE).exists()


# What is refused


def _refused(sentence: str, *folders: Path, **options: Any) -> None:
    before = {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(SpecdefError, match=sentence):
        sign(*folders, **options)
    assert {path: path.read_bytes() for folder in folders for path in folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("nothing.key", "`key` must be readable; .*nothing.key is not"),
        ("own.pub", "`key` must be an elliptic-curve key"),
        ("rsa.key", "`key` must be an elliptic-curve key"),
        ("koblitz.key", "`key` must be an elliptic-curve key"),
        ("secret.key", "without a passphrase; .*secret.key is not"),
        ("own.pem.not", "`key` must be readable"),
    ],
)
def test_a_key_of_no_use(name: str, sentence: str, folder: Path, keys: Path) -> None:
    _refused(sentence, folder, key=keys / name)


def test_arguments_that_do_not_go_together(folder: Path, keys: Path, tmp_path: Path) -> None:
    own, other = keys / "own.key", tmp_path / "other" / "folder"
    other.mkdir(parents=True)
    _refused("`key` must be given, or `keyless`, and not both", folder)
    _refused("`key` must be given, or `keyless`, and not both", folder, key=own, keyless=True)
    _refused("`certificate` must be left out with `keyless`", folder, keyless=True, certificate=[keys / "own.pem"])
    _refused("`certificate` must be readable", folder, key=own, certificate=[keys / "none.pem"])
    _refused("`certificate` must hold certificates in PEM", folder, key=own, certificate=[keys / "own.pub"])
    _refused("the one that the certificate of CN=direct is for", folder, key=own, certificate=[keys / "direct.pem"])
    _refused("`out` must be given with several folders", folder, other, key=own)
    _refused("two are called folder", folder, other, key=own, out=tmp_path / "s.sig")
    _refused("`folders` must lie apart", folder, folder / "cells", key=own, out=tmp_path / "s.sig")
    _refused("`folders` must be one folder or more", key=own)
    _refused("nowhere is no folder", tmp_path / "nowhere", key=own)
    _refused("there are none to sign", other, key=own)
    _refused("`out` must be in a folder that exists", folder, key=own, out=tmp_path / "no" / "s.sig")
    _refused("`out` must be a new file or a signature", folder, key=own, out=folder / "certificate.json", replace=True)
    _refused("`out` must be a new file or a signature", folder, key=own, out=folder / "cells")


def test_a_key_inside_would_be_published(folder: Path, keys: Path, tmp_path: Path) -> None:
    shutil.copy(keys / "own.key", folder / "cells" / "signer.pem")
    _refused("`key` must lie outside the folders", folder, key=folder / "cells" / "signer.pem")
    (tmp_path / "link.pem").symlink_to(folder / "cells" / "signer.pem")
    _refused("`key` must lie outside the folders", folder, key=tmp_path / "link.pem")


def test_what_cannot_be_signed(folder: Path, keys: Path) -> None:
    (folder / "link").symlink_to(folder / "certificate.json")
    _refused("link is a link", folder, key=keys / "own.key")
    (folder / "link").unlink()
    unfinished = folder / ".certificate.json.specdef-00000000-1-1-00000000"
    unfinished.write_text("{")
    _refused("`folders` must be finished; .*specdef-00000000", folder, key=keys / "own.key")


def test_an_older_signature_is_kept_unless_told(folder: Path, keys: Path) -> None:
    sign(folder, key=keys / "own.key")
    before = (folder / SIGNATURE).read_bytes()
    _refused("Say --replace to write over it", folder, key=keys / "own.key")
    (folder / "certificate.json").write_text('{"a": 1}')
    sign(folder, key=keys / "own.key", replace=True)
    assert (folder / SIGNATURE).read_bytes() != before
    assert verify_signature(folder, signature=folder / SIGNATURE, **_own(keys)).passed


def test_a_signature_is_written_whole_or_not_at_all(folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sign(folder, key=keys / "own.key")
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("specdef.core.atomic.os.fsync", full)
    with pytest.raises(SpecdefError, match=r"`out` must be writable; .* is not \(No space left on device\)"):
        sign(folder, key=keys / "own.key", replace=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, "`public_key`, `root_certificate` or `identity` must be given"),
        ({"identity": "a@b.c"}, "`identity` must be given with `issuer`"),
        ({"issuer": "https://b.c"}, "`issuer` with `identity`"),
        ({"public_key": "own.pub", "root_certificate": ["root.pem"]}, "one of them"),
        ({"public_key": "none.pub"}, "`public_key` must be readable"),
        ({"public_key": "own.key"}, "`public_key` must be an elliptic-curve key"),
        ({"public_key": "rsa.pub"}, "`public_key` must be an elliptic-curve key"),
        ({"root_certificate": ["own.pub"]}, "`root_certificate` must hold certificates in PEM"),
        ({"public_key": "own.pub", "signature": "none.sig"}, "`signature` must be a file that `specdef sign` wrote"),
    ],
)
def test_what_a_check_refuses(options: dict[str, Any], sentence: str, folder: Path, keys: Path) -> None:
    sign(folder, key=keys / "own.key")
    given: dict[str, Any] = {"signature": folder / SIGNATURE}
    for name, value in options.items():
        in_keys = name not in ("identity", "issuer")
        given[name] = [keys / one for one in value] if isinstance(value, list) else keys / value if in_keys else value
    with pytest.raises(SpecdefError, match=sentence):
        verify_signature(folder, **given)


# Without a network, without the library


@pytest.fixture
def _no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-3, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):  # sigstore keeps its roots there
        monkeypatch.setenv(name, str(tmp_path / "home"))


@pytest.mark.usefixtures("_no_network")
def test_keyless_signing_says_that_it_needs_a_network(folder: Path) -> None:
    _refused(
        r"`keyless` must reach Sigstore's servers; this machine does not \(.+\). Sign with a key", folder, keyless=True
    )


@pytest.mark.usefixtures("_no_network")
def test_a_keyless_signature_offline(folder: Path, keys: Path) -> None:
    sign(folder, key=keys / "own.key")
    who = {"identity": "a@b.c", "issuer": "https://b.c"}
    found = verify_signature(folder, signature=folder / SIGNATURE, **who)
    assert not found.passed
    assert found.detail == "The signature was made with a private key, and keyless signing was to be checked."
    content = json.loads((folder / SIGNATURE).read_text())
    content["verificationMaterial"] = {"certificate": {"rawBytes": "AA=="}, "tlogEntries": []}
    (folder / SIGNATURE).write_text(json.dumps(content))
    with pytest.raises(SpecdefError, match="must reach Sigstore's servers"):
        verify_signature(folder, signature=folder / SIGNATURE, **who)


def test_without_the_library_one_sentence(folder: Path, keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    sentence = r"Signatures need the package model-signing. Run `pip install specdef\[sign\]`."
    _refused(sentence, folder, key=keys / "own.key")
    with pytest.raises(SpecdefError, match=sentence):
        verify_signature(folder, signature=folder / SIGNATURE, **_own(keys))


# The command line


def test_the_command_line(folder: Path, keys: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    other = tmp_path / "locked"
    other.mkdir()
    (other / "config.json").write_text("{}")
    out = str(tmp_path / "release.sig")
    result = runner.invoke(app, ["sign", str(folder), str(other), "--key", str(keys / "own.key"), "--out", out])
    assert result.exit_code == 0, result.output
    assert f"Check it: specdef verify {folder} {other} --signature {out} --public-key PUBLIC.pem" in result.output
    check = ["verify", str(other), str(folder), "--signature", out, "--public-key", str(keys / "own.pub")]
    result = runner.invoke(app, [*check, "--json"])
    assert result.exit_code == 0
    told = json.loads(result.stdout)
    assert (told["passed"], told["checks"][0]["name"], told["files"]) == (True, "signature", 3)
    (other / "config.json").write_text("{ }")
    result = runner.invoke(app, [*check, "--json"])
    assert result.exit_code == 1
    assert json.loads(result.stdout)["checks"][0]["detail"].endswith("locked/config.json was changed.")
