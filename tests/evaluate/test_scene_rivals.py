import numpy as np
import pytest
from PIL import Image

from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_index import SceneImage
from terralean.data.scene_picture import Picture
from terralean.evaluate.scene_rivals import QUANTILES, chosen, describe, score_rivals
from terralean.spec import Bands

PAIR = Bands(names=("a", "b"))


def picture(values, valid=None) -> Picture:
    values = np.asarray(values)
    return Picture(values=values, valid=np.ones(values.shape[1:], bool) if valid is None else valid, bands=PAIR)


def test_what_is_seen_of_an_image_by_hand():
    values = np.array([[[0, 2], [4, 10]], [[1, 1], [1, 1]]], np.uint8)
    seen = describe(picture(values))
    assert seen[:2].tolist() == [4, 1]
    assert seen[2:4] == pytest.approx([values[0].std(), 0])
    quantiles = seen[4 : 4 + 2 * len(QUANTILES)].reshape(-1, 2)
    assert quantiles[:, 0] == pytest.approx(np.quantile([0, 2, 4, 10], QUANTILES))
    assert seen[-5:].tolist() == [6, 0, 4, 0, 0]  # down 4 and 8, right 2 and 6; a constant band is like no other
    assert len(seen) == 2 * (2 + len(QUANTILES) + 2) + 1


def test_bands_that_go_together_and_against_each_other_are_told():
    ramp = np.arange(12.0).reshape(3, 4)
    assert describe(picture([ramp, 3 * ramp + 1]))[-1] == pytest.approx(1)
    assert describe(picture([ramp, -ramp]))[-1] == pytest.approx(-1)


def test_what_is_not_valid_is_not_seen():
    rng = np.random.default_rng(0)
    values, valid = rng.integers(0, 255, (2, 8, 8)), np.ones((8, 8), bool)
    valid[:, 5:] = False
    other = np.where(valid, values, 7)
    np.testing.assert_array_equal(describe(picture(values, valid)), describe(picture(other, valid)))
    np.testing.assert_allclose(describe(picture(values, valid)), describe(picture(values[:, :, :5])))
    assert np.isfinite(describe(picture(values, np.eye(8, dtype=bool)))).all()


def test_mirrored_images_look_the_same():
    values = np.random.default_rng(1).integers(0, 255, (2, 6, 9))
    np.testing.assert_allclose(describe(picture(values)), describe(picture(values[:, ::-1, ::-1])))


def test_a_sample_holds_every_class_and_no_image_twice():
    images = [SceneImage(path=str(i), label=0 if i < 97 else i - 96) for i in range(100)]
    found = chosen(images, most=10)
    assert len(found) == len(set(found)) == 10
    assert {images[i].label for i in found} == {0, 1, 2, 3}
    assert found == chosen(images, most=10)
    assert chosen(images, most=1000) == list(range(100))


@pytest.fixture
def shades(tmp_path):
    """Images of three classes, dark, light and rough, the first twice as often."""

    def make(name: str, count: int) -> list[SceneImage]:
        rng, images = np.random.default_rng(count), []
        for i in range(count):
            label = (0, 0, 1, 2)[i % 4]
            base = (60, 180, 120)[label] + rng.integers(-3, 3) + rng.integers(0, (4, 4, 120)[label], (20, 24, 3))
            Image.fromarray(base.astype(np.uint8)).save(tmp_path / f"{name}{i}.png")
            images.append(SceneImage(path=str(tmp_path / f"{name}{i}.png"), label=label))
        return images

    return make


def test_simple_methods_answer_for_every_test_image(shades):
    regression, common = score_rivals(shades("train", 40), shades("test", 24), classes=4, config=SceneDataConfig())
    assert regression.scores.oa == 1.0
    assert "from all 40 training images" in regression.explanation
    assert common.answers.answer.tolist() == [0] * 24
    assert common.scores.oa == 0.5
    assert common.answers.confidence.tolist() == [0.5] * 24
    assert common.answers.likeliest[0].tolist() == [0, 1, 2, 3]
    for rival in (regression, common):
        assert len(rival.answers.label) == 24
    assert (regression.answers.likeliest[:, -1] == 3).all()  # a class that training has no image of
