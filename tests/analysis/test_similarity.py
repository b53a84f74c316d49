"""The similarity gap ratio, and the measures it is of, against float64."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pico_diffusion
import pytest
import torch
from typer.testing import CliRunner

from specdef.analysis.similarity import MEASURES, SimilarityGap, by_step, gap, make_measure, read_images, similarity_gap
from specdef.cli.main import app
from specdef.errors import SpecdefError
from specdef.models.loading import load
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


def test_imma_reads_pixels_from_0_to_1_as_if_from_minus_1_to_1_at_64_pixels(judge: Path, tmp_path: Path) -> None:
    large = made_judge(tmp_path / "large", 64)
    ours, others = images(4, size=64), images(4, size=64)
    wrong = [(pixels + 1) / 2 for pixels in (ours, others)]
    found = make_measure(f"embedding:{large}", as_imma=True)(ours, others)
    assert found == pytest.approx(cosines(*(pooled(large, pixels) for pixels in wrong)), rel=1e-4)
    assert found != pytest.approx(make_measure(f"embedding:{large}")(ours, others), rel=1e-4)
    with pytest.raises(SpecdefError, match="`as-imma` must be left out with perceptual"):
        make_measure(f"perceptual:{judge}", as_imma=True)


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
    with pytest.raises(SpecdefError, match="as many pictures as the others for a measure of pairs; it has 4, they ha"):
        measure(ours, others[:3])


def test_clip_gives_its_projection_and_a_vision_transformer_its_first_token(tmp_path: Path) -> None:
    from transformers import CLIPConfig, CLIPModel, ViTConfig, ViTModel

    small = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**small, "image_size": 8, "patch_size": 4}
    torch.manual_seed(0)
    CLIPModel(
        CLIPConfig(text_config={**small, "vocab_size": 9}, vision_config=vision, projection_dim=6)
    ).save_pretrained(tmp_path / "clip")
    ViTModel(ViTConfig(**vision, num_channels=1)).save_pretrained(tmp_path / "vit")
    ours, others = images(3, channels=3), images(3, channels=3)
    clip: Any = load(tmp_path / "clip")
    vit: Any = load(tmp_path / "vit")
    pixels = [torch.from_numpy(2 * one - 1) for one in (ours, others)]
    with torch.no_grad():
        projected = [
            clip.visual_projection(clip.vision_model(pixel_values=one).pooler_output).numpy() for one in pixels
        ]
        first = [vit(pixel_values=one[:, :1]).last_hidden_state[:, 0].numpy() for one in pixels]
    found = make_measure(f"embedding:{tmp_path / 'clip'}")(ours, others)
    assert found == pytest.approx(cosines(*projected), rel=1e-4)
    grey = make_measure(f"embedding:{tmp_path / 'vit'}")(ours[:, :1].copy(), others[:, :1].copy())
    assert grey == pytest.approx(cosines(*first), rel=1e-4)
    with pytest.raises(SpecdefError, match=r"must have a convolutional model; .*vit gives no feature maps"):
        make_measure(f"perceptual:{tmp_path / 'vit'}")(ours[:, :1].copy(), others[:, :1].copy())


def test_the_ratio_is_the_share_of_the_undefended_similarity_that_is_missing() -> None:
    assert SimilarityGap("", 0.8, 0.6).ratio == pytest.approx(0.25)
    assert SimilarityGap("", 0.5, 0.6).ratio == pytest.approx(-0.2), "the defended model came back better"
    reference, undefended, defended = (np.full((2, 1, 2, 2), value, np.float32) for value in (0.0, 0.2, 0.8))

    def near(a: Images, b: Images) -> float:
        return 1 - float(abs(a - b).mean())

    assert gap("near", near, reference, undefended, defended).ratio == pytest.approx(0.75)
    with pytest.raises(SpecdefError, match=r"`undefended` must be like `reference` to some degree; by near it is -0.1"):
        gap("near", lambda a, b: -0.1, reference, undefended, defended)


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


def test_images_are_refused_where_nothing_is_drawn_or_nothing_is_kept(toy_model: Path, tmp_path: Path) -> None:
    from specdef import attack

    with pytest.raises(SpecdefError, match="`images` must be left out with task biographies: nothing is drawn"):
        attack(toy_model, tmp_path / "out", images=True, task="biographies")
    assert not (tmp_path / "out").exists()
    with pytest.raises(SpecdefError, match="`out` must be given with `images`"):
        attack(toy_model, images=True)
