from dataclasses import replace

import pytest
import torch
from torch import nn

from terralean.errors import ConfigError
from terralean.models import create
from terralean.predict import load
from terralean.predict.eager import Eager
from terralean.predict.normalise import Normalise, enlarge, shrunk_mask
from terralean.predict.predictor import Predictor
from terralean.spec import Normalisation

CPU = torch.device("cpu")


def test_normalise_on_a_worked_case():
    normalise = Normalise(Normalisation(mean=(10.0, 100.0), std=(2.0, 50.0)))
    image = torch.tensor([[[[14.0, float("nan")]], [[0.0, 7.0]]]])
    valid = torch.tensor([[[True, False]]])
    assert normalise(image, valid).tolist() == [[[[2.0, 0.0]], [[-2.0, 0.0]]]]


def test_probabilities_sum_to_one_and_do_not_depend_on_the_batch(untrained):
    predictor = load(untrained, device="cpu")
    image = torch.randint(0, 255, (3, 3, 64, 64)).float()
    valid = torch.ones(3, 64, 64, dtype=torch.bool)
    together = predictor(image, valid)
    assert together.shape == (3, 3, 64, 64)
    assert together.dtype == torch.float32
    torch.testing.assert_close(together.sum(dim=1), torch.ones(3, 64, 64))
    torch.testing.assert_close(together[1:2], predictor(image[1:2], valid[1:2]), rtol=1e-4, atol=1e-5)


def test_values_of_pixels_that_are_not_valid_are_never_seen(untrained):
    predictor = load(untrained, device="cpu")
    image = torch.randint(0, 255, (1, 3, 64, 64)).float()
    valid = torch.ones(1, 64, 64, dtype=torch.bool)
    valid[:, 20:30] = False
    other = image.clone()
    other[:, :, 20:30] = float("nan")
    assert torch.equal(predictor(image, valid), predictor(other, valid))


def test_bf16_is_close_to_fp32(untrained):
    image = torch.randint(0, 255, (1, 3, 64, 64)).float()
    valid = torch.ones(1, 64, 64, dtype=torch.bool)
    full, half = (load(untrained, device="cpu", precision=precision)(image, valid) for precision in ("fp32", "bf16"))
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    assert (full - half).abs().mean() < 0.02


@pytest.mark.parametrize(("device", "message"), [("gpu0", "use cpu, cuda or cuda:0"), ("cuda:63", "is not here")])
def test_device_that_is_not_there(untrained, device, message):
    with pytest.raises(ConfigError, match=message):
        load(untrained, device=device)


def test_unknown_precision(untrained):
    with pytest.raises(ConfigError, match="one of fp32, bf16, got 'int4'"):
        load(untrained, device="cpu", precision="int4")


def test_shrinking_takes_means_of_valid_pixels():
    normalise = Normalise(Normalisation(mean=(0.0,), std=(2.0,)), shrink=2)
    image = torch.tensor([[[[2.0, 4.0, 8.0], [6.0, 99.0, 99.0], [10.0, 20.0, 99.0]]]])
    valid = torch.tensor([[[True, True, True], [True, False, False], [True, True, False]]])
    # Squares of the far edges are cut; the last one holds no valid pixel.
    torch.testing.assert_close(normalise(image, valid), torch.tensor([[[[2.0, 4.0], [7.5, 0.0]]]]))


@pytest.mark.parametrize("shrink", [1, 2, 3])
def test_a_linear_picture_survives_shrinking_and_enlarging(shrink):
    rows, cols = torch.meshgrid(torch.arange(24.0), torch.arange(19.0), indexing="ij")
    image = (3 * rows - 2 * cols)[None, None]
    normalise = Normalise(Normalisation(mean=(0.0,), std=(1.0,)), shrink=shrink)
    back = enlarge(normalise(image, torch.ones(1, 24, 19, dtype=torch.bool)), shrink=shrink, height=24, width=19)
    assert back.shape == image.shape
    inner = (..., slice(shrink, -2 * shrink), slice(shrink, -2 * shrink))
    torch.testing.assert_close(back[inner], image[inner])


def test_the_mask_of_a_square_is_its_middle():
    mask = torch.arange(36).view(1, 6, 6)
    assert shrunk_mask(mask, shrink=3).tolist() == [[[7, 10], [25, 28]]]
    assert torch.equal(shrunk_mask(mask, shrink=1), mask)


def test_folding_changes_nothing_but_rounding(untrained):
    predictor = load(untrained, device="cpu")
    image, valid = torch.randint(0, 255, (2, 3, 64, 96)).float(), torch.ones(2, 64, 96, dtype=torch.bool)
    with torch.inference_mode():
        plain = predictor.model(predictor.normalise(image, valid)).softmax(dim=1)
    found = predictor(image, valid)
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-6)
    assert not torch.equal(found, plain)


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_scores_are_divided_by_the_temperature_of_the_card(untrained, temperature):
    predictor = load(untrained, device="cpu")
    image = torch.randint(0, 255, (1, 3, 64, 64)).float()
    valid = torch.ones(1, 64, 64, dtype=torch.bool)
    plain = predictor(image, valid)
    tempered = Predictor(predictor.model, replace(predictor.card, temperature=temperature), device=CPU, precision="fp32")
    found = tempered(image, valid)
    power = plain ** (1 / temperature)
    torch.testing.assert_close(found, power / power.sum(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)
    assert torch.equal(found.argmax(dim=1), plain.argmax(dim=1))
    assert not torch.equal(found, plain)


def test_whole_images_have_a_temperature_as_well(recogniser):
    predictor = load(recogniser, device="cpu")
    image = torch.randint(0, 255, (4, 3, 32, 32)).float()
    valid = torch.ones(4, 32, 32, dtype=torch.bool)
    plain = predictor.recognise(image, valid)
    tempered = Predictor(predictor.model, replace(predictor.card, temperature=3.0), device=CPU, precision="fp32")
    power = plain ** (1 / 3)
    torch.testing.assert_close(tempered.recognise(image, valid), power / power.sum(dim=1, keepdim=True), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["unetformer_resnet18", "factseg_resnet50"])
def test_norms_of_any_segmenter_are_folded_and_its_answers_stay(untrained, name):
    torch.manual_seed(0)
    model = create(name, bands=3, classes=3).eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_var, 0.5, 2.0)
            nn.init.normal_(part.running_mean)
    seen = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(seen)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    card = replace(load(untrained, device="cpu").card, model=name, tile_px=64)
    eager = Eager(model, card, device=torch.device("cpu"), precision="fp32")
    norms = [sum(isinstance(part, nn.BatchNorm2d) for part in net.modules()) for net in (model, eager.network)]
    assert norms[1] < norms[0] / 3
    with torch.no_grad():
        torch.testing.assert_close(eager.network(seen), expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())
