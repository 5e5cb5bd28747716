"""The verdict finds each kind of leak, says how large it is, and is silent where there is none."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from pyproj import Transformer
from rasterio.transform import from_origin

from terralean.data.config import DataConfig, SplitConfig
from terralean.data.index import find
from terralean.data.leakage import check_leakage, duplicates
from terralean.data.split import Region, Split, make_split
from terralean.raster.grid import Window


@pytest.fixture
def texture():
    """Random images, each its own."""
    rng = np.random.default_rng(0)
    return lambda height=64, width=64: rng.integers(1, 255, (3, height, width), dtype=np.uint8)


def window(row=0, col=0, height=64, width=64) -> Window:
    return Window(row=row, col=col, height=height, width=width)


def split_of(*regions: tuple, gap_px: float = 0, gap_m: float | None = None) -> Split:
    """A split of (image, window, split, group)."""
    made = [Region(image=image, label=image, window=w, split=name, group=group) for image, w, name, group in regions]
    return Split(root="/", regions=tuple(made), rule="", method="given", seed=0, gap_px=gap_px, gap_m=gap_m)


def at(x: float, y: float, pixel: float = 10):
    return {"crs": "EPSG:32633", "transform": from_origin(500_000 + x, 5_000_000 + y, pixel, pixel)}


def test_identical_pixels_under_another_name(write_image, texture):
    values = texture()
    one, two, other = write_image("one.tif", values), write_image("two.png", values), write_image("three.tif", texture())
    found = check_leakage(
        split_of((one, window(), "train", None), (two, window(), "test", None), (other, window(), "test", None))
    )
    assert found.verdict == "LEAKS: 1 of 2 test images hold the same pixels as a training image (two.png = one.tif)"
    assert found.share == 0.5


def test_images_alike_in_the_middle_only_are_not_identical(write_image, texture):
    values = texture(200, 200)
    changed = values.copy()
    changed[0, 0, 0] ^= 1
    assert duplicates([write_image("a.tif", values), write_image("b.tif", changed)]) == []
    copies = [write_image("c.tif", changed), write_image("d.tif", changed, nodata=0)]
    assert duplicates([write_image("a.tif", values), *copies]) == [tuple(copies)]


def test_windows_of_one_image_that_overlap(write_image, texture):
    image = write_image("a.tif", texture())
    found = check_leakage(split_of((image, window(width=40), "train", None), (image, window(col=32, width=32), "test", None)))
    assert found.verdict == "LEAKS: 512 px of the test ground (25.0% of its pixels) are training ground too"
    assert found.share == pytest.approx(0.25)


def test_scenes_that_overlap_on_the_ground(write_image, texture):
    a, b = write_image("a.tif", texture(), **at(0, 0)), write_image("b.tif", texture(), **at(600, 0))
    found = check_leakage(split_of((a, window(), "train", None), (b, window(), "test", None)))
    assert found.verdict == "LEAKS: 25,600 m2 of the test ground (6.2% of its pixels) are training ground too"


def test_scenes_that_overlap_across_reference_systems(write_image, texture):
    """640 m of a zone's metres, and half of it again in degrees, from 15 E, 45.153 N."""
    a = write_image("a.tif", texture(), **at(0, 0))
    west, north = Transformer.from_crs("EPSG:32633", "EPSG:4326", always_xy=True).transform(500_000, 5_000_000)
    degrees = from_origin(west, north - 320 / 111_142, 640 / 64 / 78_700, 640 / 64 / 111_142)
    b = write_image("b.tif", texture(), crs="EPSG:4326", transform=degrees)
    found = check_leakage(split_of((a, window(), "train", None), (b, window(), "test", None)))
    assert found.leaks
    assert found.share == pytest.approx(0.5, abs=0.01)


def test_train_ground_that_overlaps_itself_is_counted_once(write_image, texture):
    image = write_image("a.tif", texture(), **at(0, 0))
    again = write_image("b.tif", texture(), **at(0, 0))
    test = write_image("c.tif", texture(), **at(320, 0))
    regions = [(image, window(), "train", None), (again, window(), "train", None), (test, window(), "test", None)]
    assert check_leakage(split_of(*regions)).share == pytest.approx(0.5)


def test_shared_groups(write_image, texture):
    images = [write_image(f"{i}.tif", texture()) for i in range(3)]
    groups = zip(images, ("train", "test", "test"), ("g", "g", "h"), strict=True)
    found = check_leakage(split_of(*((image, window(), name, group) for image, name, group in groups)))
    assert found.verdict == "LEAKS: 1 of 2 test images share a group with training (1 groups, g for one)"


