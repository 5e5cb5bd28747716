import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from terralean.cost.macs import count_macs_at, parameters
from terralean.errors import ConfigError
from terralean.models import unetformer
from terralean.models.unetformer import Fusion, GlobalLocalAttention, Refinement, UNetFormer, UNetFormerConfig
from weights import fill, image

CONV, NORM = 9 * 64 * 64, 2 * 64  # parameters of a 3x3 convolution of the decoder, and of a norm
FCN = 9 * 256 * 256 + 2 * 256  # of mmsegmentation's auxiliary head on the third stage, but for its classifier


def picture(*shape: int) -> Tensor:
    return torch.from_numpy(image(0, shape))


def built(**sizes) -> UNetFormer:
    with torch.device("meta"):
        return unetformer.unetformer_resnet18(bands=3, **sizes)


def test_parameters_part_by_part():
    model = built(classes=6)
    attention = 4 * 64 * 64 + CONV + 2 * NORM + 15 * 15 * 8 + (8 * 8 * 64 + NORM + 64 * 64)
    block = 2 * NORM + attention + (64 * 256 + 256) + (256 * 64 + 64)
    place, channel, separable = 9 * 64 + 64, 2 * 64 * 4, 9 * 64 + NORM + 64 * 64
    parts = {
        "backbone": 11_176_512,  # torchvision's ResNet-18 of 11,689,512 less its classifier of 513,000
        "enter": 512 * 64 + NORM,
        "blocks": 3 * block,
        "fusions": (256 + 128) * 64 + 2 * (2 + CONV + NORM),
        "refine": 64 * 64 + 2 + CONV + NORM + place + channel + separable + 64 * 64 + NORM,
        "classify": CONV + NORM + 64 * 6,
        "auxiliary": CONV + NORM + 64 * 6,
    }
    assert {name: parameters(part) for name, part in model.named_children()} == parts
    assert parameters(model) == sum(parts.values()) == 11_724_894


@pytest.mark.parametrize(("classes", "exact"), [(7, 11_725_022), (8, 11_725_150)])
def test_parameters_and_operations_are_those_of_the_authors(classes, exact, published_gflops):
    """11.73 M and 11.76 G are published, for LoveDA of 7 classes and UAVid of 8."""
    assert parameters(built(classes=classes)) == exact
    assert round(exact / 1e6, 2) == 11.73
    assert round(published_gflops(unetformer.unetformer_resnet18, classes=classes), 2) == 11.76


@pytest.mark.parametrize(("classes", "published"), [(6, 13.01), (7, 13.02), (24, 13.05)])
def test_deep_stem_has_the_operations_of_matps_table(classes, published, published_gflops):
    """Up to half of what the stem's further norms add, 64 channels at stride 2; so it is with FactSeg."""
    found = published_gflops(unetformer.unetformer_resnet18, classes=classes, deep_stem=True)
    assert round(found - 64 * 256**2 / 1e9, 2) == published


def test_what_the_deep_stem_adds():
    plain, deep = built(classes=6), built(classes=6, deep_stem=True)
    weights = 9 * (3 * 32 + 32 * 32 + 32 * 64) - 49 * 3 * 64
    assert parameters(deep) - parameters(plain) == weights + 2 * 2 * 32 == 19_232
    macs = [count_macs_at(model, (1, 3, 512, 512)).total for model in (plain, deep)]
    assert macs[1] - macs[0] == weights * 256 * 256
    assert (macs[1] - macs[0]) / 1e9 == pytest.approx(1.25, abs=0.005)


def test_parameters_of_matps_table_are_nearly_explained():
    """12.31 M: with the deep stem, and mmsegmentation's auxiliary head in place of ours; 0.011 M stay open."""
    ours = parameters(built(classes=6, deep_stem=True)) - (CONV + NORM + 64 * 6)
    assert (ours + FCN + 257 * 6) / 1e6 == pytest.approx(12.31 - 0.011, abs=0.001)


def test_parameters_of_the_docstring():
    counts = [parameters(built(classes=6, deep_stem=deep)) / 1e6 for deep in (False, True)]
    assert [f"{count:.2f} M" in unetformer.unetformer_resnet18.__doc__ for count in counts] == [True, True]


@pytest.mark.parametrize("size", [(6, 9), (5, 7), (2, 10), (1, 1)])
def test_window_attention_equals_a_loop(size):
    window, heads, depth = 3, 2, 5
    qkv = picture(2, 3 * heads * depth, *size).double()
    table = torch.randn((2 * window - 1) ** 2, heads, generator=torch.Generator().manual_seed(1)).double()
    bias = table[unetformer.offsets(window)].permute(2, 0, 1)
    found = unetformer.attend_in_windows(qkv, bias, window=window)
    expected = looped(qkv, table, window=window, heads=heads)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


