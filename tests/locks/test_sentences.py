"""Every refusal of `lock` and `unlock` by its options, word by word; nothing is written and no module changes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from specdef import lock, lock_module, unlock, unlock_module
from specdef.errors import SpecdefError

IN_PLACE = (
    "must be left out for a model in memory, which is locked in place. Write it afterwards with "
    "`save_pretrained`, or give "
    "a folder as `model`."
)


def said(work: Callable[[], object]) -> str:
    with pytest.raises(SpecdefError) as caught:
        work()
    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"direction": "left"}, "`direction` must be up or down; got 'left'."),
        ({"channels": 0}, "`channels` must be at least 1; got 0."),
        ({"channels": 17, "pairs": ["vo"]}, "`channels` must be at most 16, the channels of pair vo.0; got 17."),
        ({"num_layers": 0}, "`num_layers` must be at least 1; got 0."),
        (
            {"multiplier": "2^61"},
            "`multiplier` must be at most 2^60, beyond which squared gradients overflow; got 2^61.",
        ),
        (
            {"multiplier": "1e4"},
            "`multiplier` must be a power of two for an exact lock; got 10000. 2^13 (= 8,192) and 2^14 (= 16,384) fit.",
        ),
        (
            {"pairs": ["fc"]},
            "`pairs` must be drawn from head, norm, updown, vo for this Llama checkpoint; got fc. Left out "
            "there: q_proj "
            "-> k_proj: rotary embeddings mix planes: only a per-plane rotation or scale would be exact; final norm -> "
            "lm_head when tied: the same tensor embeds the input tokens; gate_proj -> down_proj: the activation on the "
            "gate is not homogeneous.",
        ),
        (
            {"pairs": ["head"], "layers": [0]},
            "`pairs` and `layers` select nothing in this checkpoint; it has head, norm, updown, vo.",
        ),
        (
            {"rank": 3},
            "`rank` is no option of lock fold, which has multiplier, channels, direction, pairs, layers, "
            "num_layers, runtimes, seed. "
            "Leave it out, or give `preset` inject or trained.",
        ),
        (
            {"preset": None, "channels": 2},
            "`channels` is no option of lock ladder, which has multiplier, margin, calibration, pairs, layers, seed. "
            "Leave it out, or give `preset` fold.",
        ),
        ({"preset": "none"}, "`preset` must be one of exact, paper, ladder, fold, inject, trained; got 'none'."),
        ({"preset": "paper", "rank": 0}, "`rank` must be at least 1; got 0."),
        ({"preset": "paper", "num_matrices": 0}, "`num_matrices` must be at least 1; got 0."),
        ({"preset": "paper", "basis": "x"}, "`basis` must be svd or axis; got 'x'. Use svd for the paper's lock."),
        (
            {"preset": "paper", "form": "x"},
            "`form` must be dense or low_rank; got 'x'. Use dense for the paper's lock.",
        ),
        (
            {"preset": "paper", "form": "low_rank", "basis": "axis"},
            "`form` must be left out with basis axis, whose compensation is diagonal; got 'low_rank'.",
        ),
        (
            {"preset": "paper", "components": ["x"]},
            "`components` must be drawn from q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj for "
            "this model; "
            "got 'x'.",
        ),
        (
            {"preset": "paper", "rank": 17, "components": ["v_proj"]},
            "`rank` must be at most 16 for tensor model.layers.0.self_attn.v_proj.weight of shape [16, 32]; "
            "got 17. Lower "
            "it, or choose other components.",
        ),
        (
            {"preset": "paper", "rank": 2, "layers": [0], "components": ["v_proj"], "num_matrices": 2},
            "`num_matrices` must lie between 1 and 1, the matrices to draw from; got 2.",
        ),
        (
            {"preset": "paper", "rank": 4, "multiplier": 1e39},
            "Tensor model.layers.0.self_attn.v_proj.weight of file model.safetensors: `multiplier` must keep W~ inside "
            "float32 (at most 3.403e+38); got 1e+39, which makes an entry 8.931e+38. Use at most about 1.9e+38.",
        ),
    ],
)
def test_of_a_folder(options: dict[str, Any], sentence: str, llama: Path, tmp_path: Path) -> None:
    assert said(lambda: lock(llama, tmp_path / "out", **{"preset": "exact", **options})) == sentence
    assert not list(tmp_path.iterdir())


def module() -> nn.Sequential:
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"targets": ["9"]}, "`targets` must match modules; got '9', which matches none. Near: 0, 1, 2."),
        ({"targets": []}, "`targets` must name at least one module; got none. Pass names or patterns."),
        (
            {"targets": ["1"]},
            "`targets` must be nn.Linear, transformers Conv1D or nn.Conv2d layers; got ReLU at module 1. Choose "
            "another layer.",
        ),
        (
            {"targets": ["0"], "rank": 9},
            "Module 0: `rank` must be between 1 and 8 for a weight of shape [8, 8]; got 9. Lower it.",
        ),
        (
            {"targets": ["*"], "rank": 2},
            "`targets` must be nn.Linear, transformers Conv1D or nn.Conv2d layers; got ReLU at module 1. Choose "
            "another layer.",
        ),
        (
            {"preset": "exact"},
            "`module` must be a transformers model for lock fold, which reads its config; got Sequential. Name "
            "its layers "
            "with `targets` instead.",
        ),
    ],
)
def test_of_a_module(options: dict[str, Any], sentence: str) -> None:
    model = module()
    before = [type(part) for part in model]
    assert said(lambda: lock_module(model, **options)) == sentence
    assert [type(part) for part in model] == before


def test_of_a_module_that_is_tied_or_locked_or_anothers() -> None:
    model = module()
    model.append(nn.Linear(8, 8, bias=False))
    model[3].weight = model[0].weight
    assert said(lambda: lock_module(model, targets=["0"], rank=2)) == (
        "`targets` must own their weight; got 0, tied to 3.weight. Choose another layer."
    )
    model = module()
    key = lock_module(model, targets=["0"], rank=2).key
    assert said(lambda: lock_module(model, targets=["0"], rank=2)) == (
        "`targets` must be nn.Linear, transformers Conv1D or nn.Conv2d layers; got DeformedLinear at module 0. Choose "
        "another layer."
    )
    assert said(lambda: unlock_module(module(), key)) == (
        "`key` must belong to this model; Sequential has no locked layer 0. Give the key that `lock_module` "
        "returned for it."
    )


def test_of_folders_and_modules_mixed_up(llama: Path, tmp_path: Path) -> None:
    model: Any = module()
    key = lock_module(model, targets=["0"], rank=2).key
    for name, value in {"out": tmp_path, "key": "k", "card": True, "exclude": "*.bin", "dry_run": True}.items():
        given = {name: value}
        assert said(lambda given=given: lock(model, **given)) == f"`{name}` {IN_PLACE}"  # type: ignore[misc]
    for name, value in {"out": tmp_path, "weights_only": True, "progress": print}.items():
        given = {name: value}
        assert said(lambda given=given: unlock(model, key=key, **given)) == (  # type: ignore[misc]
            f"`{name}` must be left out for a model in memory, which is unlocked in place."
        )
    folder: Any = llama
    for work, sentence in (
        (
            lambda: lock(folder),
            "`out` must be given with a folder: the locked folder to create. A folder is never changed.",
        ),
        (lambda: unlock(folder), "`out` must be given with a locked folder: the folder to create."),
        (lambda: unlock(folder, "x", key), "`key` must be given with a locked folder: the file that `lock` wrote."),
        (lambda: unlock(model), "`key` must be the `key` of what `lock` returned for this model; got a NoneType."),
    ):
        assert said(work) == sentence
