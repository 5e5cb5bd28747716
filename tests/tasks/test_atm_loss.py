import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from terralean.errors import ConfigError
from terralean.tasks.atm_loss import ATMLossConfig, atm_sums, atm_value
from terralean.tasks.segmentation import LossConfig, SegmentationLoss


def loss(masks: Tensor, objects: Tensor, labels: Tensor, /, **changes) -> Tensor:
    config = ATMLossConfig(**changes)
    return atm_value(atm_sums(masks, objects, labels, config), config)


def reference(masks: Tensor, objects: Tensor, labels: Tensor) -> float:
    """The same, pixel by pixel in Python's own numbers; for labels without a gap."""
    entropy = weights = focal = dice = 0.0
    count = 0
    size = tuple(labels.shape[-2:])
    for b in range(len(masks)):
        present = set(labels[b].flatten().tolist()) - {255}
        for c in range(masks.shape[1]):
            logits = objects[b, c].tolist()
            none = len(logits) - 1
            target = none if c not in present else (0 if none == 1 else c)
            weight = 0.1 if target == none else 1.0
            entropy += weight * (math.log(sum(math.exp(v) for v in logits)) - logits[target])
            weights += weight
            if c not in present:
                continue
            count += 1
            large = F.interpolate(masks[b, c][None, None], size=size, mode="bilinear", align_corners=False).flatten().tolist()
            truth = (labels[b] == c).flatten().tolist()
            p = [1 / (1 + math.exp(-v)) for v in large]
            each = [
                -0.25 * (1 - q) ** 2 * math.log(q) if t else -0.75 * q**2 * math.log(1 - q)
                for q, t in zip(p, truth, strict=True)
            ]
            focal += sum(each) / len(each)
            both = sum(q for q, t in zip(p, truth, strict=True) if t)
            dice += 1 - (2 * both + 1) / (sum(p) + sum(truth) + 1)
    return entropy / weights + (20 * focal + dice) / max(count, 1)


def case(logits: int, *, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    labels = torch.randint(0, 3, (2, 8, 12))
    labels[1] = labels[1].clamp(max=1)  # the second image holds two of the four classes, the first three
    return torch.randn(2, 4, 2, 3), torch.randn(2, 4, logits), labels


@pytest.mark.parametrize("logits", [2, 5], ids=["two_way", "softmax"])
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_agrees_with_a_plain_reference(logits, seed):
    masks, objects, labels = case(logits, seed=seed)
    assert float(loss(masks, objects, labels)) == pytest.approx(reference(masks, objects, labels), rel=1e-5)


def test_right_answers_cost_next_to_nothing():
    labels = torch.tensor([[[0, 0, 2], [0, 2, 2]]])
    masks = torch.where(labels[:, None] == torch.arange(3)[:, None, None], 40.0, -40.0)
    objects = torch.tensor([[[40.0, 0.0], [0.0, 40.0], [40.0, 0.0]]])
    assert float(loss(masks, objects, labels)) == pytest.approx(0, abs=1e-6)


def test_a_crop_without_a_label_has_no_class():
    """No mask is compared; every class is to be absent."""
    masks = torch.randn(1, 3, 2, 2, requires_grad=True)
    objects = torch.zeros(1, 3, 2, requires_grad=True)
    found = loss(masks, objects, torch.full((1, 4, 4), 255))
    found.backward()
    assert float(found.detach()) == pytest.approx(math.log(2))
    assert float(masks.grad.abs().sum()) == 0
    assert (objects.grad[..., 1] < 0).all()  # to raise "no object" lowers the loss


def test_such_a_crop_changes_nothing_of_the_masks_of_another():
    masks, objects, labels = case(2)
    empty = labels.clone()
    empty[1] = 255
    _, _, focal, dice, count = atm_sums(masks, objects, empty, ATMLossConfig())
    alone = atm_sums(masks[:1], objects[:1], labels[:1], ATMLossConfig())
    assert [float(focal), float(dice), float(count)] == pytest.approx(alone[2:].tolist(), rel=1e-6)


def test_ignored_pixels_change_nothing_unless_they_count_as_other():
    masks, objects, labels = case(2)
    labels[:, :, 6:] = 255
    other = masks.clone()
    other[..., -1] = 30 * torch.randn(2, 4, 2)  # bilinear resizing carries column 2 of 3 from column 6 of 12 on
    halves = masks.clone(), other
    flat = [F.interpolate(m.flatten(0, 1)[None], size=(8, 12), mode="nearest")[0].unflatten(0, (2, 4)) for m in halves]
    flat[1][..., :6] = flat[0][..., :6]
    one, two = (float(loss(m, objects, labels)) for m in flat)
    assert one == pytest.approx(two, rel=1e-6)
    one, two = (float(loss(m, objects, labels, ignored="other")) for m in flat)
    assert abs(one - two) > 0.1


@pytest.mark.parametrize(
    "change", [{"objects": 2.0}, {"focal": 1.0}, {"dice": 0.0}, {"no_object": 1.0}, {"alpha": 0.5}, {"gamma": 0.0}]
)
def test_every_setting_changes_the_loss(change):
    masks, objects, labels = case(2)
    assert abs(float(loss(masks, objects, labels) - loss(masks, objects, labels, **change))) > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"focal": -1.0}, r"train\.loss\.atm\.focal must be 0 or more, got -1\.0"),
        ({"alpha": 1.5}, r"train\.loss\.atm\.alpha must be 0 to 1, got 1\.5"),
    ],
)
def test_a_weight_out_of_range_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        ATMLossConfig(**change)


