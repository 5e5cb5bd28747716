"""Cubes as scenes, whatever their format: the values they were made of, and no more in memory than asked for."""

import logging
import pickle
import subprocess
import sys

import numpy as np
import pytest

from terralean.errors import BandMismatch, ConfigError, MissingFile, UnreadableScene
from terralean.raster.cube_source import is_cube
from terralean.raster.envi_write import CubeFormat, write_cube
from terralean.raster.grid import Grid, Window
from terralean.raster.scene import open_scene, read_preview, read_reduced
from terralean.raster.source import named_part
from terralean.spec import Bands

BANDS, ROWS, COLS = 7, 12, 10
VALUES = np.arange(1, BANDS * ROWS * COLS + 1).reshape(BANDS, ROWS, COLS).astype("int16")
GRID = Grid(width=COLS, height=ROWS, crs="EPSG:32633", transform=(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0))
NAMED = Bands(names=tuple(f"b{i}" for i in range(BANDS)), dtype="int16")
INTERLEAVES = ("bsq", "bil", "bip")


@pytest.fixture(params=[*INTERLEAVES, "npy", "npy_fortran"])
def cube(request, tmp_path):
    """The same cube in every plain layout."""
    if request.param.startswith("npy"):
        values = np.moveaxis(VALUES, 0, -1)
        np.save(tmp_path / "a.npy", np.asfortranarray(values) if "fortran" in request.param else np.ascontiguousarray(values))
        return tmp_path / "a.npy"
    return write_cube(tmp_path / "a.hdr", VALUES, grid=GRID, bands=NAMED, how=CubeFormat(interleave=request.param))


@pytest.mark.parametrize(
    "window",
    [
        Window(row=0, col=0, height=ROWS, width=COLS),
        Window(row=3, col=2, height=4, width=5),
        Window(row=-2, col=-3, height=6, width=7),
        Window(row=9, col=8, height=9, width=9),
        Window(row=50, col=50, height=2, width=2),
    ],
)
def test_windows_hold_what_was_written(cube, window):
    padded = np.pad(VALUES, ((0, 0), (100, 100), (100, 100)))
    rows, cols = window.slices(origin=Window(row=-100, col=-100, height=0, width=0))
    values, valid = open_scene(cube).read(window)
    np.testing.assert_array_equal(values, padded[:, rows, cols])
    np.testing.assert_array_equal(valid, padded[0, rows, cols] > 0)
    assert values.dtype == np.int16


def test_chosen_bands_come_in_the_order_asked_for(cube):
    scene = open_scene(cube, bands=(6, 1, 3))
    np.testing.assert_array_equal(scene.read(GRID.window)[0], VALUES[[5, 0, 2]])
    for wrong in [(0,), (8,), (1, 1), ()]:
        with pytest.raises(BandMismatch, match="has bands 1 to 7; got"):
            open_scene(cube, bands=wrong)


def test_a_crop_and_a_pickled_scene_read_the_same(cube):
    scene = open_scene(cube)
    again = pickle.loads(pickle.dumps(scene.crop(Window(row=2, col=3, height=5, width=4))))
    values, valid = again.read(Window(row=-1, col=0, height=4, width=4))
    np.testing.assert_array_equal(values[:, 1:], VALUES[:, 2:5, 3:7])
    assert not valid[0].any() and valid[1:].all()
    scene.close()
    np.testing.assert_array_equal(scene.read(GRID.window)[0], VALUES)


def test_a_preview_takes_the_pixels_nearest_to_the_middles(cube):
    values, valid = read_preview(open_scene(cube), 6)
    np.testing.assert_array_equal(values, VALUES[:, 1::2, 1::2])
    assert valid.all()


def test_a_reduced_scene_holds_means(cube):
    values, valid = read_reduced(open_scene(cube), height=6, width=5)
    blocks = VALUES.reshape(BANDS, 6, 2, 5, 2).astype(float).mean(axis=(2, 4))
    np.testing.assert_array_equal(values, np.rint(blocks))
    assert valid.all()


def test_means_leave_out_what_is_no_data(tmp_path):
    values = VALUES.copy()
    values[:, 0, 0] = -1
    write_cube(tmp_path / "a.hdr", values, grid=GRID, bands=NAMED, how=CubeFormat(nodata=-1))
    reduced, _ = read_reduced(open_scene(tmp_path / "a.hdr"), height=6, width=5)
    three = (values[:, 0, 1].astype(float) + values[:, 1, 0] + values[:, 1, 1]) / 3
    np.testing.assert_array_equal(reduced[:, 0, 0], np.rint(three))


