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
from typer.testing import CliRunner

from specdef import check_release, lock, publish
from specdef.cli.main import app
from specdef.errors import SpecdefError


@pytest.fixture
def locked(llama: Path, tmp_path: Path) -> Path:
    lock(llama, tmp_path / "locked", card=True)
    return tmp_path / "locked"


def _item(folder: Path, name: str) -> Any:
    return next(item for item in check_release(folder).items if item.name == name)


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
    shutil.copy(locked / "model.safetensors", locked / "x.bin")
    assert CliRunner().invoke(app, ["publish", str(locked), "--check"]).exit_code == 1
    with pytest.raises(SpecdefError, match="`repo` must be given"):
        CliRunner().invoke(app, ["publish", str(locked)], catch_exceptions=False)


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
