"""Arrays in MATLAB files of both kinds: the same as scipy and h5py read, found by name, shape and what lies beside them."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.io

from terralean.errors import TerraleanError, UnreadableScene
from terralean.raster import arrays, mat5
from terralean.raster.grid import Window
from terralean.raster.scene import open_scene

h5py = pytest.importorskip("h5py")

ROWS, COLS, BANDS = 9, 7, 5
CUBE = np.arange(1, ROWS * COLS * BANDS + 1).reshape(ROWS, COLS, BANDS).astype("uint16")
WINDOW = Window(row=2, col=1, height=4, width=5)


def write_v73(path, *, cell=False, **variables):
    """As MATLAB writes -v7.3: axes in reverse, its class beside, a block of its own before; chunked and compressed if 3-D."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, values in variables.items():
            array = np.atleast_2d(values)
            options = {"chunks": (2, 3, 4), "compression": "gzip"} if array.ndim == 3 else {}
            file.create_dataset(name, data=array.T, **options).attrs["MATLAB_class"] = np.bytes_("double")
        if cell:
            file.create_group("#refs#").create_dataset("a", data=CUBE.T)
    with path.open("r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(124) + b"\x00\x02IM")


def write_v5(path, *, compressed=True, **variables):
    scipy.io.savemat(path, variables, do_compression=compressed)


WRITERS = {
    "v5": write_v5,
    "v5_plain": lambda path, **variables: write_v5(path, compressed=False, **variables),
    "v7.3": write_v73,
}


@pytest.fixture(params=WRITERS)
def write(request, tmp_path):
    """Write variables to a file; its path."""

    def to(**variables):
        WRITERS[request.param](tmp_path / "a.mat", **variables)
        return tmp_path / "a.mat"

    return to


def whole(path, **chosen):
    scene = open_scene(path, **chosen)
    values, _ = scene.read(scene.grid.window)
    return np.moveaxis(values, 0, -1)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64", "int64"])
def test_every_type_reads_as_it_was_written(write, dtype):
    found = whole(write(cube=CUBE.astype(dtype)))
    np.testing.assert_array_equal(found, CUBE.astype(dtype))
    assert found.dtype == dtype


def test_a_window_of_chosen_bands(write):
    values, valid = open_scene(write(cube=CUBE), bands=(4, 2)).read(WINDOW)
    np.testing.assert_array_equal(np.moveaxis(values, 0, -1), CUBE[2:6, 1:6][..., [3, 1]])
    assert valid.all()


def test_the_cube_is_found_among_other_variables(write):
    path = write(cube=CUBE, gt=np.ones((ROWS, COLS), "uint8"), picture=np.zeros((ROWS, COLS, 3), "uint8"), count=3.0)
    np.testing.assert_array_equal(whole(path), CUBE)
    np.testing.assert_array_equal(whole(f"{path}#picture"), np.zeros((ROWS, COLS, 3)))
    np.testing.assert_array_equal(whole(f"{path}#key=GT")[..., 0], np.ones((ROWS, COLS)))


def test_two_cubes_are_told_with_their_shapes(write):
    path = write(first=CUBE, second=CUBE[:, :-1], count=3.0)
    with pytest.raises(UnreadableScene, match=r"a\.mat holds 2 arrays that can be meant; .*first \(9 x 7 x 5") as error:
        open_scene(path)
    assert "second (9 x 6 x 5" in str(error.value) and "a.mat#key=first" in str(error.value)
    np.testing.assert_array_equal(whole(f"{path}#second"), CUBE[:, :-1])


def test_a_variable_that_is_not_there_or_no_array(write):
    path = write(cube=CUBE, count=3.0)
    with pytest.raises(UnreadableScene, match=r"has no variable 'Cubes'; it has .*cube \(9 x 7 x 5"):
        open_scene(f"{path}#Cubes")


def test_told_axes_decide(write):
    path = write(cube=CUBE)
    np.testing.assert_array_equal(whole(f"{path}#axes=crb"), CUBE.transpose(1, 0, 2))
    np.testing.assert_array_equal(whole(f"{path}#axes=brc"), CUBE.transpose(1, 2, 0))


def test_a_list_of_wavelengths_beside_tells_which_axis_is_the_bands(write):
    path = write(cube=CUBE.transpose(2, 0, 1), wavelengths=np.linspace(0.4, 0.8, BANDS), bbl=np.array([1, 1, 0, 1, 1]))
    scene = open_scene(path)
    np.testing.assert_array_equal(whole(path), CUBE[..., [0, 1, 3, 4]])
    assert scene.bands.wavelength_nm == (400, 500, 700, 800)
    assert "the axes are band, row, column, since a list of 5 numbers" in scene.source.cube.notes[-1]


def test_a_label_map_beside_tells_which_axes_are_rows_and_columns(write):
    path = write(cube=CUBE.transpose(2, 0, 1), gt=np.ones((ROWS, COLS), "uint8"))
    np.testing.assert_array_equal(whole(path), CUBE)


def test_without_a_sign_the_bands_are_the_last_axis(write):
    np.testing.assert_array_equal(whole(write(cube=CUBE.transpose(2, 0, 1))), CUBE.transpose(2, 0, 1))


def test_pixels_in_a_list_become_rows_and_columns(write):
    by_column = CUBE.transpose(2, 1, 0).reshape(BANDS, -1)  # (band, pixel), down the columns
    path = write(Y=by_column, nRow=float(ROWS), nCol=float(COLS))
    np.testing.assert_array_equal(whole(path), CUBE)
    path = write(Y=by_column)
    np.testing.assert_array_equal(whole(f"{path}#rows={ROWS},cols={COLS}"), CUBE)
    np.testing.assert_array_equal(whole(f"{path}#rows={ROWS}"), CUBE)
    values, _ = open_scene(f"{path}#rows={ROWS}", bands=(5, 1)).read(WINDOW)
    np.testing.assert_array_equal(np.moveaxis(values, 0, -1), CUBE[2:6, 1:6][..., [4, 0]])
    by_row = CUBE.reshape(-1, BANDS)  # (pixel, band), along the rows
    path = write(Y=by_row)
    np.testing.assert_array_equal(whole(f"{path}#rows={ROWS},cols={COLS},axes=rcb"), CUBE)
    values, _ = open_scene(f"{path}#rows={ROWS},axes=rcb", bands=(5, 1)).read(WINDOW)
    np.testing.assert_array_equal(np.moveaxis(values, 0, -1), CUBE[2:6, 1:6][..., [4, 0]])
    with pytest.raises(UnreadableScene, match="Y is 63 x 5, which rows=8, cols=7 does not make a cube of"):
        open_scene(f"{path}#rows=8,cols=7")
    with pytest.raises(UnreadableScene, match="pixels along axis 1; axes=bcr does not fit; say axes=crb or rcb"):
        open_scene(f"{path}#rows=9,cols=7,axes=bcr")


def test_complex_numbers_cells_and_texts_are_no_cubes(tmp_path):
    scipy.io.savemat(tmp_path / "a.mat", {"z": CUBE + 1j, "text": "hello", "cell": np.array([[1, "a"]], dtype=object)})
    with pytest.raises(UnreadableScene, match=r"holds no array .*z \(9 x 7 x 5 complex double\), text .*cell \(1 x 2 cell\)"):
        open_scene(tmp_path / "a.mat")
    with pytest.raises(UnreadableScene, match="variable z is complex double of 9 x 7 x 5"):
        open_scene(f"{tmp_path / 'a.mat'}#z")


def test_a_large_compressed_variable_is_unpacked_to_the_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(arrays, "MAPPED_BYTES", 100)
    write_v5(tmp_path / "a.mat", cube=CUBE)
    scene = open_scene(tmp_path / "a.mat")
    np.testing.assert_array_equal(np.moveaxis(scene.read(WINDOW)[0], 0, -1), CUBE[2:6, 1:6])
    assert scene.source.cube.store._held is None and scene.source.cube.store._file is not None
    scene.close()
    np.testing.assert_array_equal(np.moveaxis(scene.read(WINDOW)[0], 0, -1), CUBE[2:6, 1:6])


@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_that_is_cut_off_is_an_error(tmp_path, kind):
    WRITERS[kind](tmp_path / "a.mat", cube=np.random.default_rng(0).integers(0, 9999, (40, 40, 8)))
    data = (tmp_path / "a.mat").read_bytes()
    (tmp_path / "a.mat").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnreadableScene, match=r"a\.mat .*copy or download it again"):
        open_scene(tmp_path / "a.mat").read(WINDOW)


