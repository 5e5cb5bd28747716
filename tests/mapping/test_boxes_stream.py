"""Boxes merged row by row of windows are those merged all at once, and nothing waits longer than it must."""

import math

import numpy as np
import pytest
import torch

from terralean.boxes.form import hull
from terralean.boxes.merge import MergeConfig, merge
from terralean.mapping.boxes_stream import Found, Stream, within_reach
from terralean.raster.grid import Grid

TILE, STRIDE, WIDTH, HEIGHT = 64, 48, 200, 400
GRID = Grid(width=WIDTH, height=HEIGHT, crs=None)


def truth(count: int, *, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    place = rng.uniform([5, 5], [WIDTH - 5, HEIGHT - 5], (count, 2))
    return np.concatenate([place, rng.uniform(6, 26, (count, 2)), rng.uniform(-1.5, 1.5, (count, 1))], axis=1)


def windows() -> list[tuple[int, int]]:
    return [(row, col) for row in range(0, HEIGHT - 16, STRIDE) for col in range(0, WIDTH - 16, STRIDE)]


def seen(objects: np.ndarray, row: int, col: int, *, seed: int) -> Found:
    """What a window shows of objects: those whose middle is in it, each a little off, and a part of those it cuts."""
    rng = np.random.default_rng([seed, row, col])
    x, y = objects[:, 0], objects[:, 1]
    inside = (x >= col - 4) & (x < col + TILE + 4) & (y >= row - 4) & (y < row + TILE + 4)
    boxes = objects[inside] + rng.normal(0, 0.3, (inside.sum(), 5)) * [1, 1, 1, 1, 0.02]
    return Found(
        boxes=boxes,
        scores=rng.uniform(0.3, 1, len(boxes)),
        labels=np.flatnonzero(inside) % 3,
        windows=np.tile([float(col), row, col + TILE, row + TILE], (len(boxes), 1)),
    )


def rows(boxes: torch.Tensor, scores: torch.Tensor, labels: torch.Tensor) -> list[tuple[float, ...]]:
    table = torch.cat([boxes, scores[:, None], labels[:, None].double()], dim=1)
    return sorted(tuple(row) for row in table.tolist())


@pytest.mark.parametrize("seed", range(4))
def test_streaming_gives_what_merging_at_once_gives(seed):
    objects, reach = truth(30, seed=seed), TILE / 2
    stream, every, out, early = Stream(GRID, config=MergeConfig(), reach_px=reach), [], [], 0
    starts = sorted({row for row, _ in windows()})
    for number, row in enumerate(starts):
        for top, col in windows():
            if top == row:
                found = within_reach(seen(objects, row, col, seed=seed), reach_px=reach)
                every.append(found)
                stream.add(found)
        settled = stream.settled(next_row=starts[number + 1] if number + 1 < len(starts) else None)
        out += [] if settled is None else rows(settled.boxes, settled.scores, settled.labels)
        early += number + 1 < len(starts) and settled is not None
    whole = Found.joined(*every)
    given = [torch.from_numpy(some) for some in (whole.boxes, whole.scores, whole.labels, whole.windows)]
    once = merge(*given, width=WIDTH, height=HEIGHT, config=MergeConfig())
    assert sorted(out) == rows(once.boxes, once.scores, once.labels)
    assert early > 0  # boxes leave as it goes on
    assert len(stream._waiting) == 0


def test_a_box_waits_while_a_later_window_may_meet_it():
    config = MergeConfig()
    stream = Stream(GRID, config=config, reach_px=10)
    near = Found(
        boxes=np.array([[30.0, 30, 10, 10, 0]]),
        scores=np.array([0.9]),
        labels=np.array([0]),
        windows=np.array([[0.0, 0, TILE, TILE]]),
    )
    stream.add(near)
    assert stream.settled(next_row=45) is None  # bottom at 35, and boxes of that window may reach up to 35
    settled = stream.settled(next_row=46)
    assert settled is not None and settled.boxes.tolist() == [[30.0, 30, 10, 10, 0]]
    assert stream.settled(next_row=None) is None


def test_boxes_that_reach_far_out_of_their_window_are_none():
    boxes = np.array([[32.0, 32, 100, 4, 0], [32, 32, 140, 4, 0], [32, 32, 140, 4, math.pi / 2]])
    found = Found(boxes=boxes, scores=np.ones(3), labels=np.zeros(3, int), windows=np.tile([0.0, 0, TILE, TILE], (3, 1)))
    kept = within_reach(found, reach_px=32)
    assert kept.boxes.tolist() == [boxes[0].tolist()]
    assert bool((hull(torch.from_numpy(kept.boxes))[:, 0] >= -32).all())
