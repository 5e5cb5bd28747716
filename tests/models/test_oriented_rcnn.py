"""Oriented R-CNN: its sizes, the exact small cases of its parts, and that it learns, exports and folds."""

import math

import pytest
import torch
from torch import Tensor, nn

from terralean.boxes.form import hull
from terralean.boxes.overlap import iou
from terralean.cost.macs import count_macs_at, parameters
from terralean.errors import ConfigError
from terralean.models import DETECTORS, create, lemevit
from terralean.models.lemevit import LeMeViT
from terralean.models.oriented_assign import BETWEEN, NOTHING, SampleConfig, assign_anchors, assign_boxes, draw
from terralean.models.oriented_fpn import FeaturePyramid
from terralean.models.oriented_rcnn import OrientedRCNN
from terralean.models.oriented_roi import RoIConfig, detections
from terralean.models.oriented_rpn import Candidates, ProposalConfig, grid_anchors, proposals

DOTA_CLASSES = 15
CONFIGS = {"tiny": lemevit.tiny, "small": lemevit.small, "base": lemevit.base}


class Cells(nn.Module):
    """The mean colours of cells at reductions 4 to 32, and their products: enough to see plain rectangles."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 4, stride=4)
        self.more = nn.ModuleList(nn.Conv2d(16, 16, 3, stride=2, padding=1) for _ in range(3))

    def forward(self, image: Tensor) -> list[Tensor]:
        maps = [self.first(image).relu()]
        for convolve in self.more:
            maps.append(convolve(maps[-1]).relu())
        return maps


def small(*, classes: int = 2, most: int = 64) -> OrientedRCNN:
    torch.manual_seed(0)
    return OrientedRCNN(
        Cells(),
        channels=(16, 16, 16, 16),
        classes=classes,
        width=16,
        rpn=ProposalConfig(of_level=most, most=most),
        roi=RoIConfig(hidden=32),
    )


def picture(*, count: int = 2, side: int = 64) -> Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


# Sizes and costs


@pytest.mark.parametrize(("name", "millions"), [("tiny", 25.370), ("small", 33.145), ("base", 69.765)])
def test_parameters_are_those_published_less_what_no_map_depends_on(name, millions):
    """25.37, 33.15 and 69.76 M in Jiang et al. 2024, table 5, whose backbone has four norms more that are never applied."""
    with torch.device("meta"):
        model = create(f"lemevit_{name}_orcnn", bands=3, classes=DOTA_CLASSES)
        theirs = LeMeViT(CONFIGS[name](classes=0))
    unused = parameters(theirs) - parameters(model.backbone) + 2 * sum(model.backbone.feature_info.channels())
    assert round((parameters(model) + unused) / 1e6, 3) == millions
    assert f"{parameters(model) / 1e6:.2f} M parameters" in DETECTORS[f"lemevit_{name}_orcnn"].__doc__


@pytest.mark.parametrize(("name", "gmacs"), [("tiny", 153.88), ("small", 193.58), ("base", 334.98)])
def test_macs_at_1024_px_are_those_of_the_authors_network(name, gmacs):
    """154.12, 193.91 and 335.53 are printed, by a counter that counts norms and activations, too. 1000 proposals."""
    with torch.device("meta"):
        model = create(f"lemevit_{name}_orcnn", bands=3, classes=DOTA_CLASSES)
    macs = count_macs_at(model.counted(), (1, 3, 1024, 1024))
    nobody_reads = 2 * (1024 // 8) ** 2 * CONFIGS[name]().dims[2] ** 2  # keys and values in the last block of S2
    assert round((macs.layers + nobody_reads) / 1e9, 2) == gmacs


def test_swin_has_nearly_the_macs_published():
    """215.68 G in Jiang et al. 2024, table 5, where 1024 px is no multiple of the windows of 7 x 7."""
    with torch.device("meta"):
        model = create("swin_tiny_orcnn", bands=3, classes=DOTA_CLASSES)
    assert round(count_macs_at(model.counted(), (1, 3, 1024, 1024)).layers / 1e9, 2) == 215.42


# Parts


def test_pyramid_hands_what_is_coarse_down_and_thins_the_coarsest():
    torch.manual_seed(0)
    fpn = FeaturePyramid((2, 3), width=4)
    fine, coarse = torch.randn(1, 2, 5, 7), torch.randn(1, 3, 3, 4)
    top = fpn.lateral[1](coarse)
    rows, cols = torch.arange(5) * 3 // 5, torch.arange(7) * 4 // 7
    below = fpn.lateral[0](fine) + top[:, :, rows][..., cols]
    first, second, third = fpn([fine, coarse])
    torch.testing.assert_close(first, fpn.smooth[0](below))
    torch.testing.assert_close(second, fpn.smooth[1](top))
    assert torch.equal(third, second[:, :, ::2, ::2])


def test_anchors_stand_round_the_middles_of_cells():
    anchors = grid_anchors(torch.zeros(1, 1, 2, 3), stride=4, config=ProposalConfig())
    assert anchors.shape == (2 * 3 * 3, 4)
    wide, square, tall = anchors[3 * 4 : 3 * 5]  # second row, second column
    assert square.tolist() == [6 - 16, 6 - 16, 6 + 16, 6 + 16]
    for anchor, ratio in ((wide, 0.5), (tall, 2.0)):
        width, height = (anchor[2:] - anchor[:2]).tolist()
        assert math.isclose(height / width, ratio, rel_tol=1e-5) and math.isclose(height * width, 32**2, rel_tol=1e-5)


def test_anchors_are_assigned_by_bands_and_every_object_has_one():
    config = SampleConfig(positive=0.7, negative=0.3, count=4, positive_share=0.5)
    anchors = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60], [100, 100, 110, 110], [101, 100, 111, 110]])
    whole = [5.0, 5.0, 10.0, 10.0, 0.0]  # the first anchor
    third = [105.0, 104.0, 10.0, 7.0, 0.0]  # overlaps the fourth by 0.67, the fifth by less
    objects = torch.tensor([whole, third])
    assert assign_anchors(anchors, objects, config).tolist() == [0, BETWEEN, NOTHING, 1, BETWEEN]
    assert assign_anchors(anchors, objects[:0], config).tolist() == [NOTHING] * 5


def test_more_objects_than_are_compared_at_once_change_nothing():
    config = SampleConfig(positive=0.7, negative=0.3, count=4, positive_share=0.5)
    generator = torch.Generator().manual_seed(0)
    place = torch.rand(150, 2, generator=generator) * 200
    objects = torch.cat([place, torch.rand(150, 2, generator=generator) * 20 + 5, torch.rand(150, 1) * 3], dim=1)
    anchors = grid_anchors(torch.zeros(1, 1, 50, 50), stride=4, config=ProposalConfig(scale=3.0))
    found = assign_anchors(anchors, objects, config)
    from torchvision.ops import box_iou  # noqa: PLC0415 - the reference of this test alone

    table = box_iou(hull(objects), anchors)
    best, number = table.max(dim=0)
    expected = torch.where(best >= 0.7, number, BETWEEN).where(best >= 0.3, NOTHING)
    for i, row in enumerate(table):
        if row.max() >= 0.3:
            expected[row == row.max()] = i
    assert torch.equal(found, expected)


def test_boxes_are_assigned_by_rotated_overlap():
    config = SampleConfig(positive=0.5, negative=0.5, count=4, positive_share=0.25)
    thing = torch.tensor([[20.0, 20.0, 20.0, 4.0, 0.0]])
    boxes = torch.tensor([[20.0, 20.0, 20.0, 4.0, math.pi / 2], [21.0, 20.0, 20.0, 4.0, 0.0]])  # both have its middle
    assert assign_boxes(boxes, thing, config).tolist() == [NOTHING, 0]
    assert assign_boxes(boxes, thing[:0], config).tolist() == [NOTHING, NOTHING]


def test_a_loss_looks_at_no_more_than_its_share_and_the_same_for_the_same_seed():
    number = torch.tensor([0] * 30 + [NOTHING] * 100 + [BETWEEN] * 20)
    config = SampleConfig(positive=0.5, negative=0.5, count=40, positive_share=0.25)
    positive, negative = draw(number, config, generator=torch.Generator().manual_seed(3))
    assert len(positive) == 10 and len(negative) == 30
    assert (number[positive] == 0).all() and (number[negative] == NOTHING).all()
    again = draw(number, config, generator=torch.Generator().manual_seed(3))
    assert torch.equal(again[0], positive) and torch.equal(again[1], negative)
    few = draw(number[:35], config, generator=None)
    assert (len(few[0]), len(few[1])) == (10, 5)


def test_proposals_suppress_within_their_map_alone():
    boxes = torch.tensor([[20.0, 20, 10, 10, 0], [20, 20.5, 10, 10, 0], [20, 20, 10, 10, 0], [60, 60, 0, 0, 0]])[None]
    scores, level = torch.tensor([[0.5, 0.9, 0.1, 5.0]]), torch.tensor([0, 0, 1, 1])
    (kept,) = proposals(Candidates(boxes, scores, level), ProposalConfig())
    assert kept[:, 1].tolist() == [20.5, 20.0]
    (best,) = proposals(Candidates(boxes, scores, level), ProposalConfig(most=1))
    assert best[:, 1].tolist() == [20.5]


def test_a_box_is_found_as_each_class_that_it_reaches():
    boxes = torch.tensor([[20.0, 20, 10, 10, 0], [21.0, 20, 10, 10, 0], [80, 80, 10, 10, 0]])
    probabilities = torch.tensor([[0.6, 0.3], [0.7, 0.02], [0.04, 0.05]])
    found = detections(probabilities, boxes, RoIConfig())
    assert found.scores.tolist() == pytest.approx([0.7, 0.3])
    assert found.labels.tolist() == [0, 1] and found.boxes[:, 0].tolist() == [21.0, 20.0]


# The whole


def test_every_parameter_learns_from_the_losses():
    model = small()
    objects = [torch.tensor([[20.0, 20, 30, 12, 0.4], [44, 40, 20, 16, -0.7]]), torch.zeros(0, 5)]
    labels = [torch.tensor([0, 1]), torch.zeros(0, dtype=torch.int64)]
    losses = model.losses(picture(), objects, labels, generator=torch.Generator().manual_seed(0))
    assert set(losses) == {"rpn_score", "rpn_offset", "roi_class", "roi_delta"}
    assert all(value > 0 for value in losses.values())
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


def test_images_without_objects_have_finite_losses():
    model, nothing = small(), [torch.zeros(0, 5)] * 2
    losses = model.losses(picture(), nothing, [torch.zeros(0, dtype=torch.int64)] * 2)
    assert losses["rpn_offset"] == losses["roi_delta"] == 0
    sum(losses.values()).backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


def test_one_image_is_learned_by_heart():
    torch.manual_seed(0)
    model = small(most=128)
    objects = torch.tensor([[30.0, 30, 40, 14, 0.5], [88, 40, 36, 16, -0.8], [60, 96, 44, 18, 0.1]])
    labels = torch.tensor([0, 1, 0])
    image = painted(objects, labels, side=128)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(120):
        optimiser.zero_grad()
        sum(model.losses(image, [objects], [labels], generator=generator).values()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
    with torch.no_grad():
        (found,) = model.eval()(image)
    overlap = iou(objects, found.boxes).where(labels[:, None] == found.labels, 0.0)
    assert overlap.amax(dim=1).min() > 0.7
    assert found.scores[overlap.argmax(dim=1)].min() > 0.5


def painted(objects: Tensor, labels: Tensor, *, side: int) -> Tensor:
    """An image (1, 3, side, side) with boxes in the colour of their class."""
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    image = torch.zeros(1, 3, side, side)
    for (cx, cy, width, height, angle), label in zip(objects.tolist(), labels.tolist(), strict=True):
        along = (x - cx) * math.cos(angle) + (y - cy) * math.sin(angle)
        across = (y - cy) * math.cos(angle) - (x - cx) * math.sin(angle)
        image[0, label, (along.abs() <= width / 2) & (across.abs() <= height / 2)] = 2.0
    return image


def test_the_answer_for_an_image_does_not_depend_on_the_batch():
    model, images = small().eval(), picture(count=3)
    with torch.no_grad():
        together, alone = model(images), [model(one[None])[0] for one in images]
    for some, own in zip(together, alone, strict=True):
        torch.testing.assert_close(some.boxes, own.boxes, rtol=1e-4, atol=1e-3)
        assert torch.equal(some.labels, own.labels)


def test_exported_parts_with_suppression_outside_equal_eager():
    model, image = small().eval(), picture()

    class Second(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.detector = model

        def forward(self, maps: list[Tensor], boxes: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
            return self.detector.judge(maps, boxes, number)

    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.detector = model

        def forward(self, image: Tensor) -> tuple[tuple[Tensor, ...], Tensor, Tensor, Tensor]:
            maps, candidates = self.detector.propose(image)
            return maps, *candidates

    with torch.no_grad():
        first = torch.export.export(First(), (image,)).module()
        maps, *found = first(image)
        boxes = model.chosen(Candidates(*found))
        number = torch.cat([torch.full((len(some),), i) for i, some in enumerate(boxes)])
        second = torch.export.export(Second(), (list(maps), torch.cat(boxes), number)).module()
        probabilities, meant = second(list(maps), torch.cat(boxes), number)
        expected = model(image)
    parts = zip(probabilities.split([*map(len, boxes)]), meant.split([*map(len, boxes)]), expected, strict=True)
    for some, its, own in parts:
        out = model.found(some, its)
        torch.testing.assert_close(out.boxes, own.boxes, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(out.scores, own.scores, rtol=1e-4, atol=1e-5)


def test_folded_model_finds_the_same():
    torch.manual_seed(0)
    model = create("orcnn", bands=4, classes=3, backbone="lemevit_tiny", width=16, hidden=32, proposals=50, score=0.0).eval()
    image = torch.randn(1, 4, 64, 96)
    with torch.no_grad():
        ours, folded = model.propose(image), model.fold().propose(image)
    for mine, other in zip(ours.maps, folded.maps, strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("values", [{"score": 1.0}, {"iou": 0.0}, {"hidden": 0}, {"proposals": 0}, {"width": 0}])
def test_settings_out_of_range_are_refused(values):
    with pytest.raises(ConfigError, match=r"must|needed|at least"), torch.device("meta"):
        create("orcnn", bands=3, classes=2, backbone="lemevit_tiny", **values)
