"""The locked layer in memory and through transformers: same function, own dtypes, trainable, saved and loaded again."""

from __future__ import annotations

import copy
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pico
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.trainer_utils import validate_quantization_for_training

import specdef.integrations.transformers
from specdef.errors import PlanError, SpecdefError
from specdef.linalg.deform import Deformation, deform
from specdef.locks.deformed_linear import DeformedLinear
from specdef.locks.entry import LayerEntry, quantization_config
from specdef.locks.in_memory import lock_module

U32 = torch.finfo(torch.float32).eps / 2
FORMS = ["dense", "low_rank", "diagonal"]
TARGETS = {
    "llama-biased": [
        "model.layers.0.mlp.gate_proj",
        "model.layers.1.self_attn.o_proj",
        "model.layers.1.self_attn.v_proj",
    ],
    "llama-tied": [
        "model.layers.0.mlp.gate_proj",
        "model.layers.1.self_attn.o_proj",
        "model.layers.1.self_attn.v_proj",
    ],
    "gpt2": ["transformer.h.0.mlp.c_fc", "transformer.h.1.attn.c_attn", "transformer.h.1.mlp.c_proj"],
}


def lock(weight: Tensor, form: str, multiplier: float = 2.0**10, **options: object) -> Deformation:
    basis = "axis" if form == "diagonal" else "svd"
    return deform(weight, 3, multiplier, basis=basis, form=form, **options)  # type: ignore[arg-type]


def lock_folder(source: Path, out: Path, family: str, form: str, **options: object) -> Path:
    """A locked folder written by hand: tensors replaced and added, config.json extended. The oracle for the loader."""
    tensors = load_file(source / "model.safetensors")
    prefix = "" if f"{TARGETS[family][0]}.weight" in tensors else "transformer."
    entries = {}
    for name in TARGETS[family]:
        stored, transposed = name.removeprefix(prefix), family == "gpt2"
        weight = tensors[f"{stored}.weight"]
        d = lock(weight.T if transposed else weight, form, **options)
        tensors[f"{stored}.weight"] = (d.weight.T if transposed else d.weight).contiguous()
        tensors.update({f"{stored}.{key}": value for key, value in d.tensors.items()})
        entries[name] = LayerEntry.of(d, transposed=transposed)
    out.mkdir()
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((source / "config.json").read_text())
    config["quantization_config"] = quantization_config(entries)
    (out / "config.json").write_text(json.dumps(config))
    return out


def load(folder: Path, **options: object) -> nn.Module:
    model, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    assert not {key: value for key, value in report.items() if value}
    return model.eval()


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(**pico.inputs("llama")).logits


def error(actual: Tensor, expected: Tensor) -> float:
    difference = torch.linalg.norm((actual - expected).double())
    return (difference / torch.linalg.norm(expected.double())).item()


@pytest.mark.parametrize("family", TARGETS)
@pytest.mark.parametrize("form", FORMS)
def test_from_pretrained_loads_a_locked_folder(family: str, form: str, tmp_path: Path) -> None:
    source = pico.build(family, tmp_path / "source")
    folder = lock_folder(source, tmp_path / "locked", family, form, compensation_dtype=torch.float64)
    original, locked = load(source), load(folder)
    assert error(logits(locked), logits(original)) < {"low_rank": 2.0**10}.get(form, 1) * 64 * U32
    stored = load_file(folder / "model.safetensors")
    modules = dict(locked.named_modules())
    for name in TARGETS[family]:
        layer = modules[name]
        assert isinstance(layer, DeformedLinear)
        for key, value in layer.state_dict().items():
            saved = stored.get(f"{name}.{key}", stored.get(f"{name.removeprefix('transformer.')}.{key}"))
            assert saved is not None
            assert value.dtype == saved.dtype
            assert torch.equal(value, saved), f"{name}.{key} was changed or initialised anew"
    assert sum(isinstance(m, DeformedLinear) for m in modules.values()) == 3


