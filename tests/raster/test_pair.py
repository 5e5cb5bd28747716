import pickle

import numpy as np
import pytest
import rasterio

from terralean.errors import BandMismatch, GridMismatch, MissingFile, SwappedDates
from terralean.raster.grid import Grid, Window
from terralean.raster.pair import Pair, dates_of, find_pair
from terralean.raster.scene import open_scene, read_preview
from terralean.raster.write import write_scene
from terralean.spec import Bands

GRID = Grid(width=40, height=30, crs="EPSG:32633", transform=(2.0, 0.0, 3e5, 0.0, -2.0, 5.2e6))
BANDS = Bands(names=("red", "green", "blue"))


def values(start: int, *, grid: Grid = GRID, bands: int = 3) -> np.ndarray:
    count = bands * grid.height * grid.width
    return (np.arange(start, start + count) % 251 + 1).astype(np.uint8).reshape(bands, grid.height, grid.width)


def write(path, array, *, grid=GRID, bands=BANDS, nodata=None, taken=None):
    write_scene(path, array, grid=grid, bands=bands, nodata=nodata)
    if taken is not None:
        with rasterio.open(path, "r+") as file:
            file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME=taken)
    return path


@pytest.fixture
def pair(tmp_path):
    before, after = values(0), values(7)
    return (write(tmp_path / "a.tif", before), write(tmp_path / "b.tif", after)), (before, after)


def test_a_pair_reads_as_the_bands_of_both_dates(pair):
    (before, after), (first, second) = pair
    with open_scene(f"{before}:{after}") as scene:
        assert scene.bands.names == ("red before", "green before", "blue before", "red after", "green after", "blue after")
        assert scene.grid == GRID
        found, valid = scene.read(GRID.window)
        assert np.array_equal(found, np.concatenate([first, second]))
        assert valid.all()
        window = Window(row=-2, col=30, height=10, width=20)
        part, seen = scene.read(window)
        assert np.array_equal(part[:, 2:, :10], found[:, :8, 30:])
        assert not seen[:2].any()
        assert not seen[:, 10:].any()
        crop = pickle.loads(pickle.dumps(scene.crop(Window(row=3, col=4, height=5, width=6))))
    assert np.array_equal(crop.read(Window(row=0, col=0, height=5, width=6))[0], found[:, 3:8, 4:10])
    with open_scene(f"{before}:{after}") as scene:
        assert read_preview(scene, 10)[0].shape == (6, 8, 10)


def test_bands_are_chosen_in_each_date(pair):
    (before, after), (first, second) = pair
    with open_scene(f"{before}:{after}", bands=[3, 1]) as scene:
        assert scene.bands.names == ("blue before", "red before", "blue after", "red after")
        assert np.array_equal(scene.read(GRID.window)[0], np.concatenate([first[[2, 0]], second[[2, 0]]]))


def test_nodata_of_either_date_is_not_valid_even_if_they_differ(tmp_path):
    first, second = values(0), values(7)
    first[:, 2:4, :5], second[1, 20:, 8:10] = 0, 255
    before = write(tmp_path / "a.tif", first, nodata=0)
    after = write(tmp_path / "b.tif", second, nodata=255)
    with open_scene(f"{before}:{after}") as scene:
        _, valid = scene.read(GRID.window)
    expected = np.ones((30, 40), bool)
    expected[2:4, :5] = expected[20:, 8:10] = False
    assert np.array_equal(valid, expected)


def test_dates_of_another_size_place_or_crs_are_refused(tmp_path):
    before = write(tmp_path / "a.tif", values(0))
    wide = Grid(width=41, height=30, crs=GRID.crs, transform=GRID.transform)
    moved = Grid(width=40, height=30, crs=GRID.crs, transform=(2.0, 0.0, 3e5 + 1, 0.0, -2.0, 5.2e6))
    other = Grid(width=40, height=30, crs="EPSG:32632", transform=GRID.transform)
    for grid in (wide, moved, other):
        after = write(tmp_path / "b.tif", values(0, grid=grid), grid=grid)
        with pytest.raises(GridMismatch, match=r"a\.tif is 40 x 30 px in EPSG:32633.*--resample"):
            open_scene(f"{before}:{after}")
    plain = Grid(width=41, height=30, crs=None)
    after = write(tmp_path / "b.tif", values(0, grid=plain), grid=plain)
    with pytest.raises(GridMismatch, match="only dates with a CRS"):
        open_scene(f"{before}:{after}#resample")


