import io
import math

import numpy as np
import pytest
from PIL import Image

from terralean.errors import GridMismatch, SizeError
from terralean.evaluate import figures
from terralean.evaluate.figures import (
    CHART_PX,
    ERROR_RGB,
    MARGINS_PX,
    RIGHT_RGB,
    UNMAPPED_RGB,
    WRONG_RGB,
    draw_classes,
    draw_errors,
    draw_image,
    draw_losses,
    draw_matrix,
    draw_score,
    side_by_side,
)
from terralean.raster.display import HATCH_RGB
from terralean.spec import Bands, Classes

CLASSES = Classes.named(("water", "forest", "field"))


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def is_hatched(rgb: np.ndarray) -> bool:
    """Whether all pixels are of the two greys of the hatching, and both occur."""
    found = {tuple(p) for p in rgb.reshape(-1, 3).tolist()}
    return found == set(HATCH_RGB)


def test_a_class_map_holds_exactly_the_class_colours_and_hatching():
    labels = np.array([[0, 1], [2, 255]], np.uint8).repeat(200, axis=0).repeat(200, axis=1)
    seen = pixels(draw_classes(labels, classes=CLASSES).png)
    assert seen.shape == (400, 400, 3)
    assert tuple(seen[0, 0]) == CLASSES.colours[0]
    assert tuple(seen[0, 399]) == CLASSES.colours[1]
    assert tuple(seen[399, 0]) == CLASSES.colours[2]
    assert is_hatched(seen[200:, 200:])


def test_errors_are_strong_right_pixels_faint_and_holes_black():
    reference = np.array([[0, 1], [2, 255]], np.uint8).repeat(200, axis=0).repeat(200, axis=1)
    mapped = np.array([[0, 2], [255, 1]], np.uint8).repeat(200, axis=0).repeat(200, axis=1)
    seen = pixels(draw_errors(reference, mapped, classes=CLASSES).png)
    assert (seen[0, 0] > 190).all()
    assert tuple(seen[0, 399]) == ERROR_RGB
    assert tuple(seen[399, 0]) == UNMAPPED_RGB
    assert is_hatched(seen[200:, 200:])


def test_errors_can_be_told_from_right_pixels_by_lightness_alone():
    def lightness(colour):
        return float(np.dot(colour, (0.2126, 0.7152, 0.0722)))

    faint = [255 - figures.FAINT * (255 - np.array(colour)) for colour in Classes.named([str(i) for i in range(30)]).colours]
    assert min(lightness(colour) for colour in faint) > 2.5 * lightness(ERROR_RGB)


def test_pictures_are_bounded_and_small_ones_enlarged_in_whole_steps():
    values, valid = np.random.default_rng(0).integers(0, 255, (3, 1500, 900)), np.ones((1500, 900), bool)
    large = draw_image(values, valid, bands=Bands(names=("red", "green", "blue")))
    assert pixels(large.png).shape == (500, 300, 3)
    assert pixels(draw_classes(np.zeros((30, 50), np.uint8), classes=CLASSES).png).shape == (240, 400, 3)
    assert len(large.png) < 1_300_000


def test_mistakes_are_named():
    with pytest.raises(SizeError, match="an image of 0 x 5 px cannot be drawn"):
        draw_classes(np.zeros((0, 5), np.uint8), classes=CLASSES)
    with pytest.raises(GridMismatch, match=r"reference \(2, 2\) and map \(3, 2\)"):
        draw_errors(np.zeros((2, 2), np.uint8), np.zeros((3, 2), np.uint8), classes=CLASSES)


def test_the_colours_of_two_hundred_classes_stay_exact():
    classes = Classes.named([str(i) for i in range(200)])
    labels = np.arange(200, dtype=np.uint8).reshape(10, 20).repeat(20, axis=0).repeat(20, axis=1)
    picture = draw_classes(labels, classes=classes).png
    assert np.array_equal(
        pixels(picture)[::40, ::40][:5, :10].reshape(-1, 3), np.array(classes.colours)[labels[::40, ::40].ravel()]
    )
    assert Image.open(io.BytesIO(picture)).mode == "P"  # a palette: a third of the bytes


