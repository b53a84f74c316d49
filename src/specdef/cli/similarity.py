"""similarity: how much of a concept did not come back, by images."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from specdef.cli.options import Json, option
from specdef.cli.render import print_json, say


def similarity(
    reference: Annotated[Path, typer.Argument(help="A folder of pictures of the concept.", metavar="REFERENCE")],
    undefended: Annotated[
        Path, typer.Argument(help="Pictures drawn after an attack on the undefended model.", metavar="UNDEFENDED")
    ],
    defended: Annotated[
        Path, typer.Argument(help="Pictures drawn after the same attack on the defended one.", metavar="DEFENDED")
    ],
    measure: Annotated[
        list[str],
        option("embedding:FOLDER (CLIP, DINO, a classifier), perceptual:FOLDER (a convolutional model) or lpips."),
    ],
    as_imma: Annotated[
        bool, option("Scale pixels as IMMA's own evaluation does, by mistake, to compare with its figures.")
    ] = False,
    json_: Json = False,
) -> None:
    """Say by pictures how much of a concept a defence kept away: the similarity gap ratio, 0 % for nothing.

    Example: specdef similarity shoes runs/drawn/KEY1/step-00080 runs/drawn/KEY2/step-00080 --measure embedding:clip
    """
    from specdef.analysis.similarity import similarity_gap

    found = similarity_gap(reference, undefended, defended, measure, as_imma=as_imma)
    if json_:
        print_json({"gaps": [{**asdict(one), "ratio": one.ratio} for one in found]})
        return
    for one in found:
        say(
            f"{one.measure}: similarity gap ratio {one.ratio:.1%} "
            f"(like the reference: undefended {one.undefended:.3f}, defended {one.defended:.3f})"
        )
