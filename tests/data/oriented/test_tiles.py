import logging
from dataclasses import replace

import numpy as np
import pytest
import rasterio
import shapely
import torch

from terralean.boxes.form import to_polygons
from terralean.boxes.merge import MergeConfig
from terralean.boxes.polygons import polygon_iou
from terralean.data.oriented.dota import read_labels, write_labels
from terralean.data.oriented.layouts import ObjectsConfig, find_objects
from terralean.data.oriented.record import Detections, Record
from terralean.data.oriented.tiles import (
    TilesConfig,
    merge_tiles,
    place_of,
    plan_tiles,
    tile_name,
    tile_windows,
    write_tiles,
)
from terralean.errors import ConfigError, DatasetError
from terralean.raster.grid import Grid, Window
from terralean.raster.scene import open_scene

SMALL = TilesConfig(size_px=64, overlap_px=16)


def scattered(count, *, width, height, seed=0, low=3.0, high=30.0):
    rng = np.random.default_rng(seed)
    size = low * (high / low) ** rng.random((count, 2))
    centre = rng.random((count, 2)) * [width, height]
    boxes = np.concatenate([centre, size, rng.uniform(-1.5, 1.5, (count, 1))], axis=1)
    return Record(
        image="scene.tif",
        polygons=to_polygons(torch.from_numpy(boxes)).numpy(),
        labels=rng.integers(0, 3, count),
        difficult=np.zeros(count, dtype=np.uint8),
    )


# The plan.


@pytest.mark.parametrize(
    ("length", "expected"),
    [(30, [0]), (64, [0]), (65, [0, 1]), (112, [0, 48]), (113, [0, 48, 49]), (300, [0, 48, 96, 144, 192, 236])],
)
def test_windows_cover_an_image_and_end_with_it(length, expected):
    windows = tile_windows(width=length, height=64, config=SMALL)
    assert [window.col for window in windows] == expected
    assert windows[-1].col + windows[-1].width == length
    assert all(window.width == min(64, length) for window in windows)


def test_dota_s_own_numbers():
    """An image of 3875 x 5502 px: starts 0, 824, 1648, 2472 and 2851; 0, 824, .., 4120 and 4478."""
    windows = tile_windows(width=3875, height=5502, config=TilesConfig())
    assert sorted({window.col for window in windows}) == [0, 824, 1648, 2472, 2851]
    assert sorted({window.row for window in windows}) == [0, 824, 1648, 2472, 3296, 4120, 4478]
    assert len(windows) == 35


def test_each_tile_has_just_the_objects_of_which_it_holds_enough():
    record = scattered(300, width=200, height=150)
    plan = plan_tiles(record, width=200, height=150, config=TilesConfig(size_px=64, overlap_px=16, empty=True))
    shapes = shapely.polygons(record.polygons.reshape(-1, 4, 2))
    kept = set()
    for tile in plan.tiles:
        window = tile.window
        box = shapely.box(window.col, window.row, window.col + window.width, window.row + window.height)
        share = shapely.area(shapely.intersection(shapes, box)) / shapely.area(shapes)
        assert not (np.abs(share - 0.7) < 1e-9).any()
        expected = np.flatnonzero(share >= 0.7)
        offset = np.tile([window.col, window.row], 4)
        np.testing.assert_allclose(tile.objects.polygons + offset, record.polygons[expected])
        assert tile.objects.labels.tolist() == record.labels[expected].tolist()
        kept |= set(expected.tolist())
    assert set(plan.lost) == set(range(300)) - kept and 0 < len(plan.lost) < 60


def test_no_object_smaller_than_the_overlap_is_lost():
    record = scattered(400, width=300, height=260, low=2.0, high=11.0)
    inside = ((record.polygons.reshape(-1, 4, 2) >= 0) & (record.polygons.reshape(-1, 4, 2) <= [300, 260])).all(axis=(1, 2))
    assert plan_tiles(record.of(inside), width=300, height=260, config=SMALL).lost == ()