@pytest.mark.parametrize("kind", WRITERS)
def test_a_damaged_file_is_read_as_it_was_or_an_error(tmp_path, kind):
    """Bytes that flip anywhere before the numbers end in UnreadableScene, never in an error of a library."""
    path, rng, refused = tmp_path / "a.mat", np.random.default_rng(0), 0
    WRITERS[kind](path, cube=CUBE)
    data = path.read_bytes()
    for _ in range(150):
        damaged = np.frombuffer(data, np.uint8).copy()
        damaged[rng.integers(min(len(data), 3000), size=3)] = rng.integers(256, size=3)
        path.write_bytes(damaged.tobytes())
        try:
            with open_scene(path) as scene:
                scene.read(WINDOW)
        except TerraleanError:
            refused += 1
    assert refused > 10


def test_a_damaged_npy_header_is_an_error(tmp_path):
    np.save(tmp_path / "a.npy", CUBE)
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data.replace(b"), }", b"(, }"))
    with pytest.raises(UnreadableScene, match=r"a\.npy is no \.npy file: .*; write it with numpy\.save"):
        open_scene(tmp_path / "a.npy")


def test_an_empty_data_set_beside_the_cube_is_passed_over(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["cube"], file["nothing"] = CUBE, h5py.Empty("f4")
    np.testing.assert_array_equal(whole(tmp_path / "a.h5"), CUBE)


def test_what_is_no_matlab_file(tmp_path):
    (tmp_path / "a.mat").write_text("these are notes" * 20)
    with pytest.raises(UnreadableScene, match=r"a\.mat is no MATLAB file of version 5 to 7\.3 .*save\('NAME\.mat', '-v7'\)"):
        open_scene(tmp_path / "a.mat")
    scipy.io.savemat(tmp_path / "b.mat", {"cube": np.eye(3)}, format="4")
    with pytest.raises(UnreadableScene, match=r"b\.mat is no MATLAB file of version 5"):
        open_scene(tmp_path / "b.mat")


def test_without_h5py_the_error_names_the_extra(tmp_path, monkeypatch):
    write_v73(tmp_path / "a.mat", cube=CUBE)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UnreadableScene, match=r"needs h5py: pip install 'terralean\[spectral\]'; or save it in MATLAB"):
        open_scene(tmp_path / "a.mat")


