import csv
import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from PIL import Image
from rasterio.crs import CRS

from terralean.errors import BandMismatch, ConfigError, OutputFailed, UnreadableScene
from terralean.explain.token_run import TokensConfig, explain_tokens
from terralean.explain.tokens import Tracer
from terralean.raster.grid import Grid, Window
from terralean.raster.scene import open_scene
from terralean.raster.write import write_scene
from terralean.spec import Bands
from terralean.tokens.chance import RandomConfig
from terralean.tokens.elvit import ELViTConfig
from terralean.tokens.tome import ToMeConfig
from terralean.tokens.topk import TopKConfig

TOPK = TopKConfig(after=(2, 4), counts=(9, 4))
TOME = ToMeConfig(r=(0, 4, 0, 3, 0, 0))
RGB = Bands(names=("red", "green", "blue"))


def explain(predictor, scene, out, **config):
    return explain_tokens(predictor, scene, out=out, config=TokensConfig(**config))


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_raster_lies_on_the_scene_and_counts_the_layers_that_each_token_went_on_at(reduced, scene, tmp_path):
    predictor = reduced(TOPK)
    result = explain(predictor, scene, tmp_path / "out")
    assert names(tmp_path / "out") == {f"scene_tokens_topk.{kind}" for kind in ("tif", "png", "csv", "json")}
    with rasterio.open(result.raster) as dataset:
        assert (dataset.width, dataset.height, dataset.count) == (10, 9, 1)
        assert dataset.crs == CRS.from_epsg(32633)
        assert tuple(dataset.transform)[:6] == (8.0, 0.0, 300_000.25, 0.0, -8.0, 5_200_000.75)
        assert (dataset.dtypes, dataset.nodata) == (("uint8",), 255)
        assert dataset.descriptions == ("layers at which the token went on",)
        assert dataset.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert dataset.colormap(1)[2] == (252, 253, 191, 255)
        assert dataset.tags(1)["value_0"] == "taken out after layer 2"
        assert dataset.tags(1)["value_2"] == "went on at all of the layers 2, 4"
        tags, found = dataset.tags(), dataset.read(1)
    assert json.loads(tags["TERRALEAN_REDUCE"])["counts"] == [9, 4]
    assert (tags["TERRALEAN_WINDOW_PX"], tags["TERRALEAN_OVERLAP_PX"], tags["TERRALEAN_LAYERS"]) == ("64", "16", "2,4")
    with open_scene(scene) as opened:
        values, mask = opened.read(Window(row=48, col=48, height=64, width=64))
    points = Tracer(predictor)(torch.from_numpy(values.astype(np.float32)), torch.from_numpy(mask)).points
    middle = points[0].codes + points[1].codes  # of the window in the middle; its first and last token are nearer to others
    np.testing.assert_array_equal(found[4:6, 4:6], middle[1:3, 1:3])
    assert np.argwhere(found == 255).tolist() == [[0, 0]]  # a corner of 20 x 30 px holds no data: one whole token


def test_groups_of_merged_tokens_have_a_band_for_each_layer(reduced, scene, tmp_path):
    result = explain(reduced(TOME), scene, tmp_path)
    with rasterio.open(result.raster) as dataset:
        assert dataset.descriptions == ("tokens in the group after layer 2", "tokens in the group after layer 4")
        assert (dataset.dtypes, dataset.nodata) == (("uint16", "uint16"), 0)
        first, last = dataset.read()
    assert first[0, 0] == 0 and (first > 0).sum() == 89
    assert (last >= first).all() and last.max() > first.max() >= 2
    assert result.document["merges"] is True
    assert result.verdict[0].startswith("layer 2 leaves ") and result.verdict[0].count("layer 4 ") == 1


