"""ENVI files: what GDAL reads of them is the reference; what GDAL does not understand is checked by hand."""

import logging
from pathlib import Path

import numpy as np
import pytest
import rasterio

from terralean.errors import MissingFile, OutputFailed, UnreadableScene
from terralean.raster.envi_header import read_header
from terralean.raster.envi_write import CubeFormat, write_classification, write_cube
from terralean.raster.grid import Grid, Window
from terralean.raster.scene import open_scene
from terralean.spec import Bands, Classes

BANDS, ROWS, COLS = 4, 6, 5
VALUES = np.arange(1, BANDS * ROWS * COLS + 1).reshape(BANDS, ROWS, COLS)
GRID = Grid(width=COLS, height=ROWS, crs="EPSG:32633", transform=(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0))
NM = (450.5, 550.0, 660.25, 2200.0)
TYPES = ("uint8", "int16", "int32", "float32", "float64", "uint16", "uint32", "int64", "uint64")
NEEDED = {"samples": 5, "lines": 6, "bands": 4, "data type": 2, "interleave": "bsq"}
REST = {"header offset": 0, "file type": "ENVI Standard", "byte order": 0}


def bands(dtype: str) -> Bands:
    return Bands(names=("blue", "green", "red", "swir"), wavelength_nm=NM, dtype=dtype)


def write(folder: Path, *, data: bytes | None = None, name: str = "a.img", header: str = "a.hdr", **fields) -> Path:
    """A header of these fields beside the values as int16 BSQ, or beside other data; fields that are None are left out."""
    written = {**NEEDED, **REST, **{key.replace("_", " "): value for key, value in fields.items()}}
    lines = ["ENVI", *(f"{key} = {value}" for key, value in written.items() if value is not None)]
    (folder / header).write_text("\n".join(lines) + "\n")
    (folder / name).write_bytes(VALUES.astype("<i2").tobytes() if data is None else data)
    return folder / header


def values_of(path, **chosen):
    scene = open_scene(path, **chosen)
    return scene.read(scene.grid.window)[0]


# Round trips.


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("dtype", TYPES)
def test_every_layout_and_type_reads_back_here_and_in_gdal(tmp_path, interleave, big_endian, dtype):
    form = CubeFormat(interleave=interleave, big_endian=big_endian)
    path = write_cube(tmp_path / "a.hdr", VALUES.astype(dtype), grid=GRID, bands=bands(dtype), how=form)
    scene = open_scene(path)
    values, valid = scene.read(GRID.window)
    np.testing.assert_array_equal(values, VALUES)
    assert (values.dtype, scene.grid, scene.bands) == (np.dtype(dtype), GRID, bands(dtype))
    assert valid.all() and scene.source.cube.warnings == ()
    with rasterio.open(tmp_path / "a.img") as theirs:
        np.testing.assert_array_equal(theirs.read(), VALUES)
        assert theirs.dtypes == (dtype,) * BANDS and theirs.crs.to_epsg() == 32633
        assert tuple(theirs.transform)[:6] == GRID.transform
        assert theirs.tags(ns="ENVI")["interleave"] == interleave
        assert [float(theirs.tags(i)["wavelength"]) for i in range(1, 5)] == list(NM)
    np.testing.assert_array_equal(values_of(tmp_path / "a.img"), VALUES)  # by the name of the data, too


@pytest.mark.parametrize("interleave", ["bsq", "bil", "bip"])
def test_what_gdal_writes_reads_back(tmp_path, interleave):
    profile = {"driver": "ENVI", "count": BANDS, "height": ROWS, "width": COLS, "dtype": "uint16", "nodata": 7}
    place = {"crs": "EPSG:32633", "transform": rasterio.Affine(*GRID.transform)}
    with rasterio.open(tmp_path / "a.dat", "w", interleave=interleave, **profile, **place) as file:
        file.write(VALUES.astype("uint16"))
        file.descriptions = ("b1", "b2", "b3", "b4")
    scene = open_scene(tmp_path / "a.hdr")
    np.testing.assert_array_equal(scene.read(GRID.window)[0], VALUES)
    assert (scene.grid, scene.nodata, scene.bands.names) == (GRID, 7, ("b1", "b2", "b3", "b4"))


