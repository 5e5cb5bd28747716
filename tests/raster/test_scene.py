import csv
import logging
import math
import multiprocessing
import os
import pickle
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.windows import Window as RasterioWindow

from terralean.errors import BandMismatch, MissingFile, SizeError, UnreadableScene
from terralean.raster.grid import Grid, Window
from terralean.raster.scene import open_scene, read_preview, read_reduced, valid_pixels
from terralean.raster.write import write_scene
from terralean.spec import Bands

GRID = Grid(width=24, height=20, crs="EPSG:32633", transform=(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0))
FOUR = Bands(names=("blue", "green", "red", "nir"), dtype="uint16")


def distinct(bands: int, *, dtype: str = "uint16", grid: Grid = GRID) -> np.ndarray:
    """Every value distinct and none of them 0."""
    return np.arange(1, bands * grid.height * grid.width + 1).reshape(bands, grid.height, grid.width).astype(dtype)


@pytest.fixture
def scene(tmp_path):
    write_scene(tmp_path / "a.tif", distinct(4), grid=GRID, bands=FOUR)
    with open_scene(tmp_path / "a.tif") as opened:
        yield opened


def write(path: Path, values: np.ndarray, **profile) -> Path:
    """A GeoTIFF as other programs write them."""
    count, height, width = values.shape
    given = {"crs": GRID.crs, "transform": rasterio.Affine(*GRID.transform), **profile}
    with rasterio.open(path, "w", driver="GTiff", count=count, height=height, width=width, dtype=values.dtype, **given) as file:
        file.write(values)
    return path


def test_a_written_scene_reads_back_exactly(scene):
    assert (scene.grid, scene.bands, scene.nodata) == (GRID, FOUR, None)
    values, valid = scene.read(GRID.window)
    np.testing.assert_array_equal(values, distinct(4))
    assert values.dtype == np.uint16 and valid.dtype == bool and valid.all()


@pytest.mark.parametrize(
    "window",
    [
        Window(row=3, col=5, height=6, width=7),
        Window(row=-4, col=-3, height=9, width=8),
        Window(row=15, col=20, height=9, width=9),
        Window(row=-5, col=-5, height=40, width=40),
        Window(row=-9, col=3, height=4, width=4),
        Window(row=100, col=100, height=3, width=2),
        Window(row=2, col=2, height=0, width=5),
    ],
)
def test_a_window_past_the_edges_is_zero_and_not_valid_there(scene, window):
    around = 200
    padded = np.pad(distinct(4), ((0, 0), (around, around), (around, around)))
    values, valid = scene.read(window)
    rows, cols = window.slices(origin=Window(row=-around, col=-around, height=0, width=0))
    np.testing.assert_array_equal(values, padded[:, rows, cols])
    np.testing.assert_array_equal(valid, padded[0, rows, cols] > 0)


def test_a_crop_reads_its_window_and_nothing_beyond(scene):
    crop = scene.crop(Window(row=4, col=6, height=8, width=9))
    assert crop.grid == GRID.crop(Window(row=4, col=6, height=8, width=9))
    values, valid = crop.read(Window(row=-1, col=-1, height=10, width=11))
    np.testing.assert_array_equal(values[:, 1:-1, 1:-1], distinct(4)[:, 4:12, 6:15])
    assert valid[1:-1, 1:-1].all() and valid.sum() == 72 and values[:, 0].max() == 0


def test_a_crop_of_a_crop_stays_in_both(scene):
    inner = scene.crop(Window(row=4, col=6, height=8, width=9)).crop(Window(row=6, col=-2, height=5, width=6))
    values, valid = inner.read(inner.grid.window)
    expected = np.zeros((5, 6), dtype=bool)
    expected[:2, 2:] = True
    np.testing.assert_array_equal(valid, expected)
    np.testing.assert_array_equal(values[:, :2, 2:], distinct(4)[:, 10:12, 6:10])
    with pytest.raises(SizeError, match=r"a\.tif: a crop needs at least one pixel, got 0 x 3"):
        scene.crop(Window(row=0, col=0, height=0, width=3))


