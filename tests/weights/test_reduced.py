"""Checkpoints of networks that take tokens out or merge them: what they are used with, and what they start from."""

from dataclasses import replace

import pytest
import timm
import torch

from terralean.errors import ConfigError, WeightsDoNotFit
from terralean.models import create
from terralean.spec import Bands, Classes, Normalisation
from terralean.tokens.chance import RandomConfig
from terralean.tokens.matp import MATPConfig
from terralean.tokens.topk import TopKConfig
from terralean.weights.card import Card, Training, read_card
from terralean.weights.checkpoint import load_checkpoint, save_checkpoint
from terralean.weights.pretrained import load_pretrained

RGB = Bands(names=("red", "green", "blue"))
SIZES = {"image_px": 64, "decoder_width": 48, "decoder_layers": 1}
MATP = MATPConfig(after=(2, 4))
CARD = Card(
    version="0",
    task="segmentation",
    model="vit_tiny_segvit",
    sizes=dict(SIZES),
    bands=RGB,
    normalisation=Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3),
    classes=Classes(names=("a", "b", "c", "d"), colours=((1, 2, 3), (4, 5, 6), (7, 8, 9), (10, 11, 12))),
    tile_px=64,
    overlap_px=0,
    training=Training(data="", images=1, split="", leakage="", steps=1, minutes=0.0, seed=0),
)


def network(*, reduce=None, classes: int = 4, seed: int = 0, sizes=SIZES):
    torch.manual_seed(seed)
    return create("vit_tiny_segvit", bands=3, classes=classes, reduce=reduce, **sizes).eval()


def saved(folder, *, reduce):
    save_checkpoint(network(reduce=reduce), replace(CARD, reduce=reduce), folder)
    return folder


def test_the_method_comes_back_with_the_card(tmp_path):
    model, card = load_checkpoint(saved(tmp_path, reduce=MATP))
    assert card.reduce == MATP == read_card(tmp_path).reduce
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        assert torch.equal(model(image), network(reduce=MATP)(image))


def test_a_dense_run_is_used_with_a_method_without_parameters(tmp_path):
    model, card = load_checkpoint(saved(tmp_path, reduce=None), reduce=RandomConfig(after=(2,), shares=(0.5,)))
    assert card.reduce == RandomConfig(after=(2,), shares=(0.5,))
    (point,) = model.trace(torch.randn(1, 3, 64, 64))
    assert point.left.tolist() == [8]
    assert read_card(tmp_path).reduce is None


def test_a_method_with_heads_of_its_own_needs_a_run_that_trained_them(tmp_path):
    with pytest.raises(ConfigError, match=r"not been trained with the heads .*=matp .* tome, elvit, algm, random, topk"):
        load_checkpoint(saved(tmp_path, reduce=None), reduce=MATP)


def test_a_run_of_matp_is_used_without_it_and_by_rank_with_its_heads(tmp_path):
    saved(tmp_path, reduce=MATP)
    dense, card = load_checkpoint(tmp_path, reduce=None)
    assert card.reduce is None
    assert dense.state_dict().keys() == network().state_dict().keys()
    ranked, _ = load_checkpoint(tmp_path, reduce=TopKConfig(after=(2, 4), counts=(6, 3), by="both"))
    assert torch.equal(ranked.state_dict()["heads.2.q.weight"], network(reduce=MATP).state_dict()["heads.2.q.weight"])


def test_a_run_is_the_start_of_one_with_a_method_and_of_one_without(tmp_path):
    dense, matp = saved(tmp_path / "dense", reduce=None), saved(tmp_path / "matp", reduce=MATP)
    model = network(reduce=MATP, seed=1)
    assert load_pretrained(model, dense, bands=RGB) == f"all layers of {dense}; the heads that grade tokens are new"
    assert torch.equal(model.head.q.weight, network().head.q.weight)
    assert load_pretrained(network(seed=1), matp, bands=RGB) == f"all layers of {matp}"
    model = network(reduce=MATP, seed=1)
    assert load_pretrained(model, matp, bands=RGB) == f"all layers of {matp}"
    assert torch.equal(model.heads["4"].q.weight, network(reduce=MATP).heads["4"].q.weight)


def test_of_other_classes_the_queries_stay_new(tmp_path):
    model = network(reduce=MATP, classes=6, seed=1)
    before = model.head.q.weight.clone()
    told = load_pretrained(model, saved(tmp_path, reduce=MATP), bands=RGB)
    assert told == f"all layers of {tmp_path} but the last, whose classes differ; the heads that grade tokens are new"
    assert torch.equal(model.head.q.weight, before)
    assert torch.equal(model.head.class_embed.weight, network().head.class_embed.weight)


def test_a_vision_transformer_takes_a_classifier_of_timm_and_resizes_its_positions(tmp_path):
    torch.manual_seed(5)
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=7)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    model = network(seed=1)
    told = load_pretrained(model, tmp_path / "timm.pth", bands=RGB)
    assert told == f"the backbone of {tmp_path / 'timm.pth'}; its table of positions was resized"
    grid = theirs.pos_embed[:, 1:].unflatten(1, (14, 14)).permute(0, 3, 1, 2)
    small = torch.nn.functional.interpolate(grid, size=(4, 4), mode="bicubic", antialias=True).permute(0, 2, 3, 1).flatten(1, 2)
    torch.testing.assert_close(model.backbone.body.pos_embed[:, 1:], small, rtol=1e-5, atol=1e-6)
    assert torch.equal(model.backbone.body.blocks[3].mlp.fc1.weight, theirs.blocks[3].mlp.fc1.weight)


def test_weights_of_another_width_are_refused(tmp_path):
    theirs = timm.create_model("vit_small_patch16_224", num_classes=7)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    with pytest.raises(WeightsDoNotFit, match=r"expected \(\d+"):
        load_pretrained(network(), tmp_path / "timm.pth", bands=RGB)