def test_the_later_date_is_resampled_onto_the_grid_of_the_earlier(tmp_path):
    before = write(tmp_path / "a.tif", values(0))
    # Twice the pixel, one (large) pixel further to the right: its pixels lie under 2 x 2 of the earlier date's.
    grid = Grid(width=20, height=15, crs=GRID.crs, transform=(4.0, 0.0, 3e5 + 4, 0.0, -4.0, 5.2e6))
    rows, cols = np.indices((15, 20))
    ramp = np.stack([60 + 4 * cols, 60 + 4 * rows, 10 + cols + rows]).astype(np.uint8)
    after = write(tmp_path / "b.tif", ramp, grid=grid)
    with open_scene(f"{before}:{after}#resample") as scene:
        found, valid = scene.read(GRID.window)
        again, _ = scene.read(Window(row=5, col=7, height=11, width=13))
    assert np.array_equal(found[:3], values(0))
    assert not valid[:, :2].any()
    assert valid[:, 3:-1].all()
    # Between the centres of the coarser pixels, a ramp is a ramp: 4 a coarse pixel are 2 a fine one.
    expected = 60 + 2 * (np.arange(40) - 2) - 1
    assert np.abs(found[3, 15, 5:-2].astype(int) - expected[5:-2]).max() <= 1
    assert np.array_equal(again, found[:, 5:16, 7:20])


def test_other_bands_are_refused(tmp_path):
    before = write(tmp_path / "a.tif", values(0))
    after = write(tmp_path / "b.tif", values(0, bands=2), bands=Bands(names=("red", "green")))
    with pytest.raises(BandMismatch, match=r"3 x uint8 \(red, green, blue\).*\n.*2 x uint8 \(red, green\)"):
        open_scene(f"{before}:{after}")
    after = write(tmp_path / "b.tif", values(0), bands=Bands(names=("blue", "green", "red")))
    with pytest.raises(BandMismatch, match="the same bands"):
        open_scene(f"{before}:{after}")


def test_names_of_bands_may_hold_the_day_of_each_date(tmp_path):
    paths = [
        write(tmp_path / f"{day}.tif", values(0), bands=Bands(names=(f"B1 of {day}", f"B2 of {day}", f"B3 of {day}")))
        for day in (20010304, 20090506)
    ]
    with open_scene(f"{paths[0]}:{paths[1]}") as scene:
        assert scene.bands.names == tuple(f"B{i} of  {when}" for when in ("before", "after") for i in (1, 2, 3))


def test_swapped_dates_are_refused_where_the_files_say_so(tmp_path):
    before = write(tmp_path / "a.tif", values(0), taken="2020-05-01 10:00:00")
    after = write(tmp_path / "b.tif", values(1), taken="2018-05-01 10:00:00")
    with pytest.raises(SwappedDates, match=r"a\.tif was taken 2020-05-01T10:00:00Z.*b\.tif.*2018"):
        open_scene(f"{before}:{after}")
    assert open_scene(f"{after}:{before}").grid == GRID


def test_a_missing_date_is_named(pair, tmp_path):
    (before, after), _ = pair
    with pytest.raises(MissingFile, match=r"gone\.tif is not there; it is the later date of a pair with .*a\.tif"):
        open_scene(f"{before}:{tmp_path / 'gone.tif'}")
    with pytest.raises(MissingFile, match=r"gone\.tif is not there; it is the earlier date"):
        open_scene(f"{tmp_path / 'gone.tif'}:{after}")


def test_what_is_a_pair_and_what_is_not(pair, tmp_path):
    (before, after), _ = pair
    assert find_pair(f"{before}:{after}") == Pair(before=str(before), after=str(after))
    assert find_pair(f"{before}:{after}#resample") == Pair(before=str(before), after=str(after), resample=True)
    remote = Pair(before="s3://bucket/a.tif", after="/vsicurl/https://host/b.tif")
    assert find_pair(str(remote)) == remote
    colon = tmp_path / "10:30.tif"
    colon.write_bytes(before.read_bytes())
    for path in (str(before), "https://host:8080/a.tif", 'NETCDF:"file.nc":var', str(colon), "<VRTDataset a:b>"):
        assert find_pair(path) is None
    assert find_pair(f"{colon}:{after}") == Pair(before=str(colon), after=str(after))


def test_dates_of_a_pair_lie_on_one_grid(pair):
    (before, after), (first, second) = pair
    dates = dates_of(Pair(before=str(before), after=str(after)))
    assert [np.array_equal(scene.read(GRID.window)[0], given) for scene, given in zip(dates, (first, second), strict=True)] == [
        True,
        True,
    ]


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # of this test's own writing
def test_pairs_without_a_crs_in_two_folders_are_warned_of_once(tmp_path, caplog):
    plain = Grid(width=8, height=8, crs=None, transform=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    for name in "123":
        for start, folder in enumerate("AB"):
            write(tmp_path / folder / f"{name}.tif", values(start, grid=plain), grid=plain)
        open_scene(f"{tmp_path}/A/{name}.tif:{tmp_path}/B/{name}.tif")
    assert caplog.text.count("has no CRS: maps of it will have none either") == 1