def test_chosen_bands_come_in_the_order_asked_for(tmp_path, scene):
    chosen = open_scene(tmp_path / "a.tif", bands=(4, 1))
    assert chosen.bands.names == ("nir", "blue")
    np.testing.assert_array_equal(chosen.read(GRID.window)[0], distinct(4)[[3, 0]])


@pytest.mark.parametrize("bands", [(0,), (5,), (1, 1), ()])
def test_bands_that_are_not_there_are_refused(scene, bands):
    with pytest.raises(BandMismatch, match=r"a\.tif has bands 1 to 4; got"):
        open_scene(scene.path, bands=bands)


def test_an_alpha_band_is_a_mask_and_never_data(tmp_path):
    values = distinct(4, dtype="uint16")
    values[3] = 65535
    values[3, 2, 3] = 0
    path = write(tmp_path / "rgba.tif", values, photometric="RGB", alpha="YES")
    scene = open_scene(path)
    assert scene.bands.names == ("red", "green", "blue")
    read, valid = scene.read(GRID.window)
    np.testing.assert_array_equal(read, values[:3])
    assert np.argwhere(~valid).tolist() == [[2, 3]]
    with pytest.raises(BandMismatch, match=r"rgba\.tif has bands 1 to 3, band 4 is alpha, a mask; got 1, 2, 3, 4"):
        open_scene(path, bands=(1, 2, 3, 4))


def test_a_mask_band_hides_pixels(tmp_path):
    path = write(tmp_path / "masked.tif", distinct(3))
    mask = np.full((20, 24), 255, dtype=np.uint8)
    mask[5, 6:8] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as file:
        file.write_mask(mask)
    _, valid = open_scene(path).read(Window(row=4, col=5, height=3, width=4))
    assert np.argwhere(~valid).tolist() == [[1, 1], [1, 2]]


def test_mask_bands_of_single_bands_hide_pixels_too(tmp_path):
    path = write(tmp_path / "plain.tif", distinct(2))
    mask = np.full((1, 20, 24), 255, dtype=np.uint8)
    mask[0, 1, 1] = 0
    write(tmp_path / "mask.tif", mask)

    def band(position: int, masked: str) -> str:
        return (
            f'<VRTRasterBand dataType="UInt16" band="{position}"><SimpleSource><SourceFilename>{path}</SourceFilename>'
            f"<SourceBand>{position}</SourceBand></SimpleSource>{masked}</VRTRasterBand>"
        )

    source = f"<SimpleSource><SourceFilename>{tmp_path / 'mask.tif'}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>"
    masked = f'<MaskBand><VRTRasterBand dataType="Byte">{source}</VRTRasterBand></MaskBand>'
    (tmp_path / "a.vrt").write_text(
        f'<VRTDataset rasterXSize="24" rasterYSize="20">{band(1, "")}{band(2, masked)}</VRTDataset>'
    )
    _, valid = open_scene(tmp_path / "a.vrt").read(GRID.window)
    assert np.argwhere(~valid).tolist() == [[1, 1]]
    assert open_scene(tmp_path / "a.vrt", bands=(1,)).read(GRID.window)[1].all()


@pytest.mark.parametrize(
    ("nodata", "pixel", "is_valid"),
    [
        (None, (0, 0, 0), True),
        (0, (0, 0, 0), False),
        (0, (0, 7, 0), True),  # dark in two bands is dark, not missing
        (9, (9, 7, 8), False),
        (9, (1, 7, 8), True),
        (9.5, (9, 9, 9), True),
        (-1, (255, 255, 255), True),
        (1e30, (1, 2, 3), True),
        (math.nan, (1, 2, 3), True),
    ],
)
def test_nodata_rule_for_whole_numbers(nodata, pixel, is_valid):
    values = np.array(pixel, dtype=np.uint8).reshape(3, 1, 1)
    assert valid_pixels(values, nodata=(nodata,) * 3)[0, 0] == is_valid


@pytest.mark.parametrize(
    ("nodata", "pixel", "is_valid"),
    [
        (None, (1.0, math.nan), False),
        (None, (1.0, -math.inf), False),
        (-9999, (1.0, -9999.0), False),
        (-3.4e38, (np.float32(-3.4e38), 2.0), False),  # a double written for a single-precision file
        (-1.7e308, (2.0, 3.0), True),
        (0, (0.0, 1e-9), True),
    ],
)
def test_nodata_rule_for_real_numbers(nodata, pixel, is_valid):
    values = np.array(pixel, dtype=np.float32).reshape(2, 1, 1)
    assert valid_pixels(values, nodata=(nodata, nodata))[0, 0] == is_valid


