import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from terralean.cost.macs import count_macs_at, parameters
from terralean.errors import ConfigError, UnknownName
from terralean.layers.segmenter import Segmenter
from terralean.models import MODELS, create
from terralean.models.lemevit import LeMeViTConfig, LeMeViTPyramid
from terralean.models.light import LightHead
from weights import fill, image

TOY = LeMeViTConfig(depths=(1, 1, 2, 1, 1), dims=(32, 32, 64, 64, 96), bands=4)


def toy(*, width: int = 16) -> nn.Module:
    model = Segmenter(LeMeViTPyramid(TOY), LightHead(TOY.dims[1:], classes=6, width=width), classes=6)
    model.load_state_dict(fill(model.state_dict()))
    return model.eval()


def picture(*shape: int) -> Tensor:
    return torch.from_numpy(image(0, shape))


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


@pytest.mark.parametrize(
    ("name", "millions"), [("lemevit_tiny_light", 8.79), ("lemevit_small_light", 15.84), ("lemevit_base_light", 52.05)]
)
def test_parameters_are_those_of_the_docstrings(name, millions):
    with torch.device("meta"):
        assert parameters(create(name, bands=3, classes=5)) / 1e6 == pytest.approx(millions, abs=0.005)
    assert f"{millions:.2f} M parameters" in MODELS[name].__doc__


def test_head_costs_what_the_page_says():
    model = create("lemevit_tiny_light", bands=3, classes=5)
    whole, backbone = count_macs_at(model, (1, 3, 512, 512)), count_macs_at(model.backbone, (1, 3, 512, 512))
    assert (whole.total - backbone.total) / 1e9 == pytest.approx(3.5, abs=0.05)
    assert 209.1e9 / backbone.layers == pytest.approx(24, abs=0.5)


@pytest.mark.parametrize("size", [(1, 1), (5, 70), (33, 57), (64, 64)])
def test_scores_have_the_size_of_the_image(size):
    with torch.inference_mode():
        scores = toy()(picture(2, 4, *size))
    assert scores.shape == (2, 6, *size)
    assert scores.isfinite().all()


def test_every_pixel_hears_of_every_other():
    x = picture(1, 4, 64, 96).requires_grad_()
    toy()(x)[0, :, 0, 0].sum().backward()
    assert x.grad[0, :, -4:, -4:].abs().max() > 0


def test_images_of_a_batch_do_not_meet():
    model, x = toy(), picture(3, 4, 48, 64)
    with torch.inference_mode():
        assert relative(model(x)[1:2], model(x[1:2])) < 1e-5


def test_every_map_reaches_the_scores_through_the_finest():
    head = LightHead((8, 8, 8), classes=2, width=4).eval()
    maps = [picture(1, 8, side, side) for side in (16, 8, 4)]
    with torch.inference_mode():
        before = head(maps)
        for level in range(3):
            louder = [m * 3 if i == level else m for i, m in enumerate(maps)]
            assert relative(head(louder), before) > 1e-3
        nn.init.zeros_(head.smooth[0][0].weight)
        silent = head(maps)
    np.testing.assert_allclose(silent.std(dim=(-2, -1)), 0, atol=1e-6)


def test_every_parameter_gets_a_gradient_with_one_image_in_training():
    model = toy().train()
    model(picture(1, 4, 64, 64)).square().mean().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]


def test_meta_tokens_of_the_backbone_are_not_decayed():
    assert toy().no_weight_decay() == {"backbone.meta_tokens"}
    assert "backbone.meta_tokens" in dict(toy().named_parameters())


def test_exported_program_equals_eager_at_other_sizes():
    eager = toy()
    shapes = {"image": {0: Dim("batch", min=1), 2: Dim("height", min=33), 3: Dim("width", min=33)}}
    with torch.no_grad():
        program = torch.export.export(eager, (picture(2, 4, 64, 96),), dynamic_shapes=shapes).module()
        for shape in [(1, 4, 75, 131), (3, 4, 128, 96)]:
            assert relative(program(picture(*shape)), eager(picture(*shape))) < 1e-5


@pytest.mark.parametrize("name", [name for name in MODELS if name.startswith("lemevit") and name.endswith("light")])
def test_every_setting_of_create_reaches_the_model(name):
    with torch.device("meta"):
        model = create(name, bands=7, classes=5, width=64, meta_tokens=8, drop_path=0.3)
    assert model.backbone.config.bands == 7
    assert model.backbone.meta_tokens.shape[0] == 8
    assert model.backbone.stages[4][-1].drop_path.drop_prob == pytest.approx(0.3)
    assert model.head.classify.weight.shape == (5, 64, 1, 1)


@pytest.mark.parametrize("width", [0, 3, 6])
def test_width_must_fit_the_pooled_context(width):
    with pytest.raises(ConfigError, match=f"width must be a positive multiple of 4, got {width}"):
        toy(width=width)


def test_unknown_model_and_setting_name_the_nearest():
    with pytest.raises(UnknownName, match="no model 'lemevit_tiny_ligth'; nearest: lemevit_tiny_light"):
        create("lemevit_tiny_ligth", bands=3, classes=5)
    with pytest.raises(ConfigError, match="model lemevit_tiny_light has no setting 'widht'; nearest: width"):
        create("lemevit_tiny_light", bands=3, classes=5, widht=64)


@pytest.mark.parametrize(
    ("setting", "kind"), [({"width": 64.0}, "int"), ({"width": True}, "int"), ({"drop_path": "a"}, "float")]
)
def test_settings_of_another_type_are_refused(setting, kind):
    ((key, value),) = setting.items()
    with pytest.raises(ConfigError, match=rf"model lemevit_tiny_light: sizes\.{key} must be of type {kind}, got {value!r}"):
        create("lemevit_tiny_light", bands=3, classes=5, **setting)