@pytest.mark.parametrize(
    ("apart", "gap", "text"),
    [
        (640, 0, "LEAKS: 1 of 1 test images touch training pixels"),
        (700, 100, "LEAKS: 1 of 1 test images nearly touch training pixels, the nearest 60 m away"),
        (740, 100, "no leak found: the nearest training pixel is 100 m from any test pixel"),
        (700, 0, "no leak found: the nearest training pixel is 60 m from any test pixel"),
        (9e4, 100, "no leak found: none of 1 test images lies within a kilometre of one of 1 training images"),
    ],
)
def test_nearness_on_the_ground(write_image, texture, apart, gap, text):
    a, b = write_image("a.tif", texture(), **at(0, 0)), write_image("b.tif", texture(), **at(apart, 0))
    found = check_leakage(split_of((a, window(), "train", None), (b, window(), "test", None), gap_m=gap))
    assert found.verdict == text


def test_images_without_coordinates_are_near_nobody_knows_what(write_image, texture):
    one, other, placed = (
        write_image("a.png", texture()),
        write_image("b.png", texture()),
        write_image("c.tif", texture(), **at(0, 0)),
    )
    far = write_image("d.tif", texture(), **at(700, 0))
    lack = "; {} have no coordinates, so that nobody can tell how near they lie"

    def verdict(*sides):
        return check_leakage(split_of(*((image, window(), name, None) for image, name in sides))).verdict

    assert verdict((one, "train"), (placed, "test")) == (
        "no leak found: none of 1 test images repeats or continues one of 1 training images"
        + lack.format("1 of 1 training images")
    )
    assert verdict((one, "train"), (other, "test")).endswith("repeats or continues one of 1 training images")
    assert verdict((one, "train"), (far, "train"), (other, "test"), (placed, "test")) == (
        "no leak found: the nearest training pixel is 60 m from any test pixel"
        + lack.format("1 of 2 test images and 1 of 2 training images")
    )


def test_validation_is_judged_too(write_image, texture):
    values = texture()
    images = [write_image(f"{i}.tif", v) for i, v in enumerate((values, texture(), values))]
    names = ("train", "test", "validation")
    found = check_leakage(split_of(*((image, window(), name, None) for image, name in zip(images, names, strict=True))))
    assert found.verdict == "LEAKS: 1 of 1 validation images hold the same pixels as a training image (2.tif = 0.tif)"
    assert found.share == 0.0  # of the test pixels


def test_tiles_of_one_picture_without_coordinates(write_image):
    rng = np.random.default_rng(1)
    rough = rng.normal(size=(260, 260)).cumsum(axis=0).cumsum(axis=1)
    picture = np.clip(128 + 30 * (rough - rough.mean()) / rough.std() + rng.normal(size=rough.shape) * 0.2, 1, 255)
    values = np.repeat(picture[None], 3, axis=0).astype(np.uint8)
    left, right = write_image("left.tif", values[..., :130]), write_image("right.tif", values[..., 130:])
    whole = Window(row=0, col=0, height=260, width=130)
    found = check_leakage(split_of((left, whole, "train", None), (right, whole, "test", None)))
    assert found.verdict == (
        "LEAKS: 1 of 1 test images continue a training image at the edge (right.tif goes on at its left in left.tif)"
    )
    inner = Window(row=0, col=20, height=260, width=110)
    assert not check_leakage(split_of((left, whole, "train", None), (right, inner, "test", None))).leaks


def test_a_verdict_is_plain_json(write_image, texture):
    image = write_image("a.tif", texture())
    found = check_leakage(split_of((image, window(), "train", None)))
    assert found.verdict == "no leak found: there is nothing to compare, no test and no validation pixels"
    assert json.loads(json.dumps(asdict(found)))["share"] is None


# On real images.


def test_the_seams_of_dubai_are_found_without_groups(shared):
    """The test parts lie right of training parts of the same tile; one seam runs through open water."""
    config = DataConfig(split=SplitConfig(validation=0))
    found = check_leakage(make_split(find(shared / "data/rgb/seg/dubai", config), config, seed=0))
    count = re.match(r"LEAKS: (\d+) of 16 test images continue a training image at the edge", found.verdict)
    assert count
    assert int(count[1]) >= 14


def test_dubai_split_by_tile_does_not_leak(shared):
    config = DataConfig(group=r"tile\d+", split=SplitConfig(rule="groups"))
    found = check_leakage(make_split(find(shared / "data/rgb/seg/dubai", config), config, seed=0))
    assert not found.leaks


def test_unrelated_photographs_do_not_leak(shared):
    config = DataConfig()
    found = check_leakage(make_split(find(shared / "data/rgb/seg/gsi_roads", config), config, seed=0))
    assert found.verdict.startswith("no leak found: none of 6 test images repeats or continues one of 16 training images")


def test_random_tiles_of_a_photograph_leak(shared):
    config = DataConfig(split=SplitConfig(rule="random"))
    split = make_split(find(shared / "data/rgb/seg/gsi_roads", config), config, seed=0)
    found = check_leakage(split)
    assert re.match(r"LEAKS: \d+ of \d+ test windows touch training pixels", found.verdict)
    assert found.share > 0.8
    assert Path(split.root).name == "gsi_roads"
