"""The narrow ResNets for CIFAR as models of transformers, which has none of them.

Source: He et al. 2016, *Deep Residual Learning for Image Recognition*, section 4.2: three stages of basic blocks; where
a stage halves the image the sum takes every other pixel and fills the new channels with zeros (option A).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutputWithNoAttention


class CifarResNetConfig(PretrainedConfig):  # type: ignore[misc]
    """Sizes of a CIFAR ResNet.

    Args:
        depths: blocks of each stage.
        hidden_sizes: channels of each stage.
        num_channels: of an image.
    """

    model_type = "resnet-cifar"

    def __init__(
        self,
        depths: tuple[int, ...] | list[int] = (3, 3, 3),
        hidden_sizes: tuple[int, ...] | list[int] = (16, 32, 64),
        num_channels: int = 3,
        **kwargs: Any,
    ) -> None:
        self.depths, self.hidden_sizes, self.num_channels = list(depths), list(hidden_sizes), num_channels
        super().__init__(**kwargs)


class Block(nn.Module):
    """Two convolutions of 3 x 3, each with its BatchNorm, and the sum around them."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.stride, self.missing = stride, width - before

    def forward(self, x: Tensor) -> Tensor:
        """Images [rows, channels, height, width]; the stride divides height and width."""
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        around = x[:, :, :: self.stride, :: self.stride]
        first = self.missing // 2
        return torch.relu(out + nn.functional.pad(around, (0, 0, 0, 0, first, self.missing - first)))


class CifarResNetForImageClassification(PreTrainedModel):  # type: ignore[misc]
    """A CIFAR ResNet with its head."""

    config_class = CifarResNetConfig
    base_model_prefix = ""
    main_input_name = "pixel_values"
    _no_split_modules: ClassVar[list[str]] = ["Block"]

    def __init__(self, config: CifarResNetConfig) -> None:
        super().__init__(config)
        before = config.hidden_sizes[0]
        self.conv1 = nn.Conv2d(config.num_channels, before, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(before)
        self.stages = [f"layer{number}" for number in range(1, len(config.depths) + 1)]
        for name, depth, width in zip(self.stages, config.depths, config.hidden_sizes, strict=True):
            first = Block(before, width, 1 if name == "layer1" else 2)
            setattr(self, name, nn.Sequential(first, *(Block(width, width, 1) for _ in range(depth - 1))))
            before = width
        self.classifier = nn.Linear(before, config.num_labels)
        self.post_init()

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, *, output_hidden_states: bool = False, **kwargs: Any
    ) -> ImageClassifierOutputWithNoAttention:
        """Logits [rows, labels] of images [rows, channels, height, width]; on request what each stage gives."""
        given = [torch.relu(self.bn1(self.conv1(pixel_values)))]
        for name in self.stages:
            given.append(getattr(self, name)(given[-1]))
        logits = self.classifier(given[-1].mean((2, 3)))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        states = tuple(given) if output_hidden_states else None
        return ImageClassifierOutputWithNoAttention(loss=loss, logits=logits, hidden_states=states)


AutoConfig.register(CifarResNetConfig.model_type, CifarResNetConfig, exist_ok=True)
