"""What pictures are compared by, against float64 and against IMMA's own code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from pico_judge import Images, images, made_judge, tiny
from safetensors.torch import load_file, save_file

from specdef.analysis.similarity import make_measure
from specdef.errors import SpecdefError
from specdef.models.loading import load
from specdef.models.probing import PIXELS

pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_judge(tmp_path_factory.mktemp("judge") / "judge", 8)


def pooled(folder: Path, pixels: Images) -> Images:
    """What the judge's head reads, in float64: pixels from -1 to 1, the last stage averaged over space."""
    model: Any = load(folder, dtype=torch.float64)
    with torch.no_grad():
        x = torch.relu(model.bn1(model.conv1(torch.from_numpy(2 * pixels.astype(np.float64) - 1))))
        return np.asarray(model.layer2(model.layer1(x)).mean((2, 3)))


def cosines(a: Images, b: Images) -> float:
    """The mean over all pairs."""
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    return float((a @ b.T).mean())


def test_an_embedding_is_compared_over_all_pairs(judge: Path) -> None:
    ours, others = images(5), images(3)
    measure = make_measure(f"embedding:{judge}")
    found = measure(ours, others)
    assert found == pytest.approx(cosines(pooled(judge, ours), pooled(judge, others)), rel=1e-5)
    assert measure(ours, others[::-1].copy()) == pytest.approx(found, rel=1e-6), "no order matters"
    assert measure(ours[:1], ours[:1]) == pytest.approx(1.0)


def test_as_imma_is_its_evaluation(tmp_path: Path) -> None:
    """64 pixels, then pixels from 0 to 1 taken for pixels from -1 to 1, then CLIP's preprocessing, for any model."""
    folder = tiny(tmp_path / "clip", "clip")
    write_processor(folder, size=8)
    ours, others = images(4, size=40), images(4, size=40, channels=3)
    model: Any = load(folder)

    def projected(pixels: Images) -> Images:
        x = torch.from_numpy(pixels).expand(-1, 3, -1, -1)
        x = torch.nn.functional.interpolate(x, (64, 64), mode="bilinear", antialias=True)
        x = torch.nn.functional.interpolate((x + 1) / 2, (8, 8), mode="bicubic", antialias=True)
        mean, spread = (
            torch.tensor([0.48145466, 0.4578275, 0.40821073]),
            torch.tensor([0.26862954, 0.26130258, 0.27577711]),
        )
        x = (x - mean.view(3, 1, 1)) / spread.view(3, 1, 1)
        with torch.no_grad():
            return np.asarray(model.visual_projection(model.vision_model(pixel_values=x).pooler_output))

    found = make_measure(f"embedding:{folder}", as_imma=True)(ours, others)
    assert found == pytest.approx(cosines(projected(ours), projected(others)), rel=1e-4)
    plain = make_measure(f"embedding:{folder}")(np.repeat(ours, 3, axis=1), others)
    assert found != pytest.approx(plain, rel=1e-3)
    with pytest.raises(SpecdefError, match="`as-imma` must be left out with perceptual"):
        make_measure(f"perceptual:{folder}", as_imma=True)


def test_imma_brings_each_picture_to_64_pixels_as_pillow_does(tmp_path: Path) -> None:
    from PIL import Image

    from specdef.analysis.image_features import imma_form

    pixels = images(1, size=100, channels=3)
    whole = Image.fromarray((pixels[0].transpose(1, 2, 0) * 255).round().astype(np.uint8))
    wanted = np.asarray(whole.resize((64, 64), Image.Resampling.BILINEAR)).transpose(2, 0, 1) / 255
    assert np.abs(imma_form(pixels)[0].numpy() - wanted).max() < 1.01 / 255


def write_processor(folder: Path, *, size: int, name: str = "preprocessor_config.json") -> None:
    said = {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": size, "width": size},
        "image_mean": [0.2, 0.3, 0.4],
        "image_std": [0.5, 0.6, 0.7],
    }
    (folder / name).write_text(json.dumps(said))


@pytest.mark.parametrize("name", ["preprocessor_config.json", "processor_config.json"])
def test_the_folders_own_processor_decides(name: str, tmp_path: Path) -> None:
    """transformers 5 writes the second name for CLIP."""
    folder = tiny(tmp_path / "vit", "vit")
    ours, others = images(3, channels=3), images(3, channels=3)
    plain = make_measure(f"embedding:{folder}")(ours, others)
    write_processor(folder, size=8, name=name)
    if name == "processor_config.json":
        (folder / name).write_text(json.dumps({"image_processor": json.loads((folder / name).read_text())}))
    mean, spread = np.array([0.2, 0.3, 0.4]).reshape(3, 1, 1), np.array([0.5, 0.6, 0.7]).reshape(3, 1, 1)
    model: Any = load(folder)

    def first(pixels: Images) -> Images:
        with torch.no_grad():
            x = torch.from_numpy(((pixels - mean) / spread).astype(np.float32))
            return np.asarray(model(pixel_values=x).last_hidden_state[:, 0])

    found = make_measure(f"embedding:{folder}")(ours, others)
    assert found == pytest.approx(cosines(first(ours), first(others)), rel=1e-4)
    assert found != pytest.approx(plain, rel=1e-4)


