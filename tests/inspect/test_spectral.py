"""What inspect says of cubes: bands, wavelengths, place, which public scene it is, and what is wrong."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import scipy.io

from terralean.data.spectral.config import SpectralDataConfig, SpectralSplitConfig
from terralean.data.spectral.scenes import find_cubes
from terralean.data.spectral.split import all_pixels, deal_pixels
from terralean.inspect.describe import describe, reads_as
from terralean.inspect.library import LibraryReport
from terralean.inspect.words import tell
from terralean.raster.envi_write import CubeFormat, write_cube
from terralean.raster.grid import Grid
from terralean.raster.scene import open_scene
from terralean.spec import Bands

GRID = Grid(width=6, height=5, crs="EPSG:32633", transform=(10.0, 0.0, 5e5, 0.0, -10.0, 5e6))
NM = (450.0, 460.0, 470.0, 480.0, 1000.0, 1010.0)
VALUES = np.random.default_rng(0).integers(1, 500, (6, 5, 6)).astype("int16")


def cube(folder, values=VALUES, **how):
    nm = how.pop("nm", NM)
    bands = Bands(names=tuple(f"band_{i}" for i in range(1, len(values) + 1)), wavelength_nm=nm, dtype="int16")
    return write_cube(folder / "a.hdr", values, grid=GRID, bands=bands, how=CubeFormat(**how), overwrite=True)


def said(report):
    return [(finding.severity, finding.message) for finding in report.findings]


def test_the_facts_of_a_cube(tmp_path):
    good, fwhm = (True, False, True, True, True, True), (9.0, 9.5, 9.6, 9.7, 9.8, 12.0)
    report = describe(str(cube(tmp_path, good=good, fwhm_nm=fwhm, nodata=-1)))
    facts = report.spectral
    assert (report.driver, report.crs, report.nodata, len(report.bands)) == ("ENVI BIL", "EPSG:32633", "-1", 5)
    assert (facts.bands_in_file, facts.bad, facts.range_nm, facts.spacing_nm) == (6, (2,), (450, 1010), 15)
    assert (facts.gaps_nm, facts.fwhm_nm, facts.scene) == (((480, 1000),), (9, 12), None)
    assert report.findings == ()
    text = tell(report)
    assert "spectrum    450 to 1010 nm, 15 nm apart, 9 to 12 nm wide" in text
    assert "bad bands   2 of 6, left out unless chosen" in text
    assert "UTM zone 33N" in text and "ENVI BIL" in text
    json.dumps(asdict(report), allow_nan=False)


def test_what_the_header_lacks_is_a_warning(tmp_path):
    path = cube(tmp_path)
    path.write_text(path.read_text().replace("byte order = 0\n", ""))
    assert ("warning", "the header lacks byte order; read as 0") in said(describe(str(path)))


def test_what_is_found_is_not_logged_beside_it(tmp_path, caplog):
    path = cube(tmp_path)
    path.write_text(path.read_text().replace("byte order = 0\n", ""))
    describe(str(path))
    assert caplog.messages == []
    open_scene(path)
    assert caplog.messages == [f"{path}: the header lacks byte order; read as 0"]  # who opens it is told


def test_a_folder_with_a_cube_and_its_labels(tmp_path, labelled_cube, caplog):
    caplog.set_level("INFO", "terralean")
    _, known = labelled_cube(tmp_path)
    settings = SpectralDataConfig(split=SpectralSplitConfig(block_px=8, window_px=5))
    assert reads_as(str(tmp_path)) is SpectralDataConfig
    report = describe(str(tmp_path), config=settings)
    assert caplog.messages == []
    assert [(one.image, one.labels) for one in report.cubes] == [("scene.hdr", "scene_gt.hdr")]
    names = ("field", "water", "wood")
    assert [(share.name, share.pixels) for share in report.classes] == [(names[i], (known == i).sum()) for i in range(3)]
    dataset = find_cubes(tmp_path, settings)
    split = deal_pixels(dataset, settings, all_pixels(dataset), seed=0)
    assert report.splits == {name: len(split.of(name)) for name in ("train", "validation", "test")}
    assert report.unlabelled_share == pytest.approx((known == 255).mean())
    text = tell(report)
    assert f"{tmp_path}: 1 cube with labels" in text
    assert "cube        scene.hdr, " in text and "spectrum    400 to 950 nm, 50 nm apart" in text
    assert not [words for severity, words in said(report) if severity == "error"]
    json.dumps(asdict(report), allow_nan=False)


def test_what_is_wrong_with_cubes_and_labels(tmp_path, labelled_cube):
    _, known = labelled_cube(tmp_path, labels=False)
    numbers = np.where(known == 255, 0, known + 1).astype(np.uint8)
    np.save(tmp_path / "scene_gt.npy", numbers[1:])
    (error,) = [words for severity, words in said(describe(str(tmp_path))) if severity == "error"]
    assert "scene_gt.npy" in error and "scene.hdr" in error
    rare = np.where(numbers == 3, 0, numbers)
    rare[0, :4] = 3
    np.save(tmp_path / "scene_gt.npy", rare)
    assert ("note", "fewer than 20 labelled pixels of class 3 (4 px)") in said(describe(str(tmp_path)))
    at_random = SpectralDataConfig(split=SpectralSplitConfig(method="random", window_px=5))
    assert any(
        severity == "warning" and words.startswith("LEAKS")
        for severity, words in said(describe(str(tmp_path), config=at_random))
    )
    np.save(tmp_path / "other.npy", rare)
    (tmp_path / "scene_gt.npy").rename(tmp_path / "second.npy")
    (error,) = said(describe(str(tmp_path)))
    assert error[0] == "error" and "say which label map, polygons or table of points with --set data.labels=FILE" in error[1]


@pytest.mark.parametrize("dtype", ["int16", "uint16", "float32", "float64"])
@pytest.mark.parametrize("big", [False, True])
def test_a_byte_order_that_cannot_be_is_doubted(tmp_path, dtype, big):
    smooth = np.add.outer(np.arange(6) * 300, np.add.outer(np.arange(40) * 7, np.arange(50) * 11)) + 517
    grid, bands = Grid(width=50, height=40, crs="EPSG:32633"), Bands(names=tuple("abcdef"), dtype=dtype)
    path = write_cube(tmp_path / "a.hdr", smooth.astype(dtype), grid=grid, bands=bands, how=CubeFormat(big_endian=big))
    assert not [words for _, words in said(describe(str(path))) if "byte order" in words]
    told, wrong = int(big), int(not big)
    path.write_text(path.read_text().replace(f"byte order = {told}", f"byte order = {wrong}"))
    found = [finding for finding in describe(str(path)).findings if "byte order" in finding.message]
    assert [finding.severity for finding in found] == ["warning"]
    assert found[0].message.endswith(f"than in the header's, {wrong}") and found[0].fix.endswith(f"byte order = {told}")


def test_bands_of_nan_are_an_error_with_the_others_named(tmp_path):
    values = VALUES.astype("float32")
    values[[1, 4]] = np.nan
    bands = Bands(names=tuple("abcdef"), dtype="float32")
    found = describe(str(write_cube(tmp_path / "a.hdr", values, grid=GRID, bands=bands))).findings
    assert any(
        finding.severity == "error"
        and finding.message.startswith("bands 2, 5 hold nothing but nodata, and are not marked bad")
        and "1, 3-4, 6" in finding.fix
        for finding in found
    )


def test_wavelengths_that_step_back_are_noted(tmp_path):
    path = cube(tmp_path, nm=(450.0, 460.0, 470.0, 465.0, 1000.0, 1010.0))
    assert said(describe(str(path))) == [
        ("note", "wavelengths step back at band 4 (470 to 465 nm): two detectors overlap there, or bands are not in order")
    ]
    assert said(describe(str(cube(tmp_path, nm=NM[::-1])))) == [("note", "the bands go from long to short wavelengths")]


def test_bands_without_data_that_are_not_marked_are_an_error_with_the_others_named(tmp_path):
    values = VALUES.copy()
    values[2:4] = -1
    report = describe(str(cube(tmp_path, values, nodata=-1)))
    errors = [finding for finding in report.findings if finding.severity == "error"]
    assert errors[-1].message == "bands 3-4 hold nothing but nodata, and are not marked bad: with them no pixel counts"
    assert errors[-1].fix == "mark them in the header (bbl), or choose the others, 1-2, 5-6"


def test_an_array_with_bands_first_is_doubted_until_its_axes_are_told(tmp_path):
    level = np.linspace(10, 5000, 12).astype("int16")[:, None, None]
    np.save(tmp_path / "a.npy", level + np.random.default_rng(0).integers(0, 9, (12, 7, 9)).astype("int16"))
    doubt = ("warning", "the first axis looks more like the bands than the last, which is read so")
    report = describe(str(tmp_path / "a.npy"))
    assert doubt in said(report) and "say #axes=brc behind the path" in report.findings[0].fix
    assert doubt not in said(describe(f"{tmp_path / 'a.npy'}#axes=brc"))
    assert said(describe(f"{tmp_path / 'a.npy'}#axes=brc")) == [
        ("note", "it has no CRS, as no such file has: a map of it will lie nowhere on the ground")
    ]


def test_undeclared_nodata_of_an_array_is_told_behind_its_path(tmp_path):
    values = np.moveaxis(VALUES, 0, -1).copy()
    values[0] = 0
    np.save(tmp_path / "a.npy", values)
    report = describe(str(tmp_path / "a.npy"))
    assert report.findings[0].fix == "if they are no data: #nodata=0 behind the path"
    assert describe(f"{tmp_path / 'a.npy'}#nodata=0").nodata_share == pytest.approx(0.2)


def test_undeclared_nodata_of_an_envi_file_is_declared_in_what_gdal_opens(tmp_path):
    values = VALUES.copy()
    values[:, :3] = 0
    finding = next(one for one in describe(str(cube(tmp_path, values=values))).findings if "not declared" in one.message)
    assert finding.fix.endswith(f"gdal_edit.py -a_nodata 0 {tmp_path / 'a.img'}")


def test_a_wrong_label_map_is_an_error(shared, tmp_path):
    labels = scipy.io.loadmat(shared / "data/hsi/salinas_a/SalinasA_gt.mat")["salinasA_gt"]
    labels[labels == 1] = 2
    scipy.io.savemat(tmp_path / "a.mat", {"salinasA_gt": labels})
    report = describe(str(tmp_path / "a.mat"))
    assert report.findings[0].severity == "error" and "it is another label map" in report.findings[0].message


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("salinas_a/SalinasA_corrected.hdr", ["ENVI BIP", "known as    Salinas-A (AVIRIS, 1998), by its size"]),
        ("salinas_a/SalinasA_corrected.mat", ["file        as published: SalinasA_corrected.mat of Salinas-A"]),
        ("label_maps/Indian_pines_gt.mat", ["labels      Indian Pines: the label map of UPV/EHU, 10249 px"]),
        (
            "enmap_potsdam/derived_envi/enmap_potsdam_mosaic.hdr",
            ["bad bands   130-135 of 224", "EPSG:32633", "step back at band 92"],
        ),
        ("enmap_potsdam/images/enmap_potsdam_tile_64_0.tif", ["418.24 to 2445.53 nm", "bad bands   130-135 of 224"]),
        ("envi_samples/corn-kernel-hyperspectral.hdr", ["warning: the header lacks header offset, file type, byte order"]),
        ("envi_samples/library_berlin.hdr", ["spectral library", "75 of 177 bands: red clay tile 1", "460 to 2409 nm"]),
    ],
)
def test_real_files(shared, name, expected):
    report = describe(str(shared / "data/hsi" / name))
    text = tell(report)
    assert [part for part in expected if part not in text] == [], text
    json.dumps(asdict(report), allow_nan=False)
    assert isinstance(report, LibraryReport) == ("library" in name)
