"""Windows are the same whether an image is kept decoded or read from disk."""

import pickle

import numpy as np
import pytest

from terralean.data import reading
from terralean.data.config import DataConfig
from terralean.data.reading import Reader
from terralean.raster.coding import PLAIN
from terralean.raster.grid import Window
from terralean.spec import Classes

CLASSES = Classes.named(["a", "b", "c"])
VALUES = np.arange(2 * 50 * 60, dtype=np.uint16).reshape(2, 50, 60) % 5000 + 1
LABELS = (np.arange(3000).reshape(50, 60) % 3).astype(np.uint8)
WINDOWS = [
    Window(row=0, col=0, height=50, width=60),
    Window(row=7, col=11, height=20, width=13),
    Window(row=-5, col=50, height=20, width=20),
    Window(row=100, col=0, height=4, width=4),
]


@pytest.fixture
def pair(write_image):
    values = VALUES.copy()
    values[:, :3] = 0
    return write_image("a.tif", values, nodata=0), write_image("a_labels.tif", LABELS)


@pytest.fixture
def readers(monkeypatch):
    """One that keeps images, one for which every image is too large to keep."""
    keeping, poor = (Reader(classes=CLASSES, coding=PLAIN, config=DataConfig()) for _ in range(2))
    poor.recent.limit_bytes = 1000
    return keeping, poor


@pytest.mark.parametrize("window", WINDOWS)
def test_a_kept_image_reads_like_the_file(pair, readers, window):
    image, label = pair
    (values, valid), (again, still) = (reader.values(image, window) for reader in readers)
    assert np.array_equal(values, again)
    assert np.array_equal(valid, still)
    labels = [reader.labels(image, label, window) for reader in readers]
    assert np.array_equal(*labels)
    inside = np.zeros((window.height, window.width), dtype=bool)
    part = window.cut(Window(row=0, col=0, height=50, width=60))
    if part.pixels:
        inside[part.slices(origin=window)] = True
        assert np.array_equal(labels[0][inside], LABELS[part.slices()].ravel())
    assert (labels[0][~inside] == 255).all()
    assert not valid[~inside].any()


def test_decoded_images_stay_within_the_cache(write_image):
    images = [write_image(f"{i}.tif", VALUES + i) for i in range(12)]
    size = VALUES.nbytes + VALUES[0].size
    reader = Reader(classes=CLASSES, coding=PLAIN, config=DataConfig())
    reader.recent.limit_bytes = 5 * size
    for image in images * 2:
        reader.values(image, WINDOWS[1])
        assert reader.recent.used_bytes <= reader.recent.limit_bytes
    assert reader.recent.used_bytes == 5 * size
    assert np.array_equal(reader.values(images[0], WINDOWS[1])[0], VALUES[:, 7:27, 11:24])


def test_few_files_stay_open(write_image, monkeypatch):
    monkeypatch.setattr(reading, "OPEN_SCENES", 3)
    reader = Reader(classes=CLASSES, coding=PLAIN, config=DataConfig())
    for i in range(8):
        reader.values(write_image(f"{i}.tif", VALUES), WINDOWS[1])
    assert len(reader._scenes) == 3


def test_a_reader_travels_to_another_process_without_its_pixels(pair, readers):
    image, _ = pair
    readers[0].values(image, WINDOWS[0])
    assert len(pickle.dumps(readers[0])) < 3000
    again = pickle.loads(pickle.dumps(readers[0]))
    assert np.array_equal(again.values(image, WINDOWS[1])[0], readers[0].values(image, WINDOWS[1])[0])


def test_chosen_bands_are_read_in_their_order(pair):
    reader = Reader(classes=CLASSES, coding=PLAIN, config=DataConfig(bands=(2, 1)))
    values, _ = reader.values(pair[0], WINDOWS[1])
    assert np.array_equal(values, VALUES[::-1, 7:27, 11:24])


def test_strips_cover_the_window_once(pair, readers, monkeypatch):
    monkeypatch.setattr(reading, "STRIP_PX", 100)
    window = Window(row=4, col=5, height=33, width=40)
    seen = np.zeros((50, 60), dtype=int)
    strips = list(readers[0].strips(pair[0], window))
    for strip in strips:
        seen[strip.slices()] += 1
    assert len(strips) == 17
    assert (seen[window.slices()] == 1).all()
    assert seen.sum() == window.pixels