def one_object(left, *, right=None):
    """10 px high from column `left` on, 10 px wide."""
    right = left + 10 if right is None else right
    polygon = np.array([[left, 20.0, right, 20, right, 30, left, 30]])
    return Record(image="a.tif", polygons=polygon, labels=np.array([0]), difficult=np.zeros(1, dtype=np.uint8))


def test_exactly_the_share_is_enough():
    """Tiles end at column 64: of columns 57 to 67 seven tenths are in the first one, of 58 to 68 six."""
    config = TilesConfig(size_px=64, overlap_px=0, iof=0.7)
    assert [tile.window.col for tile in plan_tiles(one_object(57.0), width=128, height=64, config=config).tiles] == [0]
    nowhere = plan_tiles(one_object(58.0), width=128, height=64, config=config)
    assert nowhere.tiles == () and nowhere.lost == (0,)
    less = TilesConfig(size_px=64, overlap_px=0, iof=0.3)
    assert [tile.window.col for tile in plan_tiles(one_object(57.0), width=128, height=64, config=less).tiles] == [0, 64]


def test_an_object_that_is_cut_can_be_kept_as_difficult():
    config = TilesConfig(size_px=64, overlap_px=0, cut="difficult")
    plan = plan_tiles(one_object(57.0), width=128, height=64, config=config)
    assert [tile.objects.difficult.tolist() for tile in plan.tiles] == [[0], [2]]
    assert plan.tiles[1].objects.polygons.tolist() == [[-7, 20, 3, 20, 3, 30, -7, 30]]
    assert plan_tiles(one_object(59.0), width=128, height=64, config=config).lost == (0,)


def test_an_object_without_area_is_where_all_its_corners_are():
    line = one_object(60.0, right=60.0)
    plan = plan_tiles(line, width=112, height=64, config=SMALL)
    assert [tile.window.col for tile in plan.tiles] == [0, 48]
    assert plan_tiles(one_object(200.0), width=128, height=64, config=SMALL).lost == (0,)