def test_strips_make_the_same_file_as_the_whole(tmp_path):
    for interleave in ("bsq", "bil", "bip"):
        form = CubeFormat(interleave=interleave)
        whole = write_cube(tmp_path / f"whole_{interleave}", VALUES, grid=GRID, bands=bands("int64"), how=form)
        strips = (VALUES[:, row : row + 4] for row in range(0, ROWS, 4))
        parts = write_cube(tmp_path / f"parts_{interleave}", strips, grid=GRID, bands=bands("int64"), how=form)
        for suffix in (".hdr", ".img"):
            assert whole.with_suffix(suffix).read_bytes() == parts.with_suffix(suffix).read_bytes()


def test_a_written_header_has_all_that_envi_requires(tmp_path):
    good, fwhm = (True, False, True, True), (5.0, 6.5, 7.0, 9.0)
    form = CubeFormat(nodata=-9999, good=good, fwhm_nm=fwhm, extra={"acquisition time": "2022-07-24"})
    kinds = Bands(names=("a", "b, {c}", "c", "d"), wavelength_nm=(450.0, None, 660.0, 2200.0), scale=1e-4, dtype="int16")
    path = write_cube(tmp_path / "a.hdr", VALUES.astype("int16"), grid=GRID, bands=kinds, how=form)
    header = read_header(path)
    required = ("samples", "lines", "bands", "header offset", "file type", "data type", "interleave", "byte order")
    assert [header.text(name) for name in required] == ["5", "6", "4", "0", "ENVI Standard", "2", "bil", "0"]
    assert header.text("acquisition time") == "2022-07-24"
    cube = open_scene(path).source.cube
    assert (cube.good, cube.fwhm_nm, cube.nodata, cube.bands.scale) == (good, fwhm, -9999, 1e-4)
    assert cube.bands.wavelength_nm == (450, None, 660, 2200) and cube.bands.names == ("a", "b; (c)", "c", "d")


def test_what_envi_cannot_hold_is_refused_and_leaves_nothing(tmp_path):
    folder = tmp_path / "out"
    with pytest.raises(OutputFailed, match="ENVI has no numbers of type int8; it has uint8, int16"):
        write_cube(folder / "a.hdr", VALUES.astype("int8"), grid=GRID, bands=bands("int8"))
    sheared = Grid(width=COLS, height=ROWS, crs="EPSG:32633", transform=(10.0, 2.0, 5e5, 0.0, -10.0, 5e6))
    with pytest.raises(OutputFailed, match=r"a\.hdr: an ENVI header cannot tell of a sheared grid"):
        write_cube(folder / "a.hdr", VALUES.astype("int16"), grid=sheared, bands=bands("int16"))
    with pytest.raises(OutputFailed, match=r"out/a\.img: 3 of 6 rows were written"):
        write_cube(folder / "a.hdr", VALUES[:, :3].astype("int16"), grid=GRID, bands=bands("int16"))
    assert not folder.exists()


