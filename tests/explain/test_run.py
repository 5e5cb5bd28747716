import csv
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from rasterio.crs import CRS

from terralean.errors import BandMismatch, ConfigError, MissingFile, OutputFailed, UnreadableScene
from terralean.explain.attention import LookConfig, Watcher
from terralean.explain.run import ExplainConfig, explain_scene
from terralean.explain.strips import make_lattice, strips
from terralean.raster.grid import Grid
from terralean.raster.scene import open_scene
from terralean.raster.write import write_scene
from terralean.spec import Bands


def explain(predictor, scene, out, **config):
    return explain_scene(predictor, scene, out=out, config=ExplainConfig(**config))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(("stage", "block", "px", "size"), [(1, 0, 4, (38, 33)), (2, 0, 8, (19, 17))])
def test_raster_lies_on_the_scene_and_holds_the_chosen_tokens(predictor, scene, tmp_path, stage, block, px, size):
    result = explain(predictor, scene, tmp_path / "out", stage=stage, block=block, tokens=(3, 0))
    stem = f"scene_meta_s{stage}b{block}"
    assert names(tmp_path / "out") == {f"{stem}.{kind}" for kind in ("tif", "png", "csv", "json")}
    with rasterio.open(result.raster) as dataset:
        assert (dataset.width, dataset.height, dataset.count) == (*size, 2)
        assert dataset.crs == CRS.from_epsg(32633)
        assert tuple(dataset.transform)[:6] == (0.5 * px, 0.0, 300_000.25, 0.0, -0.5 * px, 5_200_000.75)
        assert dataset.dtypes == ("float32", "float32")
        assert dataset.descriptions == ("token 3", "token 0")
        assert np.isnan(dataset.nodata)
        assert dataset.profile["tiled"]
        assert dataset.profile["compress"] == "zstd"
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        tags = dataset.tags()
        found = dataset.read()
    assert (tags["TERRALEAN_STAGE"], tags["TERRALEAN_BLOCK"]) == (f"S{stage}", str(block))
    assert tags["TERRALEAN_BANDS"] == "tokens, each the mean of all heads"
    assert (tags["TERRALEAN_WINDOW_PX"], tags["TERRALEAN_OVERLAP_PX"]) == ("64", "16")
    assert tags["TERRALEAN_ATTENTION"] == "meta tokens reading the image"
    assert tags["TERRALEAN_VALUES"].startswith("share of attention times the number of places of its window: 1 is the average")
    watcher = Watcher(predictor, LookConfig(stage=stage, block=block, tokens=(3, 0)))
    with open_scene(scene) as opened:
        lattice = make_lattice(watcher, opened.grid, tile_px=64, overlap_px=16)
        expected = np.concatenate([strip.attention for strip in strips(watcher, opened, lattice)], axis=1)
    np.testing.assert_array_equal(found, expected)
    rows, cols = -(-20 // px) - (20 % px > 0), 30 // px
    assert np.isnan(found[:, :rows, :cols]).all()
    assert np.isfinite(found[:, rows + 1 :]).all()


def test_overviews_are_means(predictor, tmp_path):
    grid = Grid(width=4200, height=40, crs="EPSG:32633", transform=(1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    array = np.random.default_rng(0).integers(1, 255, (3, 40, 4200)).astype(np.uint8)
    write_scene(tmp_path / "wide.tif", array, grid=grid, bands=Bands(names=("red", "green", "blue")))
    result = explain(predictor, tmp_path / "wide.tif", tmp_path, stage=0, tokens=(1,), tile_px=128)
    with rasterio.open(result.raster) as dataset:
        assert dataset.overviews(1) == [2, 4]
        full = dataset.read(1)
        half = dataset.read(1, out_shape=(5, 525))
    np.testing.assert_allclose(half, full.reshape(5, 2, 525, 2).mean(axis=(1, 3)), rtol=1e-5)


def test_numbers_of_all_blocks_are_in_both_files(predictor, scene, tmp_path):
    result = explain(predictor, scene, tmp_path, stage=1, block=0)
    document = json.loads(Path(result.json).read_text())
    assert document == json.loads(json.dumps(result.document))
    assert [(block["stage"], block["block"]) for block in document["blocks"]] == [(0, 0), (1, 0), (1, 1), (2, 0)]
    assert [block["grid"] for block in document["blocks"]] == [16, 16, 16, 8]
    told = {"direction": "meta", "stage": 1, "block": 0, "by": "token", "head": None, "tokens": [*range(16)]}
    told |= {"window_px": 64, "overlap_px": 16, "place_px": 4.0}
    assert {key: document[key] for key in told} == told
    with Path(result.csv).open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 4 * 16
    for row, block in zip(rows[16:32], document["blocks"][1]["maps"], strict=True):
        assert (row["stage"], row["block"], row["by"], row["read"]) == ("1", "0", "token", "")
        assert float(row["entropy_share"]) == block["entropy_share"] <= 1
        assert float(row["half"]) == block["half"] <= 0.5
        assert float(row["ninety"]) == block["ninety"] >= block["half"]
        assert int(row["closest"]) == block["closest"]
    assert 0 < document["blocks"][1]["without_data"] < 1
    assert result.shown.stage == 1 and result.shown.block == 0
    assert any("(shown)" in line and line.startswith("S1 block 0") for line in result.verdict)
    assert "places without data" in result.verdict[-2]
    assert result.verdict[-1] == "9 windows of 64 px, each compared with its own average; --tile 152 would see the scene as one"
    one = explain(predictor, scene, tmp_path / "one", tile_px=152).verdict
    assert not any("windows" in line for line in one)


def test_even_attention_has_full_entropy_and_is_told_so(even, tmp_path):
    grid = Grid(width=64, height=64, crs="EPSG:32633", transform=(1.0, 0.0, 0.0, 0.0, -1.0, 0.0))
    array = np.random.default_rng(0).integers(1, 255, (3, 64, 64)).astype(np.uint8)
    write_scene(tmp_path / "one.tif", array, grid=grid, bands=Bands(names=("red", "green", "blue")))
    result = explain(even, tmp_path / "one.tif", tmp_path, stage=2)
    for one in result.shown.maps:
        assert (one.entropy_bits, one.entropy_share, one.half) == pytest.approx((6, 1, 0.5), abs=1e-5)
    assert result.shown.without_data == 0
    assert (
        "S2 block 0 (shown): 16 tokens have 1.0 different maps, 4 heads 1.0; entropy 100% of even, half in 50%"
        in result.verdict
    )


def test_the_other_direction_has_its_own_files(predictor, scene, tmp_path):
    explain(predictor, scene, tmp_path / "out")
    result = explain(predictor, scene, tmp_path / "out", direction="image", head=1)
    assert Path(result.raster).name == "scene_image_s2b1_head1.tif"
    assert len(names(tmp_path / "out")) == 8
    with rasterio.open(result.raster) as dataset:
        total = dataset.read().sum(axis=0)
        assert dataset.tags()["TERRALEAN_BANDS"] == "tokens, of head 1"
    np.testing.assert_allclose(total[np.isfinite(total)], 16, rtol=1e-5)
    assert sum(one.read for one in result.shown.maps) == pytest.approx(1, abs=1e-4)


def test_by_head_there_is_a_band_for_each(predictor, scene, tmp_path):
    result = explain(predictor, scene, tmp_path / "out", by="head", tokens=(1, 2, 3))
    assert Path(result.raster).name == "scene_meta_s2b0_heads.tif"
    with rasterio.open(result.raster) as dataset:
        assert dataset.descriptions == ("head 0", "head 1", "head 2", "head 3")
        assert dataset.tags()["TERRALEAN_BANDS"] == "heads, each the mean of the tokens 1-3"
    assert [one.number for one in result.shown.maps] == [0, 1, 2, 3]
    assert (result.shown.by, result.shown.averaged) == ("head", 3)
    by_token = explain(predictor, scene, tmp_path / "out", tokens=(1, 2, 3)).shown
    assert result.shown.distinct_averaged > 1
    assert by_token.averaged == 4
    assert result.verdict[3].startswith("S2 block 0 (shown): 4 heads have ")


def test_an_image_without_a_place_works_too(predictor, tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (70, 90, 3)).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "photo.jpg")
    result = explain(predictor, tmp_path / "photo.jpg", tmp_path / "out")
    with rasterio.open(result.raster) as dataset:
        assert dataset.crs is None
        assert (dataset.width, dataset.height) == (12, 9)
        assert tuple(dataset.transform)[:6] == (8, 0, 0, 0, 8, 0)
        assert np.isfinite(dataset.read()).all()
    assert Image.open(result.figure).format == "PNG"


def test_a_classifier_is_explained_too(classifier, tmp_path):
    grid = Grid(width=100, height=80, crs="EPSG:32633", transform=(2.0, 0.0, 0.0, 0.0, -2.0, 0.0))
    array = np.random.default_rng(0).integers(1, 255, (3, 80, 100)).astype(np.uint8)
    write_scene(tmp_path / "scene.tif", array, grid=grid, bands=Bands(names=("red", "green", "blue")))
    result = explain(classifier, tmp_path / "scene.tif", tmp_path)
    assert Path(result.raster).name == "scene_meta_s2b1.tif"
    with rasterio.open(result.raster) as dataset:
        assert dataset.transform[0] == 10.0  # 40 px of 2 m in 8 tokens
        assert (dataset.width, dataset.height) == (20, 16)


def test_tile_is_obeyed(predictor, scene, tmp_path):
    one, other = (explain(predictor, scene, tmp_path / str(tile), tile_px=tile) for tile in (64, 96))
    with rasterio.open(one.raster) as first, rasterio.open(other.raster) as second:
        assert not np.allclose(first.read(), second.read(), rtol=1e-3, equal_nan=True)
        assert second.tags()["TERRALEAN_WINDOW_PX"] == "96"


def test_bands_are_chosen_by_position(predictor, scene, tmp_path):
    with rasterio.open(scene) as dataset:
        stored, grid = dataset.read(), Grid(width=150, height=130, crs=None)
    write_scene(tmp_path / "bgr.tif", stored[::-1].copy(), grid=grid, bands=Bands(names=("blue", "green", "red")), nodata=0)
    with pytest.raises(BandMismatch, match="--bands 3,2,1"):
        explain(predictor, tmp_path / "bgr.tif", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    one = explain(predictor, tmp_path / "bgr.tif", tmp_path / "out", bands=(3, 2, 1))
    other = explain(predictor, scene, tmp_path / "out")
    with rasterio.open(one.raster) as first, rasterio.open(other.raster) as second:
        np.testing.assert_array_equal(first.read(), second.read())


def test_part_changes_the_figure_alone(predictor, scene, tmp_path):
    all_of_it = explain(predictor, scene, tmp_path / "a")
    corner = explain(predictor, scene, tmp_path / "b", part=(30, 40, 50, 60))
    assert Path(all_of_it.raster).read_bytes() == Path(corner.raster).read_bytes()
    assert Path(all_of_it.csv).read_bytes() == Path(corner.csv).read_bytes()
    assert Path(all_of_it.figure).read_bytes() != Path(corner.figure).read_bytes()


@pytest.mark.parametrize(
    ("part", "message"),
    [
        (
            (0, 0, 131, 10),
            r"part 0,0,131,10 \(row, column, height, width\) reaches past .*scene.tif, .* 130 rows and 150 columns",
        ),
        ((0, 149, 10, 2), "reaches past"),
        ((-1, 0, 10, 10), "row,column,height,width in px, e.g. 0,0,512,512; got -1,0,10,10"),
        ((0, 0, 0, 10), "got 0,0,0,10"),
        ((0, 0, 10), "got 0,0,10"),
    ],
)
def test_parts_that_are_not_in_the_scene_are_refused(predictor, scene, tmp_path, part, message):
    with pytest.raises(ConfigError, match=message):
        explain(predictor, scene, tmp_path / "out", part=part)
    assert not (tmp_path / "out").exists()


def test_a_scene_without_data_leaves_nothing(predictor, tmp_path):
    grid = Grid(width=70, height=70, crs=None)
    bands = Bands(names=("red", "green", "blue"))
    write_scene(tmp_path / "empty.tif", np.zeros((3, 70, 70), np.uint8), grid=grid, bands=bands, nodata=0)
    with pytest.raises(UnreadableScene, match=r"empty\.tif holds no valid pixel"):
        explain(predictor, tmp_path / "empty.tif", tmp_path / "out" / "deep")
    assert not (tmp_path / "out").exists()


def test_a_scene_that_is_not_there(predictor, tmp_path):
    with pytest.raises(MissingFile, match=r"nothing\.tif"):
        explain(predictor, tmp_path / "nothing.tif", tmp_path / "out")


def test_files_that_are_there_are_kept_unless_told(predictor, scene, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "scene_meta_s2b0.csv").write_text("mine")
    with pytest.raises(OutputFailed, match=r"scene_meta_s2b0.csv exists; delete it, choose another folder, or say --overwrite"):
        explain(predictor, scene, out)
    assert names(out) == {"scene_meta_s2b0.csv"}
    assert (out / "scene_meta_s2b0.csv").read_text() == "mine"
    explain(predictor, scene, out, overwrite=True)
    assert len(names(out)) == 4


def test_what_a_killed_run_left_does_not_matter_and_the_bytes_are_the_same(predictor, scene, tmp_path):
    first = explain(predictor, scene, tmp_path / "a")
    left = tmp_path / "b" / "scene_meta_s2b0.tif.part"
    left.mkdir(parents=True)
    (left / "scene_meta_s2b0.tif").write_text("half a raster")
    (left / "rubbish.txt").write_text("rubbish")
    again = explain(predictor, scene, tmp_path / "b")
    assert names(tmp_path / "b") == names(tmp_path / "a")
    for kind in ("raster", "figure", "csv", "json"):
        assert Path(getattr(first, kind)).read_bytes() == Path(getattr(again, kind)).read_bytes()


def test_a_run_that_is_stopped_leaves_nothing(predictor, scene, tmp_path):
    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain_scene(predictor, scene, out=tmp_path / "out", config=ExplainConfig(), progress=stop)
    assert not (tmp_path / "out").exists()


def test_a_file_in_place_of_the_folder(predictor, scene, tmp_path):
    (tmp_path / "out").write_text("a file")
    with pytest.raises(OutputFailed, match="could not be written"):
        explain(predictor, scene, tmp_path / "out")
    assert (tmp_path / "out").read_text() == "a file"


def test_progress_ends_with_all_rows(predictor, scene, tmp_path):
    told = []
    explain_scene(
        predictor, scene, out=tmp_path, config=ExplainConfig(stage=1), progress=lambda done, total: told.append((done, total))
    )
    assert told == [(12, 33), (24, 33), (33, 33)]