def test_bands_may_have_nodata_values_of_their_own():
    values = np.array([[[1, 5, 1, 0]], [[2, 2, 6, 0]]], dtype=np.int16)
    assert valid_pixels(values, nodata=(5, 6)).tolist() == [[True, False, False, True]]
    assert valid_pixels(values, nodata=(0, None)).tolist() == [[True, True, True, True]]


@pytest.mark.parametrize(
    ("descriptions", "colours", "names"),
    [
        (("B2", "B3", "B4"), "gray undefined undefined", ("B2", "B3", "B4")),
        (("B2", None, "B4"), "red green blue", ("red", "green", "blue")),
        (("same", "same", "B4"), "blue green red", ("blue", "green", "red")),
        ((None, None, None), "red green undefined", ("band_1", "band_2", "band_3")),
        ((None, None, None), "gray undefined undefined", ("band_1", "band_2", "band_3")),
    ],
)
def test_band_names_are_all_real_or_all_positions(tmp_path, descriptions, colours, names):
    path = write(tmp_path / "a.tif", distinct(3), photometric="MINISBLACK")
    with rasterio.open(path, "r+") as file:
        file.descriptions = descriptions
        file.colorinterp = [ColorInterp[colour] for colour in colours.split()]
    assert open_scene(path).bands.names == names
    assert open_scene(path, bands=(3,)).bands.names[0] in {names[2], "B4"}


def test_band_facts_come_from_the_file(tmp_path):
    bands = Bands(
        names=("B4", "B8", "B11"),
        wavelength_nm=(664.6, 832.8, None),
        units="reflectance",
        scale=0.0001,
        dtype="int16",
    )
    write_scene(tmp_path / "a.tif", distinct(3, dtype="int16"), grid=GRID, bands=bands, nodata=-1)
    scene = open_scene(tmp_path / "a.tif")
    assert (scene.bands, scene.nodata) == (bands, -1)
    assert open_scene(scene.path, bands=(3, 1)).bands == bands.choose((2, 0))


@pytest.mark.parametrize(
    ("tags", "nm"),
    [
        ({"wavelength": "664.6", "wavelength_units": "Nanometers"}, 664.6),
        ({"wavelength": "0.6646", "wavelength_units": "Micrometers"}, 664.6),
        ({"wavelength": "0.6646"}, 664.6),
        ({"wavelength": "664.6", "wavelength_units": "Unknown"}, 664.6),
        ({"wavelength": "56000000", "wavelength_units": "Nanometers"}, None),
        ({"wavelength": "red"}, None),
    ],
)
def test_wavelengths_become_nanometres(tmp_path, tags, nm):
    path = write(tmp_path / "a.tif", distinct(1))
    with rasterio.open(path, "r+") as file:
        file.update_tags(1, **tags)
    assert open_scene(path).bands.wavelength_nm == ((nm,) if nm else None)


def test_bands_marked_bad_are_left_out_unless_chosen(tmp_path, caplog):
    path = write(tmp_path / "a.tif", distinct(3))
    with rasterio.open(path, "r+") as file:
        for position, good in enumerate("101", start=1):
            file.update_tags(position, bbl=good)
    with caplog.at_level(logging.INFO):
        assert open_scene(path).bands.names == open_scene(path).bands.names == ("band_1", "band_3")
    assert caplog.text.count("1 of 3 bands are marked bad (bbl) and left out") == 1
    assert open_scene(path, bands=(2,)).bands.names == ("band_2",)


def test_bands_of_several_types_are_read_as_the_common_one(tmp_path):
    write(tmp_path / "a.tif", distinct(1, dtype="uint8"))
    write(tmp_path / "b.tif", distinct(1, dtype="float32"))
    bands = "".join(
        f'<VRTRasterBand dataType="{kind}" band="{i}"><SimpleSource><SourceFilename>{tmp_path / name}</SourceFilename>'
        "<SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for i, (kind, name) in enumerate([("Byte", "a.tif"), ("Float32", "b.tif")], start=1)
    )
    scene = open_scene(f'<VRTDataset rasterXSize="24" rasterYSize="20">{bands}</VRTDataset>')
    values, _ = scene.read(GRID.window)
    assert scene.bands.dtype == values.dtype == np.float32
    np.testing.assert_array_equal(values[1], distinct(1, dtype="float32")[0])
    np.testing.assert_array_equal(values[0], distinct(1, dtype="uint8")[0])


