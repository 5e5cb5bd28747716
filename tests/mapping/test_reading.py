"""A scene read from top to bottom, and cut into batches."""

from dataclasses import replace

import numpy as np
import pytest

from terralean.mapping.plan import Plan
from terralean.mapping.reading import batch_at, batch_count, batches, first_row_read, pieces
from terralean.raster.grid import Grid, Window
from terralean.raster.scene import open_scene
from terralean.raster.write import write_scene
from terralean.spec import Bands

GRID = Grid(width=300, height=1100, crs="EPSG:32633", transform=(1.0, 0.0, 3e5, 0.0, -1.0, 5e6))
PLAN = Plan(grid=GRID, tile_px=64, overlap_px=16)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Blocks of 256 px, each value another one as far as two bytes can tell; a corner and a stripe without data."""
    values = (np.arange(2 * 1100 * 300, dtype=np.uint32).reshape(2, 1100, 300) % 65521 + 1).astype(np.uint16)
    values[:, :70, :130] = 0
    values[:, 400:600] = 0
    path = tmp_path_factory.mktemp("scenes") / "scene.tif"
    write_scene(path, values, grid=GRID, bands=Bands(names=("a", "b"), dtype="uint16"), nodata=0)
    with open_scene(path) as opened:
        yield opened


class Watched:
    """Reads as a scene does, and notes what was read."""

    def __init__(self, scene):
        self.scene, self.windows = scene, []

    def read(self, window):
        self.windows.append(window)
        return self.scene.read(window)


def all_batches(scene, plan, *, size, first=0):
    first_row = plan.rows[first]
    begin = first_row_read(plan, size=size, first_row=first_row)
    return list(batches(pieces(scene, plan, first_row=begin), plan, size=size, first_row=first_row))


@pytest.mark.parametrize("size", [1, 4, 7, 50])
def test_windows_hold_what_the_scene_does_and_those_without_data_are_left_out(scene, size):
    found = all_batches(scene, PLAN, size=size)
    cols = PLAN.cols
    seen = {}
    for batch in found:
        assert len(batch.numbers) == len(batch.windows) == len(batch.values) <= size
        for index, (number, window) in enumerate(zip(batch.numbers, batch.windows, strict=True)):
            assert number < batch.end
            assert (window.row, window.col) == (PLAN.rows[number // len(cols)], cols[number % len(cols)])
            values, valid = scene.read(window)
            np.testing.assert_array_equal(batch.values[index], values)
            np.testing.assert_array_equal(batch.valid[index], valid)
            np.testing.assert_array_equal(batch.wanted[index], valid)
            seen[number] = window
    assert [batch.end for batch in found] == [*range(size, len(PLAN.rows) * len(cols), size), len(PLAN.rows) * len(cols)]
    for number in range(len(PLAN.rows) * len(cols)):
        window = Window(row=PLAN.rows[number // len(cols)], col=cols[number % len(cols)], height=64, width=64)
        assert (number in seen) == scene.read(window)[1].any()


def test_each_row_is_read_once_in_whole_blocks_of_the_file(scene):
    assert scene.block() == (256, 256)
    rows = [piece.window for piece in pieces(scene, PLAN, first_row=0)]
    assert [(window.row, window.height) for window in rows] == [(0, 256), (256, 256), (512, 256), (768, 256), (1024, 76)]
    part = scene.crop(Window(row=200, col=10, height=700, width=100))  # blocks lie where they did
    plan = Plan(grid=part.grid, tile_px=64, overlap_px=16)
    found = [(piece.window.row, piece.window.height) for piece in pieces(part, plan, first_row=0)]
    assert found == [(0, 56), (56, 256), (312, 256), (568, 132)]
    watched = Watched(scene)
    all_batches(watched, PLAN, size=4)
    assert sum(window.pixels for window in watched.windows) == GRID.window.pixels


@pytest.mark.parametrize("size", [1, 4, 7, 50])
@pytest.mark.parametrize("first", [0, 1, 9, 22])
def test_batches_from_a_row_on_are_the_last_ones_of_all(scene, size, first):
    whole = {batch.end: batch for batch in all_batches(scene, PLAN, size=size)}
    found = all_batches(scene, PLAN, size=size, first=first)
    assert found[0].end > first * len(PLAN.cols) and found[-1].end == len(PLAN.rows) * len(PLAN.cols)
    for batch in found:
        assert batch.numbers == whole[batch.end].numbers
        np.testing.assert_array_equal(batch.values, whole[batch.end].values)


def test_a_single_batch_is_that_of_all(scene):
    found = all_batches(scene, PLAN, size=7)
    assert len(found) == batch_count(PLAN, size=7)
    for number in (0, 3, len(found) - 1):
        one = batch_at(scene, PLAN, number, size=7)
        assert (one.numbers, one.windows, one.end) == (found[number].numbers, found[number].windows, found[number].end)
        np.testing.assert_array_equal(one.values, found[number].values)
        np.testing.assert_array_equal(one.wanted, found[number].wanted)


def test_windows_of_a_part_are_those_of_the_whole_that_reach_into_it():
    part = replace(PLAN, part=Window(row=100, col=60, height=150, width=90))
    assert part.rows == [48, 96, 144, 192, 240]
    assert part.cols == [0, 48, 96, 144]
    strips = [part.strip(row) for row in part.rows]
    assert [(window.row, window.height) for window in strips if window.height] == [(100, 44), (144, 48), (192, 48), (240, 10)]
    assert strips[0].height == 0  # that row of windows only lends its lower edge
    assert {(window.col, window.width) for window in strips} == {(60, 90)}
    assert part.map_grid == GRID.crop(part.part)
    for row in part.rows:
        window = Window(row=row, col=96, height=64, width=64)
        np.testing.assert_array_equal(part.weight(window), PLAN.weight(window))
