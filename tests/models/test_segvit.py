"""The segmenter whose costs are published, with and without tokens taken out."""

from typing import Any

import pytest
import torch

from terralean.cost.convention import count_operations, count_operations_at
from terralean.cost.macs import parameters
from terralean.errors import ConfigError
from terralean.models import create
from terralean.models.segvit import SegViT
from terralean.tokens.chance import RandomConfig
from terralean.tokens.dtop import DToPConfig
from terralean.tokens.matp import AuxiliaryConfig, MATPConfig
from terralean.tokens.topk import TopKConfig
from weights import fill, image

AUX = AuxiliaryConfig(width=16, heads=2)


def base(*, classes: int = 6, reduce: Any = None, **sizes: Any) -> SegViT:
    """ViT-B without storage."""
    with torch.device("meta"):
        return create("vit_base_segvit", bands=3, classes=classes, reduce=reduce, **sizes).eval()


def small(reduce: Any = None, **sizes: Any) -> SegViT:
    options = {"image_px": 160, "decoder_width": 16, "decoder_heads": 2, "decoder_layers": 2}
    built = create("segvit", bands=3, classes=4, backbone="test_vit", reduce=reduce, **(options | sizes))
    built.load_state_dict({key: 2 * v if v.ndim > 1 else v for key, v in fill(built.state_dict()).items()})
    return built.eval()


def picture(*shape: int) -> torch.Tensor:
    return torch.from_numpy(image(5, shape))


# Published parameters and costs


@pytest.mark.parametrize(("classes", "count"), [(6, 93_831_938), (7, 93_832_322), (24, 93_838_850)])
def test_parameters_of_the_dense_network(classes, count):
    assert parameters(base(classes=classes)) == count


@pytest.mark.parametrize(
    ("reduce", "millions"),
    [
        (MATPConfig(after=(3, 6, 8)), 94.726),
        (MATPConfig(after=(3, 6, 8), aux=AuxiliaryConfig(kind="slim")), 94.748),
        (DToPConfig(after=(6, 8)), 108.630),
        (RandomConfig(after=(6, 8), shares=(0.5, 0.5)), 93.832),
        (TopKConfig(after=(6, 8), shares=(0.5, 0.5)), 93.832),
    ],
    ids=["matp", "slim", "dtop", "random", "topk"],
)
def test_parameters_with_heads_on_the_way(reduce, millions):
    assert parameters(base(reduce=reduce)) / 1e6 == pytest.approx(millions, abs=5e-4)


@pytest.mark.parametrize(("classes", "gflops"), [(6, 108.267), (7, 108.276), (24, 108.441)])
def test_cost_of_the_dense_network(classes, gflops):
    assert count_operations_at(base(classes=classes), (1, 3, 512, 512)) / 1e9 == pytest.approx(gflops, abs=5e-4)


@pytest.mark.parametrize(
    ("after", "left", "by", "gflops", "within"),
    [
        ((3, 6, 8), (200, 39, 8), "both", 33.975, 0.001),  # MATP's row is 33.97
        ((3, 6, 8), (134, 16, 3), "both", 31.979, 0.001),
        ((3, 6, 8), (195, 37, 7), "both", 33.80, 0.005),
        ((3, 6, 8), (1, 1, 1), "both", 28.70 + 0.064, 0.002),  # all gone after layer 3, but for one
        ((6, 8), (512, 256), "relation", 70.79, 0.005),  # the row of random pruning is 70.80
        ((3, 6, 8), (317, 98, 30), "relation", 38.01, 0.1),  # and at three layers 38.01: about 0.31 of the tokens each time
    ],
)
def test_cost_with_so_many_tokens_left(after, left, by, gflops, within):
    model = base(reduce=TopKConfig(after=after, counts=left, by=by))
    assert count_operations_at(model, (1, 3, 512, 512)) / 1e9 == pytest.approx(gflops, abs=within)


def by_arithmetic(left: list[int], *, after: tuple[int, ...], pixels: int, classes: int) -> int:
    """Cost of the small network with light heads, as sums of products, from the number of tokens after each point."""
    width, inner, depth, side = 64, 16, 6, 16  # of test_vit, its decoder and heads, its layers and patches
    n = start = pixels // side**2
    total = 3 * side**2 * width * n
    for layer in range(1, depth + 1):
        total += 12 * n * width**2 + 2 * n**2 * width + 10 * n * width - n * width * 8 * width + 2 * n * width * hidden()
        if layer in after:
            total += width * inner * n + 5 * inner * n + 2 * inner**2 * n  # projection, norm, keys and values
            total += 2 * classes * inner * n + 2 * classes * inner**2 + classes * (5 * inner + 2 * inner)
            n = left[after.index(layer)]
    total += start * width * inner + 5 * start * inner
    for _ in range(2):
        total += 2 * start * inner**2 + 2 * classes * start * inner + 14 * classes * inner**2
        total += 2 * classes**2 * inner + 15 * classes * inner
    return total + 2 * inner * classes + 4 * classes * pixels


def hidden() -> int:
    return small().backbone.body.blocks[0].mlp.fc1.out_features


def test_cost_of_a_real_pass_follows_from_its_tokens():
    config = MATPConfig(after=(2, 4), alpha=0.3, beta=0.8, aux=AUX)
    model, found = small(config), set()
    for scale in (1.0, 0.01):
        x = scale * picture(1, 3, 96, 128)
        x[..., :64] *= 0.1
        with torch.inference_mode():
            left = [int(point.left[0]) for point in model.trace(x)]
        assert count_operations(model, x) == by_arithmetic(left, after=(2, 4), pixels=96 * 128, classes=4)
        found.add(tuple(left))
    assert len(found) == 2


# What it answers