def test_a_crs_without_a_code_comes_as_wkt_that_means_the_same(tmp_path):
    own = CRS.from_string("+proj=laea +lat_0=47 +lon_0=12 +datum=WGS84 +units=m")
    path = write(tmp_path / "a.tif", distinct(1), crs=own)
    crs = open_scene(path).grid.crs
    assert crs.startswith("PROJCRS[") and CRS.from_string(crs) == own


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # of this test's own writing
def test_a_scene_without_a_crs_is_read_with_one_warning_per_folder(tmp_path, caplog):
    for name in "ab":
        write(tmp_path / f"{name}.tif", distinct(1), crs=None, transform=None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            scene = open_scene(tmp_path / f"{name}.tif")
            assert scene.grid.crs is None and scene.read(GRID.window)[1].all()
    assert caplog.text.count("has no CRS: maps of it will have none either") == 1


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # of this test's own writing
def test_ground_control_points_alone_are_no_grid(tmp_path, caplog):
    points = [rasterio.control.GroundControlPoint(row=r, col=c, x=15 + c, y=50 - r) for r in (0, 20) for c in (0, 24)]
    path = write(tmp_path / "a.tif", distinct(1), crs=None, transform=None)
    with rasterio.open(path, "r+") as file:
        file.gcps = (points, CRS.from_epsg(4326))
    assert open_scene(path).grid.crs is None
    assert "is placed by ground control points only: maps of it will have no CRS" in caplog.text


def test_a_path_that_is_not_there_names_the_nearest(tmp_path, scene):
    with pytest.raises(MissingFile, match=r"b\.tif is not there; expected an image.*nearest in that folder: a\.tif"):
        open_scene(tmp_path / "b.tif")
    with pytest.raises(MissingFile, match="no folder"):
        open_scene(tmp_path / "none" / "a.tif")


def test_what_is_no_image_is_refused_by_name(tmp_path):
    (tmp_path / "notes.tif").write_text("these are notes")
    with pytest.raises(UnreadableScene, match=r"notes\.tif is not an image that GDAL can open"):
        open_scene(tmp_path / "notes.tif")
    write(tmp_path / "radar.tif", distinct(1, dtype="complex64"))
    with pytest.raises(UnreadableScene, match=r"radar\.tif holds complex64 values; expected real numbers"):
        open_scene(tmp_path / "radar.tif")


def test_a_container_without_bands_lists_what_is_in_it(tmp_path):
    path = tmp_path / "two.gpkg"
    for name, append in (("north", "NO"), ("south", "YES")):
        values = distinct(1, dtype="uint8")
        profile = {"crs": GRID.crs, "transform": rasterio.Affine(*GRID.transform), "height": 20, "width": 24, "count": 1}
        options = {"RASTER_TABLE": name, "APPEND_SUBDATASET": append}
        with rasterio.open(path, "w", driver="GPKG", dtype="uint8", **profile, **options) as file:
            file.write(values)
    with pytest.raises(UnreadableScene, match=r"(?s)two\.gpkg has no image bands.*north.*south"):
        open_scene(path)


@pytest.mark.parametrize("bands", [1, 3])
def test_a_truncated_png_is_not_opened(tmp_path, bands):
    path = tmp_path / "cut.png"
    values = np.random.default_rng(0).integers(0, 9, (bands, 64, 64), dtype=np.uint8)
    with rasterio.open(path, "w", driver="PNG", width=64, height=64, count=bands, dtype="uint8") as file:
        file.write(values)
    assert np.array_equal(open_scene(path).read(Window(row=0, col=0, height=64, width=64))[0], values)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UnreadableScene, match=r"cut\.png breaks off before its end; expected a complete PNG, copy or download"):
        open_scene(path)


