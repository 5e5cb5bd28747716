import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.export import Dim

from terralean.cost.macs import count_macs_at, parameters
from terralean.errors import ConfigError
from terralean.layers.segmenter import Segmenter
from terralean.models import MODELS, create, lemevit
from terralean.models.lemevit import LeMeViT, LeMeViTConfig, LeMeViTPyramid
from terralean.models.upernet import ConvNormReLU, FCNHead, UPerHead
from terralean.weights.layouts import from_mmseg
from weights import fill, image

CONFIGS = {"tiny": lemevit.tiny, "small": lemevit.small, "base": lemevit.base}
TOY = LeMeViTConfig(depths=(1, 1, 2, 1, 1), dims=(32, 32, 64, 64, 96), bands=4)


def toy(*, width: int = 12, auxiliary: bool = True) -> Segmenter:
    channels = TOY.dims[1:]
    second = FCNHead(channels, level=2, classes=6, width=8) if auxiliary else None
    model = Segmenter(LeMeViTPyramid(TOY), UPerHead(channels, classes=6, width=width), classes=6, auxiliary=second)
    model.load_state_dict(fill(model.state_dict()))
    return model.eval()


def picture(*shape: int) -> Tensor:
    return torch.from_numpy(image(0, shape))


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


# Agreement with an implementation of its own, on tensors under mmsegmentation's names


def uper_tensors(channels: tuple[int, ...], *, width: int, classes: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    state = {}

    def block(name: str, before: int, after: int, kernel: int) -> None:
        state[f"{name}.conv.weight"] = torch.randn(after, before, kernel, kernel, generator=generator) / before**0.5
        state[f"{name}.bn.weight"], state[f"{name}.bn.running_var"] = torch.rand(2, after, generator=generator) + 0.5
        state[f"{name}.bn.bias"], state[f"{name}.bn.running_mean"] = torch.randn(2, after, generator=generator)
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)

    for i in range(4):
        block(f"decode_head.psp_modules.{i}.1", channels[-1], width, 1)
    block("decode_head.bottleneck", channels[-1] + 4 * width, width, 3)
    for i, before in enumerate(channels[:-1]):
        block(f"decode_head.lateral_convs.{i}", before, width, 1)
        block(f"decode_head.fpn_convs.{i}", width, width, 3)
    block("decode_head.fpn_bottleneck", len(channels) * width, width, 3)
    block("auxiliary_head.convs.0", channels[2], 7, 3)
    for head, before in (("decode_head", width), ("auxiliary_head", 7)):
        state[f"{head}.conv_seg.weight"] = torch.randn(classes, before, 1, 1, generator=generator)
        state[f"{head}.conv_seg.bias"] = torch.randn(classes, generator=generator)
    return state


