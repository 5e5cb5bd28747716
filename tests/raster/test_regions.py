import numpy as np

from terralean.raster import regions
from terralean.raster.regions import RegionFinder, components

NONE = -1


def test_numbers_of_regions_in_the_order_of_their_first_pixels():
    ids, first = components(np.array([[2, 2, 255], [0, 2, 0], [0, 0, 0]], np.uint8))
    assert ids.tolist() == [[0, 0, NONE], [1, 0, 1], [1, 1, 1]]
    assert first.tolist() == [0, 3]


def test_a_u_is_one_region_and_a_diagonal_two():
    ids, _ = components(np.array([[1, 0, 1], [1, 0, 1], [1, 1, 1], [0, 1, 1]], np.uint8))
    assert ids.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 0], [2, 0, 0]]


def found(labels, *, rows):
    finder = RegionFinder(width=labels.shape[1], row_area_m2=np.arange(1.0, len(labels) + 1), min_area_m2=None)
    confidence = np.arange(labels.size, dtype=np.float64).reshape(labels.shape)
    parts = []
    for row in range(0, len(labels), rows):
        parts += finder.take(labels[row : row + rows], confidence[row : row + rows])
    return [*parts, *finder.finish()]


def test_a_region_is_handed_out_once_nothing_of_it_goes_on_below(monkeypatch):
    monkeypatch.setattr(regions, "BLOCK_PX", 1)
    labels = np.array([[0, 1, 0], [0, 1, 0], [0, 0, 0], [255, 255, 1]], np.uint8)
    parts = found(labels, rows=1)
    assert [part.regions.value.tolist() for part in parts] == [[], [], [1], [0], [1]]
    around = parts[3].regions
    assert (around.pixels.tolist(), around.area_m2.tolist()) == ([7], [2 * 1 + 2 * 2 + 3 * 3])
    assert around.confidence.tolist() == [0 + 2 + 3 + 5 + 6 + 7 + 8]
    assert len(parts[3].corners.place) == 8


def test_rows_that_the_caller_reuses_are_not_held(monkeypatch):
    monkeypatch.setattr(regions, "BLOCK_PX", 4)
    finder = RegionFinder(width=2, row_area_m2=None, min_area_m2=None)
    labels, confidence = np.zeros((1, 2), np.uint8), np.ones((1, 2))
    assert not [*finder.take(labels, confidence)]
    labels[:], confidence[:] = 7, 9
    last = [*finder.finish()]
    values = np.concatenate([part.regions.value for part in last])
    assert values.tolist() == [0]
