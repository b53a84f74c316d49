"""From a lock to a hub and back: prose may be edited, weights may not, and the key restores what it should."""

from __future__ import annotations

import shutil
from pathlib import Path

import pico
import pytest

from specdef import lock, unlock, verify
from specdef.core.yaml_data import parse_yaml
from specdef.errors import CheckpointError, KeyFileError, SpecdefError
from specdef.locks.hub_card import has_metadata
from specdef.locks.prose import is_prose

USERS = "---\nlicense: mit # mine\ntags:\n- llama\nlanguage: no\n---\n# My model\n\nText.\n"


@pytest.fixture
def model(llama: Path, tmp_path: Path) -> Path:
    folder = Path(shutil.copytree(llama, tmp_path / "model"))
    (folder / "README.md").write_text(USERS)
    return folder


def _files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("options", [{}, {"card": True}, {"preset": "paper", "rank": 2, "card": True}])
def test_the_way_to_a_hub_and_back(model: Path, tmp_path: Path, options: dict[str, object]) -> None:
    locked = tmp_path / "locked"
    lock(model, locked, **options)  # type: ignore[arg-type]
    with (locked / "README.md").open("a") as file:
        file.write("Edited.\n")
    (locked / "LICENSE").write_text("MIT")
    edited = (locked / "README.md").read_bytes()
    report = verify(locked)
    assert report.passed
    said = report.checks[0].detail
    assert "the weights are intact: all " in said
    assert "1 changed (README.md)" in said
    assert "1 added (LICENSE)" in said
    with pytest.raises(SpecdefError, match=r"README\.md could not be restored .* `--weights-only`"):
        unlock(locked, tmp_path / "back")
    assert not (tmp_path / "back").exists()
    done = unlock(locked, tmp_path / "back", weights_only=True)
    assert done.kept == ("LICENSE", "README.md")
    assert not done.put_back
    assert not done.missing
    assert _files(tmp_path / "back") == {**_files(model), "README.md": edited, "LICENSE": b"MIT"}


def test_read_only_files_are_written_anew_where_they_change(model: Path, tmp_path: Path) -> None:
    """Before, README.md and config.json were copied as read-only and then opened for writing, which root alone may."""
    (model / "notes.txt").write_text("x")
    for path in model.iterdir():
        path.chmod(0o444)
    lock(model, tmp_path / "locked", preset="paper", rank=2, card=True)
    modes = {path.name: path.stat().st_mode & 0o200 for path in (tmp_path / "locked").iterdir()}
    assert modes["README.md"]
    assert modes["config.json"]
    assert not modes["notes.txt"]
    unlock(tmp_path / "locked", tmp_path / "back")
    assert _files(tmp_path / "back") == _files(model)


def test_the_weights_are_checked_with_weights_only(model: Path, tmp_path: Path) -> None:
    lock(model, tmp_path / "locked", preset="exact")
    shard = tmp_path / "locked" / "model.safetensors"
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    check = verify(tmp_path / "locked").checks[0]
    assert not check.passed
    assert "intact" not in check.detail
    with pytest.raises(CheckpointError, match="was changed after locking"):
        unlock(tmp_path / "locked", tmp_path / "back", weights_only=True)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("preset", ["exact", "paper"])
def test_an_edited_configuration(preset: str, model: Path, tmp_path: Path) -> None:
    """Kept where the lock did not write it; where it did, the original goes with the original weights."""
    lock(model, tmp_path / "locked", preset=preset, **({"rank": 2} if preset == "paper" else {}))
    config = tmp_path / "locked" / "config.json"
    config.write_text(config.read_text() + "\n")
    edited = config.read_bytes()
    check = verify(tmp_path / "locked").checks[0]
    assert not check.passed
    assert check.detail.startswith("not as published: 1 changed (config.json); the weights are intact")
    with pytest.raises(SpecdefError, match=r"config\.json could not be restored"):
        unlock(tmp_path / "locked", tmp_path / "back")
    done = unlock(tmp_path / "locked", tmp_path / "back", weights_only=True)
    found = (tmp_path / "back" / "config.json").read_bytes()
    if preset == "exact":
        assert (done.kept, found) == (("config.json",), edited)
    else:
        assert (done.put_back, found) == (("config.json",), (model / "config.json").read_bytes())


