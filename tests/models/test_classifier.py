import pytest
import timm
import torch
from torch import Tensor, nn

from terralean.errors import ConfigError, UnknownName
from terralean.models import (
    CHANGE_DETECTORS,
    CLASSIFIERS,
    DETECTORS,
    MODELS,
    PIXEL_CLASSIFIERS,
    SEGMENTERS,
    create,
    lemevit,
)
from weights import fill, image

SIZES = {"lemevit_tiny": lemevit.tiny, "lemevit_small": lemevit.small, "lemevit_base": lemevit.base}
# A convolutional network, one of a single size, one without drop path, one that resizes images itself, one of ours.
FROM_TIMM = ["convnext_atto", "vit_tiny_patch16_224", "vgg11", "crossvit_tiny_240", "lemevit_tiny"]


def picture(*shape: int) -> Tensor:
    return torch.from_numpy(image(0, shape))


def filled(model: nn.Module) -> nn.Module:
    model.load_state_dict(fill(model.state_dict()))
    return model.eval()


def drop_paths(model: nn.Module) -> list[float]:
    return [m.drop_prob for m in model.modules() if isinstance(m, timm.layers.DropPath)]


def test_every_model_is_of_one_kind():
    kinds = (SEGMENTERS, CLASSIFIERS, PIXEL_CLASSIFIERS, CHANGE_DETECTORS, DETECTORS)
    assert sorted(MODELS) == sorted(name for kind in kinds for name in kind)
    assert {"lemevit_tiny", "lemevit_small", "lemevit_base", "classifier"} <= {*CLASSIFIERS}


@pytest.mark.parametrize("name", [*SIZES])
def test_lemevit_is_built_as_the_paper_trained_it(name):
    with torch.device("meta"):
        model = create(name, bands=4, classes=51)
    assert model.config == SIZES[name](bands=4, classes=51, drop_path=0.15)


def test_settings_of_lemevit_reach_it():
    model = create("lemevit_tiny", bands=3, classes=5, drop_path=0.0, meta_tokens=8)
    assert model.config == lemevit.tiny(classes=5, meta_tokens=8)


@pytest.mark.parametrize("name", FROM_TIMM)
def test_classifier_of_timm_computes_what_timm_does_under_its_keys(name):
    ours = filled(create("classifier", bands=4, classes=7, backbone=name, image_px=224))
    theirs = timm.create_model(name, in_chans=4, num_classes=7).eval()
    theirs.load_state_dict(ours.state_dict())
    x = picture(1, 4, 224, 224)
    with torch.inference_mode():
        assert torch.equal(ours(x), theirs(x))


def test_a_network_of_one_size_is_built_for_the_size_asked():
    model = create("classifier", bands=3, classes=7, backbone="vit_tiny_patch16_224", image_px=64)
    assert model.pos_embed.shape[1] == 1 + (64 // 16) ** 2
    with torch.inference_mode():
        assert model(picture(2, 3, 64, 64)).shape == (2, 7)


@pytest.mark.parametrize("image_px", [64, 224])
def test_a_network_that_resizes_images_itself_takes_any_size(image_px):
    model = create("classifier", bands=3, classes=7, backbone="crossvit_tiny_240", image_px=image_px)
    with torch.inference_mode():
        assert model(picture(2, 3, image_px, image_px)).shape == (2, 7)


@pytest.mark.parametrize("name", ["convnext_atto", "pvt_v2_b0", "lemevit_tiny"])
def test_drop_path_reaches_the_network_and_is_none_unless_asked(name):
    assert not any(drop_paths(create("classifier", bands=3, classes=7, backbone=name)))
    assert max(drop_paths(create("classifier", bands=3, classes=7, backbone=name, drop_path=0.3))) == pytest.approx(0.3)


@pytest.mark.parametrize("name", ["convnext_atto", "vit_tiny_patch16_224"])
def test_every_parameter_of_a_classifier_gets_a_gradient(name):
    model = create("classifier", bands=5, classes=3, backbone=name, image_px=64)
    model(picture(2, 5, 64, 64)).square().mean().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_unknown_backbones_are_refused_with_the_nearest():
    with pytest.raises(UnknownName, match=r"timm has no backbone 'resnet19'; nearest: .*resnet18"):
        create("classifier", bands=3, classes=2, backbone="resnet19")
    with pytest.raises(UnknownName, match=r"'%%'; use for instance resnet18, swin_tiny"):
        create("classifier", bands=3, classes=2, backbone="%%")


def test_drop_path_that_a_network_does_not_have_is_refused():
    with pytest.raises(
        ConfigError, match=r"vgg11 of timm has no drop path, so that it cannot be 0\.1; set model\.sizes\.drop_path=0"
    ):
        create("classifier", bands=3, classes=2, backbone="vgg11", drop_path=0.1)


def test_images_that_a_network_cannot_take_are_refused():
    with pytest.raises(
        ConfigError, match=r"halo2botnet50ts_256 of timm cannot classify 3 bands and images of 100 px \(.*image_px"
    ):
        create("classifier", bands=3, classes=2, backbone="halo2botnet50ts_256", image_px=100)


def test_small_network_halves_the_image_four_times_and_learns_everywhere():
    model = create("small_cnn", bands=3, classes=10)
    assert sum(p.numel() for p in model.parameters()) == pytest.approx(0.39e6, abs=5e3)
    assert sum(p.numel() for p in model.get_classifier().parameters()) == 8 * 32 * 10 + 10
    model(picture(2, 3, 16, 40)).square().mean().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert model.body(picture(2, 3, 32, 48)).shape == (2, 256, 2, 3)