def _without_specdef(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run code where specdef is installed but not imported."""
    command = [sys.executable, "-c", f"import sys, transformers\n{code}\nassert 'specdef' not in sys.modules", folder]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("loader", ["AutoModelForCausalLM", "LlamaForCausalLM", "AutoModel"])
def test_without_specdef_transformers_refuses_a_locked_folder(loader: str, tmp_path: Path) -> None:
    source = pico.build("llama-tied", tmp_path / "source")
    folder = lock_folder(source, tmp_path / "locked", "llama-tied", "dense")
    code = f"transformers.{loader}.from_pretrained(sys.argv[1])"
    assert _without_specdef(code, source).returncode == 0
    done = _without_specdef(code, folder)
    assert done.returncode == 1
    assert "quantization config" in done.stderr.splitlines()[-1]


def test_a_model_saved_again_is_refused_without_specdef_too(tmp_path: Path) -> None:
    source = pico.build("llama-tied", tmp_path / "source")
    folder = lock_folder(source, tmp_path / "locked", "llama-tied", "dense")
    load(folder).save_pretrained(tmp_path / "again")
    assert torch.equal(logits(load(tmp_path / "again")), logits(load(folder)))
    code = "transformers.AutoModelForCausalLM.from_pretrained(sys.argv[1])"
    assert _without_specdef(code, tmp_path / "again").returncode == 1


def test_a_folder_of_an_earlier_version_loads(tmp_path: Path) -> None:
    """Their config.json says ``quant_method``, not ``needs``."""
    source = pico.build("llama-tied", tmp_path / "source")
    folder = lock_folder(source, tmp_path / "locked", "llama-tied", "dense")
    now = logits(load(folder))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["quant_method"] = config["quantization_config"].pop("needs")
    (folder / "config.json").write_text(json.dumps(config))
    assert torch.equal(logits(load(folder)), now)


@pytest.mark.parametrize("family", ["llama-biased", "gpt2"])
def test_power_of_two_axis_lock_is_bit_identical(family: str, tmp_path: Path) -> None:
    source = pico.build(family, tmp_path / "source")
    folder = lock_folder(source, tmp_path / "locked", family, "diagonal")
    assert torch.equal(logits(load(folder)), logits(load(source)))


@pytest.mark.parametrize("family", ["llama-biased", "gpt2"])
def test_bfloat16_checkpoint(family: str, tmp_path: Path) -> None:
    source = pico.build(family, tmp_path / "source", torch.bfloat16)
    folder = lock_folder(
        source,
        tmp_path / "locked",
        family,
        "dense",
        multiplier=1e9,
        compensation_dtype=torch.float32,
        tolerance=math.inf,
    )
    original, locked = load(source, dtype="auto"), load(folder, dtype="auto")
    reference = logits(load(source, dtype=torch.float32))
    assert locked.get_submodule(TARGETS[family][0]).compensation.dtype == torch.float32
    assert error(logits(locked), reference) < 2 * error(logits(original), reference)


@pytest.mark.parametrize("dtype", ["auto", torch.float32, torch.bfloat16, torch.float16])
def test_compensation_and_weight_keep_their_dtypes(dtype: str | torch.dtype, tmp_path: Path) -> None:
    family = "llama-biased"
    source = pico.build(family, tmp_path / "source")
    folder = lock_folder(source, tmp_path / "locked", family, "dense", multiplier=1e9)
    locked = load(folder, dtype=dtype)
    layer = locked.get_submodule(TARGETS[family][0])
    assert (layer.weight.dtype, layer.compensation.dtype) == (torch.float32, torch.float64)
    assert locked.get_submodule("model.layers.0.mlp.up_proj").weight.dtype == (
        torch.float32 if dtype == "auto" else dtype
    )
    unlocked = load(source, dtype=dtype)
    noise = U32 if dtype == "auto" else torch.finfo(dtype).eps
    assert error(logits(locked), logits(unlocked)) < 64 * noise


def test_a_changed_compensation_changes_the_function(tmp_path: Path) -> None:
    source = pico.build("llama-biased", tmp_path / "source")
    folder = lock_folder(source, tmp_path / "locked", "llama-biased", "dense")
    reference, locked = logits(load(source)), load(folder)
    layer = locked.get_submodule(TARGETS["llama-biased"][0])
    layer.compensation.data.copy_(torch.eye(layer.out_features))
    assert error(logits(locked), reference) > 0.1


def test_a_wrong_side_is_another_function(tmp_path: Path) -> None:
    source = pico.build("llama-biased", tmp_path / "source")
    folder = lock_folder(source, tmp_path / "locked", "llama-biased", "dense")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["modules"][TARGETS["llama-biased"][1]]["side"] = "input"  # o_proj is square
    (folder / "config.json").write_text(json.dumps(config))
    assert error(logits(load(folder)), logits(load(source))) > 0.1


@pytest.mark.parametrize("family", TARGETS)
@pytest.mark.parametrize("form", FORMS)
def test_save_and_load_again(family: str, form: str, tmp_path: Path) -> None:
    source = pico.build(family, tmp_path / "source")
    first = load(lock_folder(source, tmp_path / "locked", family, form))
    first.save_pretrained(tmp_path / "again")
    second = load(tmp_path / "again")
    assert torch.equal(logits(first), logits(second))
    configs = [json.loads((tmp_path / name / "config.json").read_text()) for name in ("locked", "again")]
    assert configs[0] == configs[1]


def test_locking_in_memory_saves_a_loadable_folder(tmp_path: Path) -> None:
    model = load(pico.build("gpt2", tmp_path / "source"))
    reference = logits(model)
    report = lock_module(model, targets=["transformer.h.*.attn.c_attn"], rank=3, multiplier=1e6).report
    assert [layer.name for layer in report.layers] == [f"transformer.h.{i}.attn.c_attn" for i in (0, 1)]
    assert report.extra_ratio == pytest.approx(96 * 96 / (32 * 96))
    assert all(layer.entry.transposed and layer.entry.dtype == "float64" for layer in report.layers)
    assert error(logits(model), reference) < 64 * U32
    model.save_pretrained(tmp_path / "locked")
    assert torch.equal(logits(load(tmp_path / "locked")), logits(model))


def test_a_base_model_loads_the_same_layers(tmp_path: Path) -> None:
    source = pico.build("llama-biased", tmp_path / "source")
    folder = lock_folder(source, tmp_path / "locked", "llama-biased", "dense", compensation_dtype=torch.float64)
    tokens = pico.inputs("llama")
    with torch.no_grad():
        hidden = [transformers.AutoModel.from_pretrained(f)(**tokens).last_hidden_state for f in (source, folder)]
    assert error(hidden[1], hidden[0]) < 64 * U32


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_weight_and_compensation(form: str, tmp_path: Path) -> None:
    source = pico.build("llama-biased", tmp_path / "source")
    locked = load(lock_folder(source, tmp_path / "locked", "llama-biased", form)).train()
    tokens = pico.inputs("llama")["input_ids"]
    locked(input_ids=tokens, labels=tokens).loss.backward()
    for name in TARGETS["llama-biased"]:
        for key, parameter in locked.get_submodule(name).named_parameters():
            assert parameter.grad is not None, f"{name}.{key}"
            assert parameter.grad.dtype == parameter.dtype
            assert parameter.grad.abs().sum() > 0, f"{name}.{key}"


def test_gradients_match_float64_autograd() -> None:
    linear = nn.Linear(7, 5, dtype=torch.float64)
    locked = DeformedLinear.from_linear(linear, deform(linear.weight.detach(), 2, 64.0))
    x = torch.randn(4, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    parameters = tuple(p.detach().requires_grad_() for p in locked.parameters())
    names = [name for name, _ in locked.named_parameters()]

    def forward(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(locked, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(forward, (x, *parameters))


def test_trainer_accepts_it(tmp_path: Path) -> None:
    source = pico.build("llama-biased", tmp_path / "source")
    locked = load(lock_folder(source, tmp_path / "locked", "llama-biased", "dense"))
    validate_quantization_for_training(locked)
    assert locked.hf_quantizer.is_serializable()
    assert locked.hf_quantizer.is_trainable


def test_autocast_does_not_narrow_the_products() -> None:
    linear = nn.Linear(48, 32)
    locked = DeformedLinear.from_linear(linear, lock(linear.weight.detach(), "dense", 1e6))
    x = torch.randn(5, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        narrow = linear(x)
        y = locked(x)
    assert error(y, linear(x)) < 8 * U32 < error(narrow, linear(x))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(48, 20), (20, 48), (32, 32)])
@pytest.mark.parametrize("bias", [True, False])
def test_layer_matches_linear(form: str, shape: tuple[int, int], bias: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(shape[1], shape[0], bias=bias)
    locked = DeformedLinear.from_linear(linear, lock(linear.weight.detach(), form, compensation_dtype=torch.float64))
    x = torch.randn(2, 3, shape[1], generator=generator)
    y = locked(x)
    assert (y.shape, y.dtype) == ((2, 3, shape[0]), torch.float32)
    assert error(y, linear(x)) < (2.0**10 if form == "low_rank" else 1) * 16 * U32
    assert (locked.in_features, locked.out_features) == (shape[1], shape[0])


@pytest.mark.parametrize("cast", ["half", "bfloat16", "double", "float"])
def test_casting_moves_the_bias_alone(cast: str) -> None:
    linear = nn.Linear(8, 6)
    locked = DeformedLinear.from_linear(linear, lock(linear.weight.detach(), "dense", 1e6))
    before = {name: value.clone() for name, value in locked.state_dict().items()}
    bias = getattr(copy.deepcopy(linear), cast)().bias
    after = getattr(locked, cast)().state_dict()
    assert after.pop("bias").dtype == bias.dtype
    assert all(torch.equal(value, before[name]) and value.dtype == before[name].dtype for name, value in after.items())


def test_moving_to_another_device() -> None:
    linear = nn.Linear(8, 6)
    locked = DeformedLinear.from_linear(linear, lock(linear.weight.detach(), "low_rank")).to("meta", torch.bfloat16)
    assert {p.device.type for p in locked.parameters()} == {"meta"}
    assert (locked.weight.dtype, locked.bias.dtype) == (torch.float32, torch.bfloat16)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(32, 16), nn.Linear(16, 16), nn.Linear(16, 32, bias=False)
        self.head.weight = self.embed.weight


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (Tied(), {"targets": ["boddy"]}, r"got 'boddy', which matches none. Near: body"),
        (Tied(), {"targets": []}, "`targets` must name at least one module"),
        (
            Tied(),
            {"targets": ["embed"]},
            "must be nn.Linear, transformers Conv1D or nn.Conv2d layers; got Embedding at module embed",
        ),
        (Tied(), {"targets": ["head"]}, "`targets` must own their weight; got head, tied to embed.weight"),
        (Tied(), {"targets": ["body"], "rank": 17}, r"Module body: `rank` must be between 1 and 16"),
        (
            Tied(),
            {"targets": ["body"], "rank": 2, "multiplier": 1e7, "form": "low_rank"},
            "Module body: `multiplier` must keep",
        ),
        (
            nn.TransformerEncoderLayer(16, 2, 32),
            {"targets": ["linear1"], "rank": 2},
            "got linear1, whose weight TransformerEncoderLayer reads itself",
        ),
        (
            nn.MultiheadAttention(16, 2),
            {"targets": ["out_proj"], "rank": 2},
            "got NonDynamicallyQuantizableLinear at module out_proj",
        ),
    ],
)
def test_lock_module_refusals_leave_the_model_alone(model: nn.Module, options: dict[str, object], message: str) -> None:
    before = {name: type(module) for name, module in model.named_modules()}
    with pytest.raises(PlanError, match=message):
        lock_module(model, **options)  # type: ignore[arg-type]
    assert {name: type(module) for name, module in model.named_modules()} == before


def test_locking_twice_is_refused() -> None:
    model = nn.Sequential(nn.Linear(8, 8))
    lock_module(model, targets=["0"], rank=2)
    with pytest.raises(PlanError, match="got DeformedLinear at module 0"):
        lock_module(model, targets=["0"], rank=2)


def test_a_deformation_of_another_shape_is_refused() -> None:
    with pytest.raises(PlanError, match=r"`deformation` must have shape \[6, 8\]; got \[8, 6\]"):
        DeformedLinear.from_linear(nn.Linear(8, 6), lock(torch.randn(8, 6), "dense"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "`quantization_config.version` must be 1; got 2. Upgrade specdef"),
        ({"module": {"side": "left"}}, "side` in config.json must be one of output, input; got 'left'"),
        ({"module": {"rank": 0}}, "and a positive rank; got"),
        ({"module": {"extra": 1}}, "must have the keys side, form"),
        ({"module": {"transposed": True}}, "transposed` in config.json must be False for a Linear; got True"),
        ({"rename": "model.layers.7.mlp.gate_proj"}, "got model.layers.7.mlp.gate_proj, which it lacks"),
        ({"rename": "model.norm"}, "got LlamaRMSNorm at module model.norm"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    source = pico.build("llama-biased", tmp_path / "source")
    folder = lock_folder(source, tmp_path / "locked", "llama-biased", "dense")
    config = json.loads((folder / "config.json").read_text())
    section, name = config["quantization_config"], TARGETS["llama-biased"][0]
    section["version"] = change.get("version", 1)
    entry = {**section["modules"].pop(name), **change.get("module", {})}  # type: ignore[dict-item]
    section["modules"][change.get("rename", name)] = entry
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SpecdefError, match=message):
        transformers.AutoModelForCausalLM.from_pretrained(folder)


@pytest.mark.parametrize("order", ["import specdef, transformers", "import transformers, specdef"])
def test_any_import_order_registers(order: str) -> None:
    script = (
        f"{order}\nfrom transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING as m\n"
        "assert 'specdef' in m; import specdef.integrations.transformers; specdef.integrations.transformers.register()"
    )
    if order.startswith("import specdef"):
        light = "import sys, specdef\nassert not {'torch', 'transformers', 'specdef.locks.lock'} & set(sys.modules)"
        script = f"{light}\n{script}"
    source = str(Path(specdef.integrations.transformers.__file__).parents[2])
    subprocess.run([sys.executable, "-c", script], check=True, env={**os.environ, "PYTHONPATH": source}, timeout=120)


def _lock_with_a_huge_row(folder: Path, multiplier: float, **options: object) -> float:
    """KL between a model whose query projection has one row a million times larger, and the same locked there."""
    model = transformers.AutoModelForCausalLM.from_pretrained(pico.build("llama", folder)).eval()
    name = "model.layers.0.self_attn.q_proj"
    linear = model.get_submodule(name)
    assert isinstance(linear, nn.Linear)
    with torch.no_grad():
        linear.weight[3] *= 1e6
    before = logits(model).double().log_softmax(-1)
    deformation = deform(linear.weight.detach(), 4, multiplier, **options)  # type: ignore[arg-type]
    model.set_submodule(name, DeformedLinear.from_linear(linear, deformation))
    after = logits(model).double().log_softmax(-1)
    return (before.exp() * (before - after)).sum(-1).mean().item()


def test_a_huge_row_does_not_hide_a_lost_function(tmp_path: Path) -> None:
    """Locked at 1e9 the model was 0.1 nats off while the manifest claimed 5e-6 a layer."""
    with pytest.raises(PlanError, match=r"the relative error of every output within 9\.8e-04 .* in output \d+ on"):
        _lock_with_a_huge_row(tmp_path / "refused", 1e9)
    assert _lock_with_a_huge_row(tmp_path / "lost", 1e9, tolerance=math.inf) > 0.1
    assert _lock_with_a_huge_row(tmp_path / "kept", 1e6) < 1e-7
    assert _lock_with_a_huge_row(tmp_path / "narrow", 1e6, compensation_dtype=torch.float32, tolerance=math.inf) > 1e-4