def test_missing_prose_and_missing_configuration(model: Path, tmp_path: Path) -> None:
    lock(model, tmp_path / "locked", preset="exact")
    (tmp_path / "locked" / "README.md").unlink()
    assert "1 missing (README.md)" in verify(tmp_path / "locked").checks[0].detail
    assert verify(tmp_path / "locked").passed
    (tmp_path / "locked" / "generation_config.json").unlink()
    assert not verify(tmp_path / "locked").passed
    done = unlock(tmp_path / "locked", tmp_path / "back", weights_only=True)
    assert done.missing == ("README.md", "generation_config.json")


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "vocab.txt", "sub/vocab.txt", "x.py", "LICENSE.py", "license.so", "certificate/run.py"]
)
def test_what_may_change_the_function_is_no_prose(name: str) -> None:
    assert not is_prose(name)


@pytest.mark.parametrize("name", ["README.md", "LICENSE.txt", "NOTICE", "a/b.PNG", "certificate/cells/a.json"])
def test_what_people_read_is_prose(name: str) -> None:
    assert is_prose(name)


class TestTheCard:
    def test_keeps_what_the_user_wrote(self, model: Path, tmp_path: Path) -> None:
        lock(model, tmp_path / "locked", preset="exact", card=True)
        text = (tmp_path / "locked" / "README.md").read_text()
        front, body = text.removeprefix("---\n").split("---\n", 1)
        assert parse_yaml(front.encode()) == {
            "license": "mit",
            "tags": ["llama", "specdef"],
            "language": "no",
            "library_name": "transformers",
        }
        assert "license: mit # mine\n" in front
        assert body.startswith("# My model\n\nText.\n")
        assert "\n## Locked with specdef\n" in body
        assert has_metadata(tmp_path / "locked" / "README.md")
        assert verify(tmp_path / "locked").passed
        unlock(tmp_path / "locked", tmp_path / "back")
        assert _files(tmp_path / "back") == _files(model)

    @pytest.mark.parametrize("weights_only", [False, True])
    def test_is_made_where_there_is_none(self, weights_only: bool, llama: Path, tmp_path: Path) -> None:
        lock(llama, tmp_path / "locked", preset="exact", card=True)
        assert has_metadata(tmp_path / "locked" / "README.md")
        unlock(tmp_path / "locked", tmp_path / "back", weights_only=weights_only)
        assert _files(tmp_path / "back") == _files(llama)
        (tmp_path / "locked" / "README.md").write_text("mine")
        if weights_only:
            unlock(tmp_path / "locked", tmp_path / "kept", weights_only=True)
            assert _files(tmp_path / "kept") == {**_files(llama), "README.md": b"mine"}
        else:
            with pytest.raises(SpecdefError, match=r"README\.md could not be restored"):
                unlock(tmp_path / "locked", tmp_path / "kept")

    @pytest.mark.parametrize(
        ("tags", "expected"),
        [
            ("tags: llama", ["llama", "specdef"]),
            ("tags: [llama, specdef]", ["llama", "specdef"]),
            ("tags: [a,\n  b]", ["a", "b", "specdef"]),
            ("tags:\n  # a remark\n  - a", ["a", "specdef"]),
            ("tags:", ["specdef"]),
            ('"tags": [a]', ["a", "specdef"]),
        ],
    )
    def test_merges_tags_in_any_spelling(self, tags: str, expected: list[str], model: Path, tmp_path: Path) -> None:
        (model / "README.md").write_text(f"---\n{tags}\nlicense: mit\n---\nText without an end")
        lock(model, tmp_path / "locked", preset="exact", card=True)
        front = (tmp_path / "locked" / "README.md").read_text().split("---\n")[1]
        found = parse_yaml(front.encode())
        assert (found["tags"], found["license"]) == (expected, "mit")

    @pytest.mark.parametrize("front", ["tags: [", "- a", "a: &b 1", "a: 1\na: 2"])
    def test_metadata_that_is_none_is_refused(self, front: str, model: Path, tmp_path: Path) -> None:
        (model / "README.md").write_text(f"---\n{front}\n---\n")
        with pytest.raises(CheckpointError, match=r"README\.md must hold YAML between its --- lines"):
            lock(model, tmp_path / "locked", preset="exact", card=True)
        assert not (tmp_path / "locked").exists()
        lock(model, tmp_path / "locked", preset="exact")

    def test_names_the_base_model_from_the_hubs_cache(self, llama: Path, tmp_path: Path) -> None:
        model = Path(shutil.copytree(llama, tmp_path / "models--org--my-name" / "snapshots" / "abc"))
        lock(model, tmp_path / "locked", preset="exact", card=True)
        assert "base_model: org/my-name\n" in (tmp_path / "locked" / "README.md").read_text()