# In the loss of segmentation


def output(labels: Tensor) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {
        "scores": torch.randn(2, 4, *labels.shape[-2:]).log_softmax(dim=1),
        "masks": torch.randn(1, 2, 4, 2, 3),
        "objects": torch.randn(1, 2, 4, 2),
    }


def test_main_loss_is_of_scores_of_masks_or_of_both():
    _, _, labels = case(2)
    given = output(labels)
    found = {
        main: float(SegmentationLoss(LossConfig(main=main), class_pixels=[1, 2, 3, 4])(given, labels))
        for main in ("ce", "atm", "ce+atm")
    }
    plain = SegmentationLoss(LossConfig(), class_pixels=[1, 2, 3, 4])
    assert found["ce"] == pytest.approx(float(plain(given["scores"], labels)))
    assert found["atm"] == pytest.approx(reference(given["masks"][0], given["objects"][0], labels), rel=1e-5)
    assert found["ce+atm"] == pytest.approx(found["ce"] + found["atm"])


def test_shares_may_be_taken_for_logits_and_the_loss_then_never_vanishes():
    perfect = torch.nn.functional.one_hot(torch.tensor([[[0, 1], [2, 3]]]), 4).permute(0, 3, 1, 2).float()
    labels = perfect.argmax(dim=1)
    criterion = SegmentationLoss(LossConfig(main="ce_raw", dice=0.0, class_weights="none"), class_pixels=[1, 1, 1, 1])
    given = {"scores": perfect.clamp(min=1e-9).log(), "shares": perfect, "masks": torch.zeros(1, 1, 4, 2, 2)}
    assert float(criterion(given, labels)) == pytest.approx(math.log(1 + 3 / math.e))


def test_heads_on_the_way_add_up():
    _, _, labels = case(2)
    given = output(labels)
    more = {"auxiliary_masks": torch.randn(2, 2, 4, 2, 3), "auxiliary_objects": torch.randn(2, 2, 4, 2)}
    criterion = SegmentationLoss(LossConfig(on_the_way=0.5), class_pixels=[1, 2, 3, 4])
    each = [reference(m, o, labels) for m, o in zip(*more.values(), strict=True)]
    assert float(criterion(given | more, labels) - criterion(given, labels)) == pytest.approx(0.5 * sum(each), rel=1e-4)


def test_masks_are_asked_for_where_there_are_none():
    _, _, labels = case(2)
    criterion = SegmentationLoss(LossConfig(main="atm"), class_pixels=[1, 2, 3, 4])
    with pytest.raises(ConfigError, match=r"train\.loss\.main=atm compares masks, which the model does not have"):
        criterion({"scores": torch.zeros(2, 4, 8, 12)}, labels)