def test_a_file_that_is_there_is_kept_unless_told(tmp_path):
    kinds = bands("int64")
    write_cube(tmp_path / "a.hdr", VALUES, grid=GRID, bands=kinds)
    with pytest.raises(OutputFailed, match=r"a\.hdr exists; delete it"):
        write_cube(tmp_path / "a.hdr", VALUES + 1, grid=GRID, bands=kinds)
    np.testing.assert_array_equal(values_of(tmp_path / "a.hdr"), VALUES)
    write_cube(tmp_path / "a.hdr", VALUES + 1, grid=GRID, bands=kinds, overwrite=True)
    np.testing.assert_array_equal(values_of(tmp_path / "a.hdr"), VALUES + 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.hdr", "a.img"]


def test_a_classification_has_names_and_colours_for_gdal(tmp_path):
    classes = Classes(names=("field", "forest, old", "water"), colours=((230, 159, 0), (0, 158, 115), (0, 114, 178)))
    labels = np.array([[0, 1, 2, 255, 0], [2, 2, 255, 1, 1]], dtype=np.uint8)
    grid = Grid(width=5, height=2, crs=GRID.crs, transform=GRID.transform)
    write_classification(tmp_path / "map.hdr", (labels[row : row + 1] for row in range(2)), grid=grid, classes=classes)
    with rasterio.open(tmp_path / "map.img") as theirs:
        np.testing.assert_array_equal(theirs.read(1), [[1, 2, 3, 0, 1], [3, 3, 0, 2, 2]])
        colours = theirs.colormap(1)
        assert [colours[i][:3] for i in range(4)] == [(0, 0, 0), *classes.colours]
        assert theirs.crs.to_epsg() == 32633
        assert theirs.tags(ns="ENVI")["class_names"] == "{Unclassified, field, forest; old, water}"
    cube = open_scene(tmp_path / "map.hdr").source.cube
    assert cube.class_names == ("Unclassified", "field", "forest; old", "water")
    assert cube.colours[3] == (0, 114, 178)


# Headers as they are found.


def test_three_fields_that_are_often_missing_have_defaults_and_a_warning(tmp_path, caplog):
    path = write(tmp_path, header_offset=None, file_type=None, byte_order=None)
    with caplog.at_level(logging.WARNING):
        np.testing.assert_array_equal(values_of(path), VALUES)
    assert "the header lacks header offset, file type, byte order; read as 0, ENVI Standard, 0" in caplog.text


@pytest.mark.parametrize("name", ["samples", "lines", "bands", "data type", "interleave"])
def test_a_field_that_has_no_default_is_named(tmp_path, name):
    with pytest.raises(UnreadableScene, match=rf"a\.hdr does not say {name}; ENVI needs samples, lines"):
        open_scene(write(tmp_path, **{name.replace(" ", "_"): None}))


def test_names_vary_in_case_and_spaces_and_comments_are_left_out(tmp_path):
    path = write(tmp_path)
    text = (
        "ENVI\n; a comment = 3\nSAMPLES=5\nLines   = 6\nbands = 4\nheaderoffset = 0\nFile Type = ENVI Standard\ndata_type = 2\n"
        "Interleave = BSQ\nbyte order = 0\nData Ignore Value = 9\nwavelength = {\n 450.5, 550,\n ; another\n 660.25,\n 2200 }\n"
        "Wavelength Units = Nanometers\nthis line says nothing\n"
    )
    path.write_text(text)
    scene = open_scene(path)
    np.testing.assert_array_equal(scene.read(GRID.window)[0], VALUES)
    assert (scene.nodata, scene.bands.wavelength_nm) == (9, NM)


def test_windows_line_ends_and_a_byte_order_mark(tmp_path):
    path = write(tmp_path)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    np.testing.assert_array_equal(values_of(path), VALUES)


def test_a_header_that_breaks_off_names_the_line(tmp_path):
    path = write(tmp_path)
    path.write_text(path.read_text() + "wavelength = {450, 550,\n660")
    with pytest.raises(UnreadableScene, match=r"a\.hdr breaks off: the brace of 'wavelength' in line 10 is not closed"):
        open_scene(path)


def test_a_field_that_is_said_twice(tmp_path, caplog):
    path = write(tmp_path)
    path.write_text(path.read_text() + "Data Ignore Value = 3\ndata ignore value = 5\n")
    assert open_scene(path).nodata == 5
    assert "the header says data ignore value twice; the last one counts" in caplog.text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"data_type": 6}, r"a\.hdr holds complex64 values; expected real numbers"),
        ({"data_type": 9}, r"a\.hdr holds complex128 values"),
        ({"data_type": 7}, r"data type is 7; expected one of 1, 2, 3, 4, 5, 12, 13, 14, 15; correct the header"),
        ({"byte_order": 2}, r"byte order is 2; expected 0 \(little-endian\) or 1"),
        ({"interleave": "bis"}, "interleave is bis; expected bsq, bil or bip"),
        ({"samples": "five"}, "samples is five; expected a number"),
        ({"samples": "5.5"}, r"samples is 5\.5; expected a whole number"),
        ({"lines": 0}, "samples, lines and bands must be 1 or more"),
        ({"header_offset": -4}, "header offset is -4; expected 0 or more"),
        ({"file_compression": 1}, "the data is compressed"),
        ({"major_frame_offsets": "{8, 0}"}, "has frame offsets, which are not supported"),
        ({"file_type": "TIFF"}, "describes a file of type TIFF; open that file itself"),
        ({"wavelength": "{450, 550, red, 2200}"}, "wavelength is 450, 550, red, 2200; expected numbers between commas"),
        ({"map_info": "{UTM, 1, 1, 500000}"}, "map info is UTM, 1, 1, 500000; expected projection, reference pixel"),
        ({"map_info": "{UTM, 1, 1, 500000, 4000000, ten, 10}"}, "expected numbers for pixel, place and size"),
        ({"map_info": "{UTM, 1, 1, nan, 4000000, 10, 10}"}, "expected finite numbers for pixel, place and size"),
        ({"samples": "nan"}, "samples is nan; expected a whole number"),
        ({"samples": "inf"}, "samples is inf; expected a whole number"),
        ({"lines": "9" * 20}, "lines is 9+; expected a whole number"),
        ({"lines": "9" * 15}, r"its header .*a\.hdr tells of"),
        ({"bbl": "{1, nan, 1, 1}"}, "bbl is 1, nan, 1, 1; expected finite numbers between commas"),
        ({"data_gain_values": "{1, inf, 1, 1}"}, "data gain values is 1, inf, 1, 1; expected finite numbers"),
        ({"reflectance_scale_factor": "-10000"}, "reflectance scale factor is -10000; expected a number above 0"),
    ],
)
def test_what_a_header_cannot_say(tmp_path, fields, message):
    with pytest.raises(UnreadableScene, match=message):
        open_scene(write(tmp_path, **fields))


