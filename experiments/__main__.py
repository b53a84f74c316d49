"""`make experiment NAME=table4`: run one experiment by the name of its study file, or of its code."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from experiments import (
    anchors,
    automap,
    calibration,
    calibration_images,
    calibration_texts,
    certificates,
    certificates_diffusion,
    coverage,
    crosscheck,
    curvature,
    detect,
    diffusion,
    diffusion_base,
    injection,
    ladder,
    relearned,
    removed,
    rivals,
    rivals_attacked,
    runtimes,
    selective,
    spectra,
    stories,
    tables,
    together,
    workshop,
)
from experiments.theory import table9, table10, table11, table29
from experiments.toy import run as toy
from specdef.errors import SpecdefError

IN_CODE: dict[str, Callable[[str], Path]] = {
    "anchors": anchors.run,
    "automap": automap.run,
    "calibration": calibration.run,
    "calibration-images": calibration_images.run,
    "calibration-texts": calibration_texts.run,
    **dict.fromkeys((*certificates.BENCHES, *certificates.NAMES), certificates.run),
    **dict.fromkeys(
        ("certificates-diffusion", *(f"certificates-diffusion-{model}" for model in certificates_diffusion.MODELS)),
        certificates_diffusion.run,
    ),
    "coverage": coverage.run,
    "crosscheck": crosscheck.run,
    "curvature": curvature.run,
    "detect": detect.run,
    "diffusion": diffusion.run,
    "diffusion-base": diffusion_base.run,
    "injection": injection.run,
    "ladder": ladder.run,
    "relearned": relearned.run,
    "removed": removed.run,
    "rivals": rivals.run,
    **dict.fromkeys(rivals_attacked.STUDIES, rivals_attacked.run),
    "rivals-spectra": rivals_attacked.run_spectra,
    "runtimes": runtimes.run,
    "selective": selective.run,
    "spectra": spectra.run,
    **dict.fromkeys(("stories", *(f"stories-{model}" for model in certificates.LOCKS)), stories.run),
    "together": together.run,
    "table9": table9.run,
    "table10": table10.run,
    "table11": table11.run,
    "table29": table29.run,
    **dict.fromkeys(toy.NAMES, toy.run),
    **dict.fromkeys(workshop.STUDIES, workshop.run),
}
"""Experiments that no study file can say."""


def main() -> None:
    known = [*IN_CODE, *tables.names()]
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in known:
        print(f"`NAME` must be one of {', '.join(known)}; got {name!r}.", file=sys.stderr)
        sys.exit(2)
    try:
        path = IN_CODE.get(name, tables.run)(name)
    except SpecdefError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(2)
    print(path.read_text())


if __name__ == "__main__":
    main()
