import numpy as np
import pytest

from terralean.explain.page import CAPTION_PX, MARGIN_PX, WIDTH_PX, arrange, named


@pytest.mark.parametrize("pictures", [1, 2, 3, 4, 5, 8, 13, 16, 32, 64])
@pytest.mark.parametrize("shape", [0.01, 0.3, 1.0, 1.5, 4.0, 80.0])
def test_pictures_do_not_overlap_and_stay_on_a_page_of_bounded_size(pictures, shape):
    layout = arrange(pictures, shape=shape)
    corners = list(layout.corners())
    assert len(corners) >= pictures
    wide, high = layout.scene()
    boxes = [(MARGIN_PX, 0, wide, high), *((left, top, layout.width, layout.height) for left, top in corners)]
    taken = np.zeros((layout.depth, WIDTH_PX), int)
    for left, top, width, height in boxes:
        taken[top : top + height + CAPTION_PX, left : left + width] += 1
        assert left + width <= WIDTH_PX - MARGIN_PX
        assert top + height + CAPTION_PX <= layout.depth
    assert taken.max() == 1
    assert layout.depth < 3000
    for width, height in ((wide, high), (layout.width, layout.height)):
        assert width == pytest.approx(shape * height, rel=0.03, abs=max(1, shape))


@pytest.mark.parametrize(
    ("pictures", "shape", "columns", "rows", "image"),
    [(1, 1.2, 2, 1, 1), (2, 1.2, 3, 1, 1), (3, 1.2, 2, 2, 1), (4, 1.2, 4, 2, 2), (16, 1.2, 5, 4, 2), (1, 5, 1, 2, 1)],
)
def test_few_pictures_stand_in_rows_and_sixteen_around_the_scene(pictures, shape, columns, rows, image):
    layout = arrange(pictures, shape=shape)
    assert (layout.columns, layout.rows, layout.image) == (columns, rows, image)


@pytest.mark.parametrize(
    ("tokens", "text"),
    [([0], "0"), ([0, 1], "0, 1"), ([3, 1, 2], "1-3"), ([0, 1, 2, 5, 7, 8, 12, 13, 14], "0-2, 5, 7, 8, 12-14")],
)
def test_runs_of_tokens_are_named_by_their_ends(tokens, text):
    assert named(tokens) == text
