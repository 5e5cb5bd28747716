"""Training with a method of token reduction, and using what was trained."""

import subprocess
import sys

import numpy as np
import pytest
import rasterio
import torch
from safetensors.torch import load_file

from terralean import recipes
from terralean.cost.macs import count_macs_at
from terralean.errors import ConfigError
from terralean.mapping.many import map_scenes
from terralean.mapping.run import MapConfig
from terralean.models import create
from terralean.predict import load
from terralean.tokens.chance import RandomConfig
from terralean.tokens.matp import MATPConfig
from terralean.train.run import run
from terralean.weights.card import read_card

SMALL = (
    *("data.tile_px=32", "tiling.tile_px=48", "tiling.overlap_px=0"),
    *("train.steps=4", "train.validate_every=2", "train.warmup_steps=1", "train.batch=2"),
)
VIT = ("model.sizes.image_px=32", "model.sizes.decoder_width=48", "model.sizes.decoder_layers=1")
MATP = ("reduce.method=matp", "reduce.after=[2, 4]", "reduce.alpha=0.5", "reduce.aux={width: 48}")
RUN = """
import os, signal, sys
from pathlib import Path
from terralean import recipes
from terralean.train.run import run
def tell(progress):
    if progress.step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
experiment = recipes.read("vit_tiny_segvit", changes=sys.argv[3:])
run(experiment, data=Path(sys.argv[1]), out=Path(sys.argv[2]), device="cpu", tell=tell)
"""


def experiment(*more: str, recipe: str = "vit_tiny_segvit"):
    return recipes.read(recipe, changes=[*SMALL, *(VIT if "segvit" in recipe else ()), *more])


@pytest.fixture(scope="module")
def pruned(data, tmp_path_factory):
    """A run with MATP; do not change it."""
    out = tmp_path_factory.mktemp("runs") / "pruned"
    run(experiment(*MATP), data=data, out=out, device="cpu")
    return out


def weights(folder):
    return load_file(folder / "weights.safetensors")


def test_the_card_holds_the_method_and_the_cost_without_it(pruned):
    card = read_card(pruned)
    assert isinstance(card.reduce, MATPConfig)
    assert (card.reduce.after, card.reduce.alpha, card.reduce.aux.width) == ((2, 4), 0.5, 48)
    dense = count_macs_at(create(card.model, bands=2, classes=2, **card.sizes), (1, 2, 48, 48))
    assert (card.cost["macs_layers"], card.cost["macs_attention"]) == (dense.layers, dense.attention)
    assert card.cost["parameters"] == sum(tensor.numel() for tensor in weights(pruned).values())


def test_heads_that_grade_tokens_learn_by_a_loss_of_their_own(data, pruned, tmp_path):
    run(experiment(*MATP, "train.loss.on_the_way=0"), data=data, out=tmp_path / "run", device="cpu")
    learned, alone = weights(pruned), weights(tmp_path / "run")
    torch.manual_seed(0)
    fresh = create("vit_tiny_segvit", bands=2, classes=2, reduce=experiment(*MATP).reduce, **experiment().model.sizes)
    for name in ("heads.2.q.weight", "heads.4.q.weight"):  # no weight decay, and no gradient without the loss
        before = fresh.state_dict()[name]
        torch.testing.assert_close(alone[name], before, rtol=1e-6, atol=0)
        assert (learned[name] - before).abs().max() > 1e-4


def test_a_killed_run_goes_on_to_the_same_weights(data, pruned, tmp_path):
    out = tmp_path / "run"
    changes = [*SMALL, *VIT, *MATP]
    killed = subprocess.run([sys.executable, "-c", RUN, str(data), str(out), *changes], capture_output=True, check=False)
    assert killed.returncode == -9, killed.stderr.decode()
    run(experiment(*MATP), data=data, out=out, device="cpu")
    ours, theirs = weights(out), weights(pruned)
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_gate_lets_every_token_pass_at_one(data, tmp_path, pruned):
    run(experiment(*MATP, "reduce.gate.p=1"), data=data, out=tmp_path / "open", device="cpu")
    run(experiment(*MATP, "reduce.gate.p=0"), data=data, out=tmp_path / "shut", device="cpu")
    name = "backbone.body.blocks.5.mlp.fc1.weight"
    assert not torch.equal(weights(tmp_path / "open")[name], weights(tmp_path / "shut")[name])


def test_a_dense_run_is_fine_tuned_with_a_method(data, tmp_path):
    run(experiment(), data=data, out=tmp_path / "dense", device="cpu")
    run(experiment(*MATP, f"model.weights={tmp_path / 'dense'}"), data=data, out=tmp_path / "run", device="cpu")
    name = "backbone.body.blocks.0.attn.qkv.weight"
    first, then = weights(tmp_path / "dense")[name], weights(tmp_path / "run")[name]
    assert 0 < (then - first).norm() < 0.2 * first.norm()


def test_a_run_is_used_with_its_method_with_another_and_without(data, pruned, tmp_path):
    image = torch.rand(1, 2, 48, 48, generator=torch.Generator().manual_seed(0)) * 255
    valid, found, lefts = torch.ones(1, 48, 48, dtype=torch.bool), {}, {}
    for name, reduce in {"own": "own", "none": None, "random": RandomConfig(after=(1,), shares=(0.2,))}.items():
        predictor = load(pruned, reduce=reduce)
        found[name] = predictor(image, valid)
        lefts[name] = [point.left.tolist() for point in predictor.model.trace(predictor.normalise(image, valid))]
    assert (lefts["none"], lefts["random"], len(lefts["own"])) == ([], [[2]], 2)
    assert not torch.equal(found["own"], found["none"])
    assert not torch.equal(found["own"], found["random"])


def test_a_map_is_that_of_the_method_asked_for(data, pruned, tmp_path):
    shares = []
    for reduce in ("own", RandomConfig(after=(1,), shares=(0.2,))):
        out = tmp_path / str(len(shares))
        (result,), failed = map_scenes(
            load(pruned, reduce=reduce), [str(data / "3.tif")], out=out, config=MapConfig(confidence=True)
        )
        assert not failed
        with rasterio.open(result.confidence) as dataset:
            shares.append(dataset.read(1))
    assert not np.array_equal(*shares)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (("reduce.method=matp", "reduce.after=[13]"), "layer 13, the network has the layers 1 to 12"),
        (
            ("model.name=unet_resnet18", "model.sizes={}", "reduce.method=tome"),
            "unet_resnet18 has no place for reduce.method=tome",
        ),
    ],
)
def test_a_method_that_cannot_work_leaves_no_run(data, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        run(experiment(*changes), data=data, out=tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_lemevit_learns_with_a_method_in_its_third_stage(data, tmp_path):
    changes = ("reduce.method=matp", "reduce.after=[3]", "reduce.aux={width: 24}")
    run(experiment(*changes, recipe="lemevit_tiny_light"), data=data, out=tmp_path / "run", device="cpu")
    found = weights(tmp_path / "run")
    assert found["heads.3.q.weight"].shape == (2, 24)
    (point,) = load(tmp_path / "run").model.trace(torch.randn(1, 2, 64, 64))
    assert point.alive.shape == (1, 4, 4)
