import pytest
import torch
from torch import nn

from terralean.adapt.freezing import adapt, freeze, learning
from terralean.adapt.lora import LoRAConfig
from terralean.errors import ConfigError
from terralean.models import create


def lola(**sizes) -> nn.Module:
    torch.manual_seed(0)
    return create("lola_specvit", bands=20, classes=5, **{"dim": 16, "heads": 2, **sizes})


def test_what_learns_is_counted():
    model = nn.Sequential()
    model.attn, model.head = nn.Linear(6, 12), nn.Linear(12, 3)
    adapt(model, LoRAConfig(rank=2, targets=("attn",)))
    found = learning(model)
    assert (found.total, found.learning, found.adapters) == (6 * 12 + 12 + 2 * 18 + 39, 2 * 18 + 39, 2 * 18)
    assert found.names == ("head.weight", "head.bias")
    assert found.share == pytest.approx(75 / 159)
    assert str(found) == "75 of 159 parameters learn (47.17 %): 36 of adapters, 39 in full"


def test_of_the_default_pixel_classifier_less_than_a_tenth_learns():
    model = create("lola_specvit", bands=200, classes=16)
    adapt(model, LoRAConfig(rank=4, train=("head", "spectral")))
    found = learning(model)
    assert found.share < 0.1
    assert found.learning == found.adapters + 200 * 15 + 15 + 96 * 16 + 16


def test_parameters_can_be_named_too_and_biases_of_adapted_layers():
    model = lola()
    adapt(model, LoRAConfig(targets=("qkv",), train=("head", "pos_embed", "attn.qkv.bias")))
    names = learning(model).names
    assert {name for name in names if not name.endswith("qkv.bias")} == {"head.weight", "head.bias", "pos_embed"}
    assert len([name for name in names if name.endswith("attn.qkv.bias")]) == 4


def test_a_name_that_is_not_there():
    with pytest.raises(ConfigError, match=r"no parameter named 'classifier'; its parts are spectral, .*head"):
        freeze(lola(), ["classifier"])


def test_batch_norms_that_do_not_learn_keep_their_statistics():
    model = lola().train()
    adapt(model, LoRAConfig(train=("head", "patch_embed")))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items() if "running" in name}
    model(torch.randn(4, 20, 15, 15))
    after = model.state_dict()
    changed = {name.split(".")[0] for name, tensor in before.items() if not torch.equal(tensor, after[name])}
    assert changed == {"patch_embed"}
    assert model.levels.training