@pytest.mark.parametrize("interleave", INTERLEAVES)
def test_a_cube_of_ten_gigabytes_is_read_in_an_address_space_of_three(tmp_path, interleave):
    """A sparse file: mapping or loading it whole could not succeed."""
    samples, lines, bands = 5000, 5000, 200
    (tmp_path / "a.hdr").write_text(
        f"ENVI\nsamples = {samples}\nlines = {lines}\nbands = {bands}\nheader offset = 0\nfile type = ENVI Standard\n"
        f"data type = 2\ninterleave = {interleave}\nbyte order = 0\n"
    )
    last = {"bsq": (199 * lines + 4321) * samples + 4000, "bil": (4321 * bands + 199) * samples + 4000}
    place = 2 * last.get(interleave, (4321 * samples + 4000) * bands + 199)
    with (tmp_path / "a.img").open("wb") as file:
        file.truncate(2 * samples * lines * bands)
        file.seek(place)
        file.write(b"\x39\x30")
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30,) * 2)\n"
        "from terralean.raster.scene import open_scene, read_preview\n"
        "from terralean.raster.grid import Window\n"
        f"scene = open_scene({str(tmp_path / 'a.hdr')!r})\n"
        "values, _ = scene.read(Window(row=4300, col=3990, height=64, width=64))\n"
        "one, _ = open_scene(scene.path, bands=(200,)).read(Window(row=4300, col=0, height=100, width=5000))\n"
        "small, _ = read_preview(open_scene(scene.path, bands=(1, 200)), 20)\n"
        "print(values.shape, values[199, 21, 10], values.sum(), one[0, 21, 4000], one.sum(), small.shape)"
    )
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.split("\n")[0] == "(200, 64, 64) 12345 12345 12345 12345 (2, 20, 20)", done.stderr


def test_the_files_of_a_cube_are_its_data_and_its_header(tmp_path):
    write_cube(tmp_path / "a.hdr", VALUES, grid=GRID, bands=NAMED)
    np.save(tmp_path / "b.npy", VALUES)
    assert open_scene(tmp_path / "a.hdr").source.files == (str(tmp_path / "a.img"), str(tmp_path / "a.hdr"))
    assert open_scene(f"{tmp_path / 'b.npy'}#axes=brc").source.files == (str(tmp_path / "b.npy"),)


# What is said behind a path.


