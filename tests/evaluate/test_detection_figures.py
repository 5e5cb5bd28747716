"""Photographs with boxes: what is right, wrong and missed, and where it is drawn."""

import io

import numpy as np
import pytest
from PIL import Image

from terralean.data.oriented.dota import write_labels
from terralean.data.oriented.layouts import ObjectsConfig, find_objects
from terralean.data.oriented.record import Detections
from terralean.evaluate.detection_figures import SIDE_PX, overlays
from terralean.evaluate.figures import ERROR_RGB, RIGHT_RGB, WRONG_RGB
from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands

RGB = Bands(names=("red", "green", "blue"))


def square(x: float, y: float, side: float = 20.0) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def detections(polygons, scores, labels, *, image="a") -> Detections:
    return Detections(
        image=image,
        polygons=np.array(polygons, dtype=np.float64).reshape(-1, 8),
        scores=np.array(scores, dtype=np.float64),
        labels=np.array(labels, dtype=np.int64),
    )


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Two grey images; the larger has more objects, most of them at its right end."""
    root = tmp_path_factory.mktemp("drawn")
    for name, width, places in (("few", 100, [(20, 20)]), ("many", 1000, [(30, 30), (800, 60), (850, 60), (900, 60)])):
        grid = Grid(width=width, height=100, crs=None)
        values = np.full((3, 100, width), 128, np.uint8)
        write_scene(root / "images" / f"{name}.tif", values, grid=grid, bands=RGB, nodata=None)
        polygons = np.array([square(*place) for place in places])
        write_labels(root / "labelTxt" / f"{name}.txt", polygons, ["car"] * len(places), np.zeros(len(places), np.uint8))
    return find_objects(root, ObjectsConfig()).pictures


def test_images_are_shown_where_they_are_fullest(dataset):
    of = {picture.record.image.rpartition("/")[2]: picture for picture in dataset}
    many_image, few_image = (of[name].record.image for name in ("many.tif", "few.tif"))
    seen = [square(800, 60), square(950, 10), square(30, 30)]
    found = [
        detections(seen, [0.9, 0.4, 0.8], [0, 0, 0], image=many_image),
        detections([square(20, 20), square(60, 60)], [0.9, 0.1], [0, 0], image=few_image),
    ]
    many, few = overlays([of["many.tif"], of["few.tif"]], found, bands=None)
    assert (many.name, many.right, many.missed, many.wrong) == ("many.tif", 1, 2, 1)  # the first object is not in the window
    assert (few.name, few.right, few.missed, few.wrong) == ("few.tif", 1, 0, 0)  # what is not sure is not drawn
    image = np.asarray(Image.open(io.BytesIO(many.photo.jpeg)).convert("RGB")).astype(int)
    assert image.shape == (100, SIDE_PX, 3)
    left = 1000 - SIDE_PX
    for (x, y), colour in (((810, 60), RIGHT_RGB), ((860, 60), ERROR_RGB), ((960, 10), WRONG_RGB)):
        assert np.abs(image[y, x - left] - colour).max() < 60
    assert np.abs(image[70, 810 - left] - 128).max() < 20  # within a box the image is seen
    small = Image.open(io.BytesIO(few.photo.jpeg))
    assert small.size == (400, 400)