def test_hdf5_that_matlab_did_not_write_keeps_its_axes(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("scene").create_dataset("cube", data=CUBE, chunks=(4, 4, 2))
    np.testing.assert_array_equal(whole(tmp_path / "a.h5"), CUBE)
    assert open_scene(tmp_path / "a.h5").source.cube.variable == "scene/cube"


def test_a_window_of_ten_gigabytes_in_hdf5_needs_no_such_memory(tmp_path):
    """Chunks that were never written take no space, but an array of all would."""
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        item = file.create_dataset("cube", shape=(200, 5000, 5000), dtype="int16", chunks=(20, 100, 100), compression="gzip")
        item.attrs["MATLAB_class"] = np.bytes_("int16")
        item[199, 4000, 4321] = 12345
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 * 2**30,) * 2)\n"
        "from terralean.raster.scene import open_scene\n"
        "from terralean.raster.grid import Window\n"
        f"scene = open_scene({str(tmp_path / 'a.mat')!r})\n"
        "values, _ = scene.read(Window(row=4300, col=3990, height=64, width=64))\n"
        "print(values.shape, values[199, 21, 10], values.sum())"
    )
    environment = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=False)
    assert done.stdout.strip() == "(200, 64, 64) 12345 12345", done.stderr


def test_cells_of_matlab_are_no_variables_of_the_file(tmp_path):
    write_v73(tmp_path / "a.mat", cell=True, cube=CUBE)
    np.testing.assert_array_equal(whole(tmp_path / "a.mat"), CUBE)


