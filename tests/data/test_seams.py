"""Neighbouring tiles are told from strangers by their edges alone."""

import re

import numpy as np
import pytest

from terralean.data.seams import find_seams, read_edges

OFFSET = {"left": -1, "right": 1, "top": -3, "bottom": 3}


def place(path: str) -> tuple[int, int]:
    tile, part = re.search(r"tile(\d+)_part(\d+)", path).groups()
    return int(tile), int(part)


def test_all_seams_found_in_dubai_are_real_and_nearly_all_are_found(shared):
    edges = [read_edges(str(path)) for path in sorted((shared / "data/rgb/seg/dubai/images").iterdir())]
    seams = find_seams(edges, edges)
    for seam in seams:
        (tile, part), (other_tile, other_part) = place(seam.one), place(seam.other)
        assert tile == other_tile
        assert other_part - part == OFFSET[seam.side]
    assert len(seams) >= 100  # of 112: 8 tiles of 2 x 3 parts, from both sides


@pytest.mark.parametrize("folder", ["seg/gsi_roads/images", "seg/s2_india_rgbn/images", "cls/rsscn7", "cls/aid_150"])
def test_no_seam_is_found_among_unrelated_images(shared, folder):
    paths = [p for p in sorted((shared / "data/rgb" / folder).rglob("*")) if p.suffix in (".png", ".tif", ".jpg")]
    assert len(paths) >= 14
    edges = [read_edges(str(path)) for path in paths]
    assert find_seams(edges, edges) == []


def test_edges_are_read_outermost_first(write_image):
    values = np.arange(2 * 5 * 7, dtype=np.uint8).reshape(2, 5, 7)
    edges = read_edges(write_image("a.tif", values))
    assert np.array_equal(edges.lines["top"][:, :, 0], values[0, :2])
    assert np.array_equal(edges.lines["bottom"][:, :, 1], values[1, :-3:-1])
    assert np.array_equal(edges.lines["left"][:, :, 0], values[0, :, :2].T)
    assert np.array_equal(edges.lines["right"][:, :, 1], values[1, :, :-3:-1].T)


def test_equal_surrounds_are_no_seam(write_image):
    """Two scenes in the same tilted frame of nodata: the border of the data runs alike, the data do not."""
    rng = np.random.default_rng(0)
    images = []
    for name in "ab":
        values = rng.integers(1, 255, (3, 300, 300), dtype=np.uint8)
        values[:, :, :][:, np.add.outer(np.arange(300), np.zeros(300, int)) < 250] = 0
        images.append(read_edges(write_image(f"{name}.tif", values, nodata=0)))
    assert find_seams(images, images) == []
