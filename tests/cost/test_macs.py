import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.cost.macs import Macs, count_macs, count_macs_at, parameters
from terralean.models import lemevit
from terralean.models.lemevit import LeMeViT, LeMeViTConfig, LeMeViTPyramid

SIZES = {"tiny": lemevit.tiny, "tiny_d7": lemevit.tiny_d7, "small": lemevit.small, "base": lemevit.base}


class Attention(nn.Module):
    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(query, key, key)


class NaiveAttention(nn.Module):
    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        return (query @ key.mT).softmax(-1) @ key


def test_convolution_counts_one_for_each_weight_and_place():
    layer = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2)
    assert count_macs(layer, torch.zeros(5, 4, 9, 7)) == Macs(layers=5 * (5 * 4) * 6 * (4 // 2) * 9, attention=0)


def test_linear_layer_counts_one_for_each_weight_and_token():
    assert count_macs(nn.Linear(10, 3), torch.zeros(2, 7, 10)) == Macs(layers=2 * 7 * 10 * 3, attention=0)


@pytest.mark.parametrize("attention", [Attention(), NaiveAttention()])
def test_attention_counts_both_products_and_nothing_else(attention):
    query, key = torch.zeros(2, 3, 50, 32), torch.zeros(2, 3, 16, 32)
    assert count_macs(attention, query, key) == Macs(layers=0, attention=2 * (2 * 3) * 50 * 16 * 32)


def test_a_module_that_only_compares_has_none():
    assert count_macs(nn.Threshold(0.5, 0.0), torch.zeros(2, 3)) == Macs(layers=0, attention=0)


def test_total_is_both():
    assert Macs(layers=3, attention=4).total == 7


def test_parameters_that_do_not_train_can_be_left_out():
    model = nn.Sequential(nn.Linear(10, 3), nn.Linear(3, 2))
    model[0].requires_grad_(False)
    assert parameters(model) == 10 * 3 + 3 + 3 * 2 + 2
    assert parameters(model, trainable=True) == 3 * 2 + 2


def test_counting_leaves_the_model_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    model[1].eval()
    count_macs(model, torch.randn(2, 3, 8, 8))
    count_macs_at(model, (2, 3, 8, 8))
    assert [part.training for part in model] == [True, False, True]
    assert model[1].num_batches_tracked == 0
    assert all(p.device.type == "cpu" and p.grad is None for p in model.parameters())


@pytest.mark.parametrize("build", [LeMeViT, LeMeViTPyramid])
def test_counting_without_computing_gives_the_same(build):
    model = build(LeMeViTConfig(depths=(1, 1, 1, 1, 1), dims=(32, 32, 64, 64, 96), classes=5))
    assert count_macs_at(model, (2, 3, 50, 70)) == count_macs(model, torch.zeros(2, 3, 50, 70))


# LeMeViT's published and measured counts, in GMACs: (layers, attention) of the classifier with 1000 classes
WHOLE = {
    ("tiny", 224): (1.779, 0.167),
    ("tiny", 256): (2.288, 0.266),
    ("tiny", 512): (8.806, 3.541),
    ("tiny_d7", 224): (1.685, 0.152),
    ("tiny_d7", 256): (2.167, 0.241),
    ("tiny_d7", 512): (8.344, 3.138),
    ("small", 224): (3.736, 0.220),
    ("small", 256): (4.813, 0.347),
    ("small", 512): (18.594, 4.481),
    ("base", 224): (11.060, 0.680),
    ("base", 256): (14.206, 1.103),
    ("base", 512): (54.477, 15.473),
}
# ... and of the authors' dense backbone, traced, so that a projection nobody reads is left out
DENSE = {
    ("tiny", 256): (2.181, 0.261),
    ("tiny", 512): (8.698, 3.523),
    ("small", 256): (4.612, 0.340),
    ("small", 512): (18.393, 4.454),
    ("base", 256): (13.461, 1.093),
    ("base", 512): (53.731, 15.443),
}


@pytest.mark.parametrize(("name", "size_px"), WHOLE)
def test_macs_of_the_classifier_are_those_published(name, size_px):
    with torch.device("meta"):
        macs = count_macs_at(LeMeViT(SIZES[name]()), (1, 3, size_px, size_px))
    assert (round(macs.layers / 1e9, 3), round(macs.attention / 1e9, 3)) == WHOLE[name, size_px]
    assert macs.attention == products(SIZES[name](), size_px=size_px, dense=False)


@pytest.mark.parametrize(("name", "size_px"), DENSE)
def test_pyramid_saves_keys_and_values_that_nobody_reads(name, size_px):
    """The authors' last block of S2 projects its image tokens to keys and values for meta tokens that nobody reads."""
    with torch.device("meta"):
        macs = count_macs_at(LeMeViTPyramid(SIZES[name]()), (1, 3, size_px, size_px))
    tokens, dim = (size_px // 8) ** 2, SIZES[name]().dims[2]
    unread = 2 * tokens * dim * dim
    assert (round((macs.layers + unread) / 1e9, 3), round(macs.attention / 1e9, 3)) == DENSE[name, size_px]
    assert macs.attention == products(SIZES[name](), size_px=size_px, dense=True)


@pytest.mark.parametrize(("meta_tokens", "published"), [(64, (4.392, 0.443)), (32, (3.955, 0.292)), (8, (3.627, 0.185))])
def test_macs_with_other_numbers_of_meta_tokens_are_those_published(meta_tokens, published):
    with torch.device("meta"):
        macs = count_macs_at(LeMeViT(lemevit.small(meta_tokens=meta_tokens)), (1, 3, 224, 224))
    assert (round(macs.layers / 1e9, 3), round(macs.attention / 1e9, 3)) == published


def products(config: LeMeViTConfig, *, size_px: int, dense: bool) -> int:
    """Products of queries with keys and of weights with values, by formula: 2 N M D for every reading."""
    total, m = 0, config.meta_tokens
    for stage, (depth, dim, reduction) in enumerate(zip(config.depths, config.dims, (4, 4, 8, 16, 32), strict=True)):
        n = (size_px // reduction) ** 2
        if stage == 0:
            total += depth * 2 * n * m * dim
        elif stage <= 2:
            total += depth * 4 * n * m * dim - (2 * n * m * dim if dense and stage == 2 else 0)
        else:
            total += depth * 2 * (n * n + (0 if dense else m * m)) * dim
    return total