def block(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.conv.weight"]
    x = F.conv2d(x, weight, padding=weight.shape[-1] // 2)
    mean, var, scale, shift = (
        state[f"{name}.bn.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
    )
    return ((x - mean) / (var + 1e-5).sqrt() * scale + shift).clamp(min=0)


def like(x: Tensor, target: Tensor) -> Tensor:
    return F.interpolate(x, target.shape[-2:], mode="bilinear", align_corners=False)


def reference(state: dict[str, Tensor], maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Scores of the head and of the auxiliary head."""
    top = maps[-1]
    parts = [top]
    for i, side in enumerate((1, 2, 3, 6)):
        parts.append(like(block(state, f"decode_head.psp_modules.{i}.1", F.adaptive_avg_pool2d(top, side)), top))
    down = [block(state, "decode_head.bottleneck", torch.cat(parts, 1))]
    for i in (2, 1, 0):
        lateral = block(state, f"decode_head.lateral_convs.{i}", maps[i])
        down.append(lateral + like(down[-1], lateral))
    out = [block(state, f"decode_head.fpn_convs.{i}", down[3 - i]) for i in range(3)] + [down[0]]
    fused = block(state, "decode_head.fpn_bottleneck", torch.cat([like(x, out[0]) for x in out], 1))
    auxiliary = block(state, "auxiliary_head.convs.0", maps[2])
    return tuple(
        F.conv2d(x, state[f"{head}.conv_seg.weight"], state[f"{head}.conv_seg.bias"])
        for head, x in (("decode_head", fused), ("auxiliary_head", auxiliary))
    )


def test_heads_equal_the_reference_on_tensors_of_mmsegmentation():
    channels, sides = (5, 8, 9, 11), ((29, 34), (15, 17), (8, 9), (4, 5))
    theirs = uper_tensors(channels, width=6, classes=3)
    ours = from_mmseg(theirs)
    head, auxiliary = UPerHead(channels, classes=3, width=6), FCNHead(channels, level=2, classes=3, width=7)
    for module, prefix in ((head, "head."), (auxiliary, "auxiliary.")):
        module.load_state_dict({k.removeprefix(prefix): v for k, v in ours.items() if k.startswith(prefix)})
    maps = [picture(2, c, *side) for c, side in zip(channels, sides, strict=True)]
    with torch.inference_mode():
        expected, second = reference(theirs, maps)
        assert relative(head.eval()(maps), expected) < 1e-5
        assert relative(auxiliary.eval()(maps), second) < 1e-5


# Laws


@pytest.mark.parametrize("size", [(1, 1), (33, 57), (64, 64)])
def test_scores_have_the_size_of_the_image(size):
    with torch.inference_mode():
        scores = toy()(picture(2, 4, *size))
    assert scores.shape == (2, 6, *size)
    assert scores.isfinite().all()


def test_scores_do_not_depend_on_the_auxiliary_head():
    with_it, without, x = toy(), toy(auxiliary=False), picture(2, 4, 48, 64)
    without.load_state_dict({k: v for k, v in with_it.state_dict().items() if not k.startswith("auxiliary.")})
    with torch.inference_mode():
        assert torch.equal(with_it(x), without(x))


def test_images_of_a_batch_do_not_meet():
    model, x = toy(), picture(3, 4, 48, 64)
    with torch.inference_mode():
        assert relative(model(x)[1:2], model(x[1:2])) < 1e-5


@pytest.mark.parametrize("images", [1, 2])
def test_every_parameter_gets_a_gradient_in_training(images):
    model = toy().train()
    answer = model(picture(images, 4, 64, 64))
    (answer["scores"].square().mean() + answer["auxiliary"].square().mean()).backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_a_single_value_is_normalised_by_the_running_statistics():
    torch.manual_seed(0)
    layer, x = ConvNormReLU(3, 5, 1), torch.randn(1, 3, 1, 1)
    layer.norm.running_mean.normal_()
    layer.norm.running_var.uniform_(0.5, 2)
    expected, before = layer.eval()(x), {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    assert torch.equal(layer.train()(x), expected)
    assert all(torch.equal(before[name], tensor) for name, tensor in layer.state_dict().items())


def test_two_values_are_normalised_by_their_own_statistics():
    torch.manual_seed(0)
    layer, x = ConvNormReLU(3, 5, 1), torch.randn(2, 3, 1, 1)
    convolved = layer.conv(x).detach()
    centred = convolved - convolved.mean(dim=0)
    expected = (centred / (convolved.var(dim=0, unbiased=False) + 1e-5).sqrt()).clamp(min=0)
    torch.testing.assert_close(layer.train()(x), expected)
    torch.testing.assert_close(layer.norm.running_mean, 0.1 * convolved.mean(dim=(0, 2, 3)))


def test_a_norm_that_sees_other_processes_is_asked_for_a_single_value_too():
    layer, x = ConvNormReLU(3, 5, 1).train(), torch.randn(1, 3, 1, 1)
    layer.norm = nn.Identity()
    assert torch.equal(layer(x), layer.conv(x).relu())


def test_whole_channels_are_dropped_before_the_classifiers():
    torch.manual_seed(0)
    head = UPerHead((8, 8, 8, 8), classes=2, width=400).train()
    seen: list[Tensor] = []
    head.classify.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    head([torch.rand(1, 8, side, side) for side in (8, 4, 2, 1)])
    dropped = (seen[0] == 0).flatten(2).all(dim=2)
    assert 0.05 < dropped.float().mean() < 0.15
    assert FCNHead((8, 8, 8), level=2, classes=2, width=4).dropout.p == head.dropout.p == 0.1


def test_exported_program_equals_eager_at_other_sizes():
    eager = toy()
    shapes = {"image": {0: Dim("batch", min=1), 2: Dim("height", min=33), 3: Dim("width", min=33)}}
    with torch.no_grad():
        program = torch.export.export(eager, (picture(2, 4, 64, 96),), dynamic_shapes=shapes).module()
        for shape in [(1, 4, 75, 131), (3, 4, 128, 96)]:
            assert relative(program(picture(*shape)), eager(picture(*shape))) < 1e-5


# Sizes and costs


def on_meta(name: str, *, classes: int, **sizes) -> Segmenter:
    with torch.device("meta"):
        return create(name, bands=3, classes=classes, **sizes)


@pytest.mark.parametrize(("name", "millions"), [("tiny", 37.05), ("small", 45.59), ("base", 83.19)])
def test_parameters_are_those_published_less_what_no_map_depends_on(name, millions):
    """The authors' backbone for dense prediction carries all of the classifier but its last layer."""
    model = on_meta(f"lemevit_{name}_upernet", classes=5)
    with torch.device("meta"):
        theirs = LeMeViT(CONFIGS[name](classes=0))
    unused = parameters(theirs) - parameters(model.backbone)
    assert round((parameters(model) + unused) / 1e6, 2) == millions
    assert f"{parameters(model) / 1e6:.2f} M parameters" in MODELS[f"lemevit_{name}_upernet"].__doc__


# At 512 px with 5 classes, in units of 1e9: our convolutions and linear layers; those of the authors' network as far as scores
# depend on them; what the paper prints.
GMACS = {"tiny": (217.67, 217.80, 217.88), "small": (227.74, 228.04, 228.16), "base": (263.27, 263.57, 263.75)}


@pytest.mark.parametrize("name", GMACS)
def test_macs_are_those_published_and_what_differs_is_known(name):
    """The paper's column is mmcv's count, which has more in it than multiplications that scores depend on."""
    ours, theirs, printed = GMACS[name]
    model, config = on_meta(f"lemevit_{name}_upernet", classes=5), CONFIGS[name]()
    macs = count_macs_at(model, (1, 3, 512, 512))
    assert round(macs.layers / 1e9, 2) == ours
    read = macs.layers + keys_and_values_that_nobody_reads(config)
    assert round(read / 1e9, 2) == theirs
    total = read + meta_tokens_that_nobody_reads(config) + beside_multiplications(model)
    assert round(total / 1e9, 2) == printed


def keys_and_values_that_nobody_reads(config: LeMeViTConfig) -> int:
    """Of the image tokens in the last block of S2."""
    return 2 * (512 // 8) ** 2 * config.dims[2] ** 2


def meta_tokens_that_nobody_reads(config: LeMeViTConfig) -> int:
    """Their update in the last block of S2 and their way into S3 and S4: linear layers, and two for each normalised value."""
    m, d2, d3, d4 = config.meta_tokens, *config.dims[2:]
    block = d2 * d2 + 8 * d2 * d2 + 2 * d2
    ways = sum(4 * a * a + 4 * a * b + 2 * (4 * a + b) for a, b in ((d2, d3), (d3, d4)))
    return m * (block + ways)


def beside_multiplications(model: Segmenter) -> int:
    """What mmcv counts beside them: one for each output of a ReLU, of a bias of a convolution and for each value pooled, two
    for each value that a layer or batch norm gets; not the heads' batch norms, whose kind, SyncBatchNorm, it does not know.
    """
    found = 0

    def look(module: nn.Module, args: tuple[Tensor, ...], result: Tensor) -> None:
        nonlocal found
        within = "head" if module in heads else "backbone"
        if isinstance(module, nn.LayerNorm) or (isinstance(module, nn.BatchNorm2d) and within == "backbone"):
            found += 2 * args[0].numel()
        elif isinstance(module, ConvNormReLU) or (isinstance(module, nn.Conv2d) and module.bias is not None):
            found += result.numel()

    heads = {*model.head.modules()}
    for module in model.modules():
        module.register_forward_hook(look)
    with torch.no_grad():
        model.eval()(torch.empty(1, 3, 512, 512, device="meta"))
    coarsest = model.backbone.feature_info.channels()[-1] * (512 // 32) ** 2
    return found + 4 * coarsest


def test_swin_has_the_parameters_of_mmsegmentations():
    """A backbone with a norm on each map, a head and an auxiliary head, 6 classes; 59.83 M in Zhang & Yao 2025."""
    model = on_meta("swin_tiny_upernet", classes=6)
    parts = [parameters(part) for part in (model.backbone, model.head, model.auxiliary)]
    assert parts == [27_520_698, 31_423_494, 886_790]
    assert f"{sum(parts) / 1e6:.2f} M parameters" in MODELS["swin_tiny_upernet"].__doc__


def test_swin_costs_what_two_papers_count():
    """Jiang et al. 2024 print 234.79 G, convolutions and linear layers with 5 classes. Zhang & Yao 2025 count as fvcore does,
    attention products, five for each value of a layer norm, two of a batch norm and four for each value of a resized map
    included: 25.61 G for the encoder, 210.36 and 210.51 G for the head with 6 and 24 classes.
    """
    model, shape = on_meta("swin_tiny_upernet", classes=5), (1, 3, 512, 512)
    macs = count_macs_at(model, shape)
    assert (round(macs.layers / 1e9, 2), round(macs.attention / 1e9, 2)) == (234.79, 0.86)
    encoder = count_macs_at(model.backbone, shape)
    assert round((encoder.total + 5 * normalised_in_swin()) / 1e9, 2) == 25.61
    for classes, printed in ((6, 210.36), (24, 210.51)):
        with torch.device("meta"):
            head = HeadAlone(UPerHead((96, 192, 384, 768), classes=classes, width=512))
        counted = count_macs_at(head, (1,))
        assert counted.attention == 0
        # values of normed maps: laterals and smoothed, context, pooled, fused; of resized ones: down, to the finest, pooled
        fine = 512 * sum(side * side for side in (128, 64, 32))
        normed = 2 * fine + 512 * (16 * 16 + (1 + 4 + 9 + 36) + 128 * 128)
        resized = fine + 512 * (3 * 128 * 128 + 4 * 16 * 16)
        assert round((counted.layers + 2 * normed + 4 * resized) / 1e9, 2) == printed


class HeadAlone(nn.Module):
    def __init__(self, head: UPerHead) -> None:
        super().__init__()
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return self.head([x.new_empty(1, c, s, s) for c, s in ((96, 128), (192, 64), (384, 32), (768, 16))])


def normalised_in_swin() -> int:
    """Values that layer norms of Swin-T get at 512 px: the patches, two a block, four times four merged into one, the maps."""
    sides, widths, depths = (128, 64, 32, 16), (96, 192, 384, 768), (2, 2, 6, 2)
    maps = [side * side * width for side, width in zip(sides, widths, strict=True)]
    blocks = sum(2 * depth * values for depth, values in zip(depths, maps, strict=True))
    return maps[0] + blocks + sum(maps[:3]) + sum(maps)


# Settings


@pytest.mark.parametrize("name", [f"lemevit_{size}_upernet" for size in CONFIGS])
def test_every_setting_of_lemevit_reaches_the_model(name):
    with torch.device("meta"):
        model = create(name, bands=7, classes=5, width=64, meta_tokens=8, drop_path=0.3, auxiliary=False)
    assert model.backbone.config == CONFIGS[name.split("_")[1]](bands=7, meta_tokens=8, drop_path=0.3)
    assert model.head.classify.weight.shape == (5, 64, 1, 1)
    assert model.auxiliary is None


def test_every_setting_reaches_swin_and_any_backbone():
    with torch.device("meta"):
        swin = create("swin_tiny_upernet", bands=7, classes=5, width=64, drop_path=0.3, auxiliary=False)
        same = create("upernet", bands=7, classes=5, width=64, backbone="swin_tiny_patch4_window7_224", auxiliary=False)
        other = create("upernet", bands=7, classes=5, width=64, backbone="resnet18", drop_path=0.3)
    assert swin.state_dict().keys() == same.state_dict().keys()
    assert swin.backbone.body.patch_embed.proj.weight.shape[1] == 7
    assert swin.backbone.body.layers_3.blocks[-1].drop_path1.drop_prob == pytest.approx(0.3)
    assert swin.head.classify.weight.shape == other.head.classify.weight.shape == (5, 64, 1, 1)
    assert other.backbone.body.conv1.weight.shape[1] == 7
    assert other.auxiliary.convolve.conv.weight.shape == (256, 256, 3, 3)


def test_lemevit_by_its_timm_name_is_the_same_model():
    named, any_backbone = on_meta("lemevit_tiny_upernet", classes=5), on_meta("upernet", classes=5, backbone="lemevit_tiny")
    assert {k: v.shape for k, v in named.state_dict().items()} == {k: v.shape for k, v in any_backbone.state_dict().items()}


def test_what_cannot_be_built_is_refused():
    with pytest.raises(ConfigError, match=r"model upernet needs sizes\.backbone; set it with --set model\.sizes\.backbone="):
        create("upernet", bands=3, classes=5)
    with pytest.raises(ConfigError, match="width must be 1 or more, got 0"):
        create("lemevit_tiny_upernet", bands=3, classes=5, width=0)
    with pytest.raises(ConfigError, match=r"reads map 3 of the backbone, which has 2; .* set model\.sizes\.auxiliary=false"):
        FCNHead((8, 16), level=2, classes=5, width=4)
    with pytest.raises(ConfigError, match=r"sizes\.auxiliary must be of type bool, got 0"):
        create("lemevit_tiny_upernet", bands=3, classes=5, auxiliary=0)