def test_what_stands_for_an_image_follows_from_the_model(tmp_path: Path) -> None:
    ours, others = images(70, channels=3), images(3, channels=3)
    pixels = [torch.from_numpy(2 * one - 1) for one in (ours, others)]
    expected: dict[str, Any] = {
        "clip": lambda model, x: model.visual_projection(model.vision_model(pixel_values=x).pooler_output),
        "clip-vision": lambda model, x: model(pixel_values=x).image_embeds,
        "siglip": lambda model, x: model(pixel_values=x).last_hidden_state.mean(1),
        "vit": lambda model, x: model(pixel_values=x).last_hidden_state[:, 0],
        "resnet": lambda model, x: model(pixel_values=x).last_hidden_state.mean((2, 3)),
    }
    for kind, embed in expected.items():
        folder = tiny(tmp_path / kind, kind)
        model: Any = load(folder)
        times = PIXELS // 8 if kind == "resnet" else 1  # it takes any size, and no small one
        large = [one.repeat_interleave(times, 2).repeat_interleave(times, 3) for one in pixels]
        with torch.no_grad():
            wanted = cosines(*(np.asarray(embed(model, x)) for x in large))
        found = make_measure(f"embedding:{folder}")(ours, others)
        assert found == pytest.approx(wanted, rel=1e-3), kind


def test_models_that_do_not_fit_are_one_sentence(tmp_path: Path) -> None:
    ours = images(2, channels=3)
    mae, small, clip = (tiny(tmp_path / kind, kind) for kind in ("mae", "vit", "clip"))
    write_processor(small, size=6)
    for measure, why in (
        (f"embedding:{mae}", "it draws at random"),
        (f"embedding:{small}", "doesn't match model"),
        (f"perceptual:{clip}", "input_ids"),
    ):
        with pytest.raises(
            SpecdefError, match="`measure` must name a model that reads these pictures and embeds the"
        ) as e:
            make_measure(measure)(ours, ours)
        assert why in str(e.value)
    held = load_file(small / "model.safetensors")
    lost = next(name for name in held if "layer.0" in name or "layers.0" in name)
    save_file(
        {name: tensor for name, tensor in held.items() if name != lost}, small / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(SpecdefError, match=r"`measure` must name a model that can be loaded\. .* 1 are missing"):
        make_measure(f"embedding:{small}")


class FakeLpips:
    """Takes down what LPIPS is given."""

    given: ClassVar[list[Any]] = []

    def __init__(self, net_type: str, normalize: bool) -> None:
        self.settings = (net_type, normalize)

    def __call__(self, ours: torch.Tensor, theirs: torch.Tensor) -> torch.Tensor:
        self.given.append((self.settings, ours, theirs))
        return (ours - theirs).abs().mean()


def test_lpips_is_given_colour_in_pairs_and_scales_pixels_but_for_imma(monkeypatch: pytest.MonkeyPatch) -> None:
    import types

    module: Any = types.ModuleType("torchmetrics.image.lpip")
    module.LearnedPerceptualImagePatchSimilarity = FakeLpips
    monkeypatch.setitem(sys.modules, "torchmetrics", types.ModuleType("torchmetrics"))
    monkeypatch.setitem(sys.modules, "torchmetrics.image", types.ModuleType("torchmetrics.image"))
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", module)
    FakeLpips.given.clear()
    ours, others = images(66, size=40), images(66, size=40)
    found = make_measure("lpips")(ours, others)
    assert found == pytest.approx(1 - float(np.abs(ours - others).mean()), rel=1e-5), "every pair weighs the same"
    assert [len(one[1]) for one in FakeLpips.given] == [64, 2]
    settings, shown, _ = FakeLpips.given[0]
    assert settings == ("alex", True)
    assert np.array_equal(shown.numpy(), np.repeat(ours[:64], 3, axis=1))
    make_measure("lpips", as_imma=True)(ours, others)
    settings, shown, _ = FakeLpips.given[-1]
    assert (settings, shown.shape[1:]) == (("alex", False), (3, 64, 64))
    assert 0 <= float(shown.min()) < float(shown.max()) <= 1
    with pytest.raises(SpecdefError, match="`measure` lpips must have pictures of at least 32 x 32 pixels; these"):
        make_measure("lpips")(images(2), images(2))


def test_perceptual_is_one_minus_half_the_distance_of_feature_maps_in_pairs(judge: Path) -> None:
    ours, others = images(4), images(4)
    model: Any = load(judge, dtype=torch.float64)
    apart = np.zeros(4)
    with torch.no_grad():
        states = [torch.from_numpy(2 * pixels.astype(np.float64) - 1) for pixels in (ours, others)]
        states = [torch.relu(model.bn1(model.conv1(x))) for x in states]
        for stage in (None, model.layer1, model.layer2):
            states = states if stage is None else [stage(x) for x in states]
            unit = [np.asarray(x / x.norm(dim=1, keepdim=True).clamp_min(1e-12)) for x in states]
            apart += ((unit[0] - unit[1]) ** 2).sum(1).mean((1, 2))
    measure = make_measure(f"perceptual:{judge}")
    assert measure(ours, others) == pytest.approx(1 - apart.mean() / 3 / 2, rel=1e-5)
    assert measure(ours, ours) == 1.0
    assert measure(ours, ours[::-1].copy()) < 0.99, "in pairs: another order is another distance"
    with pytest.raises(SpecdefError, match="for a measure of pairs; it has 4, one of them 3"):
        measure(ours, others[:3])


def test_a_model_without_feature_maps_is_no_measure_of_them(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "vit", "vit")
    with pytest.raises(SpecdefError, match=r"must have a convolutional model; .*vit gives no feature maps"):
        make_measure(f"perceptual:{folder}")(images(2, channels=3), images(2, channels=3))


def test_lpips_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", None)
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(SpecdefError, match=r"`measure` lpips must have torchmetrics, .* Run `pip install specdef\[lpi"):
        make_measure("lpips")
