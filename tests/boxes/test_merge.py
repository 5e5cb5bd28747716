import math

import pytest
import shapely
import torch

from terralean.boxes.clip import clip
from terralean.boxes.form import areas, corners, hull, le90
from terralean.boxes.merge import MergeConfig, Merged, merge, reaches_border
from terralean.boxes.overlap import iou
from terralean.errors import ConfigError

WIDTH, HEIGHT, TILE, OVERLAP = 2100, 1500, 512, 100


@pytest.fixture(scope="module")
def lattice():
    lefts, tops = (range(0, size - OVERLAP, TILE - OVERLAP) for size in (WIDTH, HEIGHT))
    windows = [[x, y, min(x + TILE, WIDTH), min(y + TILE, HEIGHT)] for y in tops for x in lefts]
    return torch.tensor(windows, dtype=torch.float64)


def scattered(seed, *, count=260, largest=650.0):
    """Boxes of 6 px to larger than a window, none nearer than 3 px to another."""
    generator = torch.Generator().manual_seed(seed)
    boxes, shapes = [], []
    while len(boxes) < count:
        x, y, length, ratio, angle = torch.rand(5, generator=generator).tolist()
        longest = largest * (0.3 + 0.7 * length) if len(boxes) < 12 else 6 * (150 / 6) ** length
        size = [longest, max(4.0, longest * (0.1 + 0.9 * ratio))]
        box = torch.tensor([x * WIDTH, y * HEIGHT, *size, (angle - 0.5) * math.pi], dtype=torch.float64)
        left, top, right, bottom = hull(box).tolist()
        shape = shapely.Polygon(corners(box).numpy())
        free = not any(shape.distance(other) < 3 for other in shapes)
        if free and left >= 0 and top >= 0 and right <= WIDTH and bottom <= HEIGHT:
            boxes.append(le90(box))
            shapes.append(shape)
    return torch.stack(boxes)


def perfect(truth, labels, windows, *, seed, noise_px=0.0):
    """What a detector that makes no mistake finds: in each window the smallest box round what is left of each object."""
    generator = torch.Generator().manual_seed(seed)
    boxes, scores, kinds, seen_in = [], [], [], []
    for window in windows:
        found, share = clip(truth, window)
        there = (areas(found) >= 1) & (share > 0)
        jitter = torch.randn(int(there.sum()), 2, generator=generator, dtype=torch.float64) * noise_px
        boxes.append(torch.cat([found[there, :2] + jitter, found[there, 2:]], dim=1))
        scores.append(torch.rand(int(there.sum()), generator=generator))
        kinds.append(labels[there])
        seen_in.append(window.expand(int(there.sum()), 4))
    return torch.cat(boxes), torch.cat(scores), torch.cat(kinds), torch.cat(seen_in)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_object_is_lost_or_doubled(lattice, seed):
    truth = scattered(seed)
    labels = torch.arange(len(truth)) % 3
    boxes, scores, kinds, seen_in = perfect(truth, labels, lattice, seed=seed)
    assert len(boxes) > 1.5 * len(truth)  # many are seen more than once
    found = merge(boxes, scores, kinds, seen_in, width=WIDTH, height=HEIGHT, config=MergeConfig())
    assert len(found.boxes) == len(truth)
    best, which = iou(truth, found.boxes).max(dim=1)
    assert len(which.unique()) == len(truth)
    assert torch.equal(found.labels[which], labels)
    whole = torch.stack([clip(truth, window)[1] == 1 for window in lattice]).any(dim=0)
    assert whole.sum() > 200 and (~whole).sum() > 3
    assert best[whole].min() > 0.999
    assert best[~whole].min() > 0.5
    assert torch.equal(found.scores, found.scores.sort(descending=True).values)


def test_a_little_noise_loses_and_doubles_little(lattice):
    truth = scattered(2)
    labels = torch.zeros(len(truth), dtype=torch.int64)
    boxes, scores, kinds, seen_in = perfect(truth, labels, lattice, seed=2, noise_px=0.7)
    found = merge(boxes, scores, kinds, seen_in, width=WIDTH, height=HEIGHT, config=MergeConfig())
    assert abs(len(found.boxes) - len(truth)) <= 0.03 * len(truth)


def pair(first, second, *, scores=(0.9, 0.8), labels=(0, 0), **config) -> Merged:
    """Two windows of 100 x 100 px that share columns 60 to 100 of a scene of 160 x 100 px, with a box each."""
    windows = torch.tensor([[0.0, 0.0, 100.0, 100.0], [60.0, 0.0, 160.0, 100.0]])
    boxes = torch.tensor([first, second])
    return merge(
        boxes, torch.tensor(scores), torch.tensor(labels), windows, width=160, height=100, config=MergeConfig(**config)
    )


