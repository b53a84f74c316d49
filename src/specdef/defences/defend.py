"""`defend`: apply a defence to a model and write a plain folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from specdef.checkpoint.digests import file_digest
from specdef.core.devices import find_device
from specdef.core.folders import new_folder, refuse_target
from specdef.core.schema import digest
from specdef.core.versions import installed_versions
from specdef.defences.base import DEFENCES, Change, Defence, DefenceReport, Given, Progress
from specdef.defences.card import write_record
from specdef.defences.data import DataSpec, encode, named_data, read_data
from specdef.defences.options import make_options, options_to_json
from specdef.defences.unfinished import Unfinished
from specdef.errors import SpecdefError
from specdef.models.base import kind_of
from specdef.models.loading import quiet
from specdef.models.sources import find_model
from specdef.tasks.utility import refuse_missing_text, utility_for
from specdef.training.outcome import Evaluation


def defend(
    method: str,
    model: Path | str,
    out: Path | str,
    *,
    options: Mapping[str, Any] | None = None,
    seed: int = 0,
    text: Path | str | None = None,
    device: str | None = None,
    progress: Progress | None = None,
    data: DataSpec | Mapping[str, str | None] | None = None,
) -> DefenceReport:
    """Apply a defence to a model and write it as a plain Hugging Face folder, in the dtypes it had.

    Args:
        method: name of a defence, such as ``unlearned``.
        model: a model folder, a hub id, or ``smollm2-135m``.
        out: the folder to create.
        options: of the method, by name; defaults for the rest.
        seed: decides every draw.
        text: general data, to measure utility on and to mix into training; what ships with the package when None.
        device: ``cpu`` or ``cuda``; the GPU where there is one when None.
        progress: called with the stage's name after every evaluation.
        data: what is to be forgotten and what kept, for a method that is told so, by the names of the command line:
            ``{"forget": "people.jsonl", "eval": "questions.jsonl"}`` or ``{"task": "biographies"}``.

    Returns:
        What was done; the folder holds the same in ``specdef_defence.json``.

    Raises:
        SpecdefError: unknown method or option, an unusable folder, or the method's aim was not reached. Nothing is
            written then.
    """
    defence = DEFENCES.get(method)
    chosen = make_options(defence, options or {})
    named = data if isinstance(data, DataSpec) else named_data(data or {}, seed=seed)
    if named.given is not None and not defence.needs_data:
        raise SpecdefError(f"`{named.given}` must be left out with method {method}, which brings its own data.")
    target = Path(out)
    refuse_target(target, None)
    if not 0 <= seed < 2**32:
        raise SpecdefError(f"`seed` must be at least 0 and below 2^32; got {seed}.")
    if text is not None:
        refuse_missing_text(text)
    known = read_data(named) if defence.needs_data else None
    place = find_device(device)
    folder = find_model(str(model))
    refuse_target(target, folder)
    kind = kind_of(folder)
    if defence.model_kinds and kind.name not in defence.model_kinds:
        raise SpecdefError(
            f"`method` {defence.name} must be given a model of kind {' or '.join(defence.model_kinds)}; "
            f"{folder} is of kind {kind.name}."
        )
    utility = utility_for(kind)
    content = utility.read(None if text is None else Path(text))
    loaded = kind.load(folder)
    dtypes = _to_float32(loaded.model)
    loaded.model.to(place)
    general = utility.prepare(content, loaded)
    given = Given(folder, loaded, utility, general, seed, progress or (lambda *_: None))
    digests = {"general data": digest(content)}
    if known is not None:
        digests |= known.digests
        rows = encode(known, loaded, general)
        unfinished = Unfinished(target, _identity(defence, chosen, given, digests, place))
        given = replace(given, data_rows=rows, measures=known.measures(loaded, rows), unfinished=unfinished)
    given = replace(given, measures=(*given.measures, *defence.measures(chosen, seed)))
    report = replace(_apply(defence, chosen, given, dtypes), notes=() if known is None else known.notes)
    defence.check(report, chosen)
    with new_folder(target, source=folder) as made:
        with quiet():
            kind.save(loaded, made)
        write_record(made, report, {**report.applied.data, **digests})
        for path in made.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
    if given.unfinished is not None:
        given.unfinished.remove()
    return report


def _identity(defence: Defence, options: Any, given: Given, digests: Mapping[str, str], device: Any) -> str:
    """Everything that decides a run: one that was killed goes on only where all of it is the same."""
    files = sorted(path for path in given.folder.rglob("*") if path.suffix in (".safetensors", ".json"))
    content = {
        "method": defence.name,
        "options": options_to_json(options),
        "seed": given.seed,
        "data": dict(digests),
        "model": {path.relative_to(given.folder).as_posix(): file_digest(path) for path in files},
        "device": str(device),
        "versions": installed_versions(("specdef", "torch", "transformers", "peft")),
    }
    return digest(content)


def _apply(defence: Defence, options: Any, given: Given, dtypes: Mapping[str, Any]) -> DefenceReport:
    import torch

    model, processor = given.loaded.model, given.loaded.processor
    before = {measure.name: float(measure.metric(model, processor)) for measure in given.measures}
    useful = given.utility.measure(model, given.data)
    given = replace(given, start=Evaluation(0, next(iter(before.values()), 0.0), useful))
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(given.seed)
        applied = defence.apply(given, options)
    _restore(model, dtypes)
    model.eval()
    return DefenceReport(
        method=defence.name,
        options=options_to_json(options),
        seed=given.seed,
        scores={m.name: Change(before[m.name], float(m.metric(model, processor))) for m in given.measures},
        utility_name=given.utility.name,
        utility=Change(useful, given.utility.measure(model, given.data)),
        applied=applied,
    )


def _to_float32(model: Any) -> dict[str, Any]:
    """Widen every floating-point parameter and buffer in place; returns what they were."""
    import torch

    tensors = [*model.named_parameters(), *model.named_buffers()]
    found = {name: tensor.dtype for name, tensor in tensors if tensor.is_floating_point()}
    model.to(torch.float32)
    return found


def _restore(model: Any, dtypes: Mapping[str, Any]) -> None:
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if name in dtypes:
            tensor.data = tensor.data.to(dtypes[name])
