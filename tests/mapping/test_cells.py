"""Grid maps: exact small cases with a network whose answer is known, and laws with one of random weights."""

import csv
import tracemalloc
from dataclasses import replace
from itertools import product
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
import torch
from rasterio.crs import CRS

from terralean.errors import ConfigError, LabelError, OutputFailed, SizeError, UnreadableScene
from terralean.mapping.cells import CellPlan, CellWork
from terralean.mapping.crew import Crew
from terralean.mapping.run import MapConfig, map_scene
from terralean.mapping.stages import Stages
from terralean.models import create
from terralean.predict import Predictor, load
from terralean.raster.grid import Grid, Window
from terralean.raster.scene import open_scene
from terralean.raster.write import map_content, write_scene
from terralean.spec import Bands, Classes

RGB = Bands(names=("red", "green", "blue"))
PLACE = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_200_000.0)
MEAN, STD = np.array([100.0, 110.0, 120.0]), np.array([40.0, 50.0, 60.0])  # of the fixture's card


@pytest.fixture(scope="module")
def predictor(recogniser):
    return load(recogniser, device="cpu")


@pytest.fixture(scope="module")
def drawn(predictor):
    """A network of random weights that sees views of any size at 32 px, and finds every class as often as the others."""
    torch.manual_seed(0)
    model = create("small_cnn", bands=3, classes=3, width=8)
    torch.nn.init.normal_(model.head.weight, std=20)
    with torch.no_grad():
        model.head.bias -= model.eval()(torch.randn(64, 3, 8, 8).repeat_interleave(4, 2).repeat_interleave(4, 3)).mean(dim=0)
    return Predictor(model, replace(predictor.card, tile_px=48, overlap_px=16), device=torch.device("cpu"), precision="fp32")


def grid_of(array, *, crs="EPSG:32633", transform=PLACE):
    return Grid(width=array.shape[2], height=array.shape[1], crs=crs, transform=transform)


def write(path, array, *, nodata=0, grid=None):
    write_scene(path, array, grid=grid or grid_of(array), bands=RGB, nodata=nodata)
    return path


def blocks(colours, side=32):
    """colours (rows, cols, 3) -> an image (3, rows * side, cols * side) of squares."""
    return np.kron(np.moveaxis(np.array(colours, np.uint8), -1, 0), np.ones((1, side, side), np.uint8))


