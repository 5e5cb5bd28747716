import pytest
import torch

from terralean.errors import ExportDiffers
from terralean.export.compare import answers, check, compare
from terralean.export.config import Limit
from terralean.export.tiles import Tiles


def tiles(*, valid: torch.Tensor) -> Tiles:
    return Tiles(torch.zeros(len(valid), 2, *valid.shape[1:]), valid, "2 tiles")


def test_only_valid_pixels_count():
    valid = torch.tensor([[[True, True], [True, False]]])
    theirs = torch.tensor([[[[0.9, 0.2], [0.6, 0.5]], [[0.1, 0.8], [0.4, 0.5]]]])
    ours = theirs.clone()
    ours[0, :, 0, 1] = torch.tensor([0.6, 0.4])  # another class
    ours[0, :, 1, 1] = torch.nan  # not valid
    found = compare([ours], [theirs], [tiles(valid=valid)])
    assert found.difference == pytest.approx(0.4)
    assert found.mean_difference == pytest.approx(0.8 / 6)
    assert found.same_class == pytest.approx(2 / 3)
    assert (found.tiles, found.source) == (1, "2 tiles")


def test_whole_images_count_once_and_nan_differs_entirely():
    theirs = torch.tensor([[0.9, 0.1], [0.3, 0.7]])
    ours = torch.tensor([[0.9, 0.1], [torch.nan, torch.nan]])
    found = compare([ours], [theirs], [tiles(valid=torch.ones(2, 3, 3, dtype=torch.bool))])
    assert found.difference == 1.0
    assert found.same_class == 0.5


def test_another_shape_is_an_error():
    with pytest.raises(ExportDiffers, match=r"the exported graph gives \(1, 2, 2, 2\), the network \(1, 3, 2, 2\)"):
        compare([torch.zeros(1, 2, 2, 2)], [torch.zeros(1, 3, 2, 2)], [tiles(valid=torch.ones(1, 2, 2, dtype=torch.bool))])


@pytest.mark.parametrize("limit", [Limit(difference=0.3, same_class=0.5), Limit(difference=0.5, same_class=0.7)])
def test_what_differs_too_much_is_told(limit):
    valid = torch.ones(1, 1, 3, dtype=torch.bool)
    theirs = torch.tensor([[[[0.9, 0.2, 0.6]], [[0.1, 0.8, 0.4]]]])
    ours = torch.tensor([[[[0.9, 0.6, 0.6]], [[0.1, 0.4, 0.4]]]])
    found = compare([ours], [theirs], [tiles(valid=valid)])
    with pytest.raises(ExportDiffers, match=r"onnx in int8 differs too much from the network on 2 tiles: a probability by 0.4"):
        check(found, limit, what="onnx in int8")
    check(found, Limit(difference=0.5, same_class=0.6), what="onnx in int8")


def test_answers_of_all_batches_in_order():
    seen = []

    def ask(image, valid):
        seen.append(len(image))
        return image.mean(dim=(2, 3))

    image = torch.arange(5.0)[:, None, None, None].expand(5, 2, 1, 1)
    found = answers(ask, Tiles(image, torch.ones(5, 1, 1, dtype=torch.bool), ""), batch=2)
    assert seen == [2, 2, 1]
    assert found[:, 0].tolist() == [0, 1, 2, 3, 4]