def test_an_offset_and_the_other_byte_order(tmp_path):
    data = b"HEADER 512".ljust(512) + VALUES.astype(">i2").tobytes()
    np.testing.assert_array_equal(values_of(write(tmp_path, data=data, header_offset=512, byte_order=1)), VALUES)


def test_a_file_that_is_cut_off_says_after_which_line(tmp_path):
    data = VALUES.transpose(1, 0, 2).astype("<i2").tobytes()
    path = write(tmp_path, data=data[:100], interleave="bil")
    sizes = r"a\.img has 100 bytes, its header .*a\.hdr tells of 240 \(0 \+ 6 x 5 x 4 x 2 bytes\)"
    with pytest.raises(UnreadableScene, match=sizes + ": it breaks off after 2 of 6 lines; copy or download it again"):
        open_scene(path)


def test_bytes_too_many_are_told(tmp_path, caplog):
    np.testing.assert_array_equal(values_of(write(tmp_path, data=VALUES.astype("<i2").tobytes() + bytes(6))), VALUES)
    assert "the data file has 6 bytes more than the header tells of" in caplog.text


@pytest.mark.parametrize(
    ("data", "header"),
    [
        ("a", "a.hdr"),
        ("a.img", "a.img.hdr"),
        ("a.dat", "a.hdr"),
        ("a.raw", "a.hdr"),
        ("a.bil", "a.hdr"),
        ("a.BSQ", "a.hdr"),
        ("a.b.img", "a.b.hdr"),
    ],
)
def test_the_data_is_found_beside_its_header_and_the_header_beside_its_data(tmp_path, data, header):
    np.testing.assert_array_equal(values_of(write(tmp_path, name=data, header=header)), VALUES)
    np.testing.assert_array_equal(values_of(tmp_path / data), VALUES)


def test_of_several_data_files_the_one_whose_size_fits(tmp_path):
    path = write(tmp_path, name="a.dat")
    (tmp_path / "a").write_bytes(bytes(1000))
    (tmp_path / "a.img").write_bytes(bytes(10))
    np.testing.assert_array_equal(values_of(path), VALUES)


def test_a_header_without_data(tmp_path):
    path = write(tmp_path, name="b.img")
    with pytest.raises(MissingFile, match=r"the data of .*a\.hdr is not there; expected a or a with \.img, \.dat"):
        open_scene(path)


def test_a_header_that_is_not_of_envi_is_left_to_gdal(tmp_path):
    (tmp_path / "a.hdr").write_text("NROWS 2\nNCOLS 2\nNBANDS 1\nNBITS 8\n")
    (tmp_path / "a.bil").write_bytes(bytes([1, 2, 3, 4]))
    assert values_of(tmp_path / "a.bil").ravel().tolist() == [1, 2, 3, 4]
    with pytest.raises(UnreadableScene, match="not an image that GDAL can open"):
        open_scene(tmp_path / "a.hdr")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # of this test's own writing