def smooth(height, width, seed=0):
    """Smooth random colours, 1..254, no two squares alike."""
    small = torch.from_numpy(np.random.default_rng(seed).uniform(1, 255, (1, 3, height // 8, width // 8)))
    return torch.nn.functional.interpolate(small, size=(height, width), mode="bilinear")[0].numpy().astype(np.uint8)


def probabilities(colour, share=1.0):
    """What the fixture's network says of a view of which this share has one colour, and the rest no data."""
    scores = np.exp(share * np.maximum(np.array(colour) - MEAN, 0) / STD)
    return scores / scores.sum()


def lines_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read(1)


COLOURS = [
    [(180, 120, 130), (100, 210, 120), (90, 80, 240)],
    [(120, 160, 120), (120, 115, 250), (250, 120, 125)],
]


def test_each_cell_has_the_class_of_its_view(predictor, tmp_path):
    result = map_scene(
        predictor,
        write(tmp_path / "scene.tif", blocks(COLOURS)),
        out=tmp_path / "maps",
        config=MapConfig(confidence=True, batch=2),
    )
    assert (result.width_px, result.height_px, result.cell_px) == (3, 2, 32)
    assert result.valid_share == 1
    assert result.area_km2 == pytest.approx(6 * 0.32**2)
    assert result.class_share == {
        "field": pytest.approx(2 / 6),
        "forest": pytest.approx(2 / 6),
        "water <&>": pytest.approx(2 / 6),
    }
    with rasterio.open(result.path) as dataset:
        assert dataset.shape == (2, 3)
        assert dataset.crs == CRS.from_epsg(32633)
        assert tuple(dataset.transform)[:6] == (320.0, 0.0, 500_000.0, 0.0, -320.0, 5_200_000.0)
        assert (dataset.dtypes, dataset.nodata) == (("uint8",), 255)
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.tags()["TERRALEAN_MODEL"] == "small_cnn"
        assert [dataset.tags(1)[f"class_{i}"] for i in range(3)] == ["field", "forest", "water <&>"]
        assert {i: dataset.colormap(1)[i][:3] for i in range(3)} == dict(enumerate(predictor.card.classes.colours))
        assert dataset.read(1).tolist() == [[0, 1, 2], [1, 2, 0]]
    with rasterio.open(result.confidence) as dataset:
        assert (dataset.crs, dataset.transform, dataset.nodata) == (
            CRS.from_epsg(32633),
            rasterio.Affine(320, 0, 5e5, 0, -320, 5.2e6),
            255,
        )
        assert dataset.descriptions == ("confidence_percent",)
        expected = [[round(100 * probabilities(colour).max()) for colour in row] for row in COLOURS]
        assert dataset.read(1).tolist() == expected
    names = ("map.tif", "map.tif.aux.xml", "map.qml", "confidence.tif")
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {f"scene_{name}" for name in names}
    table = ElementTree.parse(tmp_path / "maps" / "scene_map.tif.aux.xml")
    rows = [[cell.text for cell in row.iter("F")] for row in table.iter("Row")]
    assert [(row[1], float(row[5]), float(row[6])) for row in rows] == [
        (name, 2, pytest.approx(2 * 320**2)) for name in predictor.card.classes.names
    ]


def test_a_cell_is_the_middle_of_a_larger_view(predictor, tmp_path):
    """Views of 64 px around cells of 32: each sees its cell and half of each neighbour."""
    array = blocks(np.random.default_rng(0).integers(120, 255, (4, 5, 3)))
    path = write(tmp_path / "scene.tif", array)
    wide = Predictor(predictor.model, replace(predictor.card, seen_px=64), device=torch.device("cpu"), precision="fp32")
    result = map_scene(wide, path, out=tmp_path, config=MapConfig(tile_px=64, overlap_px=32, confidence=True))
    with rasterio.open(result.path) as dataset:
        assert dataset.shape == (3, 4)  # half a cell along the edges is in no view's middle
        assert tuple(dataset.transform)[:6] == (320.0, 0.0, 500_160.0, 0.0, -320.0, 5_199_840.0)
    for row, col in product(range(3), range(4)):
        view = array[:, 32 * row : 32 * row + 64, 32 * col : 32 * col + 64].reshape(3, -1).astype(np.float64)
        scores = np.exp((np.maximum(view - MEAN[:, None], 0) / STD[:, None]).mean(axis=1))
        assert read(result.path)[row, col] == scores.argmax()
        assert read(result.confidence)[row, col] == round(100 * scores.max() / scores.sum())


@pytest.mark.parametrize(
    ("grid", "expected"),
    [
        (
            Grid(width=90, height=70, crs="EPSG:32633", transform=(8.0, 1.5, 3e5, 2.5, -9.0, 5.2e6)),
            (8.0 * 21, 1.5 * 21, 3e5 + 9.5 * 5.5, 2.5 * 21, -9.0 * 21, 5.2e6 - 6.5 * 5.5),
        ),
        (Grid(width=90, height=70, crs=None, transform=(2.0, 0.0, 7.0, 0.0, -2.0, 9.0)), (42.0, 0.0, 18.0, 0.0, -42.0, -2.0)),
        (Grid(width=90, height=70, crs=None), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)),
    ],
)
def test_where_cells_lie(grid, expected):
    """Views of 32 px, of which 11 are shared: cells of 21 px from 5.5 px on."""
    plan = CellPlan(grid=grid, view_px=32, overlap_px=11)
    assert (plan.map_grid.width, plan.map_grid.height) == (4, 3)
    assert plan.map_grid.transform == pytest.approx(expected)
    assert plan.map_grid.crs == grid.crs


@pytest.mark.parametrize("overlap", [0, 7, 24, 31])
@pytest.mark.parametrize("size", [(33, 61), (32, 32), (200, 97)])
def test_cells_cover_the_scene_but_for_half_the_overlap(overlap, size):
    plan = CellPlan(grid=Grid(width=size[0], height=size[1], crs=None), view_px=32, overlap_px=overlap)
    for first, length in ((plan.cols, size[0]), (plan.rows, size[1])):
        ends = [start + overlap / 2 + plan.cell_px for start in first]
        assert ends[-1] >= length - overlap / 2
        assert all(end < length - overlap / 2 for end in ends[:-1])  # none is superfluous


def test_a_cell_without_data_has_no_class_and_one_in_part_without_is_judged_by_the_rest(predictor, tmp_path):
    array = blocks([[(180, 120, 130), (100, 210, 120), (90, 80, 240)]])
    array[:, :, 32:64] = 0
    array[:, :, 64:80] = 0  # the left half of the third cell
    result = map_scene(predictor, write(tmp_path / "scene.tif", array), out=tmp_path, config=MapConfig(confidence=True))
    assert read(result.path).tolist() == [[0, 255, 2]]
    assert read(result.confidence).tolist() == [
        [round(100 * probabilities((180, 120, 130)).max()), 255, round(100 * probabilities((90, 80, 240), share=0.5).max())]
    ]
    assert result.valid_share == pytest.approx(2 / 3)
    assert result.area_km2 == pytest.approx(2 * 0.32**2)


def test_data_round_a_cell_give_it_no_class(predictor, tmp_path):
    array = blocks(np.full((3, 3, 3), 200))
    array[:, 16:48, 16:48] = 0  # the first cell of four, in the middle of a view with data on all sides
    result = map_scene(predictor, write(tmp_path / "s.tif", array), out=tmp_path, config=MapConfig(tile_px=64, overlap_px=32))
    assert read(result.path).tolist() == [[255, 0], [0, 0]]


def test_what_a_view_reaches_past_the_scene_is_not_seen(predictor, tmp_path):
    array = blocks([[(180, 120, 130), (100, 210, 120)]])[:, :16, :48]  # of the second cell a quarter, of the first a half
    result = map_scene(predictor, write(tmp_path / "scene.tif", array), out=tmp_path, config=MapConfig(confidence=True))
    assert read(result.confidence).tolist() == [
        [round(100 * probabilities(c, share=s).max()) for c, s in (((180, 120, 130), 0.5), ((100, 210, 120), 0.25))]
    ]


def test_views_are_resized_to_what_the_network_sees(drawn, tmp_path):
    """Beside plain torch: normalised, resized from 48 to 32 px, recognised."""
    array = smooth(112, 144)
    result = map_scene(drawn, write(tmp_path / "scene.tif", array, nodata=None), out=tmp_path, config=MapConfig(table=True))
    rows = lines_of(result.table)
    assert len(rows) == 3 * 4
    image = torch.from_numpy(((array - MEAN[:, None, None]) / STD[:, None, None]).astype(np.float32))
    for line in rows:
        row, col = 32 * int(line["row"]), 32 * int(line["col"])
        view = torch.nn.functional.interpolate(
            image[None, :, row : row + 48, col : col + 48], (32, 32), mode="bicubic", antialias=True
        )
        with torch.inference_mode():
            expected = drawn.model(view)[0].softmax(dim=0)
        assert line["class"] == drawn.card.classes.names[int(expected.argmax())]
        assert float(line["confidence"]) == pytest.approx(float(expected.max()), abs=1e-4)


def test_the_map_of_a_crop_is_the_crop_of_the_map(drawn, tmp_path):
    array = smooth(240, 304)
    array[:, 100:140, 100:170] = 0
    grid = grid_of(array)
    window = Window(row=64, col=96, height=144, width=176)  # a multiple of the cell, 32
    part = array[:, *window.slices()]
    config = MapConfig(batch=1, confidence=True)
    whole = map_scene(drawn, write(tmp_path / "whole.tif", array), out=tmp_path, config=config)
    crop = map_scene(drawn, write(tmp_path / "crop.tif", part, grid=grid.crop(window)), out=tmp_path, config=config)
    assert (crop.height_px, crop.width_px) == (4, 5)
    for one, other in ((whole.path, crop.path), (whole.confidence, crop.confidence)):
        assert np.array_equal(read(one)[2:6, 3:8], read(other))
    with rasterio.open(whole.path) as large, rasterio.open(crop.path) as small:
        assert large.transform @ (3, 2) == pytest.approx(small.transform @ (0, 0))
    assert set(np.unique(read(crop.path))) == {0, 1, 2, 255}


@pytest.mark.parametrize("batch", [2, 3, 16])
def test_batches_do_not_matter(drawn, tmp_path, batch):
    path = write(tmp_path / "scene.tif", smooth(120, 200))
    one, other = (
        map_scene(drawn, path, out=tmp_path / str(many), config=MapConfig(batch=many, table=True)) for many in (1, batch)
    )
    assert np.array_equal(read(one.path), read(other.path))
    first, second = ([float(line["confidence"]) for line in lines_of(r.table)] for r in (one, other))
    np.testing.assert_allclose(first, second, atol=1e-4)


def test_same_bytes_again(drawn, tmp_path):
    path = write(tmp_path / "scene.tif", smooth(120, 200))
    config = MapConfig(confidence=True, table=True, polygons="fgb")
    for name in ("a", "b"):
        map_scene(drawn, path, out=tmp_path / name, config=config)
    files = {file.name: file.read_bytes() for file in (tmp_path / "a").iterdir()}
    assert len(files) == 6
    assert files == {file.name: file.read_bytes() for file in (tmp_path / "b").iterdir()}


def test_the_table_has_a_line_for_each_cell_with_data(predictor, tmp_path):
    array = blocks(COLOURS)
    array[:, :32, 32:64] = 0
    result = map_scene(predictor, write(tmp_path / "scene.tif", array), out=tmp_path, config=MapConfig(table=True))
    lines = Path(result.table).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "row,col,x,y,class,confidence"
    assert lines[1] == f"0,0,500160.0,5199840.0,field,{probabilities(COLOURS[0][0]).max():.4f}"
    assert [line.split(",")[:5] for line in lines[2:]] == [
        ["0", "2", "500800.0", "5199840.0", "water <&>"],
        ["1", "0", "500160.0", "5199520.0", "forest"],
        ["1", "1", "500480.0", "5199520.0", "water <&>"],
        ["1", "2", "500800.0", "5199520.0", "field"],
    ]


def test_without_a_place_table_and_polygons_are_in_px_of_the_scene(predictor, tmp_path):
    array = blocks([[(180, 120, 130), (100, 210, 120)]])
    path = write(tmp_path / "scene.tif", array, grid=Grid(width=64, height=32, crs=None))
    result = map_scene(predictor, path, out=tmp_path, config=MapConfig(table=True, polygons="gpkg"))
    assert result.area_km2 is None
    with rasterio.open(result.path) as dataset:
        assert dataset.crs is None
        assert dataset.transform == rasterio.Affine.identity()
    assert [(line["row"], line["col"], line["x"], line["y"]) for line in lines_of(result.table)] == [
        ("0", "0", "16.0", "16.0"),
        ("0", "1", "48.0", "16.0"),
    ]
    polygons = shapely.from_wkb(pyogrio.raw.read(result.polygons)[2])
    assert shapely.bounds(polygons).tolist() == [[0, 0, 32, 32], [32, 0, 64, 32]]


def test_polygons_join_cells_of_a_class_with_area_and_mean_confidence(predictor, tmp_path):
    red, dim, green = (180, 120, 130), (140, 112, 120), (100, 210, 120)
    path = write(tmp_path / "scene.tif", blocks([[red, red, green], [green, dim, green]]))
    result = map_scene(predictor, path, out=tmp_path, config=MapConfig(polygons="gpkg"))
    meta, _, wkb, columns = pyogrio.raw.read(result.polygons)
    assert meta["crs"] == "EPSG:32633"
    columns = dict(zip(meta["fields"].tolist(), columns, strict=True))
    order = np.lexsort((columns["pixels"], columns["class"]))
    assert columns["class"][order].tolist() == ["field", "forest", "forest"]
    assert columns["pixels"][order].tolist() == [3, 1, 2]
    np.testing.assert_allclose(columns["area_m2"][order], np.array([3, 1, 2]) * 320**2)
    mean = (2 * round(100 * probabilities(red).max()) + round(100 * probabilities(dim).max())) / 300  # whole percent are kept
    assert columns["confidence"][order][0] == pytest.approx(mean, abs=1e-4)
    np.testing.assert_allclose(shapely.area(shapely.from_wkb(wkb)), columns["area_m2"])


def test_a_side_alone_leaves_cells_their_share_of_the_view(drawn, tmp_path):
    path = write(tmp_path / "scene.tif", smooth(240, 240))
    result = map_scene(drawn, path, out=tmp_path, config=MapConfig(tile_px=96))
    assert result.cell_px == 64  # of 96, as 32 of 48
    assert map_scene(drawn, path, out=tmp_path / "b", config=MapConfig(tile_px=96, overlap_px=16)).cell_px == 80


def test_memory_does_not_grow_with_the_height(drawn, tmp_path):
    held = []
    for height in (960, 3840):
        with open_scene(write(tmp_path / f"{height}.tif", smooth(height, 640))) as scene, Stages() as stages:
            plan = CellPlan(grid=scene.grid, view_px=48, overlap_px=16)
            crew = Crew(batch=16, workers=2, threads=1)
            content = {"classes": map_content(drawn.card.classes)}
            work = CellWork(predictor=drawn, scene=scene, lattice=plan, clip=None, crew=crew, contents=content)
            work.scene.read(Window(row=0, col=0, height=48, width=48))
            tracemalloc.start()
            for _ in work.finished(stages, done=0):
                pass
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            held.append(work.bytes_held())
            assert peak < held[-1] + 2 * 2**20  # by how much depends on how far reading is ahead
    assert held[0] == held[1]


def test_a_stopped_map_keeps_its_rows_and_no_file_and_goes_on(drawn, tmp_path):
    def stop(progress):
        if progress.done > 0.4 * progress.total:
            raise KeyboardInterrupt

    path = write(tmp_path / "scene.tif", smooth(240, 240))
    config = MapConfig(confidence=True, table=True, polygons="gpkg")
    whole = map_scene(drawn, path, out=tmp_path / "whole", config=config)
    with pytest.raises(KeyboardInterrupt):
        map_scene(drawn, path, out=tmp_path / "maps", config=config, progress=stop)
    assert [file.name for file in (tmp_path / "maps").iterdir()] == ["scene_map.part"]
    again = map_scene(drawn, path, out=tmp_path / "maps", config=config)
    assert 0.4 < again.resumed_share < 1
    assert replace(again, resumed_share=0.0, seconds=0.0, **files_of(whole)) == replace(whole, seconds=0.0)
    before = {file.name: file.read_bytes() for file in (tmp_path / "maps").iterdir()}
    assert before == {file.name: file.read_bytes() for file in (tmp_path / "whole").iterdir()}
    with pytest.raises(KeyboardInterrupt):
        map_scene(drawn, path, out=tmp_path / "maps", config=replace(config, overwrite=True), progress=stop)
    after = {file.name: file.read_bytes() for file in (tmp_path / "maps").iterdir() if file.is_file()}
    assert after == before


def files_of(result):
    return {name: getattr(result, name) for name in ("path", "confidence", "polygons", "table")}


def test_any_file_that_is_there_is_kept_unless_told(drawn, tmp_path):
    path = write(tmp_path / "scene.tif", smooth(96, 96))
    (tmp_path / "scene_cells.csv").write_text("mine")
    with pytest.raises(OutputFailed, match=r"scene_cells\.csv exists; delete it, choose another folder, or say --overwrite"):
        map_scene(drawn, path, out=tmp_path, config=MapConfig(table=True))
    assert not (tmp_path / "scene_map.tif").exists()


def test_more_classes_than_a_byte_holds_are_refused(drawn, tmp_path):
    many = replace(drawn.card, classes=Classes.named([f"c{i}" for i in range(255)]))
    predictor = Predictor(drawn.model, many, device=torch.device("cpu"), precision="fp32")
    path = write(tmp_path / "scene.tif", smooth(96, 96))
    with pytest.raises(LabelError, match=r"a map by small_cnn: 1 to 254 classes, a byte a pixel, got 255"):
        map_scene(predictor, path, out=tmp_path / "maps", config=MapConfig())
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        (MapConfig(tile_px=32, overlap_px=32), ConfigError, r"overlap must be 0 to less than the tile \(32 px\)"),
        (MapConfig(tile_px=32, overlap_px=-1), ConfigError, "got -1"),
        (MapConfig(tile_px=0), ConfigError, "tile must be at least 1 px, got 0"),
        (
            MapConfig(tile_px=400, overlap_px=200),
            SizeError,
            r"100 x 96 px \(width, height\) and the first cell begins at 100 px",
        ),
    ],
)
def test_views_that_make_no_map_are_refused(drawn, tmp_path, config, error, words):
    path = write(tmp_path / "scene.tif", smooth(96, 100)[:, :, :100])
    with pytest.raises(error, match=words):
        map_scene(drawn, path, out=tmp_path / "maps", config=config)
    assert not (tmp_path / "maps").exists()


def test_a_scene_without_a_valid_pixel_leaves_nothing(drawn, tmp_path):
    path = write(tmp_path / "empty.tif", np.zeros((3, 96, 96), np.uint8))
    with pytest.raises(UnreadableScene, match=r"empty\.tif holds no valid pixel"):
        map_scene(drawn, path, out=tmp_path / "maps", config=MapConfig(confidence=True, polygons="gpkg", table=True))
    assert not (tmp_path / "maps").exists()
