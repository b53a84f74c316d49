"""The locked linear layer, locking modules in memory, and the hook that lets transformers load locked folders."""

from __future__ import annotations

import contextlib
import difflib
import fnmatch
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from specdef.errors import PlanError, SpecdefError
from specdef.factored import FACTORED_VERSION, FactoredLinear, FactorEntry
from specdef.linalg.deform import TENSOR_NAMES, Basis, Deformation, Form, compensate, compute_dtype, deform
from specdef.locks.entry import FORMAT_VERSION, QUANT_METHOD, LayerEntry, quantization_config


class DeformedLinear(nn.Module):
    """A linear layer whose weight is deformed and whose compensation is a layer of its own.

    Math: y = C (W~ x) + b on the output side, y = W~ (C x) + b on the input side. Both products run in
    `specdef.linalg.deform.compute_dtype`, autocast off, and the result is cast back to x's dtype: rounding W~ x in a
    narrow dtype could not be undone. TensorFloat-32, where a program enables it, is such a narrow dtype for the
    float32 products of a bfloat16 checkpoint.

    W~ keeps the parameter name ``weight`` and b ``bias``; C is held under the names of
    `specdef.linalg.deform.TENSOR_NAMES`, trainable like the injected layer of the paper (the index is a buffer).
    Casting the module (``.half()``, ``.to(torch.bfloat16)``) moves the bias alone.

    Args:
        in_features: length of x's last axis.
        out_features: length of y's last axis.
        entry: dtypes, side and form.
        bias_dtype: dtype of b; None for no bias.
        device: where the (uninitialised) tensors are made.

    Example:
        >>> linear = nn.Linear(6, 4)
        >>> locked = DeformedLinear.from_linear(linear, deform(linear.weight.detach(), 2, 1e6))
        >>> x = torch.randn(3, 6)
        >>> torch.allclose(locked(x), linear(x), atol=1e-6)
        True
        >>> sorted(locked.state_dict())
        ['bias', 'compensation', 'weight']
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        entry: LayerEntry,
        *,
        bias_dtype: torch.dtype | None = None,
        device: torch.device | str | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features, self.entry = in_features, out_features, entry
        shape = (in_features, out_features) if entry.transposed else (out_features, in_features)
        weight_dtype, dtype = getattr(torch, entry.weight_dtype), getattr(torch, entry.dtype)
        self.weight = nn.Parameter(torch.empty(shape, dtype=weight_dtype, device=device))
        side = out_features if entry.side == "output" else in_features

        def parameter(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.empty(shape, dtype=dtype, device=device))

        if entry.form == "dense":
            self.compensation = parameter(side, side)
        elif entry.form == "low_rank":
            self.compensation_basis, self.compensation_scale = parameter(side, entry.rank), parameter(entry.rank)
        else:
            index = torch.empty(entry.rank, dtype=torch.int64, device=device)
            self.register_buffer("compensation_index", index)
            self.compensation_factor = parameter(entry.rank)
        bias = None if bias_dtype is None else nn.Parameter(torch.empty(out_features, dtype=bias_dtype, device=device))
        self.register_parameter("bias", bias)

    @classmethod
    def from_linear(cls, module: nn.Module, deformation: Deformation) -> Self:
        """The locked twin of an ``nn.Linear`` or a transformers ``Conv1D``, holding its bias.

        Args:
            module: the layer the deformed weight came from.
            deformation: of the weight as [out, in].

        Raises:
            PlanError: the module is neither, or its shape is not the deformation's.
        """
        weight, transposed = _linear_weight("", module)
        if weight.shape != deformation.weight.shape:
            raise PlanError(
                f"`deformation` must have shape {list(weight.shape)}; got {list(deformation.weight.shape)}. "
                "Deform this module's own weight [out, in]."
            )
        out_features, in_features = weight.shape
        entry = LayerEntry.of(deformation, transposed=transposed)
        locked = cls(in_features, out_features, entry, device="meta")
        stored = deformation.weight.T.contiguous() if transposed else deformation.weight
        locked.load_state_dict({"weight": stored, **deformation.tensors}, assign=True)
        bias = module.bias
        assert bias is None or isinstance(bias, nn.Parameter)
        locked.register_parameter("bias", bias)
        return locked.train(module.training)

    def tensors(self) -> dict[str, Tensor]:
        """The compensation's tensors by state-dict name."""
        return {name: getattr(self, name) for name in TENSOR_NAMES[self.entry.form]}

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Apply the layer to the last axis of x; the result has x's dtype."""
        e, tensors = self.entry, self.tensors()
        dtype = compute_dtype(x.dtype, self.weight.dtype, tensors[TENSOR_NAMES[e.form][-1]].dtype, e.form)
        with _without_autocast(x.device.type):
            wide = x.to(dtype)
            weight = (self.weight.T if e.transposed else self.weight).to(dtype)
            bias = None if self.bias is None else self.bias.to(dtype)
            if e.side == "input":
                return functional.linear(compensate(wide, tensors), weight, bias).to(x.dtype)
            if e.form == "diagonal" and bias is not None:
                # Scaled like its row, the bias enters the same fused sum as in the original: exact for powers of two.
                bias = bias / compensate(torch.ones_like(bias), tensors)
                return compensate(functional.linear(wide, weight, bias), tensors).to(x.dtype)
            y = compensate(functional.linear(wide, weight), tensors)
            return (y if bias is None else y + bias).to(x.dtype)

    def extra_repr(self) -> str:
        """Sizes, side and form."""
        e = self.entry
        return f"{self.in_features}, {self.out_features}, side={e.side}, form={e.form}, rank={e.rank}, dtype={e.dtype}"

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Move W~ and C but never cast them; the function would be lost with their last digits."""

        def move(tensor: Tensor) -> Tensor:
            if tensor is self.bias or (self.bias is not None and tensor is self.bias.grad):
                return fn(tensor)
            probe = fn(tensor.new_empty(0))
            return fn(tensor) if probe.dtype == tensor.dtype else tensor.to(probe.device)

        super()._apply(move, recurse)
        return self


@contextlib.contextmanager
def _without_autocast(device_type: str) -> Iterator[None]:
    if torch.amp.is_autocast_available(device_type) and torch.is_autocast_enabled(device_type):
        with torch.autocast(device_type, enabled=False):
            yield
    else:
        yield


@dataclass(frozen=True)
class LockedLayer:
    """One layer locked in memory: its name, entry and the figures of its `Deformation`."""

    name: str
    entry: LayerEntry
    multiplier: float
    weight_error: float
    function_error: float
    num_parameters: int
    num_extra_parameters: int


@dataclass(frozen=True)
class ModuleLock:
    """What `lock_module` did."""

    layers: tuple[LockedLayer, ...]

    @property
    def extra_ratio(self) -> float:
        """Numbers stored for all compensations over the parameters of the layers they belong to."""
        return sum(x.num_extra_parameters for x in self.layers) / sum(x.num_parameters for x in self.layers)

    def quantization_config(self) -> dict[str, Any]:
        """The ``quantization_config`` that lets transformers load the saved model again."""
        return quantization_config({layer.name: layer.entry for layer in self.layers})


def lock_module(
    module: nn.Module,
    *,
    targets: Sequence[str],
    k: int = 25,
    multiplier: float = 1e4,
    basis: Basis = "svd",
    form: Form = "dense",
    compensation_dtype: torch.dtype | None = None,
    tolerance: float | None = None,
    generator: torch.Generator | None = None,
) -> ModuleLock:
    """Replace linear layers of a module in memory by locked ones, in place; all of them or, on an error, none.

    A transformers model also gets the ``quantization_config`` that ``save_pretrained`` writes and
    ``from_pretrained`` (after ``import specdef``) needs.

    Args:
        module: any module with ``nn.Linear`` or transformers ``Conv1D`` layers.
        targets: layer names as in ``named_modules``, shell wildcards allowed ("*.gate_proj").
        k: number of directions scaled.
        multiplier: alpha.
        basis: "svd" or "axis".
        form: "dense" or "low_rank" for the svd basis.
        compensation_dtype: dtype of C; None lets `specdef.linalg.deform.deform` choose.
        tolerance: see `specdef.linalg.deform.deform`.
        generator: for the SVD's start blocks.

    Returns:
        Name, entry and measured errors of each locked layer.

    Raises:
        PlanError: a target matches nothing, is no plain linear layer, shares its weight with another module, is read
            around its forward, or cannot be locked as asked; the message names the module.

    Example:
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
        >>> report = lock_module(model, targets=["0"], k=2)
        >>> type(model[0]).__name__, report.layers[0].entry.side
        ('DeformedLinear', 'output')
    """
    planned = []
    for name in _matching(module, targets):
        child = module.get_submodule(name)
        weight, transposed = _linear_weight(name, child)
        _refuse_shared(module, name, child)
        try:
            deformation = deform(
                weight.detach(),
                k,
                multiplier,
                basis=basis,
                form=form,
                compensation_dtype=compensation_dtype,
                tolerance=tolerance,
                generator=generator,
            )
        except PlanError as error:
            raise PlanError(f"Module {name}: {error}") from error
        planned.append((name, child, deformation, transposed))
    layers = []
    for name, child, d, transposed in planned:
        module.set_submodule(name, DeformedLinear.from_linear(child, d))
        entry = LayerEntry.of(d, transposed=transposed)
        numbers = (d.weight_error, d.function_error, d.weight.numel(), d.num_extra_parameters)
        layers.append(LockedLayer(name, entry, multiplier, *numbers))
    report = ModuleLock(tuple(layers))
    if hasattr(module, "save_pretrained") and hasattr(module, "config"):
        _attach(module, report.quantization_config())
    return report


def _matching(module: nn.Module, targets: Sequence[str]) -> list[str]:
    names = [name for name, _ in module.named_modules() if name]
    chosen: dict[str, None] = {}
    for target in targets:
        found = [name for name in names if fnmatch.fnmatchcase(name, target)]
        if not found:
            near = ", ".join(difflib.get_close_matches(target, names, n=3)) or ", ".join(names[:3])
            raise PlanError(f"`targets` must match modules; got {target!r}, which matches none. Near: {near}.")
        chosen.update(dict.fromkeys(found))
    if not chosen:
        raise PlanError("`targets` must name at least one module; got none. Pass names or patterns.")
    return list(chosen)


def _linear_weight(name: str, module: nn.Module) -> tuple[Tensor, bool]:
    """(weight as [out, in], whether it is stored [in, out])."""
    if type(module) is nn.Linear:
        return module.weight, False
    if type(module).__name__ == "Conv1D" and type(module).__module__ == "transformers.pytorch_utils":
        weight = module.weight
        assert isinstance(weight, Tensor)
        return weight.T, True
    raise PlanError(
        f"`targets` must be nn.Linear or transformers Conv1D layers; got {type(module).__name__}"
        f"{f' at module {name}' if name else ''}. Choose another layer."
    )


def _refuse_shared(root: nn.Module, name: str, child: nn.Module) -> None:
    own = {f"{name}.{part}" for part, _ in child.named_parameters()}
    for other, parameter in root.named_parameters(remove_duplicate=False):
        if parameter is child.weight and other not in own:
            raise PlanError(f"`targets` must own their weight; got {name}, tied to {other}. Choose another layer.")
    parent = root.get_submodule(name.rpartition(".")[0])
    if isinstance(parent, nn.MultiheadAttention | nn.TransformerEncoderLayer):
        raise PlanError(
            f"`targets` must be used through their forward; got {name}, whose weight {type(parent).__name__} reads "
            "itself. Choose another layer."
        )


def register() -> None:
    """Make transformers load folders whose ``quant_method`` is ``specdef``. Calling it again changes nothing."""
    from transformers.quantizers.auto import (
        AUTO_QUANTIZER_MAPPING,
        register_quantization_config,
        register_quantizer,
    )
    from transformers.quantizers.base import HfQuantizer
    from transformers.utils.quantization_config import QuantizationConfigMixin

    if QUANT_METHOD in AUTO_QUANTIZER_MAPPING:
        return

    @register_quantization_config(QUANT_METHOD)
    class SpecdefConfig(QuantizationConfigMixin):  # type: ignore[misc]
        """The locked modules, as config.json lists them."""

        def __init__(self, version: int = FORMAT_VERSION, modules: Any = None, factored: Any = None, **_: Any) -> None:
            wanted = FACTORED_VERSION if factored else FORMAT_VERSION
            if version != wanted:
                raise SpecdefError(f"`quantization_config.version` must be {wanted}; got {version!r}. Upgrade specdef.")
            for key, entries in (("modules", modules), ("factored", factored)):
                if not isinstance(entries or {}, dict):
                    raise SpecdefError(f"`quantization_config.{key}` in config.json must be an object of layers.")
            self.quant_method = QUANT_METHOD
            self.version = version
            self.modules = dict(modules or {})
            if factored:
                self.factored = dict(factored)

    @register_quantizer(QUANT_METHOD)
    class SpecdefQuantizer(HfQuantizer):  # type: ignore[misc]
        """Puts empty `DeformedLinear` layers in place before weights load; their tensors keep their own dtypes."""

        requires_calibration = True  # a model is locked by specdef, never while it is being loaded

        def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
            for name, entry in self.quantization_config.modules.items():
                _replace_by_empty(model, name, LayerEntry.parse(name, entry))
            for name, entry in getattr(self.quantization_config, "factored", {}).items():
                _replace_by_factors(model, name, FactorEntry.parse(name, entry))

        def is_serializable(self) -> bool:
            """save_pretrained may write the model."""
            return True

        @property
        def is_trainable(self) -> bool:
            """Trainer may train adapters on it."""
            return True

        @property
        def is_qat_trainable(self) -> bool:
            """Trainer may train its own weights, W~ and C included."""
            return True


def _replace_by_empty(model: Any, name: str, entry: LayerEntry) -> None:
    found, weight, bias_dtype = _linear_of(model, name, entry.transposed)
    empty = DeformedLinear(weight.shape[1], weight.shape[0], entry, bias_dtype=bias_dtype, device=weight.device)
    model.set_submodule(found, empty.train(model.training))


def _replace_by_factors(model: Any, name: str, entry: FactorEntry) -> None:
    found, weight, bias_dtype = _linear_of(model, name, entry.transposed)
    ends = (entry.shapes[-1][0], entry.shapes[0][1])
    if tuple(weight.shape) != ends:
        raise SpecdefError(
            f"`quantization_config.factored[{name!r}]` in config.json must be a chain of shape {list(weight.shape)}, "
            f"the layer's; got {list(ends)}. Run the rewriting again."
        )
    empty = FactoredLinear(entry, bias_dtype=bias_dtype, device=weight.device)
    model.set_submodule(found, empty.train(model.training))


def _linear_of(model: Any, name: str, transposed: bool) -> tuple[str, Tensor, torch.dtype | None]:
    """(path, weight as [out, in], dtype of the bias) of a module that config.json names."""
    prefix = model.base_model_prefix + "."
    modules = dict(model.named_modules())
    found = next((n for n in (name, name.removeprefix(prefix), prefix + name) if n in modules), None)
    if found is None:
        raise SpecdefError(
            f"`quantization_config` in config.json must name modules of {type(model).__name__}; "
            f"got {name}, which it lacks. Load the class the folder was saved from."
        )
    weight, is_transposed = _linear_weight(found, modules[found])
    if is_transposed != transposed:
        raise SpecdefError(
            f"`quantization_config.modules[{name!r}].transposed` in config.json must be {is_transposed} for a "
            f"{type(modules[found]).__name__}; got {transposed}. Lock the model again with this version."
        )
    bias = modules[found].bias
    return found, weight, None if bias is None else bias.dtype


def _attach(model: Any, config: dict[str, Any]) -> None:
    from transformers.quantizers.auto import AutoHfQuantizer

    register()
    model.hf_quantizer = AutoHfQuantizer.from_config(config, pre_quantized=True)
    model.quantization_method = QUANT_METHOD
    model.config.quantization_config = model.hf_quantizer.quantization_config
