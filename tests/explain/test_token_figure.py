import io

import numpy as np
import pytest
from PIL import Image

from terralean.explain.page import GREYS, MARGIN_PX, WIDTH_PX, Caption, arrange
from terralean.explain.token_figure import (
    COVER,
    SHADES,
    VEIL,
    TokensShown,
    TokenWords,
    borders,
    chosen,
    draw_tokens,
    legend_places,
    mean_colours,
    shades,
    steps,
    zoomed,
)

ALL = (0.0, 0.0, 1.0, 1.0)


def shown(codes: list, *, sizes: list | None = None, data: list | None = None, box=ALL) -> TokensShown:
    array = np.array(codes)
    rng = np.random.default_rng(0)
    return TokensShown(
        scene=rng.integers(0, 255, (60, 80, 3)).astype(np.uint8),
        merges=sizes is not None,
        codes=array,
        sizes=np.array(np.ones_like(array) if sizes is None else sizes, np.uint16),
        data=np.ones(array.shape[1:], bool) if data is None else np.array(data),
        box=box,
    )


def words(layers: int, legend: int) -> TokenWords:
    captions = tuple(Caption(f"after layer {i}", "said") for i in range(layers))
    legend_words = tuple(f"step {i}" for i in range(legend))
    return TokenWords(heading="H", lines=("a", "b"), scene="s", captions=captions, sum=Caption("sum", ""), legend=legend_words)


def picture(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize(
    ("layers", "positions"),
    [(1, [0]), (3, [0, 1, 2]), (4, [0, 1, 2, 3]), (12, [2, 5, 8, 11]), (5, [0, 1, 3, 4])],
)
def test_of_many_layers_some_are_drawn_and_the_last_one_always(layers, positions):
    assert chosen(layers) == positions


def test_steps_say_at_how_many_layers_a_token_went_on():
    found = steps(shown([[[1, 1, 0, 0]], [[1, 0, 0, 0]]], data=[[True, True, True, False]]))
    assert (found.grid.tolist(), found.untouched) == ([[2, 1, 0, 2]], 2)


def test_steps_of_groups_are_doublings_below_the_largest():
    found = steps(shown([[[0] * 6]], sizes=[[[1, 2, 3, 4, 5, 0]]]))
    assert (found.grid.tolist(), found.untouched, found.doublings) == ([[3, 2, 1, 1, 0, 3]], 3, 1)
    wide = steps(shown([[[0] * 6]], sizes=[[[1, 2, 4, 5, 16, 1024]]]))
    assert (wide.grid.tolist(), wide.untouched, wide.doublings) == ([[5, 4, 4, 3, 3, 0]], 5, 2)
    alone = steps(shown([[[0, 1]]], sizes=[[[1, 1]]]))
    assert (alone.grid.tolist(), alone.untouched) == ([[0, 0]], 0)


@pytest.mark.parametrize("count", [2, 3, 6, 11])
def test_shades_get_lighter_for_every_eye(count):
    light = shades(count) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(light) > 5).all()
    assert shades(count)[0].tolist() == list(SHADES[0]) and shades(count)[-1].tolist() == list(SHADES[-1])
    assert shades(1).tolist() == [list(VEIL)]
    assert shades(0).shape == (0, 3)


def test_a_long_legend_has_several_lines_that_end_before_the_edge():
    labels = [f"goes on at {number} of 12 layers" for number in range(13)]
    places = legend_places(labels)
    assert [line for _, line in places] == sorted(line for _, line in places) and places[-1][1] == 2
    assert max(left for left, _ in places) < WIDTH_PX - MARGIN_PX - 200
    assert legend_places(labels[:2])[1][1] == 0


def test_zoomed_takes_the_value_at_the_middle_of_each_pixel():
    values = np.arange(16).reshape(4, 4)
    assert zoomed(values, box=ALL, width=2, height=4)[:, 0].tolist() == [1, 5, 9, 13]
    assert zoomed(values, box=(0.5, 0.25, 1.0, 0.5), width=4, height=2).tolist() == [[6, 6, 7, 7]] * 2


