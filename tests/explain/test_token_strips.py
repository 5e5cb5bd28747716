import numpy as np
import pytest
import torch

from terralean.errors import ConfigError, UnreadableScene
from terralean.explain.strips import Lattice
from terralean.explain.token_strips import first_reading, group_sizes, in_places_of, owned, strips, token_lattice
from terralean.explain.tokens import Tracer
from terralean.mapping.plan import Plan
from terralean.raster.grid import Grid, Window
from terralean.tokens.elvit import ELViTConfig
from terralean.tokens.tome import ToMeConfig
from terralean.tokens.topk import TopKConfig

TOPK = TopKConfig(after=(2, 4), counts=(9, 4))
TOME = ToMeConfig(r=(0, 4, 0, 3, 0, 0))


def lattice_of(tracer: Tracer, scene, *, tile_px: int = 64, overlap_px: int = 16) -> Lattice:
    plan = Plan(grid=scene.grid, tile_px=tile_px, overlap_px=overlap_px)
    first = first_reading(tracer, scene, plan, path="values")
    return token_lattice(tracer, scene.grid, first.decisions, tile_px=tile_px, overlap_px=overlap_px)


def stitched(tracer: Tracer, scene, lattice: Lattice, *, tell=lambda reading: None):
    """Codes, sizes and data of all strips."""
    found = list(strips(tracer, scene, lattice, known={}, tell=tell))
    below = [strip.window.row + strip.window.height for strip in found]
    assert [strip.window.row for strip in found] == [0, *below[:-1]]
    assert below[-1] == lattice.grid.height
    assert all((strip.window.col, strip.window.width) == (0, lattice.grid.width) for strip in found)
    points = max(len(strip.codes) for strip in found)
    known = [strip for strip in found if len(strip.codes) == points]
    return (
        np.concatenate([strip.codes for strip in known], axis=1),
        np.concatenate([strip.sizes for strip in known], axis=1),
        np.concatenate([strip.data for strip in found], axis=0),
    )


