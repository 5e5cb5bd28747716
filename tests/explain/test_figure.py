import io
import math

import numpy as np
import pytest
from PIL import Image

from terralean.explain.figure import COLOURS, COVER, ENDS, ScaleWords, Shown, draw, scale_ends, ticks, tint
from terralean.explain.numbers import BlockNumbers, MapNumbers
from terralean.explain.page import GAP_PX, GREYS, MARGIN_PX, WIDTH_PX, arrange

ALL = (0.0, 0.0, 1.0, 1.0)
WORDS = ScaleWords(heading="Where meta tokens look", lines=("a model", "some numbers"), scene="scene.tif", scale="times")


def numbers(cosine: np.ndarray, *, read: float | None = None) -> BlockNumbers:
    even = {"entropy_bits": 5.0, "entropy_share": 0.5, "half": 0.1, "ninety": 0.5, "closest": None, "cosine": None}
    return BlockNumbers(
        stage=1,
        block=0,
        by="token",
        grid=8,
        distinct=1.0,
        averaged=2,
        distinct_averaged=None,
        without_data=None if read else 0.0,
        maps=tuple(MapNumbers(number=i, read=read, **even) for i in range(len(cosine))),
        cosine=tuple(map(tuple, cosine.tolist())),
    )


def shown(tokens: int, *, height: int = 60, width: int = 80) -> Shown:
    rng = np.random.default_rng(0)
    scene = rng.integers(0, 255, (height, width, 3)).astype(np.uint8)
    maps = np.exp(rng.normal(size=(tokens, 6, 8))).astype(np.float32)
    return Shown(scene=scene, maps=maps, box=ALL)


def picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_the_scale_ends_where_few_places_are_beyond():
    even = np.ones((4, 10, 10), np.float32)
    assert scale_ends(even) == ENDS[0] == 1.1
    even[0, 0, 0] = 50  # one in four hundred
    assert scale_ends(even) == 1.1
    even[0, 0] = 50
    assert scale_ends(even) == 64
    even[0, 1] = np.nan
    assert scale_ends(even) == 64
    assert scale_ends(np.full((1, 4, 4), np.nan, np.float32)) == 1.1
    assert scale_ends(np.full((1, 4, 4), 1e6, np.float32)) == ENDS[-1]


@pytest.mark.parametrize("ends", ENDS)
def test_ticks_lie_where_their_ratio_does(ends):
    found = ticks(ends)
    assert [at for at, _ in found] == sorted(at for at, _ in found)
    assert len(found) <= 11
    for at, label in found:
        top, _, below = label.partition("/")
        ratio = float(top) / float(below or 1)
        assert ends**at == pytest.approx(ratio)
    assert found[-1] == (1.0, f"{ends:g}")


def test_average_leaves_the_grey_scene_and_more_or_less_has_its_colour():
    grey = Image.fromarray(np.array([[0, 255], [0, 255]], np.uint8))
    flat = np.asarray(tint(grey, np.ones((2, 2), np.float32), box=ALL, ends=4))
    assert flat.tolist() == [[[GREYS[0]] * 3, [GREYS[1]] * 3]] * 2
    maps = np.array([[4, 2], [1 / 16, np.nan]], np.float32)
    seen = np.asarray(tint(grey, maps, box=ALL, ends=4))
    assert seen[0, 0].tolist() == pytest.approx([COVER[-1] * c + (1 - COVER[-1]) * GREYS[0] for c in COLOURS[-1]], abs=1)
    assert seen[0, 1].tolist() == pytest.approx([COVER[3] * c + (1 - COVER[3]) * GREYS[1] for c in COLOURS[3]], abs=1)
    assert seen[1, 0].tolist() == pytest.approx([COVER[0] * c + (1 - COVER[0]) * GREYS[0] for c in COLOURS[0]], abs=1)
    assert seen[1, 1].tolist() == [GREYS[1]] * 3


