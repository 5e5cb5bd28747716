import numpy as np
import pytest
import rasterio
from rio_cogeo import cog_validate

from terralean.errors import OutputFailed
from terralean.raster.cog import CogWriter, Content, check_space, space_bytes
from terralean.raster.grid import Grid, Window

GRID = Grid(width=700, height=600, crs="EPSG:32633", transform=(10.0, 0.0, 500_000.0, 0.0, -10.0, 5_000_000.0))
SCORES = Content(bands=("water", "wood"), dtype="float32", nodata=float("nan"), overviews="AVERAGE", bits=32)
PERCENT = Content(bands=("confidence",), dtype="uint8", nodata=255, overviews="AVERAGE", bits=7)


def save(path, values, content, *, rows=250):
    with CogWriter(path, grid=GRID, content=content, tags={"MODEL": "a"}) as writer:
        for row in range(0, GRID.height, rows):
            strip = Window(row=row, col=0, height=rows, width=GRID.width).cut(GRID.window)
            writer.write(strip, values[:, row : row + strip.height])


@pytest.mark.parametrize("rows", [100, 250, 600])
def test_scores_come_back_exactly(tmp_path, rows):
    values = np.random.default_rng(0).random((2, 600, 700), dtype=np.float32)
    values[:, 3, 4] = np.nan
    save(tmp_path / "scores.tif", values, SCORES, rows=rows)
    assert cog_validate(tmp_path / "scores.tif") == (True, [], [])
    with rasterio.open(tmp_path / "scores.tif") as file:
        np.testing.assert_array_equal(file.read(), values)
        assert file.descriptions == ("water", "wood") and np.isnan(file.nodata) and file.tags()["MODEL"] == "a"
    assert [path.name for path in tmp_path.iterdir()] == ["scores.tif"]


def test_averaged_overviews_leave_nodata_out(tmp_path):
    values = np.full((1, 600, 700), 40, dtype=np.uint8)
    values[:, :, 1::2] = 255
    save(tmp_path / "confidence.tif", values, PERCENT)
    with rasterio.open(tmp_path / "confidence.tif", overview_level=0) as file:
        assert np.unique(file.read()).tolist() == [40]


def test_strips_out_of_order_are_a_bug_of_ours(tmp_path):
    writer = CogWriter(tmp_path / "a.tif", grid=GRID, content=PERCENT, tags={})
    with pytest.raises(AssertionError, match="full width from top to bottom"), writer:
        writer.write(Window(row=10, col=0, height=10, width=700), np.zeros((1, 10, 700), dtype=np.uint8))
    assert not list(tmp_path.iterdir())


def test_missing_rows_leave_no_file(tmp_path):
    writer = CogWriter(tmp_path / "a.tif", grid=GRID, content=PERCENT, tags={})
    with pytest.raises(OutputFailed, match=r"a\.tif: 10 of 600 rows were written"), writer:
        writer.write(Window(row=0, col=0, height=10, width=700), np.zeros((1, 10, 700), dtype=np.uint8))
    assert not list(tmp_path.iterdir())


def test_too_small_a_disk_is_told_before_the_start(tmp_path):
    with pytest.raises(
        OutputFailed, match=r"a\.tif may need 1,000,000,000,000,000 bytes while it is written, [\d,]+ are available"
    ):
        check_space(tmp_path / "a.tif", needed=10**15)
    earth = Grid(width=10**8, height=10**7, crs=None)
    with pytest.raises(OutputFailed, match="free some space or choose another folder"):
        CogWriter(tmp_path / "a.tif", grid=earth, content=PERCENT, tags={}).__enter__()
    assert not list(tmp_path.iterdir())


def test_the_space_asked_for_is_enough_for_noise(tmp_path):
    values = np.random.default_rng(0).integers(0, 128, (1, 600, 700), dtype=np.uint8)
    writer = CogWriter(tmp_path / "a.tif", grid=GRID, content=PERCENT, tags={}).__enter__()
    writer.write(GRID.window, values)
    writer._strips.close()
    strips = sum(path.stat().st_size for path in (tmp_path / "a.tif.part").iterdir())
    writer.finish({})
    used = strips + (tmp_path / "a.tif").stat().st_size * (1 + 1 / 4)
    assert 0.5 * space_bytes(GRID, PERCENT) < used < space_bytes(GRID, PERCENT)
