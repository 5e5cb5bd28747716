import math

import pytest
import torch

from terralean.errors import ConfigError
from terralean.layers import rotated_align as room
from terralean.layers.rotated_align import AlignConfig, align_pyramid, enlarged, pyramid_level, rotated_align, sample_points


def features(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def boxes_in(width, height, count, seed=0, largest=30.0):
    draws = torch.rand(count, 5, generator=torch.Generator().manual_seed(seed))
    size = 2 + draws[:, 2:4] * largest
    return torch.cat([draws[:, :2] * torch.tensor([width, height]), size, (draws[:, 4:] - 0.5) * math.pi], dim=1)


def value_at(plane, x, y):
    """Bilinear value of a plane of numbers at x, y measured from its corner, one pixel at a time."""
    height, width = len(plane), len(plane[0])
    col, row = x - 0.5, y - 0.5
    if not (-1 <= col <= width and -1 <= row <= height):
        return 0.0
    col, row = min(max(col, 0.0), width - 1.0), min(max(row, 0.0), height - 1.0)
    left, top = int(col), int(row)
    total = 0.0
    for r, row_weight in ((top, 1 - (row - top)), (min(top + 1, height - 1), row - top)):
        for c, col_weight in ((left, 1 - (col - left)), (min(left + 1, width - 1), col - left)):
            total += plane[r][c] * row_weight * col_weight
    return total


def by_hand(plane, box, *, stride, bins, samples):
    """One box of one plane, by its definition."""
    x, y, width, height, angle = box
    out = [[0.0] * bins for _ in range(bins)]
    for row in range(bins * samples):
        for col in range(bins * samples):
            u = ((col + 0.5) / (bins * samples) - 0.5) * width
            v = ((row + 0.5) / (bins * samples) - 0.5) * height
            at_x = x + u * math.cos(angle) - v * math.sin(angle)
            at_y = y + u * math.sin(angle) + v * math.cos(angle)
            out[row // samples][col // samples] += value_at(plane, at_x / stride, at_y / stride) / samples**2
    return out


def test_is_what_the_definition_says_also_over_the_edges():
    values, stride = features(2, 3, 11, 14), 4
    boxes = boxes_in(56.0, 44.0, 24)
    image = torch.arange(24) % 2
    found = rotated_align(values, boxes, image, stride=stride, bins=3, samples=2)
    expected = [
        [by_hand(plane, box, stride=stride, bins=3, samples=2) for plane in values[number].tolist()]
        for box, number in zip(boxes.tolist(), image.tolist(), strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=0, atol=2e-5)


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_at_angle_0_it_is_torchvision_s(samples):
    ops = pytest.importorskip("torchvision.ops")
    values, boxes = features(2, 4, 20, 24), boxes_in(192.0, 160.0, 40, largest=80.0)
    boxes[:, 4] = 0
    image = torch.arange(40) % 2
    low, high = boxes[:, :2] - boxes[:, 2:4] / 2, boxes[:, :2] + boxes[:, 2:4] / 2
    rois = torch.cat([image[:, None].float(), low, high], dim=1)
    theirs = ops.roi_align(values, rois, 7, spatial_scale=1 / 8, sampling_ratio=samples, aligned=True)
    found = rotated_align(values, boxes, image, stride=8, bins=7, samples=samples)
    torch.testing.assert_close(found, theirs, rtol=0, atol=2e-5)


def test_a_turned_picture_gives_the_same_answer_for_the_turned_box():
    """A quarter turn clockwise takes x, y of an image H high to H - y, x."""
    values = features(1, 5, 16, 16)
    boxes = boxes_in(64.0, 64.0, 30)
    turned = torch.cat([64 - boxes[:, 1:2], boxes[:, :1], boxes[:, 2:4], boxes[:, 4:] + math.pi / 2], dim=1)
    which = torch.zeros(30, dtype=torch.int64)
    one = rotated_align(values, boxes, which, stride=4, bins=5, samples=2)
    other = rotated_align(values.rot90(-1, (2, 3)), turned, which, stride=4, bins=5, samples=2)
    torch.testing.assert_close(one, other, rtol=0, atol=2e-5)


def test_half_a_turn_of_the_box_turns_what_comes_back():
    values, boxes = features(1, 2, 16, 16), boxes_in(64.0, 64.0, 10)
    which = torch.zeros(10, dtype=torch.int64)
    half = boxes + torch.tensor([0.0, 0, 0, 0, math.pi])
    one = rotated_align(values, boxes, which, stride=4, bins=5, samples=2)
    other = rotated_align(values, half, which, stride=4, bins=5, samples=2)
    torch.testing.assert_close(one, other.flip(2, 3), rtol=0, atol=2e-5)


def test_a_ramp_is_read_exactly():
    """The map is its own x coordinate, so each bin holds the x of its middle."""
    ramp = (torch.arange(40) + 0.5).repeat(40, 1)[None, None] * 4
    box = torch.tensor([[80.0, 80.0, 40.0, 20.0, 0.3]])
    found = rotated_align(ramp, box, torch.zeros(1, dtype=torch.int64), stride=4, bins=5, samples=2)[0, 0]
    torch.testing.assert_close(found, sample_points(box, count=5)[0, ..., 0], rtol=0, atol=1e-4)


def test_gradients_are_those_of_small_steps():
    values, boxes = features(1, 2, 5, 6).double(), boxes_in(24.0, 20.0, 3, largest=12.0)
    which = torch.zeros(3, dtype=torch.int64)

    def pool(values):
        return rotated_align(values.float(), boxes, which, stride=4, bins=2, samples=2).double()

    values.requires_grad_()
    assert torch.autograd.gradcheck(pool, (values,), eps=1e-2, atol=1e-3)


def test_however_many_are_read_together_the_answer_is_the_same(monkeypatch):
    values, boxes, image = features(3, 2, 9, 9), boxes_in(36.0, 36.0, 20), torch.arange(20) % 3
    at_once = rotated_align(values, boxes, image, stride=4, bins=3, samples=2)
    monkeypatch.setattr(room, "TOGETHER", 4)
    assert torch.equal(rotated_align(values, boxes, image, stride=4, bins=3, samples=2), at_once)


def test_half_precision_is_read_at_exact_points():
    values, boxes = features(1, 2, 64, 64), boxes_in(1024.0, 1024.0, 12)
    which = torch.zeros(12, dtype=torch.int64)
    half = rotated_align(values.bfloat16(), boxes, which, stride=16, bins=3, samples=2)
    whole = rotated_align(values.bfloat16().float(), boxes, which, stride=16, bins=3, samples=2)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), whole, rtol=0.01, atol=0.01)


# Pyramids.


def test_levels_begin_where_the_size_doubles():
    """Sizes 20 to 448 px against a finest level of 56: below 112 level 0, below 224 level 1, then 2, from 448 on 3."""
    sizes = torch.tensor([20.0, 56.0, 111.9, 112.0, 223.9, 224.0, 447.9, 448.0, 5000.0])
    boxes = torch.stack([sizes * 0, sizes * 0, sizes * 2, sizes / 2, sizes * 0], dim=1)
    assert pyramid_level(boxes, finest_px=56.0, levels=4).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert pyramid_level(boxes, finest_px=28.0, levels=2).tolist() == [0, 1, 1, 1, 1, 1, 1, 1, 1]


def test_each_box_is_enlarged_and_read_from_its_own_level():
    pyramid = [features(2, 3, size, size, seed=size) for size in (64, 32, 16, 8)]
    boxes = torch.tensor([[100.0, 90, 60, 40, 0.5], [120, 130, 200, 60, -1.0], [128, 128, 250, 180, 0.1]])
    image, config = torch.tensor([0, 1, 0]), AlignConfig(bins=3)
    found = align_pyramid(pyramid, boxes, image, strides=(4, 8, 16, 32), config=config)
    larger = enlarged(boxes, width=1.4, height=1.2)
    assert larger[:, 2:4].tolist() == [pytest.approx([84, 48]), pytest.approx([280, 72]), pytest.approx([350, 216])]
    for box, level in enumerate((0, 1, 2)):  # sizes 63, 142 and 275 px
        one = slice(box, box + 1)
        expected = rotated_align(pyramid[level], larger[one], image[one], stride=4 * 2**level, bins=3, samples=2)
        torch.testing.assert_close(found[one], expected)


@pytest.mark.parametrize("change", [{"bins": 5}, {"samples": 1}, {"wider": 1.0}, {"higher": 1.0}, {"finest_px": 10.0}])
def test_each_setting_changes_the_answer(change):
    pyramid = [features(1, 2, 32, 32), features(1, 2, 16, 16, seed=1)]
    boxes, which = boxes_in(128.0, 128.0, 6), torch.zeros(6, dtype=torch.int64)
    plain = align_pyramid(pyramid, boxes, which, strides=(4, 8), config=AlignConfig())
    changed = align_pyramid(pyramid, boxes, which, strides=(4, 8), config=AlignConfig(**change))
    assert changed.shape != plain.shape or (changed - plain).abs().max() > 1e-3


def test_no_boxes_and_boxes_without_size():
    pyramid, none = [features(1, 2, 8, 8)], torch.zeros(0, 5)
    empty = align_pyramid(pyramid, none, torch.zeros(0, dtype=torch.int64), strides=(4,), config=AlignConfig())
    assert empty.shape == (0, 2, 7, 7)
    point = torch.tensor([[10.0, 10.0, 0.0, 0.0, 0.0]])
    found = align_pyramid(pyramid, point, torch.zeros(1, dtype=torch.int64), strides=(4,), config=AlignConfig())
    assert found.isfinite().all() and torch.equal(found, found[..., :1, :1].expand_as(found))


class Pooled(torch.nn.Module):
    def forward(self, fine, coarse, boxes, image):
        return align_pyramid([fine, coarse], boxes, image, strides=(4, 8), config=AlignConfig(bins=3))


@pytest.mark.slow
def test_an_exported_graph_says_the_same_for_another_number_of_boxes():
    maps = features(2, 3, 16, 16), features(2, 3, 8, 8, seed=1)
    boxes, image = boxes_in(64.0, 64.0, 9, largest=120.0), torch.arange(9) % 2
    several = {0: torch.export.Dim("boxes")}
    graph = torch.export.export(Pooled(), (*maps, boxes, image), dynamic_shapes=(None, None, several, several)).module()
    fewer = boxes[:5], image[:5]
    torch.testing.assert_close(graph(*maps, *fewer), Pooled()(*maps, *fewer))


def test_settings_must_be_above_0():
    with pytest.raises(ConfigError, match=r"align\.bins must be above 0, got 0"):
        AlignConfig(bins=0)


@pytest.mark.gpu
def test_is_the_same_on_a_gpu():
    pyramid = [features(2, 3, 32, 32), features(2, 3, 16, 16, seed=1)]
    boxes, image = boxes_in(128.0, 128.0, 20, largest=160.0), torch.arange(20) % 2
    here = align_pyramid(pyramid, boxes, image, strides=(4, 8), config=AlignConfig())
    moved = [some.cuda() for some in pyramid], boxes.cuda(), image.cuda()
    there = align_pyramid(*moved, strides=(4, 8), config=AlignConfig())
    torch.testing.assert_close(there.cpu(), here, rtol=0, atol=1e-4)
