import sys

import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor

from terralean.cost.macs import count_macs_at, parameters
from terralean.errors import ConfigError
from terralean.models import create
from terralean.models.unet import AnySize, unet_resnet18
from weights import fill, image


def picture(*shape: int) -> Tensor:
    return torch.from_numpy(image(0, shape))


@pytest.fixture(scope="module")
def model() -> AnySize:
    model = unet_resnet18(bands=4, classes=5)
    model.load_state_dict(fill(model.state_dict()))
    return model.eval()


def test_it_is_the_librarys_network_where_the_size_fits(model):
    theirs = smp.Unet("resnet18", encoder_weights=None, in_channels=4, classes=5).eval()
    theirs.load_state_dict({name.removeprefix("network."): value for name, value in model.state_dict().items()})
    x = picture(2, 4, 64, 96)
    with torch.inference_mode():
        assert torch.equal(model(x), theirs(x))


def test_other_sizes_are_filled_with_zeros_below_and_right(model):
    x = picture(1, 4, 33, 70)
    whole = torch.zeros(1, 4, 64, 96)
    whole[..., :33, :70] = x
    with torch.inference_mode():
        assert torch.equal(model(x), model(whole)[..., :33, :70])


def test_parameters_and_macs():
    """14.33 M as the library says of its own; 21.8 GMACs at 512 px."""
    with torch.device("meta"):
        model = unet_resnet18(bands=3, classes=6)
    assert parameters(model) == 14_328_934
    assert f"{14_328_934 / 1e6:.2f} M parameters" in unet_resnet18.__doc__
    assert count_macs_at(model, (1, 3, 512, 512)).total / 1e9 == pytest.approx(21.78, abs=0.005)


def test_without_the_library_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    with pytest.raises(ConfigError, match=r"pip install 'terralean\[rivals\]'"):
        unet_resnet18(bands=3, classes=2)


def test_a_model_without_settings_says_so():
    with pytest.raises(ConfigError, match=r"unet_resnet18 has no setting 'background'; it has none; leave model\.sizes out"):
        create("unet_resnet18", bands=3, classes=2, background=0)