def test_a_tiff_with_an_envi_header_beside_it_stays_a_tiff(tmp_path):
    write(tmp_path, name="other", header="a.hdr")
    with rasterio.open(tmp_path / "a.tif", "w", driver="GTiff", count=1, height=2, width=2, dtype="uint8") as file:
        file.write(np.array([[[1, 2], [3, 4]]], dtype=np.uint8))
    assert values_of(tmp_path / "a.tif").ravel().tolist() == [1, 2, 3, 4]


# Bands.


def test_lists_of_the_wrong_length_are_told_and_not_used(tmp_path, caplog):
    path = write(
        tmp_path,
        wavelength="{450, 550, 660}",
        bbl="{1, 0}",
        data_gain_values="{2, 3}",
        band_names="{a, b}",
    )
    scene = open_scene(path)
    assert scene.bands.wavelength_nm is None and len(scene.bands) == 4 and scene.bands.names[0] == "band_1"
    assert "the header has 3 wavelengths for 4 bands; they are not used" in caplog.text
    assert "the list of bad bands (bbl) has 2 numbers for 4 bands; it is not used" in caplog.text
    assert "the header has 2 data gain values for 4 bands; they are not used" in caplog.text


@pytest.mark.parametrize("unit", [None, "Nanometers"])
def test_wavelengths_in_two_units_are_a_warning(tmp_path, caplog, unit):
    path = write(tmp_path, wavelength="{0.45, 550, 650, 2200}", wavelength_units=unit)
    with caplog.at_level(logging.WARNING):
        assert open_scene(path).bands.wavelength_nm == (None, 550, 650, 2200)
    assert "1 of 4 wavelengths, 0.45, are not those of light in that unit: these bands have none" in caplog.text


def test_bad_bands_are_left_out_and_keep_their_numbers(tmp_path):
    scene = open_scene(write(tmp_path, bbl="{1.0, 0.000, 1, 1}"))
    assert scene.bands.names == ("band_1", "band_3", "band_4")
    np.testing.assert_array_equal(scene.read(GRID.window)[0], VALUES[[0, 2, 3]])
    assert scene.source.cube.bad == (2,)


def test_a_list_that_marks_all_bands_bad_is_not_used(tmp_path, caplog):
    assert len(open_scene(write(tmp_path, bbl="{0, 0, 0, 0}")).bands) == 4
    assert "marks all of them" in caplog.text


def test_a_reflectance_scale_factor_becomes_the_step(tmp_path):
    path = write(tmp_path, reflectance_scale_factor=10000)
    assert open_scene(path).bands.scale == 0.0001
    assert open_scene(f"{path}#raw=yes").bands.scale == 1
    np.testing.assert_array_equal(values_of(path), VALUES)


def test_one_gain_for_all_bands_becomes_the_step(tmp_path):
    found = open_scene(write(tmp_path, data_gain_values="{0.5, 0.5, 0.5, 0.5}")).bands
    assert (found.scale, found.units, found.dtype) == (0.5, "radiance", "int16")


def test_gains_that_differ_are_applied_once(tmp_path):
    path = write(
        tmp_path,
        data_gain_values="{0.5, 2, 1, 4}",
        data_offset_values="{0, 1, 0, -3}",
        data_ignore_value=7,
    )
    scene = open_scene(path)
    values, valid = scene.read(GRID.window)
    expected = VALUES * np.reshape([0.5, 2, 1, 4], (4, 1, 1)) + np.reshape([0, 1, 0, -3], (4, 1, 1))
    assert np.argwhere(~valid).tolist() == [[1, 1]]  # where the first band is stored as 7
    np.testing.assert_allclose(values[:, valid], expected[:, valid], rtol=1e-6)
    assert (scene.bands.scale, scene.bands.units, values.dtype) == (1, "radiance", np.float32)
    raw = open_scene(f"{path}#raw=yes")
    np.testing.assert_array_equal(raw.read(GRID.window)[0], VALUES)
    assert raw.bands.units == "digital number"
    only = open_scene(path, bands=(4,)).read(GRID.window)[0]
    np.testing.assert_allclose(only[0], expected[3], rtol=1e-6)


