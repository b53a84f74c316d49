"""Every family's map, proved on a checkpoint plain transformers wrote and reads back: same logits, bit for bit."""

from __future__ import annotations

import re
from pathlib import Path

import pico
import pytest
import torch
from channel_scaling import (
    read_config,
    read_shapes,
    read_state,
    resolve_folder,
    scalable_channels,
    scale_pair,
    scale_pairs,
    write_state,
)
from torch import Tensor

from specdef.architectures.registry import FAMILIES, known_model_types, part_names_of
from specdef.architectures.resolve import ResolvedPair, ResolvedSlot
from specdef.architectures.spec import LLAMA_NAMES, Architecture

EXPONENT = 7
NUM_PAIRS = {
    # two layers of: two norms, v->o, up->down; plus the untied head
    "llama": 9,
    "mistral": 9,
    "ministral": 9,
    "ministral3": 9,
    "smollm3": 9,
    "granite": 9,
    "ernie4_5": 9,
    "seed_oss": 9,
    "helium": 9,
    "eurobert": 8,  # the head of a masked model is not counted on
    "hyperclovax": 9,
    "arcee": 9,
    "jais2": 9,
    "nemotron": 9,
    # no norm of a layer feeds a linear
    "olmo2": 5,
    "olmo3": 5,
    "qwen2": 9,
    "qwen3": 9,
    "phi3": 9,
    "gemma2": 9,
    "gemma3_text": 9,
    "llama-biased": 9,
    "llama-tied": 8,
    "llama-bare": 8,
    "llama-classifier": 8,
    "gemma3-multimodal": 8,
    # two norms, v->o; the MLP pair only where the activation is homogeneous
    "gpt2": 6,
    "gpt2-bare": 6,
    "gpt2-relu-untied": 9,
    "gpt_neox": 7,
    "gpt_neox-serial": 9,
    "vit": 6,
    "deit": 6,
    "vit-bare-relu": 8,
    # one pair in each of three basic blocks, two in each bottleneck
    "resnet": 3,
    "resnet-cifar": 3,
    "resnet-bottleneck": 6,
    "resnet-bare": 3,
    # OPT without its pre-norms keeps v->o and fc1->fc2
    "opt": 9,
    "opt-post-norm": 4,
    "opt-no-bias": 4,
    # three experts each
    "mixtral": 13,
    "qwen3_moe": 13,
    "olmoe": 13,
    "qwen3_moe-mixed": 11,
    "olmoe-clipped": 11,  # no v->o past a clamp
    # attention only
    "gpt_oss": 4,
    "bert": 2,
    "roberta": 2,
    "xlm-roberta": 2,
    "bert-classifier": 2,
    "roberta-classifier": 2,
    "deberta-v2": 2,
    "deberta-v2-shared-key": 2,
    "bert-relu": 4,
}


class Gallery:
    """Pico checkpoints and what they compute, each built and run once."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._outputs: dict[tuple[str, torch.dtype], Tensor] = {}

    def folder(self, name: str, dtype: torch.dtype = torch.float32) -> Path:
        folder = self._root / f"{name}-{str(dtype).removeprefix('torch.')}"
        return folder if folder.exists() else pico.build(name, folder, dtype)

    def output(self, name: str, dtype: torch.dtype = torch.float32) -> Tensor:
        if (name, dtype) not in self._outputs:
            self._outputs[name, dtype] = pico.run(name, self.folder(name, dtype))
        return self._outputs[name, dtype]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory: pytest.TempPathFactory) -> Gallery:
    return Gallery(tmp_path_factory.mktemp("picos"))


@pytest.mark.parametrize("name", pico.PICOS)
def test_number_of_pairs(name: str, gallery: Gallery) -> None:
    pairs = resolve_folder(gallery.folder(name)).pairs
    assert len(pairs) == NUM_PAIRS[name]
    assert len({pair.id for pair in pairs}) == len(pairs)


@pytest.mark.parametrize("name", pico.PICOS)
def test_channels_share_no_position(name: str, gallery: Gallery) -> None:
    state = read_state(gallery.folder(name))
    for pair in resolve_folder(gallery.folder(name)).pairs:
        for slot in pair.slots:
            positions = [position for channel in range(pair.size) for position in slot.indices(channel)]
            assert len(set(positions)) == len(positions), f"{pair.id}: channels of {slot.tensor} overlap"
            assert min(positions) >= 0, pair.id
            assert max(positions) < state[slot.tensor].shape[slot.axis], pair.id


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", pico.PICOS)
def test_scaling_every_pair_keeps_the_logits_bit_for_bit(
    name: str, dtype: torch.dtype, gallery: Gallery, tmp_path: Path
) -> None:
    """Also Gemma's 1 + weight norms in bfloat16: each has channels where 2**7 (1 + w) - 1 is stored exactly."""
    source = gallery.folder(name, dtype)
    state, pairs = read_state(source), resolve_folder(source).pairs
    scaled = scale_pairs(state, pairs, EXPONENT)
    changed = {tensor for tensor, old in state.items() if not torch.equal(old, scaled[tensor])}
    assert changed == {slot.tensor for pair in pairs for slot in pair.slots}
    assert torch.equal(pico.run(name, write_state(scaled, source, tmp_path)), gallery.output(name, dtype))


