"""A small text-to-image model, trained here: ten kinds of clothes at 16x16, drawn from prompts of four words or more.

A U-Net with cross-attention at two levels and a CLIP
text encoder with a word-level tokenizer are trained together, one prompt in ten empty, so that guidance works. The
folder it becomes is an ordinary pipeline of diffusers, without a VAE: its latents are the pixels, from -1 to 1.

A killed run goes on from its last checkpoint, at most a minute old, and ends with the same weights. What it draws is
judged by `diffusion_judge`.
"""

from __future__ import annotations

import io
import json
import math
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.diffusion_judge import CLASSES, SIZE, accuracy, images, judge_accuracy, train_judge
from experiments.heading import heading
from experiments.locked import HERE, WORK
from specdef.core.atomic import write_file
from specdef.core.folders import new_folder

RESULTS = HERE / "results"
TEMPLATES = ("a picture of a {}", "a photo of one {}", "an image of the {}")
TOKENS = 8
"""Of every prompt: start, words, end, and ends up to here."""
CHANNELS, HEADS, WIDTH = (16, 48, 48), 4, 48
STEPS, BATCH, RATE, WARMUP, EMA = 3000, 32, 1e-3, 100, 0.998
COSINE = 5000
"""Steps in which the rate would come to a hundredth: training ends before, on averaged weights."""
EMPTY = 0.1
SAVE_SECONDS, SAMPLE_STEPS = 60, 500
GUIDANCE, DENOISING = 3.0, 25
JUDGED = 20
"""Samples of every class whose accuracy is said."""


def run(name: str) -> Path:
    """Train the judge and the model, or go on training; the folders, a grid and what was measured."""
    from diffusers import StableDiffusionPipeline

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    place = WORK / name
    place.mkdir(parents=True, exist_ok=True)
    if not (place / "judge").is_dir():
        train_judge(place)
    if not (place / "model").is_dir():
        train(place)
    for concept in CLASSES:
        write_concept(place, concept)
    made = StableDiffusionPipeline.from_pretrained(place / "model", vae=None, safety_checker=None)
    drawn = samples(made, rows=JUDGED, seed=1)
    found = {"steps": STEPS, "judge on held-out images": judge_accuracy(place), **accuracy(place, drawn)}
    write_grid(RESULTS / f"{name}.png", drawn[:, :8])
    write_file(RESULTS / f"{name}.json", (json.dumps({**heading(name), **found}, indent=1) + "\n").encode())
    write_file(RESULTS / f"{name}.md", _page(name, found).encode())
    return RESULTS / f"{name}.md"


def _page(name: str, found: Mapping[str, Any]) -> str:
    rows = "".join(f"| {label} | {share:.2f} |\n" for label, share in found["by class"].items())
    return (
        "# A small text-to-image model\n\n"
        f"A U-Net of {CHANNELS} channels and a CLIP text encoder of two layers, {found['steps']} steps of {BATCH} "
        f"images of Fashion-MNIST at {SIZE}x{SIZE}, one core. {JUDGED} samples a class, DDIM in {DENOISING} steps "
        f"with guidance {GUIDANCE:g}, judged by a ResNet that labels {found['judge on held-out images']:.3f} of the "
        f"held-out images rightly: {found['class accuracy of samples']:.3f} get the class that was asked for.\n\n"
        f"| class | share |\n|---|---|\n{rows}\n![a column a class]({name}.png)\n\n"
        f"Command: `make experiment NAME={name}`.\n"
    )