def test_a_part_gives_way_to_the_whole_even_with_a_better_score():
    """An object over columns 50 to 90, whole on the left, cut at column 60 on the right."""
    found = pair([70.0, 50.0, 40.0, 10.0, 0.0], [75.0, 50.0, 30.0, 10.0, 0.0], scores=(0.3, 0.9))
    assert found.boxes.tolist() == [[70.0, 50.0, 40.0, 10.0, 0.0]]
    assert found.scores.tolist() == [pytest.approx(0.9)] and found.best.tolist() == [1]


def test_two_parts_become_one_box():
    """An object over columns 30 to 130: each window has a part of it, and they agree on columns 60 to 100."""
    found = pair([65.0, 50.0, 70.0, 10.0, 0.0], [95.0, 50.0, 70.0, 10.0, 0.0])
    torch.testing.assert_close(found.boxes, torch.tensor([[80.0, 50.0, 100.0, 10.0, 0.0]]))


def test_parts_of_other_classes_and_of_other_places_stay_apart():
    assert len(pair([65.0, 50.0, 70.0, 10.0, 0.0], [95.0, 50.0, 70.0, 10.0, 0.0], labels=(0, 1)).boxes) == 2
    assert len(pair([65.0, 30.0, 70.0, 10.0, 0.0], [95.0, 60.0, 70.0, 10.0, 0.0]).boxes) == 2


def test_how_much_must_agree_can_be_said():
    """On columns 60 to 100 the parts are 10 px high and 4 px apart: their IoU there is 6 / 14."""
    boxes = [65.0, 50.0, 70.0, 10.0, 0.0], [95.0, 54.0, 70.0, 10.0, 0.0]
    assert len(pair(*boxes, iou=0.9).boxes) == 1
    assert len(pair(*boxes, iou=0.9, agreement=0.5).boxes) == 2


def test_what_is_near_a_border_can_be_said():
    """Columns 55 to 97 and 64 to 106 end 3 and 4 px from the borders of their windows: whole, unless that counts as near."""
    boxes = [76.0, 50.0, 42.0, 10.0, 0.0], [85.0, 50.0, 42.0, 10.0, 0.0]
    assert len(pair(*boxes, iou=0.7, border_px=0.0).boxes) == 2
    torch.testing.assert_close(pair(*boxes, iou=0.7, border_px=5.0).boxes, torch.tensor([[80.5, 50.0, 51.0, 10.0, 0.0]]))


def test_whole_boxes_are_suppressed_by_iou():
    boxes = [75.0, 50.0, 20.0, 10.0, 0.0], [80.0, 50.0, 20.0, 10.0, 0.0]  # IoU 0.6
    assert len(pair(*boxes).boxes) == 1
    assert len(pair(*boxes, iou=0.65).boxes) == 2


def test_the_border_of_the_scene_cuts_nothing():
    boxes = torch.tensor([[5.0, 5.0, 10.0, 10.0, 0.0], [95.0, 50.0, 10.0, 10.0, 0.0]])
    windows = torch.tensor([[0.0, 0.0, 100.0, 100.0]]).repeat(2, 1)
    assert reaches_border(boxes, windows, width=160, height=100, border_px=2.0).tolist() == [False, True]
    assert reaches_border(boxes, windows, width=100, height=100, border_px=2.0).tolist() == [False, False]


def test_nothing_in_nothing_out():
    none = torch.zeros(0)
    found = merge(none.view(0, 5), none, none.long(), none.view(0, 4), width=10, height=10, config=MergeConfig())
    assert found.boxes.shape == (0, 5) and found.best.shape == (0,)


@pytest.mark.parametrize("setting", [{"iou": 0.0}, {"agreement": 1.0}, {"border_px": -1.0}])
def test_settings_that_make_no_sense_are_refused(setting):
    with pytest.raises(ConfigError, match=next(iter(setting))):
        MergeConfig(**setting)


@pytest.mark.gpu
def test_is_the_same_on_a_gpu(lattice):
    truth = scattered(3, count=120)
    given = perfect(truth, torch.arange(len(truth)) % 3, lattice, seed=3)
    here = merge(*given, width=WIDTH, height=HEIGHT, config=MergeConfig())
    there = merge(*(some.cuda() for some in given), width=WIDTH, height=HEIGHT, config=MergeConfig())
    assert there.boxes.is_cuda and torch.equal(there.best.cpu(), here.best)
    torch.testing.assert_close(there.boxes.cpu(), here.boxes)
