from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from terralean.errors import ConfigError
from terralean.tokens.groups import copy_back_alike, merge_alike
from terralean.tokens.tome import ToMeConfig, match, tokens_per_layer
from weights import image

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "tome_merge.npz")
CASES = sorted({key.rsplit("/", 1)[0] for key in GOLDEN})


def relative(found: Tensor, expected) -> float:
    expected = torch.as_tensor(expected)
    return ((found - expected).norm() / expected.norm()).item()


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(image(seed, shape))


@pytest.mark.parametrize("case", CASES)
def test_two_matchings_are_the_authors(case):
    token, seed, shape, r = case.split("/")
    (images, tokens, width), seed, r = map(int, shape.split("x")), int(seed), int(r[1:])
    golden = {key.rsplit("/", 1)[1]: GOLDEN[key] for key in GOLDEN if key.startswith(f"{case}/")}
    x, options = normal(seed + 1000, images, tokens, 32), {"r": r, "class_token": token == "cls"}
    first = match(normal(seed, images, tokens, width), **options)
    merged, size = merge_alike(x, first, size=torch.ones(images, tokens), count=int(first.counts[0]))
    assert relative(merged[..., ::4], golden["merged_mean_every_4_channels"]) < 1e-5
    assert relative(copy_back_alike(merged, first)[..., ::4], golden["unmerged_every_4_channels"]) < 1e-5
    assert np.array_equal(size, golden["size_1"])
    assert np.array_equal(first.group, golden["group_1"])
    second = match(normal(seed + 2000, images, merged.shape[1], width), **options)
    again, size = merge_alike(merged, second, size=size, count=int(second.counts[0]))
    assert relative(again[..., ::4], golden["weighted_2_every_4_channels"]) < 1e-5
    assert np.array_equal(size, golden["size_2"])
    assert np.array_equal(second.group.gather(1, first.group), golden["group_2"])


def plain(metric: Tensor, *, r: int, class_token: bool) -> list[int]:
    """The rule written down token by token, for one image."""
    unit = (metric / metric.norm(dim=-1, keepdim=True)).tolist()
    even, odd = range(0, len(unit), 2), range(1, len(unit), 2)

    def cosine(a: int, b: int) -> float:
        return sum(p * q for p, q in zip(unit[a], unit[b], strict=True))

    best = {a: max((cosine(a, b), b) for b in odd) for a in even}
    candidates = sorted((a for a in even if a or not class_token), key=lambda a: -best[a][0])
    merged = candidates[: min(r, (len(unit) - class_token) // 2)]
    left = [a for a in even if a not in merged] if class_token else [a for a in candidates if a not in merged]
    order = [*left, *odd]
    return [order.index(best[token][1] if token in merged else token) for token in range(len(unit))]


@pytest.mark.parametrize("class_token", [False, True])
@pytest.mark.parametrize("tokens", [2, 3, 9, 16])
@pytest.mark.parametrize("r", [1, 3, 40])
def test_groups_are_those_of_the_rule_written_down(tokens, r, class_token):
    metric = normal(tokens, 3, tokens, 6)
    groups = match(metric, r=r, class_token=class_token)
    for one, group in zip(metric, groups.group, strict=True):
        assert group.tolist() == plain(one, r=r, class_token=class_token)
    assert groups.counts.tolist() == [tokens - min(r, (tokens - class_token) // 2)] * 3


def test_every_image_may_have_its_own_number():
    metric = normal(5, 3, 11, 6)
    together = match(metric, r=torch.tensor([0, 2, 5]))
    assert together.counts.tolist() == [11, 9, 6]
    for i, r in ((1, 2), (2, 5)):
        assert torch.equal(together.group[i], match(metric[i : i + 1], r=r).group[0])
    assert sorted(together.group[0].tolist()) == list(range(11))


@pytest.mark.parametrize("class_token", [False, True])
def test_nothing_to_merge_leaves_tokens_where_they_are(class_token):
    groups = match(normal(0, 2, 7, 4), r=0, class_token=class_token)
    assert groups.group.tolist() == [list(range(7))] * 2
    assert match(normal(0, 1, 1, 4), r=3, class_token=class_token).group.tolist() == [[0]]


def test_the_class_token_is_never_merged():
    metric = torch.ones(1, 9, 4)  # all alike
    groups = match(metric, r=4, class_token=True)
    assert groups.group[0].tolist().count(0) == 1
    assert groups.group[0, 0] == 0
    assert match(metric, r=4).group[0].tolist().count(groups.group[0, 0].item()) == 1


def test_layers_merge_as_configured():
    assert tokens_per_layer(ToMeConfig(r=5), depth=3) == [5, 5, 5]
    assert tokens_per_layer(ToMeConfig(r=(4, 0, 2)), depth=3) == [4, 0, 2]
    assert tokens_per_layer(ToMeConfig(r=10, inflection=-1.0), depth=5) == [20, 15, 10, 5, 0]
    assert tokens_per_layer(ToMeConfig(r=10, inflection=0.5), depth=3) == [5, 10, 15]
    assert tokens_per_layer(ToMeConfig(r=10), depth=1) == [10]


def test_what_cannot_be_obeyed_is_refused():
    with pytest.raises(ConfigError, match=r"reduce\.r counts tokens .* cannot be negative, got -1"):
        ToMeConfig(r=-1)
    with pytest.raises(ConfigError, match=r"cannot be negative, got \(3, -2\)"):
        ToMeConfig(r=(3, -2))
    with pytest.raises(ConfigError, match="inflection must be from -1 to 1, got 2"):
        ToMeConfig(inflection=2)
    with pytest.raises(ConfigError, match=r"leave it out where reduce\.r lists them"):
        ToMeConfig(r=(1, 2), inflection=0.5)
    with pytest.raises(ConfigError, match=r"fraction must be from 0 to 0\.5, got 0\.6"):
        ToMeConfig(fraction=0.6)
    with pytest.raises(ConfigError, match="lists 2 layers, the encoder has 12; give 12 numbers"):
        tokens_per_layer(ToMeConfig(r=(1, 2)), depth=12)
