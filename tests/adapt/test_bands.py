import pytest
import torch
import torch.nn.functional as F

from terralean.adapt.bands import first_layer, kernels_for, kinship, resampling, same_bands
from terralean.spec import Bands


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


def at(*nm, names=None):
    return Bands(names=names or tuple(f"band_{i}" for i in range(1, len(nm) + 1)), wavelength_nm=nm)


OLD = at(*range(400, 1000, 10))


def test_the_same_wavelengths_in_another_order_move_the_kernels():
    turned = at(*reversed(OLD.known_nm))
    weight = torch.randn(4, 60, 1, 1, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resampling(OLD, turned).kernels(weight), weight.flip(1))
    assert torch.equal(resampling(OLD, OLD).kernels(weight), weight)


@pytest.mark.parametrize(
    "nm", [range(400, 1000, 20), range(400, 991, 2), range(405, 1000, 10), [400, 407, 431, *range(500, 991, 7)]]
)
def test_a_straight_spectrum_gives_what_it_gave(nm):
    """Resampled to the bands of the network by hand it is straight again, but for the ends, beyond which nothing is known."""
    found = resampling(OLD, at(*nm))
    assert (found.beyond, found.lost) == ((), ())
    torch.testing.assert_close(found.shares.sum(dim=1), torch.ones(60, dtype=torch.float64))
    there = found.shares @ torch.tensor([float(w) for w in nm], dtype=torch.float64)
    inner = slice(1, -2)
    torch.testing.assert_close(there[inner], torch.tensor(OLD.known_nm, dtype=torch.float64)[inner], rtol=0, atol=3.5)


def test_each_finer_band_gets_the_kernel_between_its_two_neighbours():
    weight = torch.arange(60.0)[None, :, None, None]
    kernels = resampling(OLD, at(*range(400, 991, 5))).kernels(weight)[0, :, 0, 0]
    torch.testing.assert_close(kernels[2:-2], torch.arange(2, 117) / 2 / 2)  # half as large, as there are twice as many


def test_bands_that_only_one_side_has_are_listed_and_count_for_nothing():
    found = resampling(OLD, at(*range(600, 1200, 10)))
    assert found.beyond == tuple(range(40, 60))
    assert found.lost == tuple(range(20))
    assert not found.shares[:, 40:].any()
    assert not found.shares[:20].any()
    torch.testing.assert_close(found.shares[20:, :40], torch.eye(40, dtype=torch.float64))


@pytest.mark.parametrize("nm", [range(1000, 2500, 10), range(900, 1400, 10), range(400, 700, 10)])
def test_wavelengths_that_cover_little_or_half_of_it(nm):
    assert (resampling(OLD, at(*nm)) is None) == (nm != range(400, 700, 10))


@pytest.mark.parametrize(
    ("new", "expected"),
    [
        (at(*range(404, 1000, 10)), "same"),
        (at(*range(406, 1000, 10)), "wavelengths"),
        (at(*range(400, 990, 10)), "wavelengths"),
        (at(*range(1400, 2000, 10)), "unknown"),
        (Bands(names=tuple(f"band_{i}" for i in range(60))), "same"),
        (Bands(names=tuple(f"band_{i}" for i in range(59))), "unknown"),
    ],
)
def test_bands_are_known_by_wavelength_where_both_tell_it(new, expected):
    assert kinship(OLD, new) == expected


def test_few_bands_are_known_by_name_and_by_wavelength_where_no_name_is_shared():
    rgb = at(640.0, 560.0, 480.0, names=("red", "green", "blue"))
    assert kinship(rgb, at(480.0, 640.0, names=("blue", "red"))) == "names"
    assert kinship(rgb, at(480.0, 640.0)) == "wavelengths"
    assert kinship(rgb, at(480.0, 840.0, names=("blue", "nir"))) == "unknown"


def test_the_first_layer_is_the_one_over_the_bands():
    plane = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Conv2d(7, 3, 1)), torch.nn.Conv2d(3, 2, 1))
    assert first_layer(plane, bands=7) == "0.0.weight"
    assert first_layer(plane, bands=3) is None
    assert first_layer(torch.nn.Sequential(torch.nn.Conv3d(1, 7, 3), torch.nn.Conv2d(7, 3, 1)), bands=7) is None
