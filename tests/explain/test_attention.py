from dataclasses import replace

import numpy as np
import pytest
import torch

from terralean.errors import ConfigError
from terralean.explain.attention import BlockId, LookConfig, Watcher, find_backbone
from terralean.models import create
from terralean.models.lemevit import LeMeViT
from terralean.predict import Predictor, load

WHOLE = torch.ones(64, 64, dtype=torch.bool)


def picture(side: int = 64, *, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).uniform(1, 255, (3, side, side)).astype(np.float32))


def by_hand(predictor, image, *, method: str) -> list[torch.Tensor]:
    """The model's own attention on the normalised image."""
    mean, std = (torch.tensor(v)[:, None, None] for v in (predictor.card.normalisation.mean, predictor.card.normalisation.std))
    with torch.inference_mode():
        return getattr(predictor.model.backbone, method)(((image - mean) / std)[None])


def test_default_is_all_tokens_in_the_last_block_in_which_they_read(predictor, classifier):
    look = Watcher(predictor, LookConfig()).look
    assert look.tokens == tuple(range(16))
    assert look.shown == (2, 0)  # the dense backbone lets nobody read meta tokens after S2, so that its last block updates none
    assert look.blocks == ((0, 0), (1, 0), (1, 1), (2, 0))
    assert Watcher(classifier, LookConfig()).look.shown == (2, 1)
    look = Watcher(predictor, LookConfig(direction="image")).look
    assert look.shown == (2, 1)
    assert look.blocks == ((1, 0), (1, 1), (2, 0), (2, 1))


@pytest.mark.parametrize(
    ("config", "shown"),
    [(LookConfig(stage=0), (0, 0)), (LookConfig(stage=1), (1, 1)), (LookConfig(stage=1, block=0), (1, 0))],
)
def test_stage_and_block_are_obeyed(predictor, config, shown):
    assert Watcher(predictor, config).look.shown == shown


@pytest.mark.parametrize(
    ("direction", "method", "places"),
    [
        ("meta", "meta_attention", [(0, 0), (1, 0), (1, 1), (2, 0)]),
        ("image", "image_attention", [(1, 0), (1, 1), (2, 0), (2, 1)]),
    ],
)
def test_weights_are_those_of_the_chosen_tokens_in_the_model(predictor, direction, method, places):
    image = picture()
    found = Watcher(predictor, LookConfig(direction=direction, tokens=(7, 0, 12)))(image, WHOLE)
    assert list(found) == places
    for (place, weights), theirs in zip(found.items(), by_hand(predictor, image, method=method), strict=False):
        assert weights.shape == (theirs.shape[1], 3, *theirs.shape[-2:])
        torch.testing.assert_close(weights, theirs[0, :, [7, 0, 12]], rtol=1e-5, atol=1e-8)
        assert weights.std() > 0, place


def test_one_head_is_obeyed_and_blocks_without_it_are_left_out(predictor):
    image = picture()
    both = Watcher(predictor, LookConfig())(image, WHOLE)
    for head in (0, 3):
        watcher = Watcher(predictor, LookConfig(head=head))
        found = watcher(image, WHOLE)
        assert list(found) == ([(0, 0), (1, 0), (1, 1), (2, 0)] if head == 0 else [(2, 0)])
        for place, weights in found.items():
            assert torch.equal(weights, both[place][head : head + 1])


def test_by_head_there_is_a_map_of_each_head_of_the_chosen_tokens(predictor):
    image = picture()
    by_token, by_head = (Watcher(predictor, LookConfig(by=by, tokens=(3, 8))) for by in ("token", "head"))
    assert (by_token.look.maps, by_head.look.maps) == ((3, 8), (0, 1, 2, 3))
    assert [by_head.maps(block) for block in by_head.look.blocks] == [(0, 1), (0, 1), (0, 1), (0, 1, 2, 3)]
    assert {by_token.maps(block) for block in by_token.look.blocks} == {(3, 8)}
    for ours, theirs in zip(by_head(image, WHOLE).values(), by_token(image, WHOLE).values(), strict=True):
        assert torch.equal(ours, theirs.transpose(0, 1))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_weights_sum_to_one_over_the_places_or_over_the_tokens(looking, precision):
    predictor = load(looking, device="cpu", precision=precision)
    for weights in Watcher(predictor, LookConfig())(picture(), WHOLE).values():
        assert weights.dtype == torch.float32
        torch.testing.assert_close(weights.sum(dim=(-2, -1)), torch.ones(weights.shape[:2]))
    for weights in Watcher(predictor, LookConfig(direction="image"))(picture(), WHOLE).values():
        total = weights.sum(dim=1)
        torch.testing.assert_close(total, torch.ones_like(total))