class TestStrayWeights:
    @pytest.fixture
    def stray(self, model: Path) -> Path:
        for name in ("pytorch_model.bin", "model.onnx", "sub/old.safetensors"):
            (model / name).parent.mkdir(exist_ok=True)
            shutil.copy(model / "model.safetensors", model / name)
        return model

    def test_are_said_all_at_once(self, stray: Path, tmp_path: Path) -> None:
        names = r"model\.onnx, pytorch_model\.bin, sub/old\.safetensors"
        with pytest.raises(CheckpointError, match=f"also holds {names}, .* as they are.*--exclude"):
            lock(stray, tmp_path / "locked", preset="exact")

    def test_are_left_out(self, stray: Path, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"also holds sub/old\.safetensors, which"):
            lock(stray, tmp_path / "locked", preset="exact", exclude=["*.bin", "model.onnx"])
        lock(stray, tmp_path / "locked", preset="exact", exclude=["*.bin", "model.onnx", "old.*"])
        assert verify(tmp_path / "locked").passed
        assert not {"pytorch_model.bin", "model.onnx", "sub/old.safetensors"} & _files(tmp_path / "locked").keys()
        unlock(tmp_path / "locked", tmp_path / "back")

    @pytest.mark.parametrize(
        ("pattern", "sentence"),
        [("*.safetensors", r"matches model\.safetensors"), ("*.json", "matches config.json"), ("x", "matches none")],
    )
    def test_patterns_that_do_not_fit(self, pattern: str, sentence: str, model: Path, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=f"`exclude` must .*{sentence}"):
            lock(model, tmp_path / "locked", preset="exact", exclude=[pattern])


def test_the_default_key(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = lock(model, tmp_path / "locked", preset="exact").key
    assert key is not None
    monkeypatch.chdir(tmp_path / "locked")
    unlock(".", tmp_path / "back")
    key.unlink()
    with pytest.raises(KeyFileError, match=r"`key` must be given: .*locked\.specdef-key, its default place, does not"):
        unlock(tmp_path / "locked", tmp_path / "again")


def test_an_encoder_with_one_kind_of_pair_is_called_weak(llama: Path, tmp_path: Path) -> None:
    remarks = lock(pico.build("bert", tmp_path / "bert"), tmp_path / "a", preset="exact", dry_run=True).remarks
    assert remarks[0].startswith("This lock is weak: it scales one kind of pair, vo.")
    assert "GELU is not homogeneous" in remarks[1]
    assert "Leave out `pairs`" in lock(llama, tmp_path / "b", preset="exact", pairs=["vo"], dry_run=True).remarks[1]
    assert not any("weak" in remark for remark in lock(llama, tmp_path / "c", preset="exact", dry_run=True).remarks)
