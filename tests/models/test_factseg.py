import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.cost.macs import count_macs_at, parameters
from terralean.errors import ConfigError
from terralean.models import factseg
from terralean.models.factseg import Decoder, FactSeg, FeaturePyramid, joint_scores
from weights import fill, image

ENCODER, DEEP_STEM = 23_508_032, 19_232  # parameters of ResNet-50 without its classifier, and what a deep stem adds


def picture(*shape: int) -> Tensor:
    return torch.from_numpy(image(0, shape))


def built(**sizes) -> FactSeg:
    with torch.device("meta"):
        return factseg.factseg_resnet50(bands=3, **sizes)


def test_parameters_part_by_part():
    model = built(classes=6)
    pyramid = (256 + 512 + 1024 + 2048 + 4) * 256 + 4 * (9 * 256 + 1) * 256
    decoder = 4 * 9 * 256 * 128 + 3 * 9 * 128 * 128 + 7 * 2 * 128  # seven convolutions: 1, 1, 2 and 3 of the four levels
    parts = {"backbone": ENCODER, "classes": pyramid + decoder + 129 * 6, "foreground": pyramid + decoder + 129}
    assert {name: parameters(part) for name, part in model.named_children()} == parts
    assert parameters(model) == 33_445_319


def test_parameters_are_those_published():
    """33.46 M stand in MATP's table, whose ResNets have deep stems."""
    assert parameters(built(classes=6, deep_stem=True)) == 33_445_319 + DEEP_STEM == 33_464_551
    assert round(33_464_551 / 1e6, 2) == 33.46


@pytest.mark.parametrize(("classes", "published"), [(6, 68.08), (7, 68.09), (24, 68.14)])
def test_deep_stem_has_the_operations_of_matps_table(classes, published, published_gflops):
    """Up to half of what the stem's further norms add, 64 channels at stride 2; so it is with UNetFormer."""
    found = published_gflops(factseg.factseg_resnet50, classes=classes, deep_stem=True)
    assert round(found - 64 * 256**2 / 1e9, 2) == published


def test_parameters_of_the_docstring():
    counts = [parameters(built(classes=6, deep_stem=deep)) / 1e6 for deep in (False, True)]
    assert [f"{count:.2f} M" in factseg.factseg_resnet50.__doc__ for count in counts] == [True, True]


def test_macs_by_formula():
    places = [128**2, 64**2, 32**2, 16**2]
    lateral = sum(n * c * 256 for n, c in zip(places, (256, 512, 1024, 2048), strict=True))
    smooth = sum(places) * 9 * 256 * 256
    first = sum(places) * 9 * 256 * 128  # of each level's path
    others = (places[1] + places[2] + places[1]) * 9 * 128 * 128  # once more from stride 16, twice from stride 32
    heads = places[0] * 128 * (6 + 1)
    model = built(classes=6)
    whole, backbone = (count_macs_at(part, (1, 3, 512, 512)) for part in (model, model.backbone))
    assert whole.total - backbone.total == 2 * (lateral + smooth + first + others) + heads


def test_joint_probability_worked():
    scores = torch.tensor([0.2, 0.3, 0.5]).log().view(1, 3, 1, 1) + 7  # any constant
    foreground = torch.tensor(math.log(0.25 / 0.75)).view(1, 1, 1, 1)
    joint = joint_scores(scores, foreground, background=1).softmax(dim=1).flatten().tolist()
    assert joint == pytest.approx([0.05 / 0.4, 0.225 / 0.4, 0.125 / 0.4])  # .2 * .25, .3 * .75, .5 * .25, which sum to .4


