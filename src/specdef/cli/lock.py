"""lock and unlock: a locked copy of a model, and the way back."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from specdef.cli import parse
from specdef.cli.options import Exclude, Given, Json, Locked, Map, Model, Multiplier, Out, Preset, Runtimes, option
from specdef.cli.progress import bytes_bar
from specdef.cli.render import out_console, plain, print_json, safe, say

if TYPE_CHECKING:
    from specdef.locks.lock import LockReport


def lock(
    model: Model,
    out: Out,
    preset: Preset = None,
    multiplier: Multiplier = None,
    rank: Annotated[int | None, option("paper: singular values scaled per matrix (default 25).")] = None,
    channels: Annotated[int | None, option("exact: channels scaled per pair (default 1).")] = None,
    layers: Annotated[str | None, option("Layer numbers, such as 3,7 or 3-7.")] = None,
    num_layers: Annotated[int | None, option("exact: draw this many layers.")] = None,
    num_matrices: Annotated[int | None, option("paper: draw this many matrices (default 5).")] = None,
    components: Annotated[str | None, option("paper: such as v_proj,o_proj.")] = None,
    pairs: Annotated[str | None, option("exact: any of norm,vo,updown,fc,head,conv (default all).")] = None,
    direction: Annotated[str | None, option("exact: up or down (default up).")] = None,
    runtimes: Runtimes = None,
    basis: Annotated[str | None, option("paper: svd or axis (default svd).")] = None,
    form: Annotated[str | None, option("paper: compensation stored dense or low_rank (default dense).")] = None,
    given: Given = None,
    seed: Annotated[int | None, option("Decides every random draw (default 0).")] = None,
    key: Annotated[Path | None, option("Where the private key goes (default OUT.specdef-key).")] = None,
    card: Annotated[bool, option("Write the lock into README.md, the hub's model card, too.", "--card")] = False,
    exclude: Exclude = None,
    map: Map = None,
    dry_run: Annotated[bool, option("Plan and check, write nothing.", "--dry-run")] = False,
    json_: Json = False,
) -> None:
    """Write a locked copy of MODEL and the private key that undoes it.

    Example: specdef lock smollm2-135m locked
    """
    from specdef.defences.options import parse_pairs
    from specdef.locks.lock import lock as lock_model
    from specdef.locks.presets import default_preset, lock_options, own_options
    from specdef.locks.with_map import refuse_map

    flags: dict[str, Any] = {
        "multiplier": multiplier,
        "layers": parse.whole_numbers(layers, "layers"),
        "num_layers": num_layers,
        "num_matrices": num_matrices,
        "rank": rank,
        "channels": channels,
        "components": parse.words(components),
        "pairs": parse.words(pairs),
        "direction": direction,
        "runtimes": parse.words(runtimes),
        "basis": basis,
        "form": form,
        "seed": seed,
    }
    source = str(_existing_model(model, out, key, dry_run)) if preset is None else model  # its kind decides
    preset = preset or default_preset(Path(source))
    options = parse.once(flags, own_options(preset, parse_pairs(given or ())))
    kind, _ = lock_options(preset, options)  # a typing mistake is answered first
    refuse_map(map, kind)
    folder = _existing_model(source, out, key, dry_run)
    with bytes_bar("locking", folder, quiet=json_) as progress:
        report = lock_model(
            folder,
            out,
            preset=preset,
            key=key,
            card=card,
            exclude=exclude or (),
            map=map,
            dry_run=dry_run,
            progress=progress,
            **options,
        )
    if json_:
        print_json(asdict(report))
    else:
        _print_lock(report, model)


def unlock(
    locked: Locked,
    out: Out,
    key: Annotated[Path | None, option("The private key that lock wrote (default LOCKED.specdef-key).")] = None,
    weights_only: Annotated[bool, option("Restore weights; keep edited and added files.", "--weights-only")] = False,
) -> None:
    """Restore the original files, byte for byte; or the weights alone.

    Example: specdef unlock locked restored --key locked.specdef-key
    """
    from specdef.core.folders import refuse_target
    from specdef.locks.key import find_key
    from specdef.locks.unlock import unlock as unlock_model

    refuse_target(out, locked)
    key = key or find_key(locked)
    with bytes_bar("unlocking", locked, quiet=False) as progress:
        report = unlock_model(locked, out, key, weights_only=weights_only, progress=progress)
    what, checked = ("Weights restored", "") if weights_only else ("Restored", " of every file")
    say(f"{what} to the byte (BLAKE3{checked} checked): {out}")
    for names, words in (
        (report.kept, "Kept as edited or added after locking"),
        (report.put_back, "Put back as the original, edits after locking lost"),
        (report.missing, "Missing in the locked folder, not restored"),
    ):
        if names:
            say(f"{words}: {', '.join(names)}")


def _existing_model(model: str, out: Path, key: Path | None, dry_run: bool) -> Path:
    """The model's folder; what would stop the lock later is refused before anything is unpacked or downloaded."""
    from specdef.core.folders import refuse_target
    from specdef.locks.key import default_key_path, refuse_key_path
    from specdef.models.sources import find_model

    if not dry_run:
        refuse_target(out, None)
        refuse_key_path(key or default_key_path(out), out)
    return find_model(model)


def _print_lock(report: LockReport, model: str) -> None:
    shown = {name: value for name, value in report.strength.items() if name not in ("exponent", "extra_ratio")}
    strength = ", ".join(f"{name.replace('_', ' ')} {plain(value)}" for name, value in shown.items())
    out_console.print(f"[bold]{safe(report.lock)} lock[/bold]: {safe(strength)}.", soft_wrap=True)
    where = f" in {', '.join(dtypes)}" if (dtypes := report.exactness["exact_in"]) else ""
    say(f"Function: {report.exactness['closeness']}{where}; {report.num_values:,} weights change.")
    for pair, reason in list(report.left_out.items())[:3]:
        out_console.print(f"[yellow]Left out[/yellow] {safe(pair)}: {safe(reason)}", soft_wrap=True)
    if len(report.left_out) > 3:
        out_console.print(f"[yellow]Left out[/yellow] {len(report.left_out) - 3} more pairs (see --json).")
    say(*report.remarks)
    if report.out is None:
        say("Dry run: nothing was written.")
        return
    say(f"Locked model: {report.out}", f"Private key:  {report.key} (keep it; never publish it)")
    say(f"Check it:     specdef verify {report.out} --original {model}")
    say(f"Then try it:  specdef certify {report.out} --original {model} --out {report.out}-certificate")