@pytest.mark.parametrize("name", pico.FAMILIES)
def test_scaling_down_keeps_the_logits_bit_for_bit(name: str, gallery: Gallery, tmp_path: Path) -> None:
    """Only Gemma's norms may drop out: near w' = -1 the float32 sum 1 + w' cannot hold a small multiple of 1 + w."""
    source = gallery.folder(name)
    state, pairs = read_state(source), resolve_folder(source).pairs
    possible = [pair for pair in pairs if scalable_channels(state, pair, -EXPONENT)]
    assert all(slot.offset for pair in pairs if pair not in possible for slot in pair.producers)
    scaled = scale_pairs(state, possible, -EXPONENT)
    assert torch.equal(pico.run(name, write_state(scaled, source, tmp_path)), gallery.output(name))


@pytest.fixture(scope="module")
def first_uses(gallery: Gallery) -> dict[str, list[tuple[ResolvedPair, ResolvedSlot]]]:
    """Pico -> the slots of its model type that no earlier pico has; layers and experts count as one."""
    seen: set[tuple[str, str, str]] = set()
    uses: dict[str, list[tuple[ResolvedPair, ResolvedSlot]]] = {name: [] for name in pico.PICOS}
    for name in pico.PICOS:
        model_type = read_config(gallery.folder(name))["model_type"]
        for pair in resolve_folder(gallery.folder(name)).pairs:
            for slot in pair.slots:
                key = (model_type, re.sub(r"\d", "", pair.id), re.sub(r"\d+", "", slot.tensor))
                if key not in seen:
                    seen.add(key)
                    uses[name].append((pair, slot))
    return uses


@pytest.mark.parametrize("name", pico.PICOS)
def test_forgetting_any_one_slot_changes_the_logits(
    name: str,
    gallery: Gallery,
    first_uses: dict[str, list[tuple[ResolvedPair, ResolvedSlot]]],
    tmp_path: Path,
) -> None:
    source = gallery.folder(name)
    state = read_state(source)
    for pair, slot in first_uses[name]:
        broken = dict(state)
        scale_pair(broken, pair, EXPONENT, skip=(slot,))
        got = pico.run(name, write_state(broken, source, tmp_path))
        assert not torch.equal(got, gallery.output(name)), f"{pair.id} holds without {slot.tensor}"


@pytest.mark.parametrize("name", pico.PICOS)
def test_inject_targets_are_linears_of_the_checkpoint(name: str, gallery: Gallery) -> None:
    model, shapes = resolve_folder(gallery.folder(name)), read_shapes(gallery.folder(name))
    assert all(len(shapes[tensor]) in (2, 4) for tensor in model.linears.values())
    held = {component for component, _ in model.linears}  # a basic block has two convolutions, a bottleneck three
    default = held.intersection(model.architecture.inject_default)
    assert default
    assert {(component, layer) for component in default for layer in (0, 1)} <= set(model.linears)


@pytest.mark.parametrize("name", pico.PICOS)
def test_the_parts_that_attackers_aim_at_are_there_by_name(name: str, gallery: Gallery) -> None:
    """Before, T3 looked for Llama's names in every family: on BERT its cells were invalid.

    Names are those of the loaded model, which some checkpoints spell otherwise.
    """
    folder = gallery.folder(name)
    config = read_config(folder)
    model = pico.class_of(config["architectures"][0]).from_pretrained(folder)
    parts, modules = part_names_of(config), {path for path, _ in model.named_modules()}
    for part in parts.query_value:
        found = [path for path in modules if path.endswith(f".{part}")]
        assert found, part
        if "resnet" not in config["model_type"]:  # which has convolutions in place of attention
            assert all("attn" in path or "attention" in path for path in found)
    names = {path for path, _ in model.named_parameters()}
    mlp, embeddings = ({path for path in names if re.search(part, path)} for part in (parts.mlp, parts.embeddings))
    assert mlp
    assert embeddings
    assert not any("attn" in path or "attention" in path or "norm" in path.lower() for path in mlp)
    assert not mlp & embeddings


def test_a_model_without_a_map_is_taken_to_have_the_usual_names() -> None:
    assert part_names_of({"model_type": "mamba"}) == LLAMA_NAMES
    assert part_names_of({"model_type": "llama"}) == LLAMA_NAMES


def test_every_model_type_is_proved_here(gallery: Gallery) -> None:
    elsewhere = {"diffusion"}  # diffusion/test_unet.py: a pipeline is no folder of transformers
    proved = {read_config(gallery.folder(name))["model_type"] for name in pico.PICOS}
    assert proved | elsewhere == set(known_model_types())


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_exclusions_give_a_reason(family: Architecture) -> None:
    assert family.exclusions
    for exclusion in family.exclusions:
        assert exclusion.what.strip()
        assert len(exclusion.reason.split()) >= 4
