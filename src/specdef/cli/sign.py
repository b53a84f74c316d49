"""sign and verify: one signature over every file of a folder, and the checks of a locked folder and of a signature."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from specdef.cli.options import Json, names_of, option
from specdef.cli.render import err_console, out_console, print_json, safe, say
from specdef.errors import SpecdefError

if TYPE_CHECKING:
    from specdef.locks.base import Check

SIGNING = "Signature"
Folders = Annotated[list[Path], typer.Argument(metavar="DIR...", help="Locked folders and results folders.")]


def sign(
    folders: Folders,
    key: Annotated[Path | None, option("Private key to sign with: elliptic curve, PEM, no passphrase.")] = None,
    certificate: Annotated[
        list[Path] | None, option("PEM file: the key's certificate first; again for those up to a root.")
    ] = None,
    keyless: Annotated[bool, option("Sign as whoever logs in, through Sigstore's servers.", "--keyless")] = False,
    out: Annotated[
        Path | None, option("The signature file (default: DIR/specdef.sig; needed with several folders).")
    ] = None,
    replace: Annotated[bool, option("Write over an older signature.", "--replace")] = False,
    json_: Json = False,
) -> None:
    """Sign every file of the folders in one statement: weights, manifest, certificate, cells, tables, pictures, page.

    Example: specdef sign locked results --key signer.pem --out release.sig
    """
    from specdef.integrations.signing.sign import sign as sign_folders

    with err_console.status("signing"):
        report = sign_folders(
            *folders, key=key, certificate=certificate or (), keyless=keyless, out=out, replace=replace
        )
    if json_:
        print_json(asdict(report))
        return
    by = {True: " --identity NAME --issuer URL", False: " --root-certificate ROOT.pem" if certificate else ""}[keyless]
    say(
        f"Signed with {report.made_with}, files: {report.files}. Signature: {report.signature}",
        f"Check it: specdef verify {' '.join(map(str, folders))} --signature {report.signature}"
        + (by or " --public-key PUBLIC.pem"),
    )


def verify(
    folders: Folders,
    original: Annotated[str | None, option("The unlocked model, to compare the function with.")] = None,
    runtime: Annotated[
        list[str] | None,
        option(
            "Run it there too, NAME[:FORMAT,...]: llama.cpp, torchao, onnxruntime, transformers-bf16 or "
            "transformers-f16; may be given again.",
            autocompletion=names_of("specdef.runtimes.base", "RUNTIMES"),
        ),
    ] = None,
    signature: Annotated[
        Path | None, option("Check this file of `specdef sign` instead: are the folders as signed?", panel=SIGNING)
    ] = None,
    public_key: Annotated[Path | None, option("Of the key that signed, PEM.", panel=SIGNING)] = None,
    root_certificate: Annotated[
        list[Path] | None, option("PEM file of a root whose certificates may sign; may be given again.", panel=SIGNING)
    ] = None,
    identity: Annotated[str | None, option("Who signed without a key, such as an address.", panel=SIGNING)] = None,
    issuer: Annotated[str | None, option("Who vouches for that identity, a URL.", panel=SIGNING)] = None,
    json_: Json = False,
) -> None:
    """Check digests, the lock in the weights and, with --original, the function; or a signature. Exit 1 on failure.

    Example: specdef verify locked --original smollm2-135m
    """
    if signature is not None:
        for name, given in (("original", original), ("runtime", runtime)):
            if given:
                raise SpecdefError(f"`{name}` must be left out with `signature`. Verify without it to check the lock.")
        _verify_signature(folders, signature, public_key, root_certificate, identity, issuer, json_)
        return
    if public_key or root_certificate or identity or issuer:
        raise SpecdefError("`signature` must be given to check one: the file that `specdef sign` wrote.")
    if len(folders) > 1:
        raise SpecdefError("`folders` must be one locked folder, but with `signature`. Verify them one by one.")
    from specdef.locks.verify import verify as verify_model

    with err_console.status("verifying") as status:
        report = verify_model(
            folders[0],
            original=original,
            runtimes=runtime or (),
            progress=lambda stage: status.update(f"checking {stage}"),
        )
    if json_:
        print_json({"passed": report.passed, **asdict(report)})
    else:
        _print_checks(report.checks)
        if original is None:
            out_console.print("[dim]--  function: not checked; give --original DIR[/dim]")
    if not report.passed:
        raise typer.Exit(1)


def _verify_signature(
    folders: list[Path],
    signature: Path,
    public_key: Path | None,
    roots: list[Path] | None,
    identity: str | None,
    issuer: str | None,
    as_json: bool,
) -> None:
    from specdef.integrations.signing.sign import verify_signature
    from specdef.locks.base import Check

    who: dict[str, Any] = {"public_key": public_key, "root_certificate": roots or (), "identity": identity}
    with err_console.status("verifying"):
        report = verify_signature(*folders, signature=signature, issuer=issuer, **who)
    check = Check("signature", report.passed, report.detail)
    if as_json:
        print_json({"passed": report.passed, "checks": [asdict(check)], "files": report.files})
    else:
        _print_checks([check])
    if not report.passed:
        raise typer.Exit(1)


def _print_checks(checks: Sequence[Check]) -> None:
    marks = {True: "[green]ok[/green]  ", False: "[red]FAIL[/red]", None: "[yellow]--[/yellow]  "}
    for check in checks:
        out_console.print(f"{marks[check.passed]} {safe(check.name)}: {safe(check.detail)}", soft_wrap=True)
