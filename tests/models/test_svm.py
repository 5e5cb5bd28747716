import pytest
import torch
from torch import Tensor

from terralean.errors import BandMismatch, ConfigError
from terralean.layers.every_pixel import EveryPixel
from terralean.models import create
from weights import image


def machine(**sizes) -> torch.nn.Module:
    """Of two classes, with one support vector each."""
    model = create("svm", bands=2, classes=2, support=2, **sizes)
    model.support[0], model.support[1] = 1.0, -1.0
    model.weight[0] = torch.tensor([1.0, -1.0])
    model.gamma.fill_(0.5)
    return model


def patches(*shape: int) -> Tensor:
    return torch.from_numpy(image(0, shape))


def test_the_formula_of_one_pair():
    x = torch.tensor([[0.5, 2.0]])
    near, far = torch.exp(torch.tensor([-0.5 * (0.25 + 1.0), -0.5 * (2.25 + 9.0)]))
    decision = near - far
    scores = machine()(x[..., None, None])
    by = decision / (3 * (decision.abs() + 1))
    torch.testing.assert_close(scores, torch.stack([1 + by, -by])[None])


def test_the_pixel_in_the_middle_counts():
    model, x = machine(), patches(2, 2, 5, 3)
    torch.testing.assert_close(model(x), model(x[:, :, 2:3, 1:2]), rtol=0, atol=0)


def test_context_is_the_mean_of_the_pixels_that_hold_data():
    x = patches(1, 2, 3, 3)
    x[:, :, 0] = 0  # nothing there
    features = machine(side_px=3).shared(x)
    assert features.shape == (1, 4, 1, 1)
    torch.testing.assert_close(features[0, :2, 0, 0], x[0, :, 1, 1])
    torch.testing.assert_close(features[0, 2:, 0, 0], x[0, :, 1:].mean(dim=(1, 2)))


def test_components_stand_in_place_of_bands():
    model = create("svm", bands=3, classes=2, support=1, components=2, side_px=3)
    model.origin.copy_(torch.tensor([1.0, 2.0, 3.0]))
    model.axes.copy_(torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 2.0]]))
    x = patches(1, 3, 3, 3)
    centre = x[0, :, 1, 1] - torch.tensor([1.0, 2.0, 3.0])
    expected = torch.stack([centre[0], centre[1] + 2 * centre[2]])
    torch.testing.assert_close(model.shared(x)[0, :2, 0, 0], expected)
    torch.testing.assert_close(model.shared(x)[0, 2:, 0, 0], model.axes @ (x[0].mean(dim=(1, 2)) - model.origin))


@torch.inference_mode()
def test_every_pixel_of_an_image():
    model, picture = machine(side_px=3), patches(1, 2, 4, 5)
    found = EveryPixel(model)(picture)
    around = torch.nn.functional.pad(picture, (1, 1, 1, 1))
    for row in range(4):
        for col in range(5):
            torch.testing.assert_close(found[..., row, col], model(around[:, :, row : row + 3, col : col + 3]))


def test_a_class_that_it_never_saw_never_wins():
    model = create("svm", bands=2, classes=3, support=2)
    model.known[0] = False
    scores = model(patches(20, 2, 1, 1))
    assert (scores.argmax(dim=1) != 0).all()
    assert (scores.softmax(dim=1)[:, 0] < 1e-30).all()
    assert scores.isfinite().all()


def test_mistakes():
    with pytest.raises(ConfigError, match="an odd number of px, got 4"):
        machine(side_px=4)
    with pytest.raises(BandMismatch, match="3 bands, the machine was fitted on 2"):
        machine()(patches(1, 3, 1, 1))
    with pytest.raises(ConfigError, match=r"float32, got torch\.bfloat16"):
        machine()(patches(1, 2, 1, 1).bfloat16())