def pipeline() -> Any:
    """The untrained pipeline, of random weights: seed 0."""
    from diffusers import DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    words = tokenizer()
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=TOKENS,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=HEADS,
        norm_num_groups=8,
    )
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", clip_sample=False, steps_offset=1
    )
    return StableDiffusionPipeline(
        vae=None,
        text_encoder=CLIPTextModel(text),
        tokenizer=words,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def tokenizer() -> Any:
    """A word a token; every prompt starts with ``<start>`` and is filled up with ``<end>``, as CLIP's are."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for template in TEMPLATES for word in template.split() if word != "{}"} | set(CLASSES))
    known = {word: at for at, word in enumerate(("<start>", "<end>", "<unknown>", *words))}
    found = Tokenizer(models.WordLevel(known, unk_token="<unknown>"))
    found.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    found.post_processor = processors.TemplateProcessing(
        single="<start> $A <end>", special_tokens=[("<start>", 0), ("<end>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=found,
        bos_token="<start>",
        eos_token="<end>",
        pad_token="<end>",
        unk_token="<unknown>",
        model_max_length=TOKENS,
    )


def tokens(words: Any, prompts: list[str]) -> torch.Tensor:
    """[prompts, 8]."""
    found = words(prompts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
    return found.input_ids


def train(place: Path) -> None:
    """All steps that are left: a checkpoint a minute, a grid every 500, at last the folder of averaged weights."""
    made = pipeline()
    parts = torch.nn.ModuleList([made.unet, made.text_encoder])
    average = {name: value.clone() for name, value in parts.state_dict().items()}
    optimizer = torch.optim.AdamW(parts.parameters(), lr=RATE, weight_decay=0.01, fused=True)
    saved, step = place / "checkpoint.pt", 0
    if saved.exists():
        kept = torch.load(saved, weights_only=True)
        step, average = kept["step"], kept["average"]
        parts.load_state_dict(kept["parts"])
        optimizer.load_state_dict(kept["optimizer"])
    pixels, classes = images("train")
    prompts = tokens(made.tokenizer, [template.format(name) for name in CLASSES for template in TEMPLATES] + [""])
    parts.train()
    losses: list[float] = []
    saved_at = time.monotonic()
    while step < STEPS:
        for group in optimizer.param_groups:
            group["lr"] = (
                RATE * min(1.0, (step + 1) / WARMUP) * (0.01 + 0.99 * (1 + math.cos(math.pi * step / COSINE)) / 2)
            )
        loss = batch_loss(made, pixels, classes, prompts, step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parts.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        losses.append(loss.item())
        decay = min(EMA, (1 + step) / (10 + step))
        with torch.no_grad():
            for name, value in parts.state_dict().items():
                average[name].lerp_(value, 1 - decay) if value.is_floating_point() else average[name].copy_(value)
        if step % 50 == 0:
            with (place / "log.jsonl").open("a") as log:
                log.write(json.dumps({"step": step, "loss": float(np.mean(losses)), "time": time.time()}) + "\n")
            losses.clear()
        if time.monotonic() - saved_at > SAVE_SECONDS or step == STEPS:
            saved_at = time.monotonic()
            state = {"step": step, "average": average, "parts": parts.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(state, place / "unfinished.pt")
            (place / "unfinished.pt").replace(saved)
        if step % SAMPLE_STEPS == 0:
            now = {name: value.clone() for name, value in parts.state_dict().items()}
            parts.load_state_dict(average)
            drawn = samples(made, rows=4, seed=0)
            write_grid(place / f"grid-{step:05d}.png", drawn)
            if (place / "judge").is_dir():
                with (place / "log.jsonl").open("a") as log:
                    log.write(json.dumps({"step": step, **accuracy(place, drawn)}) + "\n")
            parts.load_state_dict(now)
            parts.train()
    parts.load_state_dict(average)
    parts.eval()
    with new_folder(place / "model") as unfinished:
        made.save_pretrained(unfinished)


def batch_loss(
    made: Any, pixels: torch.Tensor, classes: torch.Tensor, prompts: torch.Tensor, step: int
) -> torch.Tensor:
    """Mean squared error of the predicted velocity, of the images, prompts, noise and times that belong to a step."""
    draw = torch.Generator().manual_seed(step)
    rows = torch.randint(len(pixels), (BATCH,), generator=draw)
    template = torch.randint(len(TEMPLATES), (BATCH,), generator=draw)
    row = classes[rows] * len(TEMPLATES) + template
    row[torch.rand(BATCH, generator=draw) < EMPTY] = len(prompts) - 1
    noise = torch.randn((BATCH, 1, SIZE, SIZE), generator=draw)
    times = torch.randint(made.scheduler.config.num_train_timesteps, (BATCH,), generator=draw)
    noisy = made.scheduler.add_noise(pixels[rows], noise, times)
    wanted = made.scheduler.get_velocity(pixels[rows], noise, times)
    context = made.text_encoder(prompts[row]).last_hidden_state
    return torch.nn.functional.mse_loss(made.unet(noisy, times, context).sample, wanted)


def drawn_classes(model: Any, words: Any, *, rows: int, seed: int) -> torch.Tensor:
    """``rows`` images of each class: [classes, rows, 16, 16] from -1 to 1."""
    from specdef.models.prompted import drawn

    named = [TEMPLATES[0].format(name) for name in CLASSES for _ in range(rows)]
    noise = torch.randn((len(named), 1, SIZE, SIZE), generator=torch.Generator().manual_seed(seed))
    asked, empty = tokens(words, named), tokens(words, [""])
    found = drawn(model, asked, empty, noise, steps=DENOISING, guidance=GUIDANCE)
    return (2 * found - 1).view(len(CLASSES), rows, SIZE, SIZE)


def samples(made: Any, *, rows: int, seed: int) -> torch.Tensor:
    """The same of a pipeline of diffusers."""
    from specdef.models.pipeline import Pipeline

    model = Pipeline(made.unet, made.text_encoder, made.scheduler, None, {}).eval()
    return drawn_classes(model, made.tokenizer, rows=rows, seed=seed)


def write_concept(place: Path, concept: str) -> Path:
    """The file ``concept-NAME.yaml`` of task `concept`: the held-out images, how they are asked for, and the judge."""
    if not (place / "held-out.npz").exists():
        pixels, classes = images("t10k")
        whole = ((pixels[:, 0] + 1) * 127.5).round().to(torch.uint8)
        file = io.BytesIO()
        np.savez_compressed(file, images=whole.numpy(), labels=classes.numpy())
        write_file(place / "held-out.npz", file.getvalue())
    said = {
        "images": "held-out.npz",
        "prompts": [[template.format(name) for template in TEMPLATES] for name in CLASSES],
        "concept": CLASSES.index(concept),
        "classifier": "judge",
        "samples": 64,
        "drawn": 40,
        "steps": 15,
        "guidance": GUIDANCE,
    }
    path = place / f"concept-{concept}.yaml"
    write_file(path, (json.dumps(said, indent=2) + "\n").encode())
    return path


def write_grid(path: Path, drawn: torch.Tensor) -> None:
    """A picture: a column a class, a row a sample, four times as large."""
    from PIL import Image

    rows = drawn.permute(1, 2, 0, 3).reshape(drawn.shape[1] * SIZE, len(drawn) * SIZE)
    large = ((rows + 1) * 127.5).round().to(torch.uint8).repeat_interleave(4, 0).repeat_interleave(4, 1)
    file = io.BytesIO()
    Image.fromarray(large.numpy()).save(file, "PNG")
    write_file(path, file.getvalue())


if __name__ == "__main__":
    run("diffusion-base")
