"""What the networks that LeMeViT is compared with have in common."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from terralean.models import create
from terralean.weights.card import read_card
from terralean.weights.checkpoint import load_checkpoint, save_checkpoint
from weights import fill, image

RIVALS = {
    "unet_resnet18": {},
    "unetformer_resnet18": {"deep_stem": True, "dropout": 0.2},
    "factseg_resnet50": {"background": 1, "joint": False, "deep_stem": True},
}

every = pytest.mark.parametrize("name", RIVALS)


def lively(name: str, *, bands: int = 4) -> torch.nn.Module:
    """With norms that know their inputs and none that starts at zero, so that the image is heard in the scores."""
    torch.manual_seed(0)
    model = create(name, bands=bands, classes=3)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.momentum = 1.0
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
    with torch.no_grad():
        model.train()(picture(4, bands, 64, 64))
    return model


def picture(*shape: int) -> Tensor:
    return torch.from_numpy(image(0, shape))


@every
@pytest.mark.parametrize(("bands", "size"), [(1, (64, 32)), (13, (33, 57)), (3, (1, 1))])
def test_any_size_and_any_number_of_bands(name, bands, size):
    x = picture(2, bands, *size).requires_grad_()
    scores = lively(name, bands=bands).eval()(x)
    scores.square().sum().backward()
    assert scores.shape == (2, 3, *size)
    assert scores.isfinite().all()
    assert (x.grad.abs().sum(dim=(2, 3)) > 0).all()


@every
def test_images_of_a_batch_do_not_meet(name):
    model, x = lively(name).eval(), picture(3, 4, 40, 56)
    with torch.inference_mode():
        together, alone = model(x)[1:2], model(x[1:2])
    assert (together - alone).norm() / together.norm() < 1e-5
    assert (together.std(dim=(2, 3)) > 0.05).all()


@every
def test_every_parameter_gets_a_gradient_in_training(name):
    model = lively(name).train()
    output = model(picture(2, 4, 64, 64))
    for scores in output.values() if isinstance(output, dict) else [output]:
        scores.square().mean().backward(retain_graph=True)
    assert not [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@every
def test_the_seed_decides_everything(name):
    outputs = []
    for _ in range(2):
        torch.manual_seed(5)
        outputs.append(create(name, bands=4, classes=3).eval()(picture(1, 4, 32, 32)))
    assert torch.equal(*outputs)


@every
def test_checkpoint_comes_back_with_its_settings(name, untrained, tmp_path):
    model = create(name, bands=3, classes=3, **RIVALS[name])
    model.load_state_dict(fill(model.state_dict()))
    save_checkpoint(model, replace(read_card(untrained), model=name, sizes=RIVALS[name]), tmp_path)
    again, card = load_checkpoint(tmp_path)
    x = picture(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(again(x), model.eval()(x))
    assert card.sizes == RIVALS[name]
    assert getattr(again, "background", None) == RIVALS[name].get("background")


@every
def test_bfloat16_stays_close(name):
    torch.manual_seed(0)
    model, x = create(name, bands=4, classes=3).eval(), picture(1, 4, 40, 56)
    with torch.inference_mode():
        exact = model(x)
        rounded = model.to(torch.bfloat16)(x.bfloat16())
    assert rounded.dtype == torch.bfloat16
    assert 0 < (rounded.float() - exact).norm() / exact.norm() < 0.05
