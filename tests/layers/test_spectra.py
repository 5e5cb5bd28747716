import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor

from terralean.errors import BandMismatch, ConfigError
from terralean.layers.spectra import SpectralReduction, filled_up, principal_components
from weights import image


def pixels(count: int, bands: int) -> Tensor:
    """Of bands that depend on one another, and differ in mean and spread."""
    generator = np.random.default_rng(0)
    mixed = image(0, (count, bands)) @ generator.standard_normal((bands, bands)).astype(np.float32)
    return torch.from_numpy(mixed * np.linspace(1, 5, bands, dtype=np.float32) + np.arange(bands, dtype=np.float32))


@pytest.mark.parametrize("count", [60, 9])
def test_principal_components_are_scikit_learns(count):
    values = pixels(count, 7)
    theirs = PCA(5, whiten=True, svd_solver="full").fit(values.double().numpy())
    mean, weight = principal_components(values, count=5)
    ours = ((values - mean) @ weight.T).numpy()
    expected = theirs.transform(values.double().numpy())
    signs = np.sign((ours * expected).sum(axis=0))
    np.testing.assert_allclose(ours, signs * expected, rtol=0, atol=1e-4)
    np.testing.assert_allclose(np.cov(ours, rowvar=False), np.eye(5), rtol=0, atol=1e-3)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
def test_whitening_brings_small_components_up_to_the_largest(whitening):
    values = pixels(60, 7)
    mean, weight = principal_components(values, count=5, whitening=whitening)
    deviation = PCA(5, svd_solver="full").fit(values.double().numpy()).explained_variance_ ** 0.5
    found = ((values - mean) @ weight.T).std(dim=0).numpy()
    np.testing.assert_allclose(found, (deviation / deviation[0]) ** (1 - whitening), rtol=1e-4)


def test_the_band_that_weighs_most_weighs_positively():
    _, weight = principal_components(pixels(60, 7), count=5)
    assert (weight.gather(1, weight.abs().argmax(dim=1, keepdim=True)) > 0).all()


def test_of_what_the_pixels_do_not_show_components_are_zero():
    mean, weight = principal_components(pixels(4, 7), count=6)
    assert weight[:3].any(dim=1).all()
    assert not weight[3:].any()
    flat = torch.ones(5, 7)
    assert not principal_components(flat, count=9)[1].any()
    assert principal_components(flat, count=9)[1].shape == (9, 7)
    assert mean.shape == (7,)


@pytest.mark.parametrize("kind", ["learned", "pca"])
def test_a_projection_starts_from_the_components_of_pixels(kind):
    reduction, values = SpectralReduction(kind, bands=7, components=3), pixels(60, 7)
    before = reduction(values.T[None, :, :, None])
    reduction.start_from(values)
    mean, weight = principal_components(values, count=3)
    found = reduction(values.T[None, :, :, None])
    torch.testing.assert_close(found[0, :, :, 0].T, (values - mean) @ weight.T, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(before, found)
    assert {weight.requires_grad for weight in reduction.parameters()} == {kind == "learned"}


def test_without_a_reduction_bands_are_the_components():
    reduction, x = SpectralReduction("none", bands=7, components=3), torch.from_numpy(image(0, (2, 7, 3, 3)))
    reduction.start_from(pixels(60, 7))
    assert reduction(x) is x
    assert reduction.components == 7
    assert not [*reduction.parameters()]


def test_mistakes():
    with pytest.raises(ConfigError, match="components must be 1 or more, got 0"):
        SpectralReduction("pca", bands=7, components=0)
    with pytest.raises(ConfigError, match=r"whitening must be 0 .* to 1 .*, got 1.5"):
        SpectralReduction("pca", bands=7, components=3, whitening=1.5)
    with pytest.raises(BandMismatch, match="the image has 6 bands, the network was built for 7"):
        SpectralReduction("pca", bands=7, components=3)(torch.zeros(1, 6, 2, 2))


def test_a_small_patch_is_filled_up_around_it():
    x = torch.arange(1.0, 7.0).view(1, 1, 2, 3)
    assert filled_up(x, least_px=2) is x
    assert filled_up(x, least_px=5)[0, 0].tolist() == [
        [0, 0, 0, 0, 0],
        [0, 1, 2, 3, 0],
        [0, 4, 5, 6, 0],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
    ]
