import pytest
import torch
import torch.nn.functional as F

from terralean.adapt.bands import kernels_for, same_bands


@pytest.fixture
def weight():
    return torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0))


def test_the_same_bands_keep_their_kernels(weight):
    assert torch.equal(kernels_for(weight, source=(0, 1, 2)), weight)


def test_another_order_moves_the_kernels(weight):
    assert torch.equal(kernels_for(weight, source=(2, 0, 1)), weight[:, [2, 0, 1]])


def test_a_new_band_gets_the_mean_kernel_and_all_are_scaled(weight):
    found = kernels_for(weight, source=(0, 1, 2, None))
    torch.testing.assert_close(found[:, :3], weight * 3 / 4)
    torch.testing.assert_close(found[:, 3], weight.mean(dim=1) * 3 / 4)


@pytest.mark.parametrize("bands", [1, 2, 4, 13])
def test_a_grey_image_gives_the_same_where_no_band_is_known(weight, bands):
    grey = torch.randn(2, 1, 6, 7, generator=torch.Generator().manual_seed(1))
    before = F.conv2d(grey.expand(-1, 3, -1, -1), weight)
    after = F.conv2d(grey.expand(-1, bands, -1, -1), kernels_for(weight, source=(None,) * bands))
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)


def test_bands_are_found_by_name_whatever_the_case():
    assert same_bands(("red", "green", "blue"), ("Blue", "NIR", "Red")) == (2, None, 0)