def test_numbers_of_windows_and_of_the_scene_agree(reduced, scene, tmp_path):
    result = explain(reduced(TOPK), scene, tmp_path)
    document = json.loads(Path(result.json).read_text())
    assert document == json.loads(json.dumps(result.document))
    assert {key: document[key] for key in ("model", "merges", "window_px", "overlap_px", "token_px", "windows")} == {
        "model": "segvit",
        "merges": False,
        "window_px": 64,
        "overlap_px": 16,
        "token_px": 16.0,
        "windows": 9,
    }
    with Path(result.csv).open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 * 2
    for layer, left in ((2, 9), (4, 4)):
        own = [row for row in rows if int(row["layer"]) == layer]
        assert {int(row["left"]) for row in own} == {left}
        assert {(int(row["row"]), int(row["col"])) for row in own} == {(r, c) for r in (0, 48, 96) for c in (0, 48, 96)}
        share = sum(int(row["left_with_data"]) for row in own) / sum(int(row["tokens_with_data"]) for row in own)
        (told,) = [one for one in document["layers"] if one["layer"] == layer]
        assert told["share"] == pytest.approx(share, abs=1e-5)
        assert told == asdict(result.layers[(layer - 2) // 2])
        assert {told["p5"], told["p95"]} <= {float(row["share"]) for row in own}
    assert [line for line in result.verdict if line.startswith("9 windows of 64 px, each with decisions of its own")]
    assert [line for line in result.verdict if line.startswith("in 4 of 9 windows some places hold no data")]


def test_one_window_has_its_counts_in_words(reduced, tmp_path):
    array = np.random.default_rng(0).integers(1, 255, (3, 64, 64)).astype(np.uint8)
    write_scene(tmp_path / "one.tif", array, grid=Grid(width=64, height=64, crs=None), bands=RGB)
    result = explain(reduced(TOPK), tmp_path / "one.tif", tmp_path)
    assert result.verdict == ("layer 2 keeps 56% of the tokens, layer 4 25%",)
    with rasterio.open(result.raster) as dataset:
        assert np.bincount(dataset.read(1).ravel()).tolist() == [7, 5, 4]
        assert dataset.crs is None


def test_a_scene_of_any_size_and_another_overlap_are_told(reduced, tmp_path):
    array = np.random.default_rng(0).integers(0, 255, (70, 90, 3)).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "photo.jpg")
    result = explain(reduced(TOPK, overlap_px=20), tmp_path / "photo.jpg", tmp_path / "out")
    with rasterio.open(result.raster) as dataset:
        assert (dataset.width, dataset.height) == (6, 5)
        assert tuple(dataset.transform)[:6] == (16, 0, 0, 0, 16, 0)
    assert result.verdict[-1].startswith("windows overlap by 16 px here, in a map by 20 px")
    assert Image.open(result.figure).format == "PNG"


def test_the_method_and_the_tile_are_obeyed(reduced, scene, tmp_path):
    few = explain(reduced(TopKConfig(after=(2, 4), counts=(3, 2))), scene, tmp_path / "few").layers
    assert [one.left for one in few] == [3, 2]
    large = explain(reduced(TOPK), scene, tmp_path / "large", tile_px=160)
    assert large.document["windows"] == 1
    assert [one.grid for one in large.layers] == [10, 10]
    clusters = explain(reduced(ELViTConfig(after=(2,), side=0.5)), scene, tmp_path / "clusters").layers
    assert [(one.layer, one.left) for one in clusters] == [(2, 4)]


def test_a_layer_may_be_left_by_no_token(reduced, scene, tmp_path):
    result = explain(reduced(RandomConfig(after=(2, 3), shares=(0.0, 1.0))), scene, tmp_path)
    assert [one.left for one in result.layers] == [0, 0]
    with rasterio.open(result.raster) as dataset:
        assert np.unique(dataset.read()).tolist() == [0, 255]


def test_part_changes_the_figure_alone(reduced, scene, tmp_path):
    all_of_it, corner = (explain(reduced(TOME), scene, tmp_path / str(part), part=part) for part in (None, (30, 40, 50, 60)))
    for kind in ("raster", "csv", "json"):
        assert Path(getattr(all_of_it, kind)).read_bytes() == Path(getattr(corner, kind)).read_bytes()
    assert Path(all_of_it.figure).read_bytes() != Path(corner.figure).read_bytes()


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({"part": (0, 0, 131, 10)}, ConfigError, r"part 0,0,131,10 .* reaches past"),
        ({"part": (0, 0, 0, 10)}, ConfigError, "got 0,0,0,10"),
        ({"tile_px": 72}, ConfigError, r"a window of 72 px, .* give --tile a multiple of 16"),
        ({"bands": (1, 2)}, BandMismatch, "2 bands"),
    ],
)
def test_what_cannot_be_obeyed_leaves_nothing(reduced, scene, tmp_path, config, error, message):
    with pytest.raises(error, match=message):
        explain(reduced(TOPK), scene, tmp_path / "out", **config)
    assert not (tmp_path / "out").exists()


def test_a_scene_without_data_leaves_nothing(reduced, tmp_path):
    empty = np.zeros((3, 70, 70), np.uint8)
    write_scene(tmp_path / "empty.tif", empty, grid=Grid(width=70, height=70, crs=None), bands=RGB, nodata=0)
    with pytest.raises(UnreadableScene, match=r"empty\.tif holds no valid pixel"):
        explain(reduced(TOPK), tmp_path / "empty.tif", tmp_path / "out" / "deep")
    assert not (tmp_path / "out").exists()


def test_files_that_are_there_are_kept_unless_told_and_the_bytes_are_the_same(reduced, scene, tmp_path):
    first = explain(reduced(TOME), scene, tmp_path)
    before = {kind: Path(getattr(first, kind)).read_bytes() for kind in ("raster", "figure", "csv", "json")}
    with pytest.raises(OutputFailed, match=r"scene_tokens_tome.* exists; .* say --overwrite"):
        explain(reduced(TOME), scene, tmp_path)
    explain(reduced(TOME), scene, tmp_path, overwrite=True)
    assert before == {kind: Path(getattr(first, kind)).read_bytes() for kind in before}


def test_a_run_that_is_stopped_leaves_nothing(reduced, scene, tmp_path):
    def stop(done: int, total: int) -> None:
        if done > total / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain_tokens(reduced(TOPK), scene, out=tmp_path / "out", config=TokensConfig(), progress=stop)
    assert not (tmp_path / "out").exists()


def test_progress_ends_with_all_rows(reduced, scene, tmp_path):
    told = []
    explain_tokens(reduced(TOPK), scene, out=tmp_path, config=TokensConfig(), progress=lambda *at: told.append(at))
    assert told == [(4, 9), (7, 9), (9, 9)]
