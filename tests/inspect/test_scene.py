"""A scene's report states facts, and each fault is found with its fix."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from rasterio.transform import Affine

from terralean.errors import UnreadableScene
from terralean.inspect.scene import describe_scene, percent

RNG = np.random.default_rng(0)
GOOD = RNG.integers(1, 200, (3, 30, 40), dtype=np.uint16)


def said(report) -> list[tuple[str, str]]:
    return [(finding.severity, finding.message) for finding in report.findings]


def test_the_facts_of_a_good_scene(write_image):
    report = describe_scene(write_image("a.tif", GOOD, nodata=0, tiled=True, blockxsize=16, blockysize=16, compress="deflate"))
    assert (report.width, report.height, len(report.bands), report.bands.dtype) == (40, 30, 3, "uint16")
    assert (report.crs, report.crs_name) == ("EPSG:32633", "WGS 84 / UTM zone 33N")
    assert report.pixel_m == (10, 10)
    assert report.area_km2 == pytest.approx(0.12)
    assert (report.nodata, report.nodata_share) == ("0", 0)
    assert (report.block_px, report.overviews, report.compression) == ((16, 16), (), "DEFLATE")
    assert [band.minimum for band in report.values] == GOOD.min(axis=(1, 2)).tolist()
    assert [band.mean for band in report.values] == pytest.approx(GOOD.mean(axis=(1, 2)))
    assert report.findings == ()
    assert json.loads(json.dumps(asdict(report), allow_nan=False))["kind"] == "scene"


def test_nodata_is_measured_and_leaves_the_values(write_image):
    values = GOOD.copy()
    values[:, :15] = 0
    report = describe_scene(write_image("a.tif", values, nodata=0))
    assert report.nodata_share == 0.5
    assert report.values[0].minimum > 0
    assert report.findings == ()


def test_a_scene_without_a_place(write_image):
    report = describe_scene(write_image("a.tif", GOOD, crs=None))
    assert said(report) == [("warning", "it has no CRS: a map of it will lie nowhere on the ground")]
    assert "gdal_edit.py -a_srs EPSG:CODE" in report.findings[0].fix
    report = describe_scene(write_image("b.tif", GOOD, transform=Affine.identity()))
    assert said(report) == [("warning", "it has a CRS but no transform: pixels have no place in it")]


def test_odd_orientations_and_shapes_are_noted(write_image):
    south_up = write_image("a.tif", GOOD, transform=Affine(10, 0, 5e5, 0, 10, 5e6))
    assert said(describe_scene(south_up)) == [("note", "the first row is the southernmost; maps of it will be alike")]
    turned = write_image("b.tif", GOOD, transform=Affine(8, 6, 5e5, 6, -8, 5e6))
    assert said(describe_scene(turned)) == [("note", "rows do not run east: it is rotated, which GIS may draw slowly")]
    oblong = write_image("c.tif", GOOD, transform=Affine(10, 0, 5e5, 0, -20, 5e6))
    assert said(describe_scene(oblong)) == [("note", "pixels are not square on the ground: 10 m x 20 m")]


def test_nothing_but_nodata_is_an_error(write_image):
    report = describe_scene(write_image("a.tif", np.zeros_like(GOOD), nodata=0))
    assert said(report) == [("error", "every pixel in view is nodata: there is nothing to map")]
    nothing = np.full((2, 8, 8), np.nan, np.float32)
    assert said(describe_scene(write_image("b.tif", nothing))) == [
        ("error", "every pixel in view is not finite: there is nothing to map")
    ]


def test_zeros_and_white_that_nobody_declared(write_image):
    values = GOOD.copy()
    values[:, :3] = 0
    values[:, 3:9] = 65535
    report = describe_scene(write_image("a.tif", values))
    assert said(report) == [
        ("warning", "10.0% of the pixels in view are 0 in every band, but 0 is not declared as nodata"),
        ("warning", "20.0% of the pixels in view are 65535 in every band, but 65535 is not declared as nodata"),
    ]
    assert "gdal_edit.py -a_nodata 65535" in report.findings[1].fix


def test_a_constant_band_is_named(write_image):
    values = GOOD.copy()
    values[1] = 7
    report = describe_scene(write_image("a.tif", values, descriptions=None) if False else write_image("a.tif", values))
    assert said(report) == [("warning", "constant in all valid pixels in view: band_2")]


def test_nan_is_noted(write_image):
    values = GOOD.astype(np.float32)
    values[0, :3] = np.nan
    report = describe_scene(write_image("a.tif", values))
    assert said(report) == [("note", "10.0% of the pixels in view are NaN or infinite in some band, and treated as nodata")]
    assert report.nodata_share == pytest.approx(0.1)
    json.dumps(asdict(report), allow_nan=False)


def test_strips_and_missing_overviews_of_a_large_scene(write_image):
    values = RNG.integers(1, 200, (1, 16, 4000), dtype=np.uint8)
    report = describe_scene(write_image("a.tif", values, blockysize=1))
    assert said(report) == [
        ("warning", "stored in strips of 1 row, not in tiles: windows are read slowly"),
        ("note", "it has no overviews: looking at all of it reads all of it"),
    ]
    assert "gdal_translate -of COG" in report.findings[0].fix


def test_chosen_bands_only(write_image):
    values = GOOD.copy()
    values[1] = 7
    report = describe_scene(write_image("a.tif", values), bands=[3, 1])
    assert len(report.bands) == 2
    assert report.findings == ()


def test_a_small_share_is_not_nothing():
    assert [percent(share) for share in (0, 1e-6, 0.002, 1)] == ["0.0%", "under 0.1%", "0.2%", "100.0%"]


def test_a_broken_file_is_an_error_with_its_place(shared):
    report = describe_scene(str(shared / "data/rgb/raster/rasterio/corrupt.tif"))
    assert report.findings[0].severity == "error"
    assert "corrupt.tif breaks off at rows 0 to 1023" in report.findings[0].message
    assert report.nodata_share is None


def test_ground_control_points_are_no_place(shared):
    report = describe_scene(str(shared / "data/rgb/raster/rio_tiler/cog_gcps.tif"))
    assert report.findings[0].message.startswith("only ground control points or a sensor model place it")
    assert report.findings[0].fix.startswith("gdalwarp")


def test_every_real_scene_can_be_described(shared):
    """Odd files of many projects: all are described, or refused as no image, and every report is plain JSON."""

    refused = []
    for path in sorted((shared / "data/rgb/raster").rglob("*.tif")):
        try:
            json.dumps(asdict(describe_scene(str(path))), allow_nan=False)
        except UnreadableScene as error:
            refused.append((path.name, str(error)))
    assert all("complex" in text for _, text in refused)
