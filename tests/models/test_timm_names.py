import warnings

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from timm.optim import create_optimizer_v2
from torch import Tensor

from terralean.errors import ConfigError
from terralean.models import lemevit, register
from terralean.models.timm_names import CONFIGS
from weights import fill, image


def picture(*shape: int) -> Tensor:
    return torch.from_numpy(image(0, shape))


def filled(**options) -> torch.nn.Module:
    model = timm.create_model("lemevit_tiny", **options)
    model.load_state_dict(fill(model.state_dict()))
    return model.eval()


@pytest.fixture(scope="module")
def model() -> torch.nn.Module:
    return filled()


def test_timm_knows_our_names():
    assert (
        sorted(CONFIGS) == timm.list_models("lemevit*") == ["lemevit_base", "lemevit_small", "lemevit_tiny", "lemevit_tiny_d7"]
    )


def test_registering_again_changes_nothing():
    before = timm.model_entrypoint("lemevit_tiny")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        register()
    assert timm.model_entrypoint("lemevit_tiny") is before


def test_options_of_timm_reach_the_model():
    model = timm.create_model("lemevit_tiny", in_chans=5, num_classes=7, drop_path_rate=0.2, meta_tokens=8)
    assert model.config == lemevit.tiny(bands=5, classes=7, drop_path=0.2, meta_tokens=8)


def test_without_classes_the_pooled_features_come_out(model):
    bare, x = filled(num_classes=0), picture(2, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(bare(x), model.forward_head(model.forward_features(x), pre_logits=True))
    assert bare.num_features == bare(x).shape[1] == 320


def test_features_head_and_classifier_make_the_forward_pass(model):
    x = picture(2, 3, 64, 96)
    with torch.inference_mode():
        features = model.forward_features(x)
        assert features.shape == (2, 16 + 2 * 3, 320)
        assert model.num_prefix_tokens == 16
        torch.testing.assert_close(model.forward_head(features), model(x))
        torch.testing.assert_close(model.get_classifier()(model.forward_head(features, pre_logits=True)), model(x))


def test_reset_classifier_changes_the_last_layer_only():
    model, x = filled(), picture(2, 3, 64, 64)
    with torch.inference_mode():
        before = model.forward_features(x)
        model.reset_classifier(9)
        assert model(x).shape == (2, 9)
        assert model.num_classes == model.config.classes == 9
        assert torch.equal(model.forward_features(x), before)
        model.reset_classifier(0)
        assert model(x).shape == (2, 320)
    with pytest.raises(ConfigError, match="global_pool cannot be 'avg'"):
        model.reset_classifier(9, global_pool="avg")


def test_features_only_gives_the_chosen_maps(model):
    features, x = filled(features_only=True, out_indices=(1, 3)), picture(1, 3, 64, 96)
    assert features.feature_info.channels() == [128, 320]
    assert features.feature_info.reduction() == [8, 32]
    with torch.inference_mode():
        for found, expected in zip(features(x), [model.pyramid(x)[i] for i in (1, 3)], strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("stop_early", [True, False])
def test_intermediates_are_the_maps(model, stop_early):
    x = picture(1, 3, 64, 96)
    with torch.inference_mode():
        maps = model.pyramid(x)
        chosen = model.forward_intermediates(x, indices=[0, 2], intermediates_only=True, stop_early=stop_early)
        final, last_two = model.forward_intermediates(x, indices=2, stop_early=stop_early)
        for found, expected in zip([*chosen, *last_two], [maps[0], maps[2], *maps[2:]], strict=True):
            assert torch.equal(found, expected)
        assert torch.equal(final, model.forward_features(x))


def test_stopping_early_leaves_later_stages_out(model):
    ran = []
    hooks = [s[0].register_forward_hook(lambda *_, index=i: ran.append(index)) for i, s in enumerate(model.stages)]
    with torch.inference_mode():
        model.forward_intermediates(picture(1, 3, 64, 64), indices=[1], intermediates_only=True, stop_early=True)
    for hook in hooks:
        hook.remove()
    assert ran == [0, 1, 2]


@pytest.mark.parametrize("option", [{"norm": True}, {"return_prefix_tokens": True}, {"output_fmt": "NLC"}])
def test_intermediates_that_it_does_not_have_are_refused(model, option):
    with pytest.raises(ConfigError, match="un-normalised NCHW maps"):
        model.forward_intermediates(picture(1, 3, 32, 32), **option)


@pytest.mark.parametrize(("depth", "bands"), [(5, 3), (4, 13)])
def test_smp_builds_a_unet_on_it_and_every_parameter_learns(depth, bands):
    unet = smp.Unet(
        "tu-lemevit_tiny",
        encoder_weights=None,
        encoder_depth=depth,
        decoder_channels=(64, 48, 32, 24, 16)[:depth],
        in_channels=bands,
        classes=4,
    )
    scores = unet(picture(2, bands, 64, 96))
    assert scores.shape == (2, 4, 64, 96)
    scores.square().mean().backward()
    assert not [name for name, p in unet.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


@pytest.mark.parametrize("architecture", ["FPN", "UPerNet"])
def test_smp_builds_other_decoders_on_it_and_every_parameter_learns(architecture):
    model = smp.create_model(architecture, "tu-lemevit_tiny", encoder_weights=None, in_channels=4, classes=3)
    scores = model(picture(2, 4, 64, 96))
    assert scores.shape == (2, 3, 64, 96)
    scores.square().mean().backward()
    learning = {name: p.grad is not None and bool(p.grad.abs().sum() > 0) for name, p in model.named_parameters()}
    assert [name for name, learns in learning.items() if not learns] == []
    assert learning["encoder.model.downsample_layers.0.0.weight"]


def test_optimiser_of_timm_does_not_decay_meta_tokens():
    model = timm.create_model("lemevit_tiny")
    decayed = {
        id(p)
        for group in create_optimizer_v2(model, "adamw", weight_decay=0.05).param_groups
        if group["weight_decay"]
        for p in group["params"]
    }
    assert id(model.meta_tokens) not in decayed
    assert id(model.head.weight) in decayed
    assert id(model.head.bias) not in decayed


def test_data_settings_are_those_the_authors_trained_with():
    settings = timm.data.resolve_model_data_config(timm.create_model("lemevit_tiny"))
    assert settings["mean"] == (0.485, 0.456, 0.406)
    assert settings["std"] == (0.229, 0.224, 0.225)
    assert (settings["crop_pct"], settings["interpolation"]) == (0.875, "bicubic")


@pytest.mark.parametrize("features_only", [False, True])
def test_weights_that_nobody_published_are_refused(features_only):
    with pytest.raises(ConfigError, match=r"no weights of lemevit_tiny are published; .* load a checkpoint"):
        timm.create_model("lemevit_tiny", pretrained=True, features_only=features_only)


def test_dropout_that_it_does_not_have_is_refused():
    assert timm.create_model("lemevit_tiny", drop_rate=0.0)  # as timm's training script calls it
    with pytest.raises(ConfigError, match=r"no dropout, so drop_rate cannot be 0\.1; use drop_path_rate"):
        timm.create_model("lemevit_tiny", drop_rate=0.1)
