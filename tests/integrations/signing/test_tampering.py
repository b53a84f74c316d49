"""Whatever is done to a signed release is noticed: exit code 1 and one sentence that names the file."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from specdef import verify_signature
from specdef.cli.main import app

Tampering = Callable[[Path], object]


def verify(place: Path, *more: str | Path, folders: tuple[str, ...] = ("locked", "results")) -> tuple[int, str]:
    arguments = ["verify", *(place / folder for folder in folders), "--signature", place / "release.sig", *more]
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


def flip(name: str, where: float = 0.5) -> Tampering:
    """One bit, at that share of the file."""

    def tamper(place: Path) -> None:
        path = place / name
        data = bytearray(path.read_bytes())
        data[min(int(where * len(data)), len(data) - 1)] ^= 1
        path.write_bytes(data)

    return tamper


def write(name: str, content: bytes) -> Tampering:
    def tamper(place: Path) -> None:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(content)

    return tamper


def move(name: str, other: str) -> Tampering:
    return lambda place: (place / name).rename(place / other)


def link(name: str) -> Tampering:
    """In the place of a file or folder, a link to it: the same bytes, today."""

    def tamper(place: Path) -> None:
        (place / name).rename(place / "elsewhere")
        (place / name).symlink_to(place / "elsewhere")

    return tamper


def cells(place: Path) -> list[str]:
    return sorted(path.name for path in (place / "results" / "cells").iterdir())


def swap_cells(place: Path) -> None:
    one, other = (place / "results" / "cells" / name for name in cells(place)[:2])
    one_bytes = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(one_bytes)


def flip_cell(place: Path) -> None:
    flip(f"results/cells/{cells(place)[3]}")(place)


def remove_cell(place: Path) -> None:
    (place / "results" / "cells" / cells(place)[0]).unlink()


def copy_cell(place: Path) -> None:
    folder = place / "results" / "cells"
    shutil.copy(folder / cells(place)[0], folder / "0123456789abcdef.json")


def touch_up(place: Path) -> None:
    """A verdict made better, as JSON that is still whole."""
    path = place / "results" / "certificate.json"
    content = json.loads(path.read_text())
    content["threat_models"]["T0"]["verdict"] = "held_by_stall"
    path.write_text(json.dumps(content))


def exchange(place: Path) -> None:
    """Each folder under the other's name."""
    move("locked", "third")(place)
    move("results", "locked")(place)
    move("third", "results")(place)


IN_FOLDERS: dict[str, tuple[Tampering, str]] = {
    **{
        f"one bit of {name} at {where}": (flip(name, where), f"{name} was changed")
        for name, where in (
            ("locked/model.safetensors", 0.0),
            ("locked/model.safetensors", 0.5),
            ("locked/model.safetensors", 1.0),
            ("locked/config.json", 0.5),
            ("locked/generation_config.json", 0.5),
            ("locked/specdef_lock.json", 0.5),
            ("locked/SPECDEF_LOCK.md", 0.5),
            ("results/certificate.json", 0.0),
            ("results/certificate.json", 0.5),
            ("results/certificate.md", 0.5),
            ("results/index.html", 0.5),
            ("results/heatmap.png", 0.5),
            ("results/trajectories.png", 1.0),
        )
    },
    "one bit of a cell": (flip_cell, ".json was changed"),
    "a verdict": (touch_up, "results/certificate.json was changed"),
    "two cells exchanged": (swap_cells, "were changed"),
    "weights cut short": (
        lambda place: os.truncate(place / "locked/model.safetensors", 5000),
        "locked/model.safetensors was changed",
    ),
    "a page emptied": (write("results/index.html", b""), "results/index.html was changed"),
    "a line added to the table": (
        lambda place: (place / "results/certificate.md").open("a").write("\n"),
        "results/certificate.md was changed",
    ),
    "manifest removed": (lambda place: (place / "locked/specdef_lock.json").unlink(), "specdef_lock.json is missing"),
    "certificate removed": (lambda place: (place / "results/certificate.json").unlink(), "certificate.json is missing"),
    "cell removed": (remove_cell, ".json is missing"),
    "all cells removed": (lambda place: shutil.rmtree(place / "results/cells"), "are missing"),
    "picture removed": (lambda place: (place / "results/heatmap.png").unlink(), "results/heatmap.png is missing"),
    "code added": (write("locked/modeling_llama.py", b"import os\n"), "locked/modeling_llama.py was added"),
    "a second model added": (write("locked/pytorch_model.bin", b"x"), "locked/pytorch_model.bin was added"),
    "hidden file added": (write("results/.hidden", b""), "results/.hidden was added"),
    "file in a new folder": (write("results/more/page.html", b"x"), "results/more/page.html was added"),
    "a deep .git": (write("results/cells/.git", b"x"), "results/cells/.git was added"),
    "cell copied": (copy_cell, "0123456789abcdef.json was added"),
    "another signature added": (lambda place: shutil.copy(place / "other.sig", place / "locked/specdef.sig"), "added"),
    "escapes in a name": (write("results/\x1b[31mred\n", b"x"), "results/\\x1b[31mred\\n was added"),
    "page renamed": (move("results/index.html", "results/Index.html"), "results/Index.html was added"),
    "weights renamed": (move("locked/model.safetensors", "locked/x.safetensors"), "model.safetensors is missing"),
    "moved between folders": (move("results/certificate.md", "locked/certificate.md"), "certificate.md was added"),
    "config a link": (link("locked/config.json"), "locked/config.json is a link"),
    "cells a link": (link("results/cells"), "results/cells is a link"),
    "a broken link": (lambda place: (place / "results/x").symlink_to("nothing"), "results/x is a link"),
    "a pipe": (lambda place: os.mkfifo(place / "results/pipe"), "results/pipe is neither a file nor a folder"),
    "folders exchanged": (exchange, "The signature is of other files: none of its"),
    "everything removed": (
        lambda place: [shutil.rmtree(place / name) or (place / name).mkdir() for name in ("locked", "results")],
        "The signature is of other files: none of its",
    ),
}


