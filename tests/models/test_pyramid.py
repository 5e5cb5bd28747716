import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.errors import ConfigError, UnknownName
from terralean.models import create
from terralean.models.lemevit import LeMeViTPyramid
from terralean.models.pyramid import TimmPyramid, pyramid
from weights import fill, image

SWIN = "swin_tiny_patch4_window7_224"


def picture(*shape: int) -> Tensor:
    return torch.from_numpy(image(0, shape))


def filled(name: str, *, bands: int = 4) -> TimmPyramid:
    model = pyramid(name, bands=bands, drop_path=0.0)
    model.load_state_dict(fill(model.state_dict()))
    return model.eval()


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


# Agreement with timm


@pytest.mark.parametrize(("name", "finer"), [("resnet18", 1), ("pvt_v2_b0", 0), ("vgg11", 2)])
def test_maps_are_those_of_timm_where_the_size_fits(name, finer):
    ours, x = filled(name), picture(2, 4, 64, 96)
    theirs = timm.create_model(name, features_only=True, in_chans=4).eval()
    theirs.load_state_dict(ours.body.state_dict())
    with torch.inference_mode():
        expected = theirs(x)[finer:]
        assert len(expected) == 4
        assert all(torch.equal(a, b) for a, b in zip(ours(x), expected, strict=True))


@pytest.mark.parametrize(
    ("name", "options", "side"), [(SWIN, {"img_size": 448}, 448), ("convnext_atto", {}, 64)], ids=["swin", "convnext"]
)
def test_residual_maps_are_those_of_timm_with_a_norm_each(name, options, side):
    ours, x = filled(name), picture(1, 4, side, side)
    theirs = timm.create_model(name, features_only=True, in_chans=4, **options).eval()
    theirs.load_state_dict(ours.body.state_dict())
    with torch.inference_mode():
        for found, raw, norm in zip(ours(x), theirs(x), ours.norms, strict=True):
            last = raw if name == SWIN else raw.permute(0, 2, 3, 1)
            expected = F.layer_norm(last, last.shape[-1:], norm.weight, norm.bias).permute(0, 3, 1, 2)
            assert relative(found, expected) < 1e-5


@pytest.mark.parametrize("name", ["resnet18", SWIN])
def test_a_seed_gives_the_weights_that_timm_draws(name):
    torch.manual_seed(3)
    ours = pyramid(name, bands=3, drop_path=0.0).body.state_dict()
    torch.manual_seed(3)
    theirs = timm.create_model(name, features_only=True).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


# Any size


@pytest.mark.parametrize("size", [(1, 1), (31, 70), (64, 33)])
@pytest.mark.parametrize("name", ["resnet18", "pvt_v2_b0", "convnext_atto", SWIN])
def test_any_size_gives_maps_of_its_reductions(name, size):
    model = filled(name)
    with torch.inference_mode():
        maps = model(picture(1, 4, *size))
    for x, reduction, channels in zip(maps, (4, 8, 16, 32), model.feature_info.channels(), strict=True):
        assert x.shape == (1, channels, -(-size[0] // reduction), -(-size[1] // reduction))
        assert x.isfinite().all()


@pytest.mark.parametrize("name", ["convnext_atto", SWIN])
def test_an_image_is_seen_as_if_pixels_without_data_followed(name):
    model, x = filled(name), picture(1, 4, 45, 61)
    around = torch.zeros(1, 4, 64, 64)
    around[..., :45, :61] = x
    with torch.inference_mode():
        for found, whole in zip(model(x), model(around), strict=True):
            assert torch.equal(found, whole[..., : found.shape[2], : found.shape[3]])


def test_batches_do_not_meet():
    model, x = filled(SWIN), picture(2, 4, 40, 50)
    with torch.inference_mode():
        for both, alone in zip(model(x), model(x[1:]), strict=True):
            assert relative(both[1:], alone) < 1e-5


# Segmenters on them


@pytest.mark.parametrize("head", ["light", "upernet"])
@pytest.mark.parametrize("name", ["resnet18", "pvt_v2_b0", "convnext_atto", SWIN])
def test_every_parameter_gets_a_gradient(name, head):
    model = create(head, bands=5, classes=3, width=16, backbone=name).train()
    model.load_state_dict(fill(model.state_dict()))  # ResNets begin with scales of zero, behind which nothing learns at first
    answer = model(picture(2, 5, 64, 96))
    scores = list(answer.values()) if isinstance(answer, dict) else [answer]
    assert all(s.shape == (2, 3, 64, 96) for s in scores)
    sum(s.square().mean() for s in scores).backward()
    assert not [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_position_tables_are_not_decayed():
    model = create("swin_tiny_upernet", bands=3, classes=2, width=8)
    spared = model.no_weight_decay()
    assert len(spared) == 12
    assert spared <= dict(model.named_parameters()).keys()
    assert all(name.endswith(".attn.relative_position_bias_table") for name in spared)


def test_lemevit_is_our_own():
    assert isinstance(pyramid("lemevit_tiny", bands=5, drop_path=0.2), LeMeViTPyramid)


# What is asked for


def test_drop_path_reaches_the_backbone_and_is_off_by_default():
    def last(rate: float) -> nn.Module:
        return pyramid(SWIN, bands=3, drop_path=rate).body.layers_3.blocks[-1].drop_path1

    assert last(0.3).drop_prob == pytest.approx(0.3)
    assert isinstance(last(0.0), nn.Identity)


@pytest.mark.parametrize(
    ("name", "drop_path", "message"),
    [
        ("vgg11", 0.1, r"vgg11 of timm has no drop path, so that it cannot be 0\.1; set model\.sizes\.drop_path=0"),
        ("vit_tiny_patch16_224", 0.0, r"maps at the reductions 16, 16, 16: a pyramid has .* use for instance swin_tiny"),
        ("nest_tiny", 0.0, r"images of any size \(Input height \(32\) doesn't match model \(224\)\.\); use for instance"),
    ],
)
def test_backbones_that_cannot_be_used_are_refused_with_the_reason(name, drop_path, message):
    with pytest.raises(ConfigError, match=message):
        pyramid(name, bands=3, drop_path=drop_path)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("swin_tiny", "timm has no backbone 'swin_tiny'; nearest: swin_tiny_patch4_window7_224"),
        ("resnet19", "timm has no backbone 'resnet19'; nearest: resnet18"),
        ("hf_hub:timm/resnet18", "'hf_hub:timm/resnet18'; use for instance swin_tiny_patch4_window7_224"),
    ],
)
def test_unknown_backbones_name_the_nearest(name, message):
    with pytest.raises(UnknownName, match=message):
        pyramid(name, bands=3, drop_path=0.0)


def test_auxiliary_head_needs_a_third_map():
    with torch.device("meta"):
        with pytest.raises(ConfigError, match=r"has 2; .* model\.sizes\.auxiliary=false"):
            create("upernet", bands=3, classes=2, backbone="sequencer2d_s")
        model = create("upernet", bands=3, classes=2, backbone="sequencer2d_s", auxiliary=False, width=8)
    assert model.backbone.feature_info.reduction() == [7, 14]