def test_values_without_data_are_never_seen(predictor):
    watcher, image, valid = Watcher(predictor, LookConfig()), picture(), WHOLE.clone()
    valid[10:20] = False
    other = image.clone()
    other[:, 10:20] = float("nan")
    for ours, theirs in zip(watcher(image, valid).values(), watcher(other, valid).values(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_classifier_sees_what_it_was_trained_to_see(classifier):
    watcher = Watcher(classifier, LookConfig())
    found = watcher(picture(40), torch.ones(40, 40, dtype=torch.bool))
    assert {place: weights.shape for place, weights in found.items()} == {
        (0, 0): (1, 16, 16, 16),
        (1, 0): (1, 16, 16, 16),
        (1, 1): (1, 16, 16, 16),
        (2, 0): (2, 16, 8, 8),
        (2, 1): (2, 16, 8, 8),
    }
    assert (watcher.side_seen(40), watcher.side_seen(200)) == (64, 64)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"stage": 3}, r"in S3 image tokens read image tokens only; .* use --stage 0 or 1 or 2, where"),
        ({"stage": 4, "direction": "image"}, "in S4 image tokens read image tokens only"),
        ({"stage": 5}, "stage must be one of 0, 1, 2, got 5"),
        ({"stage": -1, "direction": "image"}, "stage must be one of 1, 2, got -1"),
        (
            {"stage": 0, "direction": "image"},
            "in S0 meta tokens read the image, and the image reads nothing; use --stage 1 or 2, or --direction meta",
        ),
        ({"stage": 1, "block": 2}, "S1 has 2 blocks, 0 to 1; got 2"),
        ({"stage": 1, "block": -1}, "S1 has 2 blocks, 0 to 1; got -1"),
        ({"stage": 2, "block": 1}, r"in S2 block 1 no meta token reads the image.*use --block 0, or --direction image"),
        ({"block": 1}, "block 1 of which stage"),
        ({"tokens": (3, 16, 99)}, "16 meta tokens, 0 to 15; got 16, 99"),
        ({"tokens": (-1,)}, "16 meta tokens, 0 to 15; got -1"),
        ({"tokens": (3, 3)}, r"one or more different numbers from 0, got \[3, 3\]"),
        ({"tokens": ()}, "one or more different numbers"),
        ({"head": 4}, "S2 block 0 has 4 heads, 0 to 3; got 4"),
        ({"head": -1}, "0 to 3; got -1"),
        ({"stage": 1, "head": 2}, "S1 block 1 has 2 heads, 0 to 1; got 2"),
        ({"by": "heads"}, "by must be one of token, head, got 'heads'"),
        ({"by": "head", "head": 1}, "a map of each head, not of head 1 alone; leave out --by or --head"),
        ({"by": "head", "direction": "image"}, "a head reads the same everywhere; choose some, e.g. --tokens 0 --by head"),
        ({"direction": "both"}, r"direction must be one of meta \(meta tokens reading the image\), image .* got 'both'"),
    ],
)
def test_what_a_model_does_not_have_is_refused(predictor, config, message):
    with pytest.raises(ConfigError, match=message):
        Watcher(predictor, LookConfig(**config))


@pytest.mark.parametrize(
    ("stages", "direction", "places", "refused", "message"),
    [
        ("-DDSS", "meta", [(1, 0), (1, 1), (2, 0), (2, 1)], 0, r"this model has no S0 \(stages -DDSS\); use --stage 1 or 2"),
        ("-DDSS", "image", [(1, 0), (1, 1), (2, 0), (2, 1)], 0, r"this model has no S0 \(stages -DDSS\); use --stage 1 or 2"),
        ("CSSSS", "meta", [(0, 0)], 1, "in S1 image tokens read image tokens only; .* use --stage 0, where"),
        ("CSSSS", "image", None, None, r"in this model \(stages CSSSS\) the image reads no meta tokens; use --direction meta"),
    ],
)
def test_models_without_some_of_these_stages(classifier, stages, direction, places, refused, message):
    model = LeMeViT(replace(classifier.model.config, stages=stages))
    predictor = Predictor(model, classifier.card, device=torch.device("cpu"), precision="fp32")
    with pytest.raises(ConfigError, match=message):
        Watcher(predictor, LookConfig(direction=direction, stage=refused))
    if places:
        found = Watcher(predictor, LookConfig(direction=direction))(picture(40), torch.ones(40, 40, dtype=torch.bool))
        assert list(found) == places


def test_models_without_meta_tokens_are_refused_with_what_works():
    for name in ("swin_tiny_upernet", "unetformer_resnet18"):
        with torch.device("meta"):
            model = create(name, bands=3, classes=3)
        with pytest.raises(
            ConfigError, match=rf"{name} has no meta tokens .* explain a run of a LeMeViT, .*lemevit_tiny_light"
        ):
            find_backbone(model, name=name)


@pytest.mark.parametrize("name", ["lemevit_tiny_light", "lemevit_small_upernet", "light"])
def test_backbones_are_found_in_their_models(name):
    sizes = {"backbone": "lemevit_tiny"} if name == "light" else {}
    with torch.device("meta"):
        model = create(name, bands=3, classes=3, **sizes)
    assert find_backbone(model, name=name) is model.backbone


def test_blocks_say_which_they_are():
    assert str(BlockId(2, 1)) == "S2 block 1"