def test_scores_are_logarithms_of_shares():
    with torch.inference_mode():
        scores = small()(picture(2, 3, 40, 70))
    assert scores.shape == (2, 4, 40, 70)
    torch.testing.assert_close(scores.exp().sum(dim=1), torch.ones(2, 40, 70))


@pytest.mark.parametrize(("mode", "logits"), [("two_way", 2), ("softmax", 5)])
def test_training_gives_what_losses_ask_for(mode, logits):
    config = MATPConfig(after=(2, 4, 5), aux=AUX)
    output = small(config, class_mode=mode).train()(picture(2, 3, 96, 112))
    assert {key: tuple(value.shape) for key, value in output.items()} == {
        "scores": (2, 4, 96, 112),
        "shares": (2, 4, 96, 112),
        "masks": (1, 2, 4, 6, 7),
        "objects": (1, 2, 4, logits),
        "auxiliary_masks": (3, 2, 4, 6, 7),
        "auxiliary_objects": (3, 2, 4, logits),
    }
    assert (output["shares"] / output["shares"].sum(dim=1, keepdim=True)).log().allclose(output["scores"], atol=1e-5)
    assert small(class_mode=mode).train()(picture(1, 3, 32, 32)).keys() == {"scores", "shares", "masks", "objects"}


def test_canvas_holds_what_earlier_heads_said():
    """Of a token that went after layer 2, the head after layer 4 is asked for nothing: the earlier one's word stands."""
    built = small(MATPConfig(after=(2, 4), alpha=0.3, beta=0.8, aux=AUX)).train()
    output = built(picture(2, 3, 96, 112))
    first, second = output["auxiliary_masks"]
    gone = ~built._run(picture(2, 3, 96, 112), done=None).record[0].alive
    same = (first == second).all(dim=1)
    assert 0 < same.sum() < same.numel()
    assert gone.any()


def test_dense_weights_serve_methods_without_parameters():
    dense = small()
    for config in (RandomConfig(after=(2,), shares=(0.9,)), TopKConfig(after=(2,), shares=(0.9,))):
        reduced = small(config)
        assert reduced.state_dict().keys() == dense.state_dict().keys()
        dense.reduce_tokens(config)
        with torch.inference_mode():
            assert torch.equal(dense(picture(1, 3, 64, 64)), reduced(picture(1, 3, 64, 64)))
    dense.reduce_tokens(None)
    with torch.inference_mode():
        assert torch.equal(dense(picture(1, 3, 64, 64)), small()(picture(1, 3, 64, 64)))
        assert dense.trace(picture(1, 3, 64, 64)) == ()


def test_weights_of_matp_serve_a_fixed_number_of_tokens():
    matp, fixed = (
        small(MATPConfig(after=(2, 4), aux=AUX)),
        small(TopKConfig(after=(2, 4), shares=(0.3, 0.3), by="both", aux=AUX)),
    )
    fixed.load_state_dict(matp.state_dict())
    assert {key for key in matp.state_dict() if key.startswith("heads.")} == {
        key for key in fixed.state_dict() if key.startswith(("heads.2.", "heads.4."))
    }


@pytest.mark.parametrize("by", ["relation", "both"])
def test_a_fixed_number_of_tokens_exports(by):
    model = small(TopKConfig(after=(2, 4), counts=(20, 9), by=by, aux=AUX))
    x, other = picture(2, 3, 96, 112), torch.from_numpy(image(6, (2, 3, 96, 112)))
    exported = torch.export.export(model, (x,)).module()
    with torch.inference_mode():
        torch.testing.assert_close(exported(other), model(other), rtol=1e-5, atol=1e-5)


def test_what_needs_no_decay_is_named():
    model = small(MATPConfig(after=(2,), aux=AUX))
    assert model.no_weight_decay() == {
        "backbone.body.pos_embed",
        "backbone.body.cls_token",
        "head.q.weight",
        "heads.2.q.weight",
    }
    assert model.no_weight_decay() <= dict(model.named_parameters()).keys()


# What is asked for


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"class_mode": "sigmoid"}, "sizes.class_mode must be one of two_way, softmax, got 'sigmoid'"),
        ({"execution": "dense"}, "sizes.execution must be one of packed, padded, masked, got 'dense'"),
        ({"decoder_width": 20, "decoder_heads": 3}, "must be a multiple of its heads, got 20 and 3"),
        ({"decoder_layers": 0}, "decoder_layers must be 1 or more, got 0"),
    ],
)
def test_sizes_that_cannot_be_obeyed_are_refused(sizes, message):
    with torch.device("meta"), pytest.raises(ConfigError, match=message):
        create("vit_tiny_segvit", bands=3, classes=2, **sizes)


def test_layers_that_the_network_does_not_have_are_refused():
    with (
        torch.device("meta"),
        pytest.raises(ConfigError, match=r"matp is to act at layer 13, 14, the network has the layers 1 to 12"),
    ):
        create("vit_tiny_segvit", bands=3, classes=2, reduce=MATPConfig(after=(6, 13, 14)))


def test_models_without_a_place_for_methods_say_which_have_one():
    with torch.device("meta"), pytest.raises(ConfigError, match=r"reduce\.method=matp"):
        create("unetformer_resnet18", bands=3, classes=2, reduce=MATPConfig())


@pytest.mark.parametrize(
    "change",
    [
        {"class_token_in_sequence": True},
        {"final_norm": True},
        {"decoder_heads": 4},
        {"decoder_layers": 1},
        {"class_mode": "softmax"},
    ],
)
def test_every_setting_changes_the_scores(change):
    with torch.inference_mode():
        one, two = (small(**changed)(picture(1, 3, 64, 64)) for changed in ({}, change))
    assert float((one - two).abs().max()) > 1e-3
