"""publish: the checklist of a locked folder, and the upload to the hub."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from specdef.cli.options import Json, option
from specdef.cli.render import err_console, out_console, print_json, safe, say
from specdef.errors import SpecdefError


def publish(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The locked folder.")],
    check: Annotated[bool, option("Print the checklist and upload nothing.", "--check")] = False,
    repo: Annotated[str | None, option("Upload there once the checklist passes, such as org/name.")] = None,
    private: Annotated[bool, option("Where the repository is new, keep it private.", "--private")] = False,
    certificate: Annotated[
        Path | None, option("Results of certify (default: DIR/certificate or DIR-certificate).")
    ] = None,
    signature: Annotated[Path | None, option("The file of `specdef sign` (default: DIR/specdef.sig).")] = None,
    public_key: Annotated[Path | None, option("Of the key that signed, PEM: check who signed.")] = None,
    json_: Json = False,
) -> None:
    """Check that a locked folder is fit to be published, or upload it to the hub. Exit 1 where a must fails.

    Example: specdef publish locked --check
    """
    if check == (repo is not None):
        raise SpecdefError("`repo` must be given, such as org/name, or --check, and not both.")
    from specdef.integrations.publish import check_release
    from specdef.integrations.publish import publish as upload

    with err_console.status("checking" if repo is None else "publishing"):
        if repo is None:
            report = check_release(folder, certificate=certificate, signature=signature, public_key=public_key)
        else:
            report = upload(
                folder, repo, private=private, certificate=certificate, signature=signature, public_key=public_key
            )
    if json_:
        print_json({"passed": report.passed, **asdict(report)})
    else:
        for item in report.items:
            mark = "[green]ok     " if item.ok else "[red]fails  " if item.must else "[yellow]missing"
            out_console.print(f"{mark}[/] {safe(item.name)}: {safe(item.detail)}", soft_wrap=True, highlight=False)
        if report.url is not None:
            say(f"Published {len(report.files)} files: {report.url}")
        elif not report.passed:
            say("Not fit to be published: mend what fails.")
        else:
            advice = "" if all(item.ok for item in report.items) else "; what is missing is advice"
            say(f"Fit to be published: {len(report.files)} files{advice}.")
    if not report.passed:
        raise typer.Exit(1)
