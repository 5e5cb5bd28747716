from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from terralean.errors import ConfigError
from terralean.tokens.elvit import (
    ELViTConfig,
    cluster_grid,
    find_clusters,
    labels,
    make_again,
    neighbours,
    squared_distances,
    weights_back,
)
from weights import image

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "elvit_cluster.npz")
CASES = sorted({key.rsplit("/", 1)[0] for key in GOLDEN})
SETTINGS = {
    "config": ELViTConfig(norm="l2"),
    "default": ELViTConfig(norm="l2", temperature=1.0, neighbourhood=7, nearest=3, back_temperature=0.05),
}
LIMIT = {"config": 1e-5, "default": 2e-5}


def relative(found: Tensor, expected) -> float:
    expected = torch.as_tensor(expected)
    return ((found - expected).norm() / expected.norm()).item()


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(image(seed, shape))


def scene(seed: int, *, images: int, width: int, grid: tuple[int, int]) -> Tensor:
    """Tokens of a grid (B, h * w, width) that are alike where they are near."""
    coarse = normal(seed, images, width, grid[0] // 4, grid[1] // 4)
    smooth = F.interpolate(coarse, size=grid, mode="bilinear", align_corners=False)
    return (smooth + 0.1 * normal(seed + 1000, images, width, *grid)).flatten(2).transpose(1, 2)


@pytest.mark.parametrize("case", CASES)
def test_clusters_and_tokens_made_of_them_are_the_authors(case):
    setting, seed, shape = case.split("/")
    (images, width, rows, columns), seed = map(int, shape.split("x")), int(seed)
    golden = {key.rsplit("/", 1)[1]: GOLDEN[key] for key in GOLDEN if key.startswith(f"{case}/")}
    config, limit = SETTINGS[setting], LIMIT[setting]
    x = scene(seed, images=images, width=width, grid=(rows, columns))
    found = find_clusters(x, grid=(rows, columns), clusters=(rows // 2, columns // 2), config=config)
    assert relative(found[..., ::4], golden["clusters_every_4_channels"]) < limit
    assert np.array_equal(labels(x, found), golden["labels"])
    weights = weights_back(x, found, config)
    other = normal(seed + 2000, images, found.shape[1], width)
    assert relative(make_again(other, weights)[:, ::8, ::2], golden["reconstructed_every_8_tokens"]) < limit
    assert relative(make_again(found, weights)[:, ::8, ::2], golden["reconstructed_clusters_every_8_tokens"]) < limit


def test_weights_sum_to_one_unless_their_squares_are_to():
    x = scene(1, images=2, width=8, grid=(8, 8))
    found = find_clusters(x, grid=(8, 8), clusters=(4, 4), config=ELViTConfig())
    own, published = (weights_back(x, found, ELViTConfig(nearest=5, norm=norm)) for norm in ("sum", "l2"))
    assert ((own > 0).sum(dim=2) == 5).all()
    torch.testing.assert_close(own.sum(dim=2), torch.ones(2, 64))
    torch.testing.assert_close(published.square().sum(dim=2), torch.ones(2, 64))
    torch.testing.assert_close(published / published.sum(dim=2, keepdim=True), own)


def test_constant_tokens_come_back_as_they_were_unless_as_published():
    x = torch.full((1, 64, 3), 5.0)
    found = find_clusters(x, grid=(8, 8), clusters=(4, 4), config=ELViTConfig())
    torch.testing.assert_close(make_again(found, weights_back(x, found, ELViTConfig(nearest=9))), x)
    torch.testing.assert_close(make_again(found, weights_back(x, found, ELViTConfig(nearest=9, norm="l2"))), 3 * x)


def test_as_many_clusters_as_tokens_are_the_tokens():
    """Without an iteration, which would mix neighbours."""
    x, config = scene(2, images=2, width=8, grid=(8, 4)), ELViTConfig(side=1.0, iterations=0, nearest=1)
    clusters = cluster_grid((8, 4), side=config.side)
    found = find_clusters(x, grid=(8, 4), clusters=clusters, config=config)
    assert torch.equal(found, x)
    assert torch.equal(make_again(found, weights_back(x, found, config)), x)


def test_tokens_belong_to_clusters_around_their_own():
    near = neighbours((4, 4), clusters=(2, 4), side=3, device=torch.device("cpu")).view(4, 4, 2, 4)
    assert near[0, 0].tolist() == [[True, True, False, False]] * 2
    assert near[3, 2].tolist() == [[False, True, True, True]] * 2
    assert neighbours((6, 6), clusters=(3, 3), side=1, device=torch.device("cpu")).sum(dim=0).tolist() == [4] * 9


def test_an_iteration_is_a_weighted_mean_of_the_tokens_around():
    x, config = scene(4, images=1, width=8, grid=(4, 8)), ELViTConfig(iterations=1, temperature=0.7, neighbourhood=3)
    start = F.avg_pool2d(x.transpose(1, 2).unflatten(2, (4, 8)), 2).flatten(2)[0].T
    expected = []
    weights = torch.zeros(32, 8)
    for token in range(32):
        row, column = token // 8 // 2, token % 8 // 2
        for cluster in range(8):
            if abs(cluster // 4 - row) <= 1 and abs(cluster % 4 - column) <= 1:
                weights[token, cluster] = (-0.7 * (x[0, token] - start[cluster]).square().sum()).exp()
    weights /= weights.sum(dim=1, keepdim=True)
    expected = (weights / weights.sum(dim=0)).T @ x[0]
    torch.testing.assert_close(find_clusters(x, grid=(4, 8), clusters=(2, 4), config=config)[0], expected)


def test_distances_hold_their_digits_far_from_zero():
    x, y = normal(0, 1, 5, 64).double(), normal(1, 1, 7, 64).double()
    expected = torch.cdist(x, y).square().float()
    torch.testing.assert_close(squared_distances((x + 100).float(), (y + 100).float()), expected, rtol=1e-4, atol=1e-3)


def test_one_image_does_not_depend_on_the_others():
    x, config = scene(7, images=3, width=8, grid=(8, 8)), ELViTConfig()
    together = find_clusters(x, grid=(8, 8), clusters=(5, 5), config=config)
    alone = find_clusters(x[1:2], grid=(8, 8), clusters=(5, 5), config=config)
    torch.testing.assert_close(together[1:2], alone, rtol=1e-5, atol=1e-6)


def test_grids_of_clusters():
    assert cluster_grid((40, 40), side=0.7) == (28, 28)
    assert cluster_grid((7, 7), side=0.7) == (5, 5)
    assert cluster_grid((1, 30), side=0.1) == (1, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"after": ()}, "one layer, or rising blocks"),
        ({"after": (6, 3)}, r"rising blocks of Swin, got \(6, 3\)"),
        ({"side": 1.2}, "side must be above 0 up to 1, got 1.2"),
        ({"neighbourhood": 4}, "neighbourhood must be odd, .* got 4"),
        ({"nearest": 0}, "nearest 1 or more, got 5 and 0"),
        ({"back_temperature": 0.0}, r"reduce\.back_temperature must be above 0, got 0\.0"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        ELViTConfig(**changes)