def test_a_truncated_file_names_file_and_window(tmp_path):
    path = write(tmp_path / "cut.tif", distinct(1), blockysize=1)
    path.write_bytes(path.read_bytes()[:-200])
    scene = open_scene(path)
    assert scene.read(Window(row=0, col=0, height=10, width=24))[1].all()
    with pytest.raises(UnreadableScene, match=r"cut\.tif breaks off at rows 15 to 19, columns 2 to 5: .*download it again"):
        scene.read(Window(row=15, col=2, height=9, width=4))


def test_a_pickled_scene_reads_the_same_and_carries_no_handle(scene):
    scene.read(GRID.window)
    again = pickle.loads(pickle.dumps(scene.crop(Window(row=2, col=3, height=4, width=5))))
    assert again == scene.crop(Window(row=2, col=3, height=4, width=5))
    np.testing.assert_array_equal(again.read(again.grid.window)[0], distinct(4)[:, 2:6, 3:8])


def test_a_forked_process_opens_its_own_handle(tmp_path):
    grid = Grid(width=1000, height=1000, crs=None)
    values = distinct(1, dtype="uint32", grid=grid)
    scene = open_scene(write(tmp_path / "a.tif", values))
    scene.read(Window(row=0, col=0, height=1, width=1))

    def check(seed: int) -> None:  # with one position in one file, the processes would read each other's rows
        for row in np.random.default_rng(seed).permutation(1000):
            found, _ = scene.read(Window(row=row, col=0, height=1, width=1000))
            np.testing.assert_array_equal(found, values[:, row : row + 1])

    workers = [multiprocessing.get_context("fork").Process(target=check, args=(seed,)) for seed in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0] * 4