def test_a_group_has_the_mean_colour_of_all_its_members_wherever_they_are():
    given = np.array([[[10, 0, 5], [30, 1, 5]], [[50, 2, 5], [20, 100, 7]]], np.uint8)
    found = mean_colours(given, np.array([[7, 7], [7, 900]]))
    assert found.tolist() == [[[30, 1, 5], [30, 1, 5]], [[30, 1, 5], [20, 100, 7]]]


def test_borders_are_between_groups_but_not_between_tokens_that_are_alone():
    groups = np.array([[1, 1, 2, 3], [1, 1, 2, 4]])
    together = np.array([[True, True, True, False], [True, True, True, False]])
    assert borders(groups, together).tolist() == [[False, True, True, False], [False, True, True, False]]
    assert not borders(np.array([[1, 2], [3, 4]]), np.zeros((2, 2), bool)).any()


def beside(found: np.ndarray, number: int, *, pictures: int) -> np.ndarray:
    """One of the pictures beside a scene of 80 x 60 px, (h, w, 3)."""
    layout = arrange(pictures, shape=80 / 60)
    left, down = list(layout.corners())[number]
    top = next(y for y in range(300) if (found[y, MARGIN_PX : MARGIN_PX + layout.width] != 255).any(axis=-1).mean() > 0.9)
    return found[top + down : top + down + layout.height, left : left + layout.width].astype(int)


def quarters(picture: np.ndarray) -> list[list[int]]:
    """The colours in the middle of the four quarters, by rows."""
    height, width = picture.shape[:2]
    return [picture[round(y * height), round(x * width)].tolist() for y in (0.25, 0.75) for x in (0.25, 0.75)]


def test_tokens_taken_out_are_under_the_veil_and_the_others_are_as_they_are():
    data = np.array([[True, True], [False, True]])
    codes = np.array([[[1, 1], [0, 0]], [[1, 0], [0, 0]]])
    grey = np.full((60, 80, 3), 128, np.uint8)
    given = TokensShown(scene=grey, merges=False, codes=codes, sizes=codes.astype(np.uint16), data=data, box=ALL)
    found = picture(draw_tokens(given, words(2, 3)))
    ground = GREYS[0] + 128 / 255 * (GREYS[1] - GREYS[0])
    own = [128, 128, 128]
    veil, dark, light = ([round(COVER * c + (1 - COVER) * ground) for c in colour] for colour in (VEIL, SHADES[0], SHADES[-1]))
    for number, expected in enumerate([[own, own, own, veil], [own, veil, own, veil], [own, light, own, dark]]):
        np.testing.assert_allclose(quarters(beside(found, number, pictures=3)), expected, atol=3)


def test_a_single_layer_of_pruning_needs_no_sum_and_one_of_merging_has_it():
    pruned = picture(draw_tokens(shown([[[1, 0], [0, 1]]]), words(1, 2)))
    merged = picture(draw_tokens(shown([[[4, 4], [0, 1]]], sizes=[[[2, 2], [1, 1]]]), words(1, 2)))
    assert pruned.shape[0] - merged.shape[0] == arrange(1, shape=80 / 60).depth - arrange(2, shape=80 / 60).depth != 0


@pytest.mark.parametrize("given", [shown([[[1, 0], [0, 1]]] * 3), shown([[[4, 4], [4, 1]]], sizes=[[[3, 3], [3, 1]]])])
def test_same_bytes_again(given):
    count = steps(given).untouched
    once, again = (draw_tokens(given, words(len(given.codes), count + 1)) for _ in range(2))
    assert once == again


def test_merged_tokens_are_flat_and_tokens_that_are_alone_keep_their_pixels():
    given = shown([[[4, 4], [0, 1]]], sizes=[[[2, 2], [1, 1]]])
    found = beside(picture(draw_tokens(given, words(1, 2))), 0, pictures=2)
    upper, lower = found[10:150, 10:-10], found[180:310, 10:-10]
    assert upper.std() < 0.4 * lower.std()