def test_a_factor_and_gains_that_say_the_same_count_once(tmp_path, caplog):
    gains = {"data_gain_values": "{0.0001, 0.0001, 0.0001, 0.0001}"}
    assert open_scene(write(tmp_path, reflectance_scale_factor=10000, **gains)).bands.scale == 0.0001
    assert "differ" not in caplog.text
    assert open_scene(write(tmp_path, name="b.img", header="b.hdr", reflectance_scale_factor=100, **gains)).bands.scale == 0.01
    assert "it has gains and a reflectance scale factor that differ; the factor, 100, is taken" in caplog.text


def test_a_class_lookup_of_the_wrong_length_is_told(tmp_path, caplog):
    path = write(
        tmp_path,
        data=bytes(30),
        bands=1,
        data_type=1,
        file_type="ENVI Classification",
        classes=3,
        class_names="{none, a}",
        class_lookup="{0, 0, 0, 1, 2, 3}",
    )
    assert open_scene(path).source.cube.colours == {}
    assert "the header has 2 class names for 3 classes" in caplog.text
    assert "class lookup has 6 numbers for 3 classes, three each are needed; it is not used" in caplog.text


# Real files.


def test_real_files_hold_what_gdal_reads(shared):
    folder = shared / "data/hsi"
    for name in ("salinas_a/SalinasA_corrected.img", "enmap_potsdam/derived_envi/enmap_potsdam_mosaic.img"):
        with rasterio.open(folder / name) as theirs:
            expected = theirs.read()
        scene = open_scene(folder / name, bands=tuple(range(1, len(expected) + 1)))
        np.testing.assert_array_equal(scene.read(scene.grid.window)[0], expected)


def test_the_real_bip_file_equals_its_mat_file(shared):
    folder = shared / "data/hsi/salinas_a"
    np.testing.assert_array_equal(values_of(folder / "SalinasA_corrected.hdr"), values_of(folder / "SalinasA_corrected.mat"))


def test_a_real_file_without_a_suffix_and_without_a_unit(shared):
    scene = open_scene(shared / "data/hsi/envi_samples/cubus_gamsberg_subset.hdr")
    stored = np.fromfile(shared / "data/hsi/envi_samples/cubus_gamsberg_subset", "<f4").reshape(189, 25, 10)
    np.testing.assert_array_equal(scene.read(scene.grid.window)[0], stored)
    nm = scene.bands.wavelength_nm
    assert (nm[0], len(nm)) == (426.82, 189)
    assert scene.bands.names[0] == "Resize (Band 1:resampled_clipped_2013317) (426.820007)"
    assert scene.source.cube.notes == ("the wavelengths have no unit; from their size they are nanometres",)
    assert len(scene.source.cube.fwhm_nm) == 189


def test_a_real_header_with_three_fields_missing(shared):
    scene = open_scene(shared / "data/hsi/envi_samples/corn-kernel-hyperspectral.hdr")
    stored = np.fromfile(shared / "data/hsi/envi_samples/corn-kernel-hyperspectral.raw", "<u2").reshape(31, 580, 43)
    values, _ = scene.read(Window(row=3, col=5, height=7, width=9))
    np.testing.assert_array_equal(values, stored.transpose(1, 0, 2)[:, 3:10, 5:14])
    assert scene.bands.wavelength_nm[:2] == (366.551, 367.656)


def test_the_real_mosaic_has_place_wavelengths_and_bad_bands(shared):
    scene = open_scene(shared / "data/hsi/enmap_potsdam/derived_envi/enmap_potsdam_mosaic.hdr")
    assert scene.grid.crs == "EPSG:32633" and scene.grid.transform == (30.0, 0.0, 364095.0, 0.0, -30.0, 5809965.0)
    assert len(scene.bands) == 218 and scene.source.cube.bad == tuple(range(130, 136))
    assert scene.bands.wavelength_nm[90:92] == (993.083, 902.257)  # they step back
    assert scene.read(scene.grid.window)[1].mean() == 18 / 30
