"""Training of segmenters with a second head."""

import pytest
import torch
from safetensors.torch import load_file

from terralean.errors import ConfigError
from terralean.inspect.run import describe_run
from terralean.predict.predictor import load
from terralean.train.run import run
from terralean.weights.card import read_card

UPERNET = ("model.name=lemevit_tiny_upernet", "train.steps=2", "train.validate_every=2", "train.batch=1", "data.tile_px=48")


@pytest.fixture(scope="module")
def trained(data, experiment, tmp_path_factory):
    """A UPerNet after two steps of one crop each."""
    out = tmp_path_factory.mktemp("upernet") / "run"
    run(experiment(*UPERNET, "model.sizes={width: 8}"), data=data, out=out, device="cpu")
    return out


def test_a_upernet_trains_with_one_crop_a_step_and_is_used_without_its_second_head(trained):
    predictor, x = load(trained, device="cpu"), 100 * torch.rand(2, 2, 40, 50)
    assert read_card(trained).sizes == {"width": 8}
    probabilities = predictor(x, torch.ones(2, 40, 50, dtype=torch.bool))
    assert probabilities.shape == (2, 2, 40, 50)
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(2, 40, 50))
    assert not [finding for finding in describe_run(trained).findings if finding.severity == "error"]


def test_the_weight_of_the_second_head_changes_the_weights(trained, data, experiment, tmp_path):
    run(experiment(*UPERNET, "model.sizes={width: 8}", "train.loss.auxiliary=0.9"), data=data, out=tmp_path / "a", device="cpu")
    one, two = (load_file(folder / "weights.safetensors") for folder in (trained, tmp_path / "a"))
    assert not torch.equal(one["backbone.stages.1.0.attn.qkv1.weight"], two["backbone.stages.1.0.attn.qkv1.weight"])


def test_a_second_head_that_would_never_learn_is_refused_and_leaves_no_run(data, experiment, tmp_path):
    changes = (*UPERNET, "train.loss.auxiliary=0")
    with pytest.raises(ConfigError, match=r"would cost time and never learn; .* --set model\.sizes\.auxiliary=false"):
        run(experiment(*changes, "model.sizes={width: 8}"), data=data, out=tmp_path / "a", device="cpu")
    assert not (tmp_path / "a").exists()
    run(experiment(*changes, "model.sizes={width: 8, auxiliary: false}"), data=data, out=tmp_path / "b", device="cpu")
    assert not [name for name in load_file(tmp_path / "b" / "weights.safetensors") if name.startswith("auxiliary")]


def test_a_backbone_named_in_the_recipe_is_in_the_card_and_back_when_loaded(data, experiment, tmp_path):
    sizes = {"backbone": "resnet18", "width": 8, "drop_path": 0.1}
    changes = ("model.name=light", f"model.sizes={sizes}", "train.steps=2", "train.validate_every=2")
    run(experiment(*changes), data=data, out=tmp_path / "run", device="cpu")
    assert read_card(tmp_path / "run").sizes == sizes
    predictor = load(tmp_path / "run", device="cpu")
    assert predictor.model.backbone.body.pretrained_cfg["architecture"] == "resnet18"
    assert predictor(100 * torch.rand(1, 2, 33, 45), torch.ones(1, 33, 45, dtype=torch.bool)).isfinite().all()