@pytest.mark.parametrize("overlap", [0, 16, 32, 48, 64])
@pytest.mark.parametrize("length", [100, 128, 129, 250, 400])
def test_every_place_belongs_to_the_window_whose_middle_is_nearest(length, overlap):
    plan = Plan(grid=Grid(width=length, height=50, crs=None), tile_px=128, overlap_px=overlap)
    lattice = Lattice(plan=plan, side=8)
    owner = np.full(plan.cols[-1] // 16 + 8, -1)
    for number, start in enumerate(plan.cols):
        own = owned(start, plan.cols, lattice)
        assert (owner[start // 16 + own.start : start // 16 + own.stop] == -1).all()
        owner[start // 16 + own.start : start // 16 + own.stop] = number
    middles = np.array(plan.cols) // 16 + 4
    for place, number in enumerate(owner):
        inside = [i for i, start in enumerate(plan.cols) if start // 16 <= place < start // 16 + 8]
        assert number == min(inside, key=lambda i: (abs(place + 0.5 - middles[i]), i))


def test_one_window_is_what_the_model_decides(reduced, readable):
    tracer, scene = Tracer(reduced(TOPK)), readable(64, 64)
    codes, sizes, data = stitched(tracer, scene, lattice_of(tracer, scene))
    expected = tracer(torch.from_numpy(scene.values), torch.ones(64, 64, dtype=torch.bool))
    np.testing.assert_array_equal(codes, [point.codes for point in expected.points])
    assert codes.sum(axis=(1, 2)).tolist() == [9, 4]
    assert data.all() and (sizes == 1).all()


@pytest.mark.parametrize("config", [TOPK, TOME])
@pytest.mark.parametrize("overlap_px", [0, 16, 32])
def test_strips_are_the_decisions_of_each_window_where_it_is_nearest(config, overlap_px, reduced, readable):
    tracer, scene = Tracer(reduced(config)), readable(130, 150)
    lattice = lattice_of(tracer, scene, overlap_px=overlap_px)
    codes, sizes, data = stitched(tracer, scene, lattice)
    assert data.shape == (9, 10) and data.all()
    plan, seen = lattice.plan, {}
    for row, col in np.ndindex(9, 10):
        near = min(
            (abs(row + 0.5 - top / 16 - 2) + abs(col + 0.5 - left / 16 - 2), top, left)
            for top in plan.rows
            for left in plan.cols
            if top / 16 <= row < top / 16 + 4 and left / 16 <= col < left / 16 + 4
        )
        _, top, left = near
        if (top, left) not in seen:
            values, mask = scene.read(Window(row=top, col=left, height=64, width=64))
            seen[top, left] = tracer(torch.from_numpy(values), torch.from_numpy(mask))
        for point, code, size in zip(seen[top, left].points, codes[:, row, col], sizes[:, row, col], strict=True):
            own = point.codes[row - top // 16, col - left // 16]
            number = plan.rows.index(top) * len(plan.cols) + plan.cols.index(left)
            assert code == (own + 16 * number if config is TOME else own)
            assert size == ((point.codes == own).sum() if config is TOME else 1)


def test_groups_of_different_windows_have_different_numbers(reduced, readable):
    tracer, scene = Tracer(reduced(TOME)), readable(128, 128)
    codes, _, _ = stitched(tracer, scene, lattice_of(tracer, scene, overlap_px=0))
    assert [len(np.unique(layer)) for layer in codes] == [4 * 12, 4 * 9]


def test_windows_without_data_are_not_looked_at_and_places_without_have_nothing(reduced, readable):
    valid = np.zeros((192, 128), bool)
    valid[70:100, 70:80] = True
    tracer, scene, told = Tracer(reduced(TOPK)), readable(192, 128, valid=valid), []
    lattice = lattice_of(tracer, scene, overlap_px=0)
    codes, sizes, data = stitched(tracer, scene, lattice, tell=told.append)
    assert [(reading.window.row, reading.window.col) for reading in told] == [(64, 64)]
    expected = np.zeros((12, 8), bool)
    expected[4:7, 4:5] = True
    np.testing.assert_array_equal(data, expected)
    assert (codes[:, ~expected[4:8]] == 0).all() and (sizes[:, ~expected[4:8]] == 0).all()


def test_a_scene_without_data(reduced, readable):
    tracer, scene = Tracer(reduced(TOPK)), readable(64, 64, valid=np.zeros((64, 64), bool))
    with pytest.raises(UnreadableScene, match=r"values holds no valid pixel"):
        lattice_of(tracer, scene)


def test_the_decisions_of_known_windows_are_used(reduced, readable):
    tracer, scene = Tracer(reduced(TOPK)), readable(64, 64)
    lattice = lattice_of(tracer, scene)
    other = Tracer(reduced(TopKConfig(after=(2, 4), counts=(3, 2))))
    first = first_reading(other, scene, lattice.plan, path="values")
    (strip,) = strips(tracer, scene, lattice, known={first.window: first.decisions})
    assert strip.codes.sum(axis=(1, 2)).tolist() == [3, 2]


@pytest.mark.parametrize(("overlap_px", "used_px"), [(0, 0), (15, 0), (16, 16), (31, 16), (32, 32)])
def test_overlap_is_rounded_down_to_whole_tokens(overlap_px, used_px, reduced, readable):
    tracer, scene = Tracer(reduced(TOPK)), readable(100, 90)
    lattice = lattice_of(tracer, scene, overlap_px=overlap_px)
    assert (lattice.side, lattice.plan.overlap_px) == (4, used_px)
    assert (lattice.grid.height, lattice.grid.width) == (7, 6)


@pytest.mark.parametrize("tile_px", [60, 72, 105])
def test_windows_that_do_not_hold_whole_tokens_are_refused(tile_px, reduced, readable):
    with pytest.raises(
        ConfigError, match=rf"window of {tile_px} px, .* whole tokens of 16 px each; give --tile a multiple of 16"
    ):
        lattice_of(Tracer(reduced(ELViTConfig(after=(2,), side=0.5))), readable(64, 64), tile_px=tile_px)


def test_tokens_of_a_model_that_shrinks_are_larger(reduced, readable):
    tracer, scene = Tracer(reduced(TOPK, shrink=2)), readable(128, 160)
    lattice = lattice_of(tracer, scene, tile_px=128, overlap_px=32)
    assert lattice.grid.transform == (32.0, 0.0, 0.0, 0.0, 32.0, 0.0)
    codes, _, _ = stitched(tracer, scene, lattice)
    assert codes.shape == (2, 4, 5)
    with pytest.raises(ConfigError, match=r"of which the model sees 56 px a side, .* multiple of 32"):
        lattice_of(tracer, scene, tile_px=112)


def test_group_sizes_count_members():
    assert group_sizes(np.array([[3, 0, 3], [1, 3, 1]])).tolist() == [[3, 1, 3], [2, 3, 2]]
    many = group_sizes(np.zeros((300, 300), np.int64))
    assert (many == 65535).all()


def test_coarser_tokens_cover_several_places():
    assert in_places_of(np.array([[1, 2], [3, 4]]), side=4).tolist() == [[1, 1, 2, 2], [1, 1, 2, 2], [3, 3, 4, 4], [3, 3, 4, 4]]
