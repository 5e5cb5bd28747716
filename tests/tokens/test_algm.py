from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from terralean.errors import ConfigError
from terralean.tokens.algm import ALGMConfig, alike_windows, global_groups, local_groups, similarity
from terralean.tokens.groups import Groups, merge_alike
from weights import image

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "algm_merge.npz")
CASES = sorted({key.rsplit("/", 1)[0] for key in GOLDEN})


def relative(found: Tensor, expected) -> float:
    expected = torch.as_tensor(expected)
    return ((found - expected).norm() / expected.norm()).item()


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(image(seed, shape))


def scene(seed: int, *, images: int, width: int, side: int) -> Tensor:
    """Tokens of a grid (B, side ** 2, width) that are alike where they are near."""
    coarse = normal(seed, images, width, side // 4, side // 4)
    smooth = F.interpolate(coarse, size=(side, side), mode="bilinear", align_corners=False)
    return (smooth + 0.1 * normal(seed + 1000, images, width, side, side)).flatten(2).transpose(1, 2)


@pytest.mark.parametrize("case", CASES)
def test_both_merges_are_the_authors_where_the_batch_decides(case):
    seed, shape, layer = case.split("/")
    (images, width, side, _), seed = map(int, shape.split("x")), int(seed)
    golden = {key.rsplit("/", 1)[1]: GOLDEN[key] for key in GOLDEN if key.startswith(f"{case}/")}
    grid = scene(seed, images=images, width=width, side=side)
    x = torch.cat([normal(seed + 2000, images, 1, width), grid], dim=1)
    similar = similarity(grid, grid=(side, side), window=2)
    merged = alike_windows(similar, ALGMConfig(threshold=float(golden["threshold"]), count="batch"))
    local = local_groups(similar, merged, grid=(side, side), window=2, class_token=True)
    x, size = merge_alike(x, local, size=torch.ones(x.shape[:2]), count=int(local.counts[0]))
    assert np.array_equal(local.group, golden["local_group"])
    assert relative(x[..., ::4], golden["local_tokens_every_4_channels"]) < 1e-5
    assert np.array_equal(size, golden["local_size"])
    everywhere = global_groups(x, layer=int(layer[5:]), count="batch", class_token=True)
    assert np.array_equal(everywhere.group.gather(1, local.group), golden["global_group"])
    again, sizes = merge_alike(x, everywhere, size=size, count=int(everywhere.counts[0]))
    assert relative(again[..., ::4], golden["global_tokens_every_4_channels"]) < 1e-5
    assert np.array_equal(sizes, golden["global_size"])
    assert [side * side + 1, x.shape[1], again.shape[1]] == golden["tokens"].tolist()


@pytest.mark.parametrize("window", [2, 3])
def test_similarity_is_the_mean_over_pairs(window):
    x = scene(3, images=2, width=8, side=8)
    found = similarity(x, grid=(8, 8), window=window)
    place = torch.arange(64).view(8, 8)
    starts = range(0, 8 - window + 1, window)
    for i, (row, column) in enumerate((row, column) for row in starts for column in starts):
        unit = F.normalize(x[:, place[row : row + window, column : column + window].flatten()], dim=-1)
        pairs = [(unit[:, a] * unit[:, b]).sum(dim=-1) for a in range(window**2) for b in range(a)]
        torch.testing.assert_close(found[:, i], torch.stack(pairs).mean(dim=0))
    assert found.shape[1] == len(starts) ** 2


def groups_of(x: Tensor, config: ALGMConfig, *, grid: tuple[int, int]) -> Groups:
    similar = similarity(x, grid=grid, window=config.window)
    return local_groups(similar, alike_windows(similar, config), grid=grid, window=config.window)


def test_windows_are_merged_by_falling_similarity_and_the_rest_keeps_its_order():
    similar = torch.tensor([[0.1, 0.95, 0.2, 0.99]])
    merged = alike_windows(similar, ALGMConfig(threshold=0.9))
    assert merged.tolist() == [[False, True, False, True]]
    groups = local_groups(similar, merged, grid=(4, 4), window=2)
    expected = [[2, 3, 1, 1], [4, 5, 1, 1], [6, 7, 0, 0], [8, 9, 0, 0]]
    assert groups.group.view(4, 4).tolist() == expected
    assert groups.counts.tolist() == [10]
    with_class = local_groups(similar, merged, grid=(4, 4), window=2, class_token=True)
    assert with_class.group[0].tolist() == [0, *(1 + place for row in expected for place in row)]
    assert with_class.counts.tolist() == [11]


def test_rows_and_columns_that_fill_no_window_stay():
    groups = local_groups(torch.ones(1, 2), torch.ones(1, 2, dtype=torch.bool), grid=(3, 5), window=2)
    assert groups.group.view(3, 5).tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 3], [4, 5, 6, 7, 8]]
    assert groups.counts.tolist() == [9]


def test_images_decide_for_themselves_unless_the_batch_is_to():
    x = scene(0, images=3, width=16, side=8)
    own = ALGMConfig(threshold=similarity(x, grid=(8, 8), window=2).median().item())
    together = groups_of(x, own, grid=(8, 8))
    assert len({*together.counts.tolist()}) > 1
    for i in range(3):
        alone = groups_of(x[i : i + 1], own, grid=(8, 8))
        assert torch.equal(together.group[i], alone.group[0])
        assert together.counts[i] == alone.counts[0]
        later, batch = global_groups(x[i : i + 1], layer=5), global_groups(x, layer=5)
        assert torch.equal(batch.group[i], later.group[0])
    published = groups_of(x, ALGMConfig(threshold=own.threshold, count="batch"), grid=(8, 8))
    assert published.counts.tolist() == [together.counts.max()] * 3
    assert len({*global_groups(x, layer=5, count="batch").counts.tolist()}) == 1


def test_thresholds_above_one_merge_nothing():
    x = torch.ones(2, 16, 3)
    groups = groups_of(x, ALGMConfig(threshold=1.01), grid=(4, 4))
    assert groups.group.tolist() == [list(range(16))] * 2
    assert groups.counts.tolist() == [16, 16]


def test_global_threshold_is_mean_and_deviation_by_layer():
    x = scene(9, images=1, width=16, side=8)
    unit = F.normalize(x[0], dim=-1)
    best = (unit[::2] @ unit[1::2].T).amax(dim=1)
    for layer in (1, 5):
        merged = (best >= best.mean() + best.std() / layer).sum()
        assert global_groups(x, layer=layer).counts.tolist() == [64 - merged]


def test_too_few_tokens_stay():
    assert global_groups(torch.randn(1, 2, 4), layer=5).counts.tolist() == [2]
    assert global_groups(torch.randn(1, 3, 4), layer=5, class_token=True).counts.tolist() == [3]


def test_what_cannot_be_obeyed_is_refused():
    for after in ((5, 1), (1, 2, 3), (), (0, 1)):
        with pytest.raises(ConfigError, match=r"the layer of local merging and, .* a later one of global merging, got"):
            ALGMConfig(after=after)
    with pytest.raises(ConfigError, match="window must be 2 tokens or more, got 1"):
        ALGMConfig(window=1)
