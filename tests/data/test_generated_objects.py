"""Generated harbours and car parks: the same for a seed, boxes where the objects are, files as other readers take them."""

import numpy as np
import pytest
import rasterio
import shapely
import shapely.affinity
import torch
from rasterio.features import rasterize

from terralean.boxes.rectangle import from_polygons
from terralean.data.generated_objects import CLASSES, SIZES, ObjectScenesConfig, draw_objects, generate_objects
from terralean.data.oriented.layouts import ObjectsConfig, find_objects
from terralean.errors import ConfigError, SizeError

COUNT = 12


@pytest.fixture(scope="module")
def scenes():
    return [draw_objects(seed=3, number=number) for number in range(COUNT)]


def test_a_scene_is_the_same_however_many_there_are(scenes, tmp_path):
    (one, other) = generate_objects(tmp_path, count=2, seed=3)
    for found, expected in ((one, scenes[0]), (other, scenes[1])):
        assert np.array_equal(found.values, expected.values) and np.array_equal(found.polygons, expected.polygons)
    assert not np.array_equal(scenes[0].values, scenes[1].values)
    assert not np.array_equal(draw_objects(seed=4).values, scenes[0].values)


def test_files_are_a_dataset_of_the_same_objects(scenes, tmp_path):
    generate_objects(tmp_path, count=3, seed=3)
    found = find_objects(tmp_path, ObjectsConfig(classes=CLASSES))
    for picture, scene in zip(found.pictures, scenes, strict=False):
        np.testing.assert_allclose(picture.record.polygons, scene.polygons, atol=6e-4)
        assert [CLASSES[label] for label in picture.record.labels] == list(scene.names)
        with rasterio.open(picture.record.image) as file:
            assert np.array_equal(file.read(), scene.values) and file.crs.to_epsg() == 32631
    places = {picture.grid.transform for picture in found.pictures}
    assert len(places) == 3


def test_boxes_have_the_sizes_of_their_class_and_do_not_overlap(scenes):
    seen = set()
    for scene in scenes:
        boxes = from_polygons(torch.from_numpy(scene.polygons)).numpy()
        for name, (_, _, length, width, _) in zip(scene.names, boxes, strict=True):
            (shortest, longest), (narrowest, widest) = SIZES[name]
            assert shortest - 1e-6 <= length <= longest + 1e-6 and narrowest - 1e-6 <= width <= widest + 1e-6
        shapes = shapely.polygons(scene.polygons.reshape(-1, 4, 2))
        first, second = shapely.STRtree(shapes).query(shapes, predicate="intersects")
        assert (first == second).all()
        seen |= {*scene.names}
    assert seen == {*CLASSES}


def test_corners_begin_along_the_long_side_and_turn_as_on_screen(scenes):
    corners = np.concatenate([scene.polygons for scene in scenes]).reshape(-1, 4, 2)
    sides = np.linalg.norm(np.roll(corners, -1, axis=1) - corners, axis=2)
    assert (sides[:, 0] > sides[:, 1]).all()
    assert not shapely.is_ccw(shapely.linearrings(corners * (1, -1))).any()


def test_objects_stand_out_from_what_is_round_them(scenes):
    """By the mean colour of a box and of a rim round it: a box that lay elsewhere would have the colour of the ground."""
    apart, shifted = [], []
    for scene in scenes:
        for polygon in shapely.polygons(scene.polygons.reshape(-1, 4, 2)):
            apart.append(_contrast(scene.values, polygon))
            shifted.append(_contrast(scene.values, shapely.affinity.translate(polygon, 9, 9)))
    assert np.nanmedian(apart) > 2 * np.nanmedian(shifted)


def _contrast(values, polygon) -> float:
    rim = polygon.buffer(3).difference(polygon.buffer(1))
    mask = rasterize([(rim, 2), (polygon, 1)], out_shape=values.shape[1:], dtype="uint8")
    inside, round_it = (values[:, mask == value].astype(float) for value in (1, 2))
    if not (inside.size and round_it.size):
        return float("nan")
    return float(np.abs(inside.mean(axis=1) - round_it.mean(axis=1)).max())


@pytest.mark.parametrize(("share", "expected"), [(0.0, {"car", "truck"}), (1.0, {"boat", "car", "ship", "truck"})])
def test_only_harbours_have_boats_and_ships(share, expected):
    config = ObjectScenesConfig(harbours=share, taken=1.0)
    scenes = [draw_objects(seed=1, number=number, config=config) for number in range(6)]
    assert {name for scene in scenes for name in scene.names} == expected


def test_more_is_there_where_more_is_taken():
    counts = [len(draw_objects(seed=2, config=ObjectScenesConfig(taken=taken, harbours=0)).names) for taken in (0.2, 0.9)]
    assert counts[1] > 2 * counts[0]


def test_clutter_and_size_change_the_picture():
    plain, strewn = (draw_objects(seed=2, config=ObjectScenesConfig(clutter=clutter)).values for clutter in (0, 30))
    assert not np.array_equal(plain, strewn)
    assert draw_objects(seed=2, config=ObjectScenesConfig(size_px=384)).values.shape == (3, 384, 384)


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(SizeError, match="scene of 100 px has no room for a ship; ask for 128 px or more"):
        ObjectScenesConfig(size_px=100)
    with pytest.raises(ConfigError, match=r"harbours is a share, taken a share above 0, clutter 0 or more, got 2, 0\.6 and 14"):
        ObjectScenesConfig(harbours=2)
