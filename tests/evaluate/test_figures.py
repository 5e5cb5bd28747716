import io
import math

import numpy as np
import pytest
from PIL import Image

from terralean.errors import GridMismatch, SizeError
from terralean.evaluate import figures
from terralean.evaluate.figures import (
    DARK,
    ERROR_RGB,
    HATCH_RGB,
    LIGHT,
    UNMAPPED_RGB,
    display_bands,
    draw_class_bars,
    draw_classes,
    draw_confusion,
    draw_curves,
    draw_errors,
    draw_image,
    short_count,
    stretch,
)
from terralean.evaluate.intervals import block_bootstrap
from terralean.evaluate.metrics import score
from terralean.spec import Bands, Classes

CLASSES = Classes.named(("water", "forest", "field"))
NOBODY = np.zeros(3, np.int64)


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def near(png: bytes, colour: str, tolerance: int = 12) -> int:
    """How many pixels are about of this colour (#rrggbb)."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels(png).astype(int) - wanted).max(axis=-1) <= tolerance).sum())


def scores(matrix):
    return score(np.array(matrix), unmapped=np.zeros(len(matrix), np.int64))


def is_hatched(rgb: np.ndarray) -> bool:
    """Whether all pixels are of the two greys of the hatching, and both occur."""
    found = {tuple(p) for p in rgb.reshape(-1, 3).tolist()}
    return found == set(HATCH_RGB)


@pytest.mark.parametrize(
    ("bands", "shown"),
    [
        (Bands(names=("blue", "green", "red", "nir")), (2, 1, 0)),
        (Bands(names=("nir", "Red", "Green", "Blue")), (1, 2, 3)),
        (Bands(names=("band_1", "band_2", "band_3", "band_4")), (0, 1, 2)),
        (Bands(names=("nir", "red", "green")), (0, 1, 2)),
        (Bands(names=("vv", "vh")), (0,)),
        (Bands(names=("a", "b", "c", "d"), wavelength_nm=(440, 550, 650, 850)), (2, 1, 0)),
        (Bands(names=("a", "b", "c"), wavelength_nm=(1600, 2200, None)), (0, 1, 2)),
    ],
)
def test_shown_bands_are_chosen_by_name_then_wavelength_then_place(bands, shown):
    assert display_bands(bands) == shown


def test_stretch_reaches_black_and_white_at_the_percentiles_of_valid_pixels():
    values = np.arange(101 * 4, dtype=np.float64).reshape(4, 101)[None] % 101 * 10
    valid = np.ones((4, 101), bool)
    valid[:, :1] = False
    values[:, ~valid] = np.nan
    seen = stretch(values, valid, bands=Bands(names=("pan",)))
    known = values[0][valid]
    low, high = np.percentile(known, [2, 98])
    expected = np.clip((known - low) / (high - low), 0, 1) * 255
    assert np.array_equal(seen[valid], np.repeat(expected.astype(np.uint8)[:, None], 3, axis=1))
    assert (seen[valid].min(), seen[valid].max()) == (0, 255)
    assert {tuple(p) for p in seen[~valid].tolist()} <= set(HATCH_RGB)


def test_a_constant_band_is_mid_grey_and_an_empty_image_is_hatched():
    flat = np.full((1, 8, 8), 700)
    assert (stretch(flat, np.ones((8, 8), bool), bands=Bands(names=("pan",))) == 128).all()
    assert is_hatched(stretch(flat, np.zeros((8, 8), bool), bands=Bands(names=("pan",))))


def test_a_class_map_holds_exactly_the_class_colours_and_hatching():
    labels = np.array([[0, 1], [2, 255]], np.uint8).repeat(200, axis=0).repeat(200, axis=1)
    seen = pixels(draw_classes(labels, classes=CLASSES).light)
    assert seen.shape == (400, 400, 3)
    assert tuple(seen[0, 0]) == CLASSES.colours[0]
    assert tuple(seen[0, 399]) == CLASSES.colours[1]
    assert tuple(seen[399, 0]) == CLASSES.colours[2]
    assert is_hatched(seen[200:, 200:])


def test_errors_are_strong_right_pixels_faint_and_holes_black():
    reference = np.array([[0, 1], [2, 255]], np.uint8).repeat(200, axis=0).repeat(200, axis=1)
    mapped = np.array([[0, 2], [255, 1]], np.uint8).repeat(200, axis=0).repeat(200, axis=1)
    seen = pixels(draw_errors(reference, mapped, classes=CLASSES).light)
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
    assert pixels(large.light).shape == (500, 300, 3)
    assert pixels(draw_classes(np.zeros((30, 50), np.uint8), classes=CLASSES).light).shape == (240, 400, 3)
    assert len(large.light) < 1_300_000


def test_mistakes_are_named():
    with pytest.raises(SizeError, match="an image of 0 x 5 px cannot be drawn"):
        draw_classes(np.zeros((0, 5), np.uint8), classes=CLASSES)
    with pytest.raises(GridMismatch, match=r"reference \(2, 2\) and map \(3, 2\)"):
        draw_errors(np.zeros((2, 2), np.uint8), np.zeros((3, 2), np.uint8), classes=CLASSES)


def test_charts_come_on_a_light_and_on_a_dark_ground():
    chart = draw_confusion(np.diag([5, 4, 3]), unmapped=NOBODY, names=CLASSES.names)
    for png, theme in ((chart.light, LIGHT), (chart.dark, DARK)):
        assert near(png, theme.paper, tolerance=3) > 0.5 * pixels(png)[..., 0].size


def test_the_matrix_is_blue_where_right_and_orange_where_wrong():
    right = draw_confusion(np.diag([5, 4, 3]), unmapped=NOBODY, names=CLASSES.names).light
    wrong = draw_confusion(np.roll(np.diag([5, 4, 3]), 1, axis=0), unmapped=NOBODY, names=CLASSES.names).light
    assert near(right, LIGHT.right) > 10_000 > near(right, LIGHT.wrong)
    assert near(wrong, LIGHT.wrong) > 10_000 > near(wrong, LIGHT.right)


def test_the_matrix_gains_a_column_for_pixels_without_a_class():
    matrix = np.diag([5, 4, 3])
    without = pixels(draw_confusion(matrix, unmapped=NOBODY, names=CLASSES.names).light)
    beside = pixels(draw_confusion(matrix, unmapped=np.array([0, 2, 0]), names=CLASSES.names).light)
    assert beside.shape[1] > without.shape[1]


def test_bars_grow_with_the_score_and_intervals_and_baselines_show():
    weak, strong = scores([[2, 8, 0], [8, 2, 0], [0, 0, 9]]), scores([[9, 1, 0], [0, 9, 0], [0, 0, 9]])
    options = {"names": CLASSES.names, "baselines": {}}
    low, high = (draw_class_bars(s, intervals=None, **options).light for s in (weak, strong))
    assert near(high, LIGHT.bar) > 1.3 * near(low, LIGHT.bar)
    rivals = draw_class_bars(strong, intervals=None, names=CLASSES.names, baselines={"forest": weak}).light
    assert near(rivals, LIGHT.rivals[0]) > 100 > near(high, LIGHT.rivals[0])
    blocks = np.stack([np.array([[9 + i, 9 - i, 0], [0, 9, 0], [0, 0, 9]]) for i in range(8)])
    found = block_bootstrap(blocks, unmapped=np.zeros((8, 3), int), generator=np.random.default_rng(0)).intervals
    with_ends = draw_class_bars(strong, intervals=found, **options).light
    assert near(with_ends, LIGHT.ink) > near(high, LIGHT.ink)


def test_class_names_are_drawn_as_text_not_as_formulas(recwarn):
    names = ("$\\frac{a}$", "a_b^c $", "a" * 90)
    draw_confusion(np.diag([5, 4, 3]), unmapped=NOBODY, names=names)
    draw_class_bars(scores(np.diag([5, 4, 0])), intervals=None, names=names, baselines={"$\\bad{": scores(np.diag([1, 1, 1]))})
    assert not recwarn.list


def test_a_name_that_no_font_can_draw_is_replaced_by_the_value_of_its_class(recwarn):
    names = ("water", "\U000e0041\U000e0042", "field")
    numbered = ("water", "class 1", "field")
    one, other = (draw_confusion(np.diag([5, 4, 3]), unmapped=NOBODY, names=n) for n in (names, numbered))
    assert one == other
    assert not recwarn.list


def test_many_classes_stay_drawable():
    matrix = np.eye(254, dtype=np.int64) * 7
    names = [f"class {i}" for i in range(254)]
    chart = draw_confusion(matrix, unmapped=np.zeros(254, np.int64), names=names)
    bars = draw_class_bars(score(matrix, unmapped=np.zeros(254, np.int64)), intervals=None, names=names, baselines={})
    assert max(*pixels(chart.light).shape[:2], *pixels(bars.light).shape[:2]) < 4000


def test_curves_take_rows_of_a_metrics_file_with_gaps():
    rows = [{"step": "0", "loss": "2.5", "miou": ""}, {"step": "10", "loss": "", "miou": "0.25"}, {"step": "20", "miou": 0.5}]
    options = {"losses": {"loss": "training"}, "score": "miou"}
    both = draw_curves(rows, **options)
    only_loss = draw_curves([{"step": 0, "loss": 2.0}, {"step": 1, "loss": math.nan}, {"step": 2, "loss": 1.0}], **options)
    assert pixels(both.light).shape[1] == 2 * pixels(only_loss.light).shape[1]
    assert near(both.light, LIGHT.wrong) > 50  # the ring around the best score


def test_curves_without_a_column_are_none():
    assert draw_curves([], losses={"loss": "training"}, score="miou") is None
    assert draw_curves([{"step": 1, "other": 2}], losses={"loss": "training"}, score="miou") is None


@pytest.mark.parametrize(("count", "text"), [(0, "0"), (999, "999"), (1234, "1.2k"), (123456, "123k"), (7_650_000, "7.7M")])
def test_short_counts(count, text):
    assert short_count(count) == text