def test_what_stands_behind_a_path_says_how_it_is_read(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    scene = open_scene(f"{tmp_path / 'a.npy'}#axes=brc,nodata=5")
    np.testing.assert_array_equal(scene.read(GRID.window)[0], VALUES)
    assert scene.nodata == 5 and not scene.read(GRID.window)[1][0, 4]
    assert is_cube(f"{tmp_path / 'a.npy'}#axes=brc")


def test_a_file_whose_own_name_has_a_mark_is_itself(tmp_path):
    np.save(tmp_path / "a#b.npy", np.moveaxis(VALUES, 0, -1))
    assert named_part(str(tmp_path / "a#b.npy")) == (str(tmp_path / "a#b.npy"), "")
    assert len(open_scene(tmp_path / "a#b.npy").bands) == BANDS


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("axis=brc", r"behind # there is no 'axis'; nearest: axes; there are key, axes, rows"),
        ("axes=bb", r"axes names each of r \(row\), c \(column\), b \(band\) once, .*got 'bb'"),
        ("rows=ten", "rows is a whole number, got 'ten'"),
        ("rows=0", "rows is at least 1, got 0"),
        ("nodata=none", "nodata is a number, got 'none'"),
        ("raw=maybe", "raw is yes or no, got 'maybe'"),
        ("partial=some", "partial is drop or keep, got 'some'"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(tmp_path, said, message):
    np.save(tmp_path / "a.npy", VALUES)
    with pytest.raises(ConfigError, match=message):
        open_scene(f"{tmp_path / 'a.npy'}#{said}")


def test_a_missing_cube_names_the_nearest(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    with pytest.raises(MissingFile, match=r"b\.npy#axes=brc is not there.*nearest in that folder: a\.npy"):
        open_scene(f"{tmp_path / 'b.npy'}#axes=brc")


def test_the_long_text_of_a_vrt_is_no_name_of_a_cube():
    assert not is_cube(f"<VRTDataset>{'x' * 5000}</VRTDataset>")


def test_wavelengths_may_come_from_a_text_file(tmp_path):
    np.save(tmp_path / "a.npy", np.moveaxis(VALUES, 0, -1))
    (tmp_path / "nm.txt").write_text("wavelength width\n" + "".join(f"{400 + 10 * i}\t9.5\n" for i in range(BANDS)))
    scene = open_scene(f"{tmp_path / 'a.npy'}#wavelengths={tmp_path / 'nm.txt'}")
    assert scene.bands.wavelength_nm == tuple(400.0 + 10 * i for i in range(BANDS))
    (tmp_path / "nm.txt").write_text("0.4\n0.5\n")
    with pytest.raises(ConfigError, match=r"nm\.txt has 2 lines that begin with a number, .*a\.npy has 7 bands"):
        open_scene(f"{tmp_path / 'a.npy'}#wavelengths={tmp_path / 'nm.txt'}")


# No data.


def test_a_pixel_with_the_nodata_value_in_some_bands_is_dropped_or_kept(tmp_path):
    values = VALUES.copy()
    values[:, 0, 0] = -5  # no data
    values[3, 1, 1] = -5  # a band of it
    write_cube(tmp_path / "a.hdr", values, grid=GRID, bands=NAMED, how=CubeFormat(nodata=-5))
    invalid = [np.argwhere(~open_scene(f"{tmp_path / 'a.hdr'}{said}").read(GRID.window)[1]) for said in ("", "#partial=keep")]
    assert [found.tolist() for found in invalid] == [[[0, 0], [1, 1]], [[0, 0]]]


def test_bad_bands_may_hold_the_nodata_value_everywhere(tmp_path, caplog):
    values = VALUES.copy()
    values[2:4] = -5
    good = (True, True, False, False, True, True, True)
    write_cube(tmp_path / "a.hdr", values, grid=GRID, bands=NAMED, how=CubeFormat(nodata=-5, good=good))
    with caplog.at_level(logging.INFO):
        scene = open_scene(tmp_path / "a.hdr")
    assert scene.bands.names == ("b0", "b1", "b4", "b5", "b6")
    assert "bands 3-4 of 7 are marked bad and left out" in caplog.text
    assert scene.read(GRID.window)[1].all()
    assert open_scene(tmp_path / "a.hdr", bands=(3,)).bands.names == ("b2",)


def test_zero_as_nodata_hides_only_pixels_that_are_zero_in_all_bands(tmp_path):
    values = VALUES.copy()
    values[:, 0, 0] = 0
    values[1, 2, 2] = 0
    write_cube(tmp_path / "a.hdr", values, grid=GRID, bands=NAMED, how=CubeFormat(nodata=0))
    assert np.argwhere(~open_scene(tmp_path / "a.hdr").read(GRID.window)[1]).tolist() == [[0, 0]]


# .npy


def test_npy_files_that_hold_no_cube_are_refused(tmp_path):
    np.save(tmp_path / "complex.npy", VALUES.astype("complex64"))
    np.save(tmp_path / "line.npy", np.arange(5))
    np.save(tmp_path / "texts.npy", np.array([["a", "b"]] * 2))
    for name in ("complex", "line", "texts"):
        with pytest.raises(UnreadableScene, match=rf"{name}\.npy holds no array of two or three axes of real numbers"):
            open_scene(tmp_path / f"{name}.npy")
    (tmp_path / "notes.npy").write_text("these are notes")
    with pytest.raises(UnreadableScene, match=r"notes\.npy is no \.npy file"):
        open_scene(tmp_path / "notes.npy")
    np.save(tmp_path / "cut.npy", VALUES)
    (tmp_path / "cut.npy").write_bytes((tmp_path / "cut.npy").read_bytes()[:-10])
    with pytest.raises(UnreadableScene, match=r"cut\.npy has 1,798 bytes, an array of .* takes 1,808"):
        open_scene(tmp_path / "cut.npy")


def test_a_file_that_shrinks_while_it_is_open_is_an_error(cube):
    scene = open_scene(cube)
    path = scene.source.cube.path
    with open(path, "r+b") as file:
        file.truncate(100)
    with pytest.raises(UnreadableScene, match="copy or download it again"):
        scene.read(GRID.window)