def test_big_endian_files_read_the_same(tmp_path):
    """Put together by hand after the format's description: no program at hand writes them."""
    values = CUBE[:2, :3, :2]

    def element(kind: int, data: bytes) -> bytes:
        return kind.to_bytes(4, "big") + len(data).to_bytes(4, "big") + data + bytes(-len(data) % 8)

    dims = np.array(values.shape, ">i4").tobytes()
    body = element(6, (11).to_bytes(4, "big") + bytes(4)) + element(5, dims) + element(1, b"cube")
    body += element(4, values.ravel(order="F").astype(">u2").tobytes())
    header = b"MATLAB 5.0 MAT-file".ljust(124) + b"\x01\x00MI"
    (tmp_path / "a.mat").write_bytes(header + element(14, body))
    np.testing.assert_array_equal(whole(tmp_path / "a.mat"), values)
    np.testing.assert_array_equal(scipy.io.loadmat(tmp_path / "a.mat")["cube"], values)


def test_real_files_hold_what_scipy_reads(shared):
    """Each numeric variable of each file, in full."""
    checked = 0
    for path in sorted((shared / "data/hsi").rglob("*.mat")):
        reference = scipy.io.loadmat(path)
        for variable in mat5.variables(str(path)):
            assert variable.name in reference
            if variable.store is None or len(variable.shape) > 3:
                continue
            shape = variable.shape if len(variable.shape) == 3 else (*variable.shape, 1)
            layout = arrays.Layout(order="bcr", shape=shape[::-1], dtype=variable.dtype)
            rows, cols, bands = map(range, shape)
            found = arrays.read(variable.store(layout), bands=bands, rows=rows, cols=cols)
            np.testing.assert_array_equal(np.moveaxis(found, 0, -1).reshape(variable.shape), reference[variable.name])
            checked += 1
    assert checked > 20


def test_real_scenes_of_pixels_in_a_list_are_those_that_matlab_shows(shared):
    jasper = scipy.io.loadmat(shared / "data/hsi/jasper_ridge/jasperRidge2_R198.mat")
    found = whole(shared / "data/hsi/jasper_ridge/jasperRidge2_R198.mat")
    np.testing.assert_array_equal(found, jasper["Y"].T.reshape(100, 100, 198, order="F"))
    samson = scipy.io.loadmat(shared / "data/hsi/samson/samson_1.mat")
    np.testing.assert_array_equal(whole(shared / "data/hsi/samson/samson_1.mat"), samson["V"].T.reshape(95, 95, 156, order="F"))


def test_a_header_kept_as_a_struct_places_the_scene(shared):
    path = shared / "data/hsi/salton_sea_roi/salton_sea_roi.mat"
    scene = open_scene(path)
    reference = scipy.io.loadmat(path)
    assert scene.grid.crs == "EPSG:32611"
    turn = np.deg2rad(34)
    step = 16.9 * np.array([np.cos(turn), np.sin(turn)])
    expected = (step[0], step[1], 579717.18, step[1], -step[0], 3714550.7)
    assert scene.grid.transform == pytest.approx(expected, abs=1e-9)
    good = reference["bbl"].ravel() == 1
    assert len(scene.bands) == good.sum() == 204
    assert scene.bands.wavelength_nm == pytest.approx(reference["wl"].ravel()[good] * 1000, abs=0.01)
    values, valid = scene.read(scene.grid.window)
    np.testing.assert_array_equal(np.moveaxis(values, 0, -1), reference["I"][..., good])
    assert valid.all()
    assert not open_scene(path, bands=(108,)).read(scene.grid.window)[1].any()  # bad bands hold NaN
