"""The similarity gap ratio: what it is of, and folders of pictures from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pico_judge import Images, images, made_judge, tiny
from typer.testing import CliRunner

from specdef.analysis.similarity import MEASURES, SimilarityGap, by_step, gap, make_measure, read_images, similarity_gap
from specdef.cli.main import app
from specdef.errors import SpecdefError
from specdef.tasks.images.pictures import write_folder

pytest.importorskip("PIL.Image")


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_judge(tmp_path_factory.mktemp("judge") / "judge", 8)


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