def looped(qkv: Tensor, table: Tensor, *, window: int, heads: int) -> Tensor:
    """Pixel by pixel: who stands in the same window, how far away."""
    query, key, value = qkv.chunk(3, dim=1)
    depth = query.shape[1] // heads
    out = torch.zeros_like(query)
    pixels = [(r, c) for r in range(qkv.shape[2]) for c in range(qkv.shape[3])]
    for r, c in pixels:
        mates = [(i, j) for i, j in pixels if i // window == r // window and j // window == c // window]
        for head in range(heads):
            part = slice(head * depth, (head + 1) * depth)
            add = torch.stack([table[(r - i + window - 1) * (2 * window - 1) + c - j + window - 1, head] for i, j in mates])
            keys, values = (torch.stack([x[:, part, i, j] for i, j in mates], dim=1) for x in (key, value))
            logits = (keys @ query[:, part, r, c, None]).squeeze(2) / depth**0.5 + add
            out[:, part, r, c] = (logits.softmax(dim=1)[:, None] @ values).squeeze(1)
    return out


def test_join_undoes_split():
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    tokens = unetformer.split_windows(x, window=2)
    assert tokens.shape == (2 * 6, 4, 3)
    assert tokens[1, :, 0].tolist() == x[0, 0, :2, 2:4].flatten().tolist()
    assert torch.equal(unetformer.join_windows(tokens, rows=2, columns=3), x)


def test_means_along_rows_and_columns_worked():
    x = torch.tensor([[1.0, 2, 4, 8], [16, 32, 64, 128]]).view(1, 1, 2, 4)
    # four pixels, from one before to two after, of those that exist
    down = torch.tensor([[8.5, 17, 34, 68]]).expand(2, 4)
    along = torch.tensor([[7 / 3, 15 / 4, 14 / 3, 6], [112 / 3, 60, 224 / 3, 96]])
    torch.testing.assert_close(unetformer.cross_means(x, length=4)[0, 0], down + along)


@pytest.mark.parametrize("length", [7, 8])
def test_means_of_a_plane_are_the_plane(length):
    x = torch.full((1, 2, 5, 11), 3.0)
    torch.testing.assert_close(unetformer.cross_means(x, length=length), 2 * x)


@pytest.mark.parametrize(
    ("weights", "expected"), [([1.0, 3.0], [0.25, 0.75]), ([2.0, -1.0], [1.0, 0.0]), ([1.0, 1.0], [0.5, 0.5])]
)
def test_shares_are_not_negative_and_sum_to_one(weights, expected):
    assert unetformer.shares(torch.tensor(weights)).tolist() == pytest.approx(expected)


def test_fusion_weighs_the_skip_first():
    fuse, x, skip = Fusion(5, 16).eval(), picture(1, 16, 4, 6), picture(1, 5, 8, 12)
    with torch.inference_mode():
        fuse.weights.copy_(torch.tensor([3.0, 1.0]))
        mixed = 0.75 * F.conv2d(skip, fuse.lateral.weight) + 0.25 * F.interpolate(x, scale_factor=2, mode="bilinear")
        torch.testing.assert_close(fuse(x, skip), fuse.smooth(mixed))
        fuse.weights.copy_(torch.tensor([-1.0, 1.0]))
        torch.testing.assert_close(fuse(x, skip), fuse(x, skip + 1))


def test_refinement_by_its_formula():
    refine = Refinement(3, 16)
    refine.load_state_dict(fill(refine.state_dict()))
    refine, x, skip = refine.eval(), picture(2, 16, 3, 4), picture(2, 3, 6, 8)
    with torch.inference_mode():
        fused = refine.fuse(x, skip)
        place = torch.sigmoid(F.conv2d(fused, refine.place.weight, refine.place.bias, padding=1, groups=16))
        first, second = (layer.weight.flatten(1) for layer in (refine.channel[1], refine.channel[3]))
        channel = torch.sigmoid(F.relu6(fused.mean(dim=(2, 3)) @ first.T) @ second.T)[..., None, None]
        _, depthwise, norm, pointwise = refine.project
        mixed = pointwise(norm(F.conv2d(fused * (place + channel), depthwise.weight, padding=1, groups=16)))
        torch.testing.assert_close(refine(x, skip), F.relu6(mixed + refine.shortcut(fused)))


def test_global_local_attention_by_its_formula():
    layer = GlobalLocalAttention(16, heads=2, window=4)
    layer.load_state_dict(fill(layer.state_dict()))
    layer, x = layer.eval(), picture(2, 16, 8, 12)
    with torch.inference_mode():
        seen = looped(layer.qkv(x), layer.relative.table, window=4, heads=2)
        local = layer.local_area(x) + layer.local_point(x)
        _, depthwise, norm, pointwise = layer.project
        inside = F.pad(unetformer.cross_means(seen, length=4) + local, (1, 2, 1, 2))
        expected = pointwise(norm(F.conv2d(inside, depthwise.weight, groups=16)))
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_auxiliary_scores_are_of_the_sum_of_all_three_levels():
    model = unetformer.unetformer_resnet18(bands=3, classes=4, dropout=0.0).train()
    model.load_state_dict(fill(model.state_dict()))
    levels = []
    for block in model.blocks:
        block.register_forward_hook(lambda *args: levels.append(args[2]))
    with torch.no_grad():
        found = model(picture(2, 3, 64, 64))["auxiliary"]
        coarse, middle, fine = (F.interpolate(level, size=(8, 8), mode="bilinear") for level in levels)
        expected = F.interpolate(model.auxiliary(coarse + middle + fine), size=(64, 64), mode="bilinear")
    torch.testing.assert_close(found, expected)


def test_dropout_is_before_both_classifiers():
    model = unetformer.unetformer_resnet18(bands=3, classes=4, dropout=0.3)
    rates = {name: part.p for name, part in model.named_modules() if isinstance(part, torch.nn.Dropout2d)}
    assert rates == {"classify.3": 0.3, "auxiliary.3": 0.3}


def test_biases_of_position_are_not_decayed():
    model = unetformer.unetformer_resnet18(bands=3, classes=4)
    assert model.no_weight_decay() == {f"blocks.{i}.attention.relative.table" for i in range(3)}
    assert model.no_weight_decay() <= dict(model.named_parameters()).keys()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [({"dropout": 1.0}, "dropout must be 0 up to below 1, got 1.0"), ({"width": 60}, "multiple of heads 8, got 60")],
)
def test_sizes_out_of_range(sizes, message):
    with pytest.raises(ConfigError, match=message):
        UNetFormerConfig(bands=3, classes=2, **sizes)