def test_joint_scores_are_logarithms_of_probabilities_however_sure():
    scores, foreground = 1e4 * picture(2, 4, 3, 3), 1e4 * picture(2, 1, 3, 3)
    joint = joint_scores(scores, foreground, background=0)
    assert joint.isfinite().all()
    torch.testing.assert_close(joint.exp().sum(dim=1), torch.ones(2, 3, 3))
    mask = torch.randint(0, 4, (2, 3, 3), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(F.cross_entropy(joint, mask), F.nll_loss(joint, mask))


@pytest.fixture(scope="module")
def model() -> FactSeg:
    model = factseg.factseg_resnet50(bands=3, classes=4, background=2)
    model.load_state_dict(fill(model.state_dict()))
    return model.eval()


def test_sure_foreground_is_never_background_and_sure_background_always(model):
    x, bias = picture(1, 3, 64, 64), model.foreground[2].bias
    with torch.inference_mode():
        before = bias.clone()
        bias.fill_(1e4)
        foreground = model(x).softmax(dim=1)[:, 2]
        bias.fill_(-1e4)
        background = model(x).softmax(dim=1)[:, 2]
        bias.copy_(before)
    assert (float(foreground.max()), float(background.min())) == (0.0, 1.0)


def test_without_joint_the_class_branch_answers(model):
    alone = factseg.factseg_resnet50(bands=3, classes=4, joint=False)
    alone.load_state_dict(model.state_dict())
    x = picture(1, 3, 64, 64)
    with torch.inference_mode():
        scores = alone.eval()(x)
        expected = F.interpolate(model.classes(model.backbone(x)), size=(64, 64), mode="bilinear", align_corners=True)
        torch.testing.assert_close(scores, expected)
        assert (scores.softmax(dim=1) - model(x).softmax(dim=1)).abs().max() > 1e-3
    halves = [count_macs_at(m, (1, 3, 64, 64)).total for m in (alone, model)]
    assert halves[0] < 0.7 * halves[1]  # the other branch does not run


def test_training_gives_the_foreground_logit_beside_the_scores():
    alone, joint = (factseg.factseg_resnet50(bands=3, classes=4, background=2, joint=joint).train() for joint in (False, True))
    joint.load_state_dict(alone.state_dict())
    separate, together = (m(picture(2, 3, 64, 64)) for m in (alone, joint))
    assert separate["foreground"].shape == (2, 1, 64, 64)
    torch.testing.assert_close(separate["foreground"], together["foreground"])
    expected = joint_scores(separate["scores"], separate["foreground"], background=2)
    torch.testing.assert_close(together["scores"], expected)


def test_pyramid_is_lateral_plus_coarser_then_smoothed():
    pyramid = FeaturePyramid((3, 5), 4)
    pyramid.load_state_dict(fill(pyramid.state_dict()))
    fine, coarse = picture(1, 3, 4, 6), picture(1, 5, 2, 3)
    with torch.inference_mode():
        low = pyramid.lateral[1](coarse)
        high = pyramid.lateral[0](fine) + low.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        for found, expected in zip(pyramid([fine, coarse]), [pyramid.smooth[0](high), pyramid.smooth[1](low)], strict=True):
            torch.testing.assert_close(found, expected)


def test_decoder_is_the_mean_of_levels_doubled_one_convolution_at_a_time():
    decoder = Decoder(3, 4, levels=3).eval()
    decoder.load_state_dict(fill(decoder.state_dict()))
    maps = [picture(1, 3, 2 * side, 3 * side) for side in (4, 2, 1)]
    double = nn.UpsamplingBilinear2d(scale_factor=2)  # corner on corner
    (a,), (b,), (c, d) = decoder.paths
    with torch.inference_mode():
        expected = (a(maps[0]) + double(b(maps[1])) + double(d(double(c(maps[2]))))) / 3
        torch.testing.assert_close(decoder(maps), expected)


@pytest.mark.parametrize("background", [-1, 3])
def test_background_must_be_a_class(background):
    with pytest.raises(ConfigError, match=f"background must be one of the classes 0 to 2, got {background}"):
        factseg.factseg_resnet50(bands=3, classes=3, background=background)