def test_tiles_without_objects_are_left_out_or_kept():
    plan = plan_tiles(one_object(5.0), width=200, height=64, config=SMALL)
    assert len(plan.tiles) == 1
    assert (
        len(plan_tiles(one_object(5.0), width=200, height=64, config=TilesConfig(size_px=64, overlap_px=16, empty=True)).tiles)
        == 4
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [({"overlap_px": 1024}, "overlap_px must be"), ({"iof": 0.0}, "iof must be"), ({"iof": 1.1}, "iof must be")],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        TilesConfig(**change)


# On disk.


@pytest.fixture
def dataset(tmp_path, scene):
    """Two scenes on the ground with objects, as a DOTA folder."""
    for number, name in enumerate(("north", "south")):
        scene(f"in/images/{name}.tif", width=150, height=100, left_m=5e5 + 1000 * number)
        record = scattered(60, width=150, height=100, seed=number, high=15.0)
        inside = shapely.intersects(shapely.polygons(record.polygons.reshape(-1, 4, 2)), shapely.box(0, 0, 150, 100))
        some = record.of(inside)
        names = [("ship", "plane", "large-vehicle")[i] for i in some.labels]
        write_labels(tmp_path / f"in/labelTxt/{name}.txt", some.polygons, names, some.difficult, facts={"gsd": "2"})
    (tmp_path / "in" / "index.csv").write_text(
        "path,label,split\nimages/north.tif,labelTxt/north.txt,train\nimages/south.tif,labelTxt/south.txt,test\n"
    )
    return find_objects(tmp_path / "in", ObjectsConfig())


def test_tiles_keep_place_pixels_and_objects(tmp_path, dataset, caplog):
    with caplog.at_level(logging.WARNING):
        written = write_tiles(dataset, tmp_path / "out", SMALL)
    names = sorted(path.stem for path in (tmp_path / "out" / "images").iterdir())
    assert len(names) == written.tiles and names[0].startswith("north__1__0___0")
    assert sorted(path.stem for path in (tmp_path / "out" / "labelTxt").iterdir()) == names
    for name in names:
        stem, left, top = place_of(name)
        whole = next(one for one in dataset.pictures if one.record.image.endswith(f"{stem}.tif"))
        with rasterio.open(tmp_path / "out" / "images" / f"{name}.tif") as tile, rasterio.open(whole.record.image) as source:
            assert tile.crs == source.crs and tile.descriptions == ("row", "column")
            here = source.transform
            assert tile.transform[:6] == (2, 0, here.c + 2 * left, 0, -2, here.f - 2 * top)
            np.testing.assert_array_equal(tile.read(), source.read()[:, top : top + 64, left : left + 64])
        found = read_labels(tmp_path / "out" / "labelTxt" / f"{name}.txt")
        assert found.facts == {"gsd": "2"}
        # Each line is an object of the image, moved.
        back = found.polygons + np.tile([left, top], 4)
        distance = np.abs(back[:, None] - whole.record.polygons[None]).max(axis=2).min(axis=1)
        assert distance.max() < 2e-3
    again = find_objects(tmp_path / "out", ObjectsConfig())
    assert again.classes == dataset.classes
    assert sum(len(one.record) for one in again.pictures) == written.objects
    assert {(one.group, one.split) for one in again.pictures} == {("north", "train"), ("south", "test")}
    assert ("in no tile" in caplog.text) == bool(written.lost)


def test_what_no_tile_holds_is_told(tmp_path, scene, caplog):
    scene("in/images/a.tif", width=128, height=64)
    write_labels(
        tmp_path / "in/labelTxt/a.txt",
        np.array([[20.0, 20, 110, 20, 110, 30, 20, 30], *one_object(5.0).polygons]),
        ["ship"] * 2,
        np.zeros(2, np.uint8),
    )
    with caplog.at_level(logging.WARNING):
        written = write_tiles(find_objects(tmp_path / "in", ObjectsConfig()), tmp_path / "out", SMALL)
    assert written.lost == 1
    assert "1 object is in no tile: none holds 0.7 of their area; a larger overlap_px than 16 keeps them" in caplog.text


def test_pixels_without_data_stay_without(tmp_path, scene):
    path = scene("in/images/a.tif", width=128, height=64, nodata=7.0)  # row 7 of the first band is 7, column 7 of the second
    write_labels(tmp_path / "in/labelTxt/a.txt", one_object(20.0).polygons, ["ship"], np.zeros(1, np.uint8))
    write_tiles(find_objects(tmp_path / "in", ObjectsConfig()), tmp_path / "out", SMALL)
    window = Window(row=0, col=0, height=64, width=64)
    with open_scene(path) as source, open_scene(tmp_path / "out/images/a__1__0___0.tif") as tile:
        (values, valid), (theirs, there) = source.read(window), tile.read(window)
    assert not valid.all()
    np.testing.assert_array_equal(there, valid)
    np.testing.assert_array_equal(theirs[:, valid], values[:, valid])


def test_a_mask_becomes_a_nodata_value_that_no_pixel_has(tmp_path, picture):
    path = picture("in/images/a.png")
    with rasterio.open(path) as source:
        rgb = source.read()
    rgb[:, 5, 5] = 0  # a valid black pixel
    mask = np.full(rgb.shape[1:], 255, dtype=np.uint8)
    mask[:10, :10] = 0
    mask[5, 5] = 255
    path.unlink()
    with rasterio.open(tmp_path / "in/images/a.tif", "w", driver="GTiff", count=3, width=60, height=40, dtype="uint8") as file:
        file.write(rgb)
        file.write_mask(mask)
    write_labels(tmp_path / "in/labelTxt/a.txt", one_object(20.0).polygons, ["ship"], np.zeros(1, np.uint8))
    write_tiles(find_objects(tmp_path / "in", ObjectsConfig()), tmp_path / "out", SMALL)
    with open_scene(tmp_path / "out/images/a__1__0___0.tif") as tile:
        values, valid = tile.read(tile.grid.window)
    np.testing.assert_array_equal(valid, mask > 0)
    np.testing.assert_array_equal(values[:, valid], rgb[:, valid])


def test_a_folder_that_holds_something_is_left_alone(tmp_path, dataset):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("")
    with pytest.raises(DatasetError, match="out is there and not empty"):
        write_tiles(dataset, tmp_path / "out", SMALL)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_nothing_is_left_where_no_tile_has_an_object(tmp_path, scene):
    scene("in/images/a.tif", width=128, height=64)
    wide = np.array([[2.0, 20, 120, 20, 120, 30, 2, 30]])
    write_labels(tmp_path / "in/labelTxt/a.txt", wide, ["ship"], np.zeros(1, np.uint8))
    pictures = find_objects(tmp_path / "in", ObjectsConfig())
    with pytest.raises(DatasetError, match=r"no tile of .* has an object"):
        write_tiles(pictures, tmp_path / "out", SMALL)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in"]


# Back again.


def test_names_of_tiles_say_where_they_are():
    assert tile_name("P1", Window(row=824, col=0, height=64, width=64)) == "P1__1__0___824"
    assert place_of("P1__1__0___824") == ("P1", 0, 824)
    assert place_of("P2__with__1__16___0") == ("P2__with", 16, 0)
    for name in ("P1", "P1__0.5__0___824"):
        with pytest.raises(DatasetError, match="is no name of a tile"):
            place_of(name)


def test_detections_in_tiles_become_those_of_the_image():
    record = scattered(300, width=300, height=260, low=2.0, high=11.0)
    points = record.polygons.reshape(-1, 4, 2)
    record = record.of(((points >= 0) & (points <= [300, 260])).all(axis=(1, 2)))
    apart = polygon_iou(torch.from_numpy(record.polygons), torch.from_numpy(record.polygons)).fill_diagonal_(0).amax(dim=1) == 0
    record = record.of(apart.numpy())
    found = [
        Detections(
            image=tile_name("P1", tile.window),
            polygons=tile.objects.polygons,
            scores=np.full(len(tile.objects), 0.5),
            labels=tile.objects.labels,
        )
        for tile in plan_tiles(record, width=300, height=260, config=SMALL).tiles
    ]
    assert sum(map(len, found)) > 1.3 * len(record)
    grids = {"P1": Grid(width=300, height=260, crs=None)}
    (merged,) = merge_tiles(found, grids, tiles=SMALL, config=MergeConfig())
    assert merged.image == "P1" and len(merged) == len(record)
    best = polygon_iou(torch.from_numpy(record.polygons), torch.from_numpy(merged.polygons)).amax(dim=1)
    assert best.min() > 1 - 1e-6
    with pytest.raises(DatasetError, match="is a tile of P1, which is none of the 0 images"):
        merge_tiles(found, {}, tiles=SMALL, config=MergeConfig())


def test_a_real_image_is_cut_as_its_objects_lie(shared, tmp_path):
    found = find_objects(shared / "data/rgb/det/dota_samples", ObjectsConfig())
    one = replace(found, pictures=tuple(some for some in found.pictures if "P0005" in some.record.image))
    written = write_tiles(one, tmp_path / "out", TilesConfig(size_px=512, overlap_px=100))
    again = find_objects(tmp_path / "out", ObjectsConfig())
    assert written.lost == 0 and written.tiles == len(again.pictures) == 6  # 884 x 977 px: two columns, three rows
    assert written.objects > 130 == len(one.pictures[0].record)
    assert {(some.grid.width, some.grid.height) for some in again.pictures} == {(512, 512)}
    assert again.classes.names == ("harbor", "large-vehicle", "ship", "small-vehicle")  # also those that no tile has
