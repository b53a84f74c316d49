"""The checklist before a release, and an upload to a hub that is not there."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import RepositoryNotFoundError
from synthetic import certify, change_certificate, falls_to_search
from typer.testing import CliRunner

from specdef import check_release, lock, publish, sign, verify
from specdef.certify.cell import subject_of
from specdef.cli.main import app
from specdef.errors import SpecdefError


@pytest.fixture
def locked(llama: Path, tmp_path: Path) -> Path:
    lock(llama, tmp_path / "locked", preset="exact", card=True)
    return tmp_path / "locked"


def _item(folder: Path, name: str, **given: Any) -> Any:
    return next(item for item in check_release(folder, **given).items if item.name == name)


def test_a_folder_as_locked_is_fit_with_advice(locked: Path) -> None:
    report = check_release(locked)
    assert report.passed
    assert {item.name for item in report.items if not item.ok} == {"signature", "certificate"}
    (locked / "README.md").unlink()
    assert check_release(locked).passed
    assert not _item(locked, "model card").ok


@pytest.mark.parametrize(
    ("name", "item"), [("notes", "private keys"), ("signer.pem", "private keys"), ("model.bin", "other weights")]
)
def test_what_must_not_be_inside(name: str, item: str, locked: Path) -> None:
    if name == "signer.pem":
        (locked / name).write_text("-----BEGIN EC PRIVATE KEY-----\n")
    else:
        key = locked.with_name("locked.specdef-key")
        shutil.copy(key if name == "notes" else locked / "model.safetensors", locked / name)
    found = _item(locked, item)
    assert (found.ok, found.must) == (False, True)
    assert name in found.detail


def test_links_and_changed_weights_fail(locked: Path, llama: Path) -> None:
    (locked / "link").symlink_to(llama / "config.json")
    assert [(item.name, item.ok) for item in check_release(locked).items] == [("links", False)]
    (locked / "link").unlink()
    shutil.copy(llama / "model.safetensors", locked / "model.safetensors")
    assert not _item(locked, "manifest and weights").ok
    (locked / "specdef_lock.json").unlink()
    assert "must hold specdef_lock.json" in _item(locked, "manifest and weights").detail


def test_the_command_says_what_is_missing(locked: Path) -> None:
    result = CliRunner().invoke(app, ["publish", str(locked), "--check"])
    assert result.exit_code == 0, result.output
    assert "missing signature" in result.output
    assert "Fit to be published: 6 files; what is missing is advice." in result.output
    shutil.copy(locked / "model.safetensors", locked / "x.bin")
    result = CliRunner().invoke(app, ["publish", str(locked), "--check"])
    assert result.exit_code == 1
    assert "fails   other weights: x.bin" in result.output
    assert "Not fit to be published: mend what fails." in result.output
    with pytest.raises(SpecdefError, match="`repo` must be given"):
        CliRunner().invoke(app, ["publish", str(locked)], catch_exceptions=False)


def test_a_snapshot_of_the_hubs_cache_is_refused_with_the_way_out(locked: Path, tmp_path: Path) -> None:
    """`verify` reads it, but its links may lead elsewhere between a check and an upload; `sign` refuses it as well."""
    cache = tmp_path / "models--org--name"
    snapshot, blobs = cache / "snapshots" / "abc", cache / "blobs"
    shutil.copytree(locked, blobs)
    snapshot.mkdir(parents=True)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(Path("../../blobs") / blob.name)
    assert verify(snapshot).passed
    found = check_release(snapshot)
    assert not found.passed
    assert "this is the hub's cache; `hf download NAME --local-dir DIR`" in found.items[0].detail
    assert "hub's cache" not in _links(locked)


def _links(folder: Path) -> str:
    (folder / "link").symlink_to("config.json")
    return str(_item(folder, "links").detail)


def test_a_link_that_is_not_uploaded_is_no_fault(locked: Path) -> None:
    (locked / ".git").mkdir()
    (locked / ".git" / "link").symlink_to("HEAD")
    assert check_release(locked).passed


# The signature


def test_a_signature_of_these_files(locked: Path, keys: Path) -> None:
    sign(locked, key=keys / "own.key")
    found = _item(locked, "signature")
    assert (found.ok, found.must) == (True, True)
    assert "who signed is not checked without a public key" in found.detail
    found = _item(locked, "signature", public_key=keys / "own.pub")
    assert found.ok
    assert "not checked" not in found.detail


def test_a_signature_beside_the_folder(locked: Path, keys: Path, tmp_path: Path) -> None:
    sign(locked, key=keys / "own.key", out=tmp_path / "locked.sig")
    assert not _item(locked, "signature").ok
    assert _item(locked, "signature", signature=tmp_path / "locked.sig").ok
    found = _item(locked, "signature", signature=tmp_path / "none.sig")
    assert (found.ok, found.must) == (False, True)


def test_a_signature_of_somebody_else_fails(locked: Path, keys: Path) -> None:
    sign(locked, key=keys / "other.key")
    assert check_release(locked).passed
    assert not check_release(locked, public_key=keys / "own.pub").passed
    assert not _item(locked, "signature", public_key=keys / "own.pub").ok


@pytest.mark.parametrize("checks_who", [False, True])
def test_a_signature_from_before_an_edit_fails(checks_who: bool, locked: Path, keys: Path) -> None:
    sign(locked, key=keys / "own.key")
    with (locked / "README.md").open("a") as file:
        file.write("Enjoy.\n")
    (locked / "LICENSE").write_text("MIT")
    assert verify(locked).passed
    found = _item(locked, "signature", public_key=keys / "own.pub" if checks_who else None)
    assert (found.ok, found.must) == (False, True)
    assert "README.md was changed; LICENSE was added." in found.detail
    assert "Sign again with --replace." in found.detail
    sign(locked, key=keys / "own.key", replace=True)
    assert check_release(locked, public_key=keys / "own.pub").passed


def test_a_public_key_asks_for_a_signature(locked: Path, keys: Path) -> None:
    """Whoever asks who signed is not told "fit" where nobody did."""
    assert not check_release(locked, public_key=keys / "own.pub").passed
    sign(locked, key=keys / "own.key")
    with pytest.raises(SpecdefError, match="`public_key` must be"):
        check_release(locked, public_key=keys / "none.pub")


# The certificate


def _certificate_of(folder: Path, place: Path) -> Path:
    certify(place, falls_to_search, threats=("T0",))
    digest = subject_of(folder).digest
    change_certificate(place, lambda content: content["subject"].update(digest=digest))
    return place


@pytest.mark.parametrize("where", ["locked/certificate", "locked-certificate", "elsewhere"])
def test_a_certificate_of_this_model(where: str, locked: Path, tmp_path: Path) -> None:
    place = _certificate_of(locked, tmp_path / where)
    found = _item(locked, "certificate", certificate=place if where == "elsewhere" else None)
    assert (found.ok, found.must) == (True, True)
    assert ("not uploaded" in found.detail) == (where != "locked/certificate")
    assert check_release(locked).passed


@pytest.mark.parametrize("where", ["locked/certificate", "locked-certificate", "elsewhere"])
def test_a_certificate_of_another_model_fails(where: str, locked: Path, llama: Path, tmp_path: Path) -> None:
    place = _certificate_of(llama, tmp_path / where)
    found = _item(locked, "certificate", certificate=place if where == "elsewhere" else None)
    assert (found.ok, found.must) == (False, True)
    assert "is of other files than these; certify this folder" in found.detail


def test_a_certificate_that_is_asked_for_or_broken_fails(locked: Path, tmp_path: Path) -> None:
    found = _item(locked, "certificate", certificate=tmp_path / "none")
    assert (found.ok, found.must) == (False, True)
    place = _certificate_of(locked, locked / "certificate")
    (place / "certificate.json").write_text("{}")
    assert not check_release(locked).passed
    assert "must hold a specdef certificate" in _item(locked, "certificate").detail


class _Hub:
    """What `upload` asks of a hub."""

    def __init__(self, present: Sequence[str] | None = None, fault: Exception | None = None) -> None:
        self.present, self.fault, self.sent = present, fault, list[str]()

    def list_repo_files(self, repo: str) -> Sequence[str]:
        if self.present is None:
            raise RepositoryNotFoundError("none", response=SimpleNamespace(headers={}, request=None))  # type: ignore[arg-type]
        return self.present

    def create_repo(self, repo: str, **_: Any) -> None:
        if self.fault:
            raise self.fault

    def create_commit(self, repo: str, operations: Sequence[Any], **_: Any) -> Any:
        self.sent = [operation.path_in_repo for operation in operations]
        return SimpleNamespace(commit_url="https://hub/commit")


def _use(hub: _Hub, monkeypatch: pytest.MonkeyPatch) -> _Hub:
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: hub)
    return hub


def test_exactly_the_checked_files_are_uploaded(locked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (locked / ".cache").mkdir()
    (locked / ".cache" / "old.bin").write_bytes(b"x")
    hub = _use(_Hub(), monkeypatch)
    assert publish(locked, "org/name").url == "https://hub/commit"
    assert hub.sent == sorted(path.name for path in locked.iterdir() if path.is_file())


def test_nothing_is_uploaded_where_a_must_fails(locked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(locked / "model.safetensors", locked / "x.bin")
    hub = _use(_Hub(), monkeypatch)
    assert publish(locked, "org/name").url is None
    assert not hub.sent


@pytest.mark.parametrize(
    ("present", "sentence"),
    [
        (["pytorch_model.bin", "specdef_lock.json"], "no other weights"),
        (["model.safetensors"], "be new or hold a lock"),
    ],
)
def test_a_repository_with_unlocked_weights_is_refused(
    present: list[str], sentence: str, locked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = _use(_Hub(present), monkeypatch)
    with pytest.raises(SpecdefError, match=sentence):
        publish(locked, "org/name")
    assert not hub.sent


def test_a_network_that_fails_is_one_sentence(locked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _use(_Hub(fault=ConnectionError("no route\nto host")), monkeypatch)
    with pytest.raises(SpecdefError, match=r"^`repo` org/name could not be published to the hub \(no route\)\. Check"):
        publish(locked, "org/name")
    with pytest.raises(SpecdefError, match="`repo` must be a name such as org/name"):
        publish(locked, "name")
