"""The inject lock of a module in memory: its layers named one by one."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from specdef.core.results import Result
from specdef.errors import PlanError
from specdef.linalg.compensation import Basis, Form
from specdef.linalg.deform import deform
from specdef.locks.base import ModuleKey, ModuleLock
from specdef.locks.deformed import Deformed
from specdef.locks.deformed_conv import DeformedConv2d, refuse_conv
from specdef.locks.deformed_linear import DeformedLinear, linear_weight
from specdef.locks.entry import LayerEntry, quantization_config
from specdef.locks.kinds.inject.declared import attach, detach, owners


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


@dataclass(frozen=True, repr=False)
class InjectReport(Result):
    """What the inject lock did to a module in memory."""

    layers: tuple[LockedLayer, ...]

    @property
    def extra_ratio(self) -> float:
        """Numbers stored for all compensations over the parameters of the layers they belong to."""
        return sum(x.num_extra_parameters for x in self.layers) / sum(x.num_parameters for x in self.layers)

    def quantization_config(self) -> dict[str, Any]:
        """The ``quantization_config`` that lets transformers load the saved model again."""
        return quantization_config({layer.name: layer.entry for layer in self.layers})


def lock_module(
    name: str,
    module: nn.Module,
    *,
    targets: Sequence[str] = (),
    rank: int = 25,
    multiplier: float = 1e4,
    basis: Basis = "svd",
    form: Form = "dense",
    compensation_dtype: torch.dtype | None = None,
    tolerance: float | None = None,
    generator: torch.Generator | None = None,
) -> ModuleLock:
    """Replace layers of a module in memory by locked ones, in place; all of them or, on an error, none.

    A transformers model also gets the ``quantization_config`` that ``save_pretrained`` writes and
    ``from_pretrained`` (after ``import specdef``) needs.

    Args:
        name: of this kind of lock.
        module: any module with ``nn.Linear``, transformers ``Conv1D`` or ``nn.Conv2d`` layers.
        targets: layer names as in ``named_modules``, shell wildcards allowed ("*.gate_proj").
        rank: number of directions scaled.
        multiplier: alpha.
        basis: "svd" or "axis".
        form: "dense" or "low_rank" for the svd basis.
        compensation_dtype: dtype of C; None lets `specdef.linalg.deform.deform` choose.
        tolerance: see `specdef.linalg.deform.deform`.
        generator: for the SVD's start blocks.

    Returns:
        Name, entry and measured errors of each locked layer.

    Raises:
        PlanError: a target matches nothing, is no plain linear layer or convolution, shares its weight with another
            module, is read around its forward, or cannot be locked as asked; the message names the module.
    """
    planned = []
    for path in _matching(module, targets):
        child = module.get_submodule(path)
        weight, transposed = _matrix(path, child)
        _refuse_shared(module, path, child)
        try:
            deformation = deform(
                weight.detach(),
                rank,
                multiplier,
                basis=basis,
                form=form,
                compensation_dtype=compensation_dtype,
                tolerance=tolerance,
                generator=generator,
            )
        except PlanError as error:
            raise PlanError(f"Module {path}: {error}") from error
        planned.append((path, child, deformation, transposed))
    layers = []
    for path, child, d, transposed in planned:
        if isinstance(child, nn.Conv2d):
            module.set_submodule(path, DeformedConv2d.from_conv(child, d))
        else:
            module.set_submodule(path, DeformedLinear.from_linear(child, d))
        entry = LayerEntry.of(d, transposed=transposed)
        numbers = (d.weight_error, d.function_error, d.weight.numel(), d.num_extra_parameters)
        layers.append(LockedLayer(path, entry, multiplier, *numbers))
    report = InjectReport(tuple(layers))
    for owner, prefix in owners(module):
        own = {x.name.removeprefix(prefix): x.entry for x in layers if x.name.startswith(prefix)}
        if own:
            attach(owner, own)
    return ModuleLock(name, ModuleKey(name, {path: child for path, child, _, _ in planned}), report)


def unlock_module(module: nn.Module, layers: Mapping[str, nn.Module]) -> None:
    """Put the original layers back under their old names; the model no longer says that they are locked.

    Args:
        module: the locked model.
        layers: path -> original layer.

    Raises:
        PlanError: the model has no locked layer of that path.
    """
    own = dict(module.named_modules())
    for path in layers:
        if not isinstance(own.get(path), Deformed):
            raise PlanError(
                f"`key` must belong to this model; {type(module).__name__} has no locked layer {path}. "
                "Give the key that `lock_module` returned for it."
            )
    for path, layer in layers.items():
        module.set_submodule(path, layer)
    for owner, prefix in owners(module):
        detach(owner, [path.removeprefix(prefix) for path in layers if path.startswith(prefix)])


def _matrix(path: str, child: nn.Module) -> tuple[torch.Tensor, bool]:
    """(weight as a matrix [out, in], whether it is stored [in, out]).

    Raises:
        PlanError: the module is no linear layer and no plain convolution.
    """
    if type(child) is not nn.Conv2d:
        return linear_weight(path, child)
    refuse_conv(path, child, argument="targets")
    return child.weight.flatten(1), False


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