def test_threads_may_share_a_scene(scene):
    wrong = []

    def check(start: int) -> None:
        for row in range(20):
            window = Window(row=(row + start) % 20, col=0, height=1, width=24)
            if not np.array_equal(scene.read(window)[0], distinct(4)[:, window.row : window.row + 1]):
                wrong.append(window)

    threads = [threading.Thread(target=check, args=(start,)) for start in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_many_scenes_may_be_known_and_closed_ones_read_again(tmp_path, scene):
    scenes = [open_scene(scene.path) for _ in range(50)]
    open_files = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    assert open_files < 50
    scene.close()
    assert scenes[7].read(GRID.window)[1].all() and scene.read(GRID.window)[1].all()


@pytest.mark.parametrize("max_px", [6, 12, 24, 100])
def test_a_preview_is_a_small_scene(tmp_path, max_px):
    values = distinct(2)
    values[:, :, :12] = 0
    write_scene(tmp_path / "a.tif", values, grid=GRID, bands=FOUR.choose((0, 1)), nodata=0)
    small, valid = read_preview(open_scene(tmp_path / "a.tif"), max_px)
    width = min(max_px, 24)
    assert small.shape == (2, round(20 * width / 24), width)
    assert set(np.unique(small)) <= set(np.unique(values))
    assert not valid[:, : width // 2].any() and valid[:, width // 2 :].all()


def test_a_preview_of_a_crop_past_the_edge_is_not_valid_there(scene):
    small, valid = read_preview(scene.crop(Window(row=-20, col=0, height=40, width=24)), 10)
    assert valid.shape == (10, 6) and not valid[:5].any() and valid[5:].all() and small[:, :5].max() == 0


def test_a_reduced_read_holds_the_means(tmp_path):
    values = distinct(4, dtype="float32")
    write_scene(tmp_path / "a.tif", values, grid=GRID, bands=Bands(names=FOUR.names, dtype="float32"))
    small, valid = read_reduced(open_scene(tmp_path / "a.tif", bands=(3, 1)), height=10, width=6)
    np.testing.assert_allclose(small, values.reshape(4, 10, 2, 6, 4).mean(axis=(2, 4))[[2, 0]], rtol=1e-6)
    assert valid.all()


def test_what_is_not_valid_stays_out_of_the_means(tmp_path):
    values = distinct(2, dtype="float32")
    values[:, :, ::2] = -1
    values[1, 10:] = np.nan
    write_scene(tmp_path / "a.tif", values, grid=GRID, bands=Bands(names=("a", "b"), dtype="float32"), nodata=-1)
    small, valid = read_reduced(open_scene(tmp_path / "a.tif"), height=10, width=8)
    kept = np.where(values == -1, np.nan, values)[:, :10].reshape(2, 5, 2, 8, 3)
    np.testing.assert_allclose(small[:, :5][:, valid[:5]], np.nanmean(kept, axis=(2, 4))[:, valid[:5]], rtol=1e-6)
    assert valid[:5].any()
    assert not valid[5:].any()


# Real files: shared/data/rgb/raster/index.csv says what each is.


def odd_files() -> list[dict[str, str]]:
    """Rows of the index, or one row without a path where the shared folder is absent."""
    index = Path(os.environ.get("TERRALEAN_SHARED", Path(__file__).parents[3] / "shared")) / "data/rgb/raster/index.csv"
    if not index.exists():
        return [{"path": "", "dtype": ""}]
    with index.open(newline="") as file:
        return [row for row in csv.DictReader(file) if not row["dtype"].startswith("complex")]


@pytest.mark.parametrize("row", odd_files(), ids=lambda row: row["path"])
def test_every_odd_raster_is_what_the_index_says(shared, row):
    path = shared / "data/rgb/raster" / row["path"]
    traits = row["traits"].split()
    with open_scene(path) as scene:
        assert (scene.grid.width, scene.grid.height) == (int(row["w"]), int(row["h"]))
        assert len(scene.bands) == int(row["bands"]) - ("alpha" in traits)
        assert scene.bands.dtype == row["dtype"]
        if {"rpc"} & set(traits) or any(trait.startswith("gcps") for trait in traits):
            assert scene.grid.crs is None
        elif row["crs"] == "custom":
            assert "[" in scene.grid.crs
        else:
            assert scene.grid.crs == (row["crs"] or None)
        found = "" if scene.nodata is None else str(float(scene.nodata))
        assert found == row["nodata"]
        window = Window(row=scene.grid.height // 3, col=scene.grid.width // 3, height=100, width=100)
        values, valid = scene.read(window)
        inside = window.cut(scene.grid.window)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # of this test's own reading
        file = rasterio.open(path)
    with file:
        part = RasterioWindow(inside.col, inside.row, inside.width, inside.height)
        np.testing.assert_array_equal(values[:, : inside.height, : inside.width], file.read(scene.positions, window=part))
        theirs = file.dataset_mask(window=part) != 0
        if scene.grid.crs:
            assert CRS.from_string(scene.grid.crs) == file.crs
    assert not valid[inside.height :].any() and not valid[:, inside.width :].any()
    if "has-nan" not in traits and not (scene.nodata == 0 and "maskband" in traits):
        np.testing.assert_array_equal(valid[: inside.height, : inside.width], theirs)
    assert not (valid & np.isnan(values).any(axis=0)).any()


def test_the_corrupt_file_names_file_and_window(shared):
    scene = open_scene(shared / "data/rgb/raster/rasterio/corrupt.tif")
    assert scene.read(Window(row=0, col=0, height=512, width=1024))[1].all()
    with pytest.raises(
        UnreadableScene, match=r"corrupt\.tif breaks off at rows 600 to 699, columns 700 to 799: .*expected 47086"
    ):
        scene.read(Window(row=600, col=700, height=100, width=100))


def test_complex_radar_is_refused(shared):
    with pytest.raises(UnreadableScene, match=r"cint16\.tif holds complex_int16 values"):
        open_scene(shared / "data/rgb/raster/rioxarray/cint16.tif")


def test_a_hyperspectral_scene_keeps_wavelengths_and_drops_bad_bands(shared):
    envi = open_scene(shared / "data/hsi/enmap_potsdam/derived_envi/enmap_potsdam_mosaic.img")
    tile = open_scene(shared / "data/hsi/enmap_potsdam/images/enmap_potsdam_tile_128_0.tif")
    assert len(envi.bands) == len(tile.bands) == 218
    assert envi.bands.scale == tile.bands.scale == 0.0001
    assert envi.bands.wavelength_nm == tile.bands.wavelength_nm
    assert envi.bands.wavelength_nm[:2] == (418.24, 423.874)
    assert tile.read(tile.grid.window)[1].all()
    assert envi.read(envi.grid.window)[1].mean() == 18 / 30  # 18 of 30 tiles were published