def edit(change: Callable[[dict[str, Any]], object], name: str = "release.sig") -> Tampering:
    """A signature that is JSON still."""

    def tamper(place: Path) -> None:
        content = json.loads((place / name).read_text())
        change(content)
        (place / name).write_text(json.dumps(content))

    return tamper


def restate(place: Path) -> None:
    """A changed file, and its new digest in the statement."""
    flip("locked/config.json")(place)

    def change(content: dict[str, Any]) -> None:
        statement = json.loads(base64.b64decode(content["dsseEnvelope"]["payload"]))
        for resource in statement["predicate"]["resources"]:
            if resource["name"] == "locked/config.json":
                resource["digest"] = hashlib.sha256((place / "locked/config.json").read_bytes()).hexdigest()
        content["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()

    edit(change)(place)


def leave_out(place: Path) -> None:
    """A statement that says to leave a file out; unsigned."""

    def change(content: dict[str, Any]) -> None:
        statement = json.loads(base64.b64decode(content["dsseEnvelope"]["payload"]))
        statement["predicate"]["serialization"]["ignore_paths"].append("locked/modeling.py")
        content["dsseEnvelope"]["payload"] = base64.b64encode(json.dumps(statement).encode()).decode()

    edit(change)(place)


def take(name: str) -> Tampering:
    return lambda place: shutil.copy(place / name, place / "release.sig")


def payload_of(name: str) -> Tampering:
    """The statement of another signature under this one's."""

    def tamper(place: Path) -> None:
        other = json.loads((place / name).read_text())["dsseEnvelope"]["payload"]
        edit(lambda content: content["dsseEnvelope"].update(payload=other))(place)

    return tamper


NOT_ONE, ALTERED = "is no signature, or was altered", "The signature does not hold"
IN_SIGNATURES: dict[str, tuple[Tampering, str]] = {
    "emptied": (write("release.sig", b""), "release.sig is empty"),
    "cut short": (lambda place: os.truncate(place / "release.sig", 700), NOT_ONE),
    "not JSON": (write("release.sig", b"\x00\xff"), NOT_ONE),
    "other JSON": (write("release.sig", b'{"files": []}'), NOT_ONE),
    "a list": (write("release.sig", b"[]"), NOT_ONE),
    "one bit of the statement": (flip("release.sig", 0.5), f"{ALTERED}|{NOT_ONE}"),
    "one bit of the signature": (flip("release.sig", 0.985), f"{ALTERED}|{NOT_ONE}"),
    "of another key": (take("other.sig"), ALTERED),
    "of one folder": (take("locked.sig"), "The signature is of other files"),
    "made with a certificate": (take("certified.sig"), "was made with a certificate, and a private key was to be"),
    "statement and file changed alike": (restate, ALTERED),
    "statement leaves a file out": (leave_out, ALTERED),
    "another signature's statement": (payload_of("locked.sig"), ALTERED),
    "hint removed": (edit(lambda c: c["verificationMaterial"]["publicKey"].clear()), NOT_ONE),
    "hint of another key": (edit(lambda c: c["verificationMaterial"]["publicKey"].update(hint="0" * 64)), ALTERED),
    "a field more": (edit(lambda c: c.update(note="hello")), NOT_ONE),
    "a signature more": (edit(lambda c: c["dsseEnvelope"]["signatures"].append({"sig": "AA==", "keyid": ""})), NOT_ONE),
    "no signature": (edit(lambda c: c["dsseEnvelope"]["signatures"].clear()), NOT_ONE),
    "another type": (edit(lambda c: c["dsseEnvelope"].update(payloadType="text/plain")), ALTERED),
    "another form": (edit(lambda c: c.update(mediaType="application/json")), ALTERED),
    "a log entry": (edit(lambda c: c["verificationMaterial"]["tlogEntries"].append({})), NOT_ONE),
    "a link": (link("release.sig"), "release.sig is a link"),
    "unlimited depth": (write("release.sig", b"[" * 100_000), NOT_ONE),
}


@pytest.mark.parametrize(("tamper", "sentence"), IN_FOLDERS.values(), ids=IN_FOLDERS)
def test_a_folder_that_was_altered_fails(tamper: Tampering, sentence: str, copy: Path, keys: Path) -> None:
    tamper(copy)
    _fails_with_one_sentence(verify(copy, "--public-key", keys / "own.pub"), sentence)


@pytest.mark.parametrize(("tamper", "sentence"), IN_SIGNATURES.values(), ids=IN_SIGNATURES)
def test_a_signature_that_was_altered_fails(tamper: Tampering, sentence: str, copy: Path, keys: Path) -> None:
    tamper(copy)
    _fails_with_one_sentence(verify(copy, "--public-key", keys / "own.pub"), sentence)


def _fails_with_one_sentence(found: tuple[int, str], sentence: str) -> None:
    code, output = found
    assert code == 1, output
    assert output.startswith("FAIL signature: ")
    assert output.count("\n") == 1
    assert any(part in output for part in sentence.split("|")), output
    assert "Traceback" not in output


def test_nothing_was_altered(release: Path, keys: Path) -> None:
    code, output = verify(release, "--public-key", keys / "own.pub")
    assert code == 0, output
    assert output.startswith("ok   signature: All ")


@pytest.mark.parametrize("folders", [("locked",), ("results",)])
def test_a_folder_that_is_not_given_is_missed(folders: tuple[str, ...], release: Path, keys: Path) -> None:
    code, output = verify(release, "--public-key", keys / "own.pub", folders=folders)
    assert code == 1
    assert "The signature is of other files" in output


def test_the_wrong_public_key(release: Path, keys: Path) -> None:
    code, output = verify(release, "--public-key", keys / "other.pub")
    assert code == 1
    assert "It was not made with the private key of" in output


def _bits(data: bytes, every: int) -> list[bytes]:
    found = []
    for bit in range(0, 8 * len(data), every):
        altered = bytearray(data)
        altered[bit // 8] ^= 1 << bit % 8
        found.append(bytes(altered))
    return found


@pytest.mark.parametrize("every", [67, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("signer", "more"), [("own", []), ("direct", ["direct"]), ("signer", ["signer", "middle"])])
def test_no_bit_of_a_signature_may_change(signer: str, more: list[str], every: int, keys: Path, tmp_path: Path) -> None:
    """Not even one that nothing signs: of a hint, of base64's unused bits, of a certificate on the way to the root."""
    from specdef import sign

    folder, signature = tmp_path / "folder", tmp_path / "s.sig"
    folder.mkdir()
    (folder / "a").write_text("a")
    sign(folder, key=keys / f"{signer}.key", certificate=[keys / f"{name}.pem" for name in more], out=signature)
    who: dict[str, Any] = {"root_certificate": [keys / "root.pem"]} if more else {"public_key": keys / "own.pub"}
    assert verify_signature(folder, signature=signature, **who).passed
    passed = []
    for altered in _bits(signature.read_bytes(), every):
        signature.write_bytes(altered)
        if verify_signature(folder, signature=signature, **who).passed:
            passed.append(altered)
    assert not passed
