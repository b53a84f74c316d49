"""The similarity gap ratio, and the measures it is of, against float64."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pico_diffusion
import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from specdef.analysis.similarity import MEASURES, SimilarityGap, by_step, gap, make_measure, read_images, similarity_gap
from specdef.cli.main import app
from specdef.errors import SpecdefError
from specdef.models.loading import load
from specdef.models.probing import PIXELS
from specdef.tasks.images.pictures import write_folder

pytest.importorskip("PIL.Image")
DRAW = np.random.default_rng(0)
Images = np.ndarray[Any, Any]


def images(rows: int, size: int = 8, channels: int = 1) -> Images:
    """Multiples of 1/255, so that a PNG keeps them."""
    return (DRAW.integers(0, 256, (rows, channels, size, size)) / 255).astype(np.float32)


def made_judge(place: Path, size: int) -> Path:
    """A classifier of images with random weights."""
    from specdef.models.cifar_resnet import CifarResNetConfig, CifarResNetForImageClassification

    torch.manual_seed(0)
    config = CifarResNetConfig(depths=[1, 1], hidden_sizes=[4, 6], num_channels=1, image_size=size, num_labels=3)
    CifarResNetForImageClassification(config).eval().save_pretrained(place)
    return place


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


def tiny(place: Path, kind: str, **changes: Any) -> Path:
    """A model of transformers with random weights, for images of 8 x 8."""
    import transformers as hf

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**small, "image_size": 8, "patch_size": 4, **changes}
    text = {**small, "vocab_size": 9, "bos_token_id": 0, "eos_token_id": 1}
    torch.manual_seed(0)
    made: Any = {
        "clip": lambda: hf.CLIPModel(hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)),
        "clip-vision": lambda: hf.CLIPVisionModelWithProjection(hf.CLIPVisionConfig(**vision, projection_dim=6)),
        "siglip": lambda: hf.SiglipVisionModel(hf.SiglipVisionConfig(**vision)),
        "vit": lambda: hf.ViTModel(hf.ViTConfig(**vision)),
        "mae": lambda: hf.ViTMAEModel(hf.ViTMAEConfig(**vision)),
        "resnet": lambda: hf.ResNetModel(
            hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], layer_type="basic")
        ),
    }[kind]()
    made.eval().save_pretrained(place)
    return place


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


def test_pictures_of_several_forms_are_compared_as_imma_and_refused_otherwise(tmp_path: Path) -> None:
    folder = tiny(tmp_path / "clip", "clip")
    (tmp_path / "a").mkdir()
    write_folder(tmp_path / "a", images(1, size=30))
    Path(tmp_path / "a" / "000.png").rename(tmp_path / "a" / "grey.png")
    write_folder(tmp_path / "a", images(1, size=20, channels=3))
    given: Any = (tmp_path / "a", tmp_path / "a", tmp_path / "a", [f"embedding:{folder}"])
    (found,) = similarity_gap(*given, as_imma=True)
    assert (found.ratio, 0 < found.undefended <= 1) == (0.0, True)
    with pytest.raises(SpecdefError, match="`reference` must have pictures of one size, all grey or all in colour"):
        similarity_gap(*given)


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


def test_the_ratio_is_the_share_of_the_undefended_similarity_that_is_missing() -> None:
    assert SimilarityGap("", 0.8, 0.6).ratio == pytest.approx(0.25)
    assert SimilarityGap("", 0.5, 0.6).ratio == pytest.approx(-0.2), "the defended model came back better"
    reference, undefended, defended = (np.full((2, 1, 2, 2), value, np.float32) for value in (0.0, 0.2, 0.8))

    def near(a: Images, b: Images) -> float:
        return 1 - float(abs(a - b).mean())

    assert gap("near", near, reference, undefended, defended).ratio == pytest.approx(0.75)
    with pytest.raises(SpecdefError, match=r"`undefended` must be like `reference` to some degree; by near it is -0.1"):
        gap("near", lambda a, b: -0.1, reference, undefended, defended)
    with pytest.raises(SpecdefError, match="it is 0, and no share"):
        gap("near", lambda a, b: 0.0, reference, undefended, defended)
    for bad in (undefended, defended):
        with pytest.raises(SpecdefError, match="`measure` near must give numbers; its model gives NaN or infinity"):
            gap("near", lambda a, b, bad=bad: np.nan if b is bad else 0.5, reference, undefended, defended)


def test_folders_of_pictures_from_the_command_line(judge: Path, tmp_path: Path) -> None:
    found = {name: images(4) for name in ("reference", "undefended", "defended")}
    for name, pixels in found.items():
        (tmp_path / name).mkdir()
        write_folder(tmp_path / name, pixels)
        assert np.array_equal(read_images(tmp_path / name, argument=name), pixels)
    folders = [str(tmp_path / name) for name in found]
    measures = [f"embedding:{judge}", f"perceptual:{judge}"]
    given = [word for measure in measures for word in ("--measure", measure)]
    said = CliRunner().invoke(app, ["similarity", *folders, *given, "--json"])
    assert said.exit_code == 0, said.output
    gaps = json.loads(said.stdout)["gaps"]
    assert [one["measure"] for one in gaps] == measures
    for one, measure in zip(gaps, measures, strict=True):
        assert one["undefended"] == make_measure(measure)(found["reference"], found["undefended"])
        assert one["ratio"] == pytest.approx(1 - one["defended"] / one["undefended"])
    text = CliRunner().invoke(app, ["similarity", *folders, *given])
    assert f"similarity gap ratio {gaps[0]['ratio']:.1%}" in " ".join(text.stdout.split())


@pytest.mark.parametrize(
    ("measure", "sentence"),
    [
        ("clip:x", "`measure` must be any of embedding, perceptual, lpips; got 'clip'."),
        ("embeding:x", "Did you mean 'embedding'?"),
        ("embedding", "`measure` must be written embedding:FOLDER; got 'embedding'."),
        ("embedding:none", "`measure` must name the folder of a model; none has no config.json."),
        ("lpips:x", "`measure` must be written lpips; got 'lpips:x'."),
    ],
)
def test_a_measure_that_is_not_one(measure: str, sentence: str) -> None:
    with pytest.raises(SpecdefError) as raised:
        make_measure(measure)
    assert sentence in str(raised.value)


def test_every_measure_that_is_named_can_be_made() -> None:
    from specdef.analysis.image_features import MAKERS

    assert list(MAKERS) == list(MEASURES)


def test_a_model_that_reads_no_images_is_refused(toy_model: Path) -> None:
    with pytest.raises(
        SpecdefError, match=r"`measure` must name a model that reads images; .* holds a LlamaForCausalLM"
    ):
        make_measure(f"embedding:{toy_model}")


def test_folders_that_do_not_fit(judge: Path, tmp_path: Path) -> None:
    for name, pixels in (("a", images(2)), ("b", images(2, size=6)), ("empty", None)):
        (tmp_path / name).mkdir()
        if pixels is not None:
            write_folder(tmp_path / name, pixels)
    a, b, empty = (tmp_path / name for name in ("a", "b", "empty"))
    measures = [f"embedding:{judge}"]
    with pytest.raises(
        SpecdefError, match="`defended` must hold pictures of the form of `reference`, 8 x 8 in grey; t"
    ):
        similarity_gap(a, a, b, measures)
    with pytest.raises(SpecdefError, match="`undefended` must hold pictures of the form of `reference`, 8 x 8 in grey"):
        similarity_gap(a, b, a, measures)
    for wrong in ([], [*measures, *measures], measures[0]):
        with pytest.raises(SpecdefError, match="`measure` must be a list of measures, each once"):
            similarity_gap(a, a, a, wrong)
    with pytest.raises(SpecdefError, match=r"`undefended` must be a folder of pictures; .*empty has none"):
        similarity_gap(a, empty, a, measures)
    with pytest.raises(SpecdefError, match=r"`reference` must be a folder of pictures; .*none is none"):
        similarity_gap(tmp_path / "none", a, a, measures)
    (b / "000.png").write_bytes((a / "000.png").read_bytes()[:40])
    with pytest.raises(SpecdefError, match=r"`defended` must hold readable pictures; .*000.png is not one"):
        similarity_gap(a, a, b, measures)
    with pytest.raises(SpecdefError, match="`folder` must be of one attack with images"):
        list(by_step(a))


def test_lpips_without_its_packages_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.image.lpip", None)
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(SpecdefError, match=r"`measure` lpips must have torchmetrics, .* Run `pip install specdef\[lpi"):
        make_measure("lpips")


def test_an_attack_keeps_what_is_drawn_at_every_evaluation(tmp_path: Path) -> None:
    """The pictures are those that were scored, and the result is that of an attack without them."""
    from specdef import attack
    from specdef.tasks.base import TaskSpec
    from specdef.training.recipe import Recipe

    model, concept = pico_diffusion.build(tmp_path / "model", odd=False), pico_diffusion.write_concept(tmp_path)
    given: dict[str, Any] = {
        "task": TaskSpec("concept", str(concept), target=0.9),
        "text": concept,
        "recipe": Recipe(lr=3e-3, steps=4, batch_size=8, eval_every=2, retain_weight=0.0),
        "threads": 1,
        "device": "cpu",
    }
    with_images = attack(model, tmp_path / "with", images=True, **given)
    without = attack(model, tmp_path / "without", **given)
    assert (with_images.key, with_images.result) == (without.key, without.result)
    assert not (tmp_path / "without" / "drawn").exists()
    place = tmp_path / "with" / "drawn" / with_images.key
    kept = dict(by_step(place))
    assert list(kept) == [point.step for point in without.result.evaluations] == [0, 2, 4]
    assert kept[0].shape[1:] == (1, pico_diffusion.SIZE, pico_diffusion.SIZE)
    assert not np.array_equal(kept[0], kept[4])
    for step, point in zip(kept, without.result.evaluations, strict=True):
        bright = kept[step].mean((1, 2, 3)) > 0.5
        assert abs(min(bright.mean(), 1 - bright.mean()) - min(point.score, 1 - point.score)) < 0.2


def test_without_pillow_images_are_refused_before_anything_is_attacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from specdef import attack
    from specdef.tasks.base import TaskSpec

    model, concept = pico_diffusion.build(tmp_path / "model", odd=False), pico_diffusion.write_concept(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(SpecdefError, match=r"Pictures need Pillow, .* Run `pip install specdef\[images\]`"):
        attack(model, tmp_path / "out", images=True, task=TaskSpec("concept", str(concept)), text=concept)
    assert not (tmp_path / "out").exists()


def test_pictures_are_named_in_order_whatever_their_number_and_what_is_no_number_is_black(tmp_path: Path) -> None:
    pixels = np.zeros((1001, 1, 1, 1), np.float32)
    pixels[1000], pixels[7], pixels[8] = 1.0, np.nan, np.inf
    write_folder(tmp_path, pixels)
    (tmp_path / ".hidden").write_text("no picture")
    found = read_images(tmp_path, argument="reference")
    assert (found[1000], found[7], found[8], found.sum()) == (1.0, 0.0, 0.0, 1.0)


def test_images_of_an_attack_that_does_not_end_leave_nothing(tmp_path: Path) -> None:
    """They appear when it is done; what lay there of an attack of before is replaced."""
    from specdef import attack
    from specdef.tasks.base import TaskSpec
    from specdef.tasks.images.drawn_share import _WATCH
    from specdef.training.recipe import Recipe

    model, concept = pico_diffusion.build(tmp_path / "model", odd=False), pico_diffusion.write_concept(tmp_path)
    given: dict[str, Any] = {
        "task": TaskSpec("concept", str(concept), target=0.9),
        "text": concept,
        "recipe": Recipe(lr=3e-3, steps=2, warmup=0.0, batch_size=8, eval_every=1, retain_weight=0.0),
        "threads": 1,
        "device": "cpu",
    }

    def stop(point: Any) -> None:
        if point.step:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        attack(model, out, images=True, progress=stop, **given)
    assert not out.exists()
    assert _WATCH.get() is None
    finished = attack(model, tmp_path / "plain", **given)
    stale = out / "drawn" / finished.key
    (stale / "step-00099").mkdir(parents=True)
    attack(model, out, images=True, **given)
    assert [step for step, _ in by_step(stale)] == [0, 1, 2]
    (tmp_path / "file").mkdir()
    (tmp_path / "file" / "drawn").write_text("")
    with pytest.raises(SpecdefError, match=r"`out` must have a folder drawn, or none; .* is a file"):
        attack(model, tmp_path / "file", images=True, **given)


def test_images_are_refused_where_nothing_is_drawn_or_nothing_is_kept(toy_model: Path, tmp_path: Path) -> None:
    from specdef import attack

    with pytest.raises(SpecdefError, match="`images` must be left out with task biographies: nothing is drawn"):
        attack(toy_model, tmp_path / "out", images=True, task="biographies")
    assert not (tmp_path / "out").exists()
    with pytest.raises(SpecdefError, match="`out` must be given with `images`"):
        attack(toy_model, images=True)
