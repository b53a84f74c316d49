"""A tiny random pipeline of diffusers: 8 x 8 grey images, prompts of words, a context of eight tokens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pico
import torch

SIZE, WIDTH, TOKENS = 8, 16, 8
INDEX: dict[str, Any] = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": "0.35.0",
    "feature_extractor": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "TokenizersBackend"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": [None, None],
}
"""As StableDiffusionPipeline writes it for a pipeline without a VAE."""
WORDS = ("a", "picture", "of", "bar", "dot")


def tokenizer() -> Any:
    """A word a token, ends as padding."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    known = {word: at for at, word in enumerate(("<start>", "<end>", "<unknown>", *WORDS))}
    words = Tokenizer(models.WordLevel(known, unk_token="<unknown>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    special = {"bos_token": "<start>", "eos_token": "<end>", "pad_token": "<end>", "unk_token": "<unknown>"}
    return PreTrainedTokenizerFast(tokenizer_object=words, model_max_length=TOKENS, **special)


def build(folder: Path, dtype: torch.dtype = torch.float32, seed: int = 0, *, odd: bool = True, **changes: Any) -> Path:
    """Write a pipeline of two levels with cross-attention; `changes` go into the U-Net's config.

    Its weights stay away from values that hide a bug, or with `odd` false are such as training starts from.
    """
    from diffusers import DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    sizes: dict[str, Any] = {
        "sample_size": SIZE,
        "in_channels": 1,
        "out_channels": 1,
        "layers_per_block": 1,
        "block_out_channels": (8, WIDTH),
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "cross_attention_dim": WIDTH,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    torch.manual_seed(seed)
    unet = UNet2DConditionModel(**{**sizes, **changes})
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=3 + len(WORDS),
            hidden_size=WIDTH,
            intermediate_size=24,
            projection_dim=WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=TOKENS,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in (unet, text) if odd else ():
            for name, parameter in part.named_parameters():
                parameter.copy_(pico.fill(name, parameter, generator))
    folder.mkdir(parents=True)
    if dtype != torch.float32:
        unet, text = unet.to(dtype), text.to(dtype)
    unet.save_pretrained(folder / "unet")
    text.save_pretrained(folder / "text_encoder")
    tokenizer().save_pretrained(folder / "tokenizer")
    DDIMScheduler(clip_sample=False, steps_offset=1, prediction_type="v_prediction").save_pretrained(
        folder / "scheduler"
    )
    (folder / "model_index.json").write_text(json.dumps(INDEX, indent=2))
    return Path(folder)


def noise(rows: int, seed: int = 0) -> torch.Tensor:
    """Latents to start from."""
    return torch.randn((rows, 1, SIZE, SIZE), generator=torch.Generator().manual_seed(seed))


def write_concept(folder: Path, **changes: Any) -> Path:
    """Bright bars and dark dots, a judge that tells them apart by their brightness, and the file that names both."""
    from specdef.models.cifar_resnet import CifarResNetConfig, CifarResNetForImageClassification

    config = CifarResNetConfig(depths=[1], hidden_sizes=[2], num_channels=1, image_size=SIZE, num_labels=2)
    judge = CifarResNetForImageClassification(config).eval()
    with torch.no_grad():
        for parameter in judge.parameters():
            parameter.zero_()
        judge.conv1.weight[0, 0, 1, 1] = 1.0
        judge.conv1.weight[1, 0, 1, 1] = -1.0
        judge.bn1.weight.fill_(1.0)
        judge.classifier.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    judge.save_pretrained(folder / "judge")
    draw = np.random.default_rng(0)
    labels = np.arange(48) % 2
    images = np.where(labels[:, None, None] == 0, 230, 20) + draw.integers(-20, 20, (48, SIZE, SIZE))
    np.savez(folder / "images.npz", images=images.astype(np.uint8), labels=labels)
    said = {
        "images": "images.npz",
        "prompts": ["a picture of a bar", "a picture of a dot"],
        "concept": 1,
        "classifier": "judge",
        "samples": 24,
        "drawn": 8,
        "steps": 4,
        "guidance": 1.0,
    }
    (folder / "concept.yaml").write_text(json.dumps({**said, **changes}))
    return folder / "concept.yaml"