def test_less_than_average_is_blue_more_is_warm_and_no_two_ratios_look_alike():
    grey = Image.fromarray(np.full((1, 41), 128, np.uint8))
    ratios = np.exp(np.linspace(-math.log(8), math.log(8), 41)).astype(np.float32)[None]
    seen = np.asarray(tint(grey, ratios, box=ALL, ends=8)).astype(int)[0]
    warmth = seen[:, 0] - seen[:, 2]
    assert (warmth[:20] < 0).all() and warmth[20] == 0 and (warmth[21:] > 0).all()
    assert len({tuple(colour) for colour in seen.tolist()}) == 41


def test_the_box_is_the_part_of_the_map_that_is_shown():
    maps = np.repeat(np.repeat(np.array([[1, 9], [1 / 9, 1]], np.float32), 4, axis=0), 4, axis=1)
    grey = Image.fromarray(np.full((20, 20), 128, np.uint8))
    corner = np.asarray(tint(grey, maps, box=(0.5, 0.0, 1.0, 0.5), ends=9))
    assert np.array_equal(corner, np.asarray(tint(grey, np.full((2, 2), 9, np.float32), box=ALL, ends=9)))


def test_tokens_that_look_alike_share_a_picture_unless_each_is_asked_for():
    cosine = np.eye(16)
    cosine[1:, 1:] = 1
    together = picture(draw(shown(16), numbers=numbers(cosine), words=WORDS, share=True))
    apart = picture(draw(shown(16), numbers=numbers(cosine), words=WORDS, share=False))
    assert together.shape[1] == apart.shape[1] == WIDTH_PX
    assert together.shape[0] < apart.shape[0] / 2
    row = 3 * MARGIN_PX + 100
    cell = (WIDTH_PX - 2 * MARGIN_PX - 2 * GAP_PX) // 3
    for column in range(3):
        left = MARGIN_PX + column * (cell + GAP_PX)
        assert (together[row, left : left + cell] != 255).any(axis=-1).mean() > 0.9
        assert (together[row, left - GAP_PX : left] == 255).all()


def test_the_figure_shows_the_scene_as_it_is():
    given = shown(1, height=300, width=400)
    coarse = np.kron(np.random.default_rng(1).integers(0, 2, (6, 8, 3)) * 255, np.ones((50, 50, 1))).astype(np.uint8)
    found = picture(draw(Shown(scene=coarse, maps=given.maps, box=ALL), numbers=numbers(np.eye(1)), words=WORDS, share=True))
    wide, high = arrange(1, shape=4 / 3).scene()
    top = next(y for y in range(200) if (found[y, MARGIN_PX : MARGIN_PX + wide] < 250).any(axis=-1).mean() > 0.5)
    for row in range(6):
        for column in range(8):
            y, x = top + round((row + 0.5) * high / 6), MARGIN_PX + round((column + 0.5) * wide / 8)
            assert np.abs(found[y, x].astype(int) - coarse[row * 50 + 25, column * 50 + 25]).max() < 24


def test_paper_is_white_beside_a_bright_scene():
    bright = np.random.default_rng(0).integers(243, 254, (90, 120, 3)).astype(np.uint8)
    found = picture(draw(Shown(scene=bright, maps=shown(2).maps, box=ALL), numbers=numbers(np.eye(2)), words=WORDS, share=True))
    assert (found[:MARGIN_PX] == 255).all()
    assert (found[:, : MARGIN_PX // 2] == 255).all()


def test_long_words_are_cut_before_the_edge():
    long = ScaleWords(heading="W" * 300, lines=("w" * 900,), scene="scene" * 200, scale="s")
    found = picture(draw(shown(2), numbers=numbers(np.eye(2)), words=long, share=True))
    assert (found[:, -MARGIN_PX // 2 :] == 255).all()


def test_same_bytes_again():
    once, again = (draw(shown(5), numbers=numbers(np.eye(5), read=0.2), words=WORDS, share=True) for _ in range(2))
    assert once == again
