"""`esd`: erased Stable Diffusion: what the concept's prompt asks for becomes the opposite of the concept."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from specdef.defences.base import Given
from specdef.defences.objective import Objective, Rows, TrainingOptions, only, require
from specdef.defences.trained import ObjectiveDefence

if TYPE_CHECKING:
    import torch

VARIANTS = ("x", "x-strict", "u", "all")
KEYS_VALUES = ("attn2.to_k", "attn2.to_v")


@dataclass(frozen=True)
class EsdOptions(TrainingOptions):
    """Options of `esd`, with the values of the published code.

    Attributes:
        variant: what is trained of the U-Net's linear layers and convolutions: ``x`` those of cross-attention,
            ``x-strict`` its keys and values, ``u`` all others, ``all``.
        eta: how far away; 1 is what the empty prompt says.
        guidance: classifier-free, of the images whose denoising is interrupted.
        denoising_steps: of those images.
        retain_weight: of what the model is to go on saying of general data, beside the erasing. The paper and its code
            have no such term: any value but 0 is a departure from them.
    """

    steps: int = 200
    lr: float = 5e-5
    batch_size: int = 1
    variant: str = "x"
    eta: float = 2.0
    guidance: float = 3.0
    denoising_steps: int = 50
    retain_weight: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.variant in VARIANTS, "variant", f"be one of {', '.join(VARIANTS)}", self.variant)
        require(self.eta > 0, "eta", "be above 0", self.eta)
        require(self.guidance >= 1, "guidance", "be 1 or more", self.guidance)
        require(self.denoising_steps >= 1, "denoising_steps", "be 1 or more", self.denoising_steps)
        require(0 <= self.retain_weight < math.inf, "retain_weight", "be 0 or more", self.retain_weight)


class EsdObjective(Objective):
    """MSE(e(x_t, c, t), e0(x_t, c, t) - eta (e0(x_t, c, t) - e0(x_t, "", t))); e0 the given model's prediction.

    Math: Gandikota, Materzynska, Fiotto-Kaufman and Bau 2023, "Erasing concepts from diffusion models", equation 7, as
    the published code has it: its `eta` is one more than the paper's, whose target starts at the empty prompt. x_t is
    the given model's own, drawn for c with guidance and interrupted at a time drawn uniformly. The formula is linear,
    so it holds for predicted velocity as for noise. c are the prompts of the rows to forget; their images are not
    looked at, and the text encoder stays as it is. With `retain_weight` w the loss is that plus w MSE(e(r), e0(r)) over
    rows r to keep, their images, prompts, noise and times: no part of the paper.
    """

    def __init__(self, given: Given, options: EsdOptions) -> None:
        from specdef.models.prompted import encode_prompts

        self.model, self.options = given.loaded.model, options
        self.kind: Any = given.loaded.kind
        self.reference = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.empty = encode_prompts([""], given.loaded.processor, self.model)
        only(self.model, erased_names(self.model, options.variant))

    def target(self, latents: torch.Tensor, times: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """What the model is to say of noisy latents [rows, channels, height, width] under the concept's prompts."""
        nothing = self.empty.to(tokens.device).expand_as(tokens)
        (concept,) = self.reference(latents=latents, times=times, input_ids=tokens)
        (empty,) = self.reference(latents=latents, times=times, input_ids=nothing)
        return concept - self.options.eta * (concept - empty)  # type: ignore[no-any-return]

    def loss(self, step: int, forget: Rows, retain: Rows) -> torch.Tensor:
        """See the class."""
        erased = self.erased(forget)
        weight = self.options.retain_weight
        return erased + weight * self.changed(retain) if weight else erased

    def changed(self, retain: Rows) -> torch.Tensor:
        """How far the model has come from what the given one says of rows to keep."""
        import torch

        with torch.no_grad():
            wanted, _ = self.kind.predicted(self.reference, retain.batch)
        found, _ = self.kind.predicted(self.model, retain.batch)
        return torch.nn.functional.mse_loss(found, wanted)

    def erased(self, forget: Rows) -> torch.Tensor:
        """How far the model is from the opposite of the concept."""
        import torch

        from specdef.models.prompted import denoised

        device = next(self.model.parameters()).device
        steps = self.options.denoising_steps
        done = int(torch.randint(steps, ()))
        tokens, start = forget.batch[1].to(device), torch.randn_like(forget.batch[0])
        with torch.no_grad():
            latents = denoised(
                self.reference, tokens, self.empty, start, steps=steps, guidance=self.options.guidance, done=done
            )
            times = self.reference.sampler(steps).timesteps[done].to(device).expand(len(tokens))
            wanted = self.target(latents, times, tokens)
        found = self.model(latents=latents, times=times, input_ids=tokens)[0]
        return torch.nn.functional.mse_loss(found, wanted)


def erased_names(model: Any, variant: str) -> list[str]:
    """Parameters of the U-Net that a variant trains."""
    from torch import nn

    def chosen(path: str) -> bool:
        cross = ".attn2." in path
        if variant == "x-strict":
            return any(path.endswith(part) for part in KEYS_VALUES)
        return variant == "all" or cross == (variant == "x")

    return [
        f"unet.{path}.{name}"
        for path, module in model.unet.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and chosen(path)
        for name, _ in module.named_parameters(recurse=False)
    ]


class Esd(ObjectiveDefence):
    """Erased Stable Diffusion (Gandikota, Materzynska, Fiotto-Kaufman and Bau 2023)."""

    name = "esd"
    summary = "turns what a concept's prompt asks for into its opposite"
    Options = EsdOptions
    model_kinds: ClassVar[tuple[str, ...]] = ("diffusion",)

    def objective(self, given: Given, options: Any) -> Objective:
        """A part of the U-Net is trained."""
        return EsdObjective(given, options)


KIND = Esd()