def test_pictures_side_by_side_have_one_height():
    wide, tall = (draw_classes(np.zeros(shape, np.uint8), classes=CLASSES) for shape in ((200, 400), (400, 200)))
    row = pixels(side_by_side([wide, tall], height_px=100, gap_px=6))
    assert row.shape == (100, 200 + 6 + 50, 3)
    assert (row[:, 200:206] == 255).all()


def test_a_matrix_is_blue_where_right_orange_where_wrong_and_deeper_the_larger_the_share():
    counts = np.array([[90, 10, 0], [0, 50, 50], [0, 0, 0]])
    seen = pixels(draw_matrix(counts).png)
    side = seen.shape[0] // 3
    cell = seen[side // 2 :: side, side // 2 :: side].astype(int)
    assert (cell[[0, 1, 2], [2, 0, 2]] == 255).all()
    distance = {(i, j): np.abs(cell[i, j] - 255).sum() for i, j in ((0, 0), (1, 1), (0, 1), (1, 2))}
    assert distance[0, 0] > distance[1, 1]
    assert distance[1, 2] > distance[0, 1] > 20
    for i, j, full in ((0, 0, RIGHT_RGB), (1, 1, RIGHT_RGB), (0, 1, WRONG_RGB), (1, 2, WRONG_RGB)):
        towards, whole = 255 - cell[i, j], 255 - np.array(full)
        assert np.abs(towards / np.linalg.norm(towards) - whole / np.linalg.norm(whole)).max() < 0.05


def test_a_matrix_of_many_classes_is_small_and_has_a_column_for_no_class():
    picture = draw_matrix(np.column_stack([np.eye(254, dtype=np.int64) * 7, np.ones(254, np.int64)])).png
    assert pixels(picture).shape == (254 * 3, 255 * 3, 3)
    assert len(picture) < 50_000


ROWS = [{"step": "0", "loss": "2.5", "miou": ""}, {"step": "10", "loss": "", "miou": "0.25"}, {"step": "20", "miou": 0.5}]


def test_curves_take_rows_of_a_metrics_file_with_gaps():
    chart = draw_losses([*ROWS, {"step": 30, "loss": math.nan}, {"step": 40, "loss": 1.5}], columns={"loss": "training"})
    (left, right, top, bottom), (width, height) = MARGINS_PX, CHART_PX
    (line,) = chart.lines
    assert line.label == "training"
    assert [x for x, _ in line.points] == [left, width - right]
    assert top <= line.points[0][1] < line.points[1][1] <= height - bottom  # the higher loss is higher on the page


def test_the_best_score_is_ringed_and_named():
    chart = draw_score([*ROWS, {"step": 30, "miou": 0.4}], column="miou", label="Validation mIoU")
    assert chart.title == "Validation mIoU in percent: best 50.0 at step 20"
    assert chart.best == chart.lines[0].points[1]
    assert chart.best[1] == min(y for _, y in chart.lines[0].points)


def test_ticks_are_round_numbers_at_their_places():
    rows = [{"step": step, "miou": value} for step, value in ((10, 0.183), (60, 0.501))]
    chart = draw_score(rows, column="miou", label="mIoU")
    assert [text for _, text in chart.y_ticks] == ["10", "20", "30", "40", "50", "60"]
    assert [text for _, text in chart.x_ticks] == ["10", "20", "30", "40", "50", "60"]
    places = np.array([place for place, _ in chart.y_ticks])
    assert np.diff(places) == pytest.approx(np.full(5, places[1] - places[0]), abs=0.2)
    ten, fifty = chart.y_ticks[0][0], chart.y_ticks[4][0]
    assert chart.lines[0].points[0][1] == pytest.approx(ten + (18.3 - 10) / 40 * (fifty - ten), abs=0.2)


def test_one_point_stands_in_the_middle():
    (line,) = draw_losses([{"step": 5, "loss": 2}], columns={"loss": "training"}).lines
    (left, right, top, bottom), (width, height) = MARGINS_PX, CHART_PX
    assert line.points == (((left + width - right) / 2, (top + height - bottom) / 2),)


def test_curves_without_a_column_are_none():
    assert draw_losses([], columns={"loss": "training"}) is None
    assert draw_losses([{"step": 1, "other": 2}], columns={"loss": "training"}) is None
    assert draw_score([{"step": 1, "other": 2}], column="miou", label="mIoU") is None
