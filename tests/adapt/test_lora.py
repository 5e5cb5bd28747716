import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.adapt.freezing import adapt
from terralean.adapt.lora import (
    CycleConfig,
    LoRAConfig,
    LoRALinear,
    adapters,
    add_adapters,
    merge,
    set_strength,
    strength_at,
    unmerge,
    unwrap,
)
from terralean.errors import ConfigError
from weights import image

SMALL = LoRAConfig(rank=2)


def learned(model: nn.Module, *, scale: float = 0.1) -> nn.Module:
    """As after training: B is no longer zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for _, layer in adapters(model):
            layer.lora_B.weight.copy_(scale * torch.randn(layer.lora_B.weight.shape, generator=generator))
    return model


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm())


def linear(inputs: int = 6, outputs: int = 9, **settings) -> LoRALinear:
    torch.manual_seed(0)
    made = {"rank": 2, "alpha": 6.0, "dropout": 0.0, "rows": None, **settings}
    layer = LoRALinear(nn.Linear(inputs, outputs), **made)
    nn.init.normal_(layer.lora_B.weight)
    return layer


def tokens(*shape: int) -> Tensor:
    return torch.from_numpy(image(0, shape))


# What every network must be able to


@torch.inference_mode()
def test_adapters_begin_by_changing_nothing(network):
    model, x = network
    before = model(x)
    names = add_adapters(model, SMALL)
    assert len(names) == len([*adapters(model)]) > 3
    assert torch.equal(model(x), before)


@torch.inference_mode()
def test_merged_they_give_the_same_and_unmerged_the_network_is_what_it_was(network):
    model, x = network
    plain = model(x)
    own = {name: weight.clone() for name, weight in model.state_dict().items()}
    add_adapters(model, SMALL)
    learned(model)
    adapted = model(x)
    assert relative(adapted, plain) > 1e-3
    merge(model)
    assert relative(model(x), adapted) < 1e-5
    merge(model)
    assert relative(model(x), adapted) < 1e-5
    unmerge(model)
    assert torch.equal(model(x), adapted)
    kept = {name.replace(".base_layer.", "."): weight for name, weight in model.state_dict().items()}
    assert all(torch.equal(kept[name], weight) for name, weight in own.items())


@torch.inference_mode()
def test_unwrapped_it_is_a_plain_network_again(network):
    model, x = network
    other = copy.deepcopy(model)
    add_adapters(model, SMALL)
    adapted = learned(model)(x)
    unwrap(model)
    assert not [*adapters(model)]
    other.load_state_dict(model.state_dict())
    assert relative(other(x), adapted) < 1e-5


def test_only_adapters_and_the_head_learn(network):
    model, x = network
    adapt(model, SMALL)
    learned(model)
    model(x).square().sum().backward()
    learning = {name for name, weight in model.named_parameters() if weight.grad is not None and weight.grad.any()}
    expected = {name for name, _ in model.named_parameters() if "lora_" in name or name.startswith("head.")}
    assert learning == expected


def test_a_step_of_training_moves_only_adapters_and_the_head(network):
    model, x = network
    adapt(model, SMALL)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimiser = torch.optim.SGD([weight for weight in model.parameters() if weight.requires_grad], lr=0.1)
    model(x).square().sum().backward()
    optimiser.step()
    moved = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[-2] for name in moved if not name.startswith("head.")} == {"lora_B"}  # A learns once B is not zero
    assert any(name.startswith("head.") for name in moved)


# One layer


def test_an_adapted_layer_is_its_formula():
    layer, x = linear(), tokens(4, 3, 6)
    w, b = layer.base_layer.weight, layer.base_layer.bias
    expected = x @ w.T + b + 3 * (x @ layer.lora_A.weight.T @ layer.lora_B.weight.T)
    torch.testing.assert_close(layer(x), expected)
    torch.testing.assert_close(F.linear(x, layer.weight, layer.bias), expected)
    assert (layer.in_features, layer.out_features) == (6, 9)


def test_gradients_reach_adapters_through_the_weight_as_through_the_layer():
    layer, x = linear(rows=torch.tensor([0, 1, 2, 6, 7, 8])), tokens(4, 6)
    through = torch.autograd.grad(layer(x).square().sum(), [layer.lora_A.weight, layer.lora_B.weight])
    read = torch.autograd.grad(F.linear(x, layer.weight, layer.bias).square().sum(), [layer.lora_A.weight, layer.lora_B.weight])
    for one, other in zip(through, read, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_outputs_that_are_not_adapted_stay():
    layer, x = linear(rows=torch.tensor([0, 1, 2, 6, 7, 8])), tokens(5, 6)
    plain, adapted = layer.base_layer(x), layer(x)
    assert torch.equal(adapted[:, 3:6], plain[:, 3:6])
    assert (adapted != plain)[:, [0, 1, 2, 6, 7, 8]].all()
    layer.merge()
    torch.testing.assert_close(layer(x), adapted, rtol=1e-5, atol=1e-6)


def test_dropout_is_of_the_adapter_in_training():
    layer, x = linear(dropout=0.5), tokens(5, 6)
    assert not torch.equal(layer(x), layer(x))
    layer.eval()
    assert torch.equal(layer(x), linear()(x))


def test_a_layer_without_bias_and_of_fewer_digits():
    base = nn.Linear(6, 4, bias=False).to(torch.bfloat16)
    layer = LoRALinear(base, rank=2, alpha=4.0, dropout=0.0, rows=None)
    nn.init.normal_(layer.lora_B.weight)
    x = tokens(3, 6).bfloat16()
    assert layer.bias is None
    assert layer(x).dtype == layer.weight.dtype == torch.bfloat16
    before = layer(x)
    layer.merge()
    torch.testing.assert_close(layer(x), before, rtol=0.05, atol=0.05)


# Which layers


def vit(network) -> nn.Module:
    return network[0]


@pytest.mark.parametrize("network", ["vit"], indirect=True)
@pytest.mark.parametrize(
    ("targets", "found"),
    [
        (("attn",), {"attn.qkv", "attn.proj"}),
        (("attn.qkv", "fc2"), {"attn.qkv", "mlp.fc2"}),
        (("blocks.1",), {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}),
    ],
)
def test_targets_are_parts_of_names(network, targets, found):
    names = add_adapters(vit(network), LoRAConfig(targets=targets))
    assert {name.split(".", 2)[2] for name in names} == found
    assert {name.split(".")[1] for name in names} == ({"1"} if targets == ("blocks.1",) else {"0", "1"})


@pytest.mark.parametrize("network", ["vit"], indirect=True)
def test_what_learns_in_full_gets_no_adapter(network):
    names = add_adapters(vit(network), LoRAConfig(targets=("blocks",), train=("head", "blocks.1.mlp")))
    assert len(names) == 6
    assert not [name for name in names if name.startswith("blocks.1.mlp")]


@pytest.mark.parametrize("network", ["vit", "swin", "lola"], indirect=True)
@torch.inference_mode()
def test_queries_and_values_alone_of_fused_layers(network):
    model, x = network
    add_adapters(model, LoRAConfig(rank=2, targets=("qkv",), parts=("query", "value")))
    learned(model)
    for _, layer in adapters(model):
        width = layer.out_features // 3
        assert layer.rows.tolist() == [*range(width), *range(2 * width, 3 * width)]
        assert layer.lora_B.weight.shape == (2 * width, 2)
    adapted = model(x)
    merge(model)
    assert relative(model(x), adapted) < 1e-5


@pytest.mark.parametrize("network", ["lemevit"], indirect=True)
def test_lemevits_own_projections(network):
    names = add_adapters(network[0], LoRAConfig(targets=("attn",), parts=("key",)))
    rows = {name.rpartition(".")[2]: layer.rows for name, layer in adapters(network[0])}
    assert {name.rpartition(".")[2] for name in names} == {*rows} == {"kv", "qkv1", "qkv2", "qkv", "proj", "proj_x", "proj_c"}
    assert rows["kv"].tolist() == [*range(32)]
    assert rows["qkv1"][0] == len(rows["qkv1"])
    assert rows["proj_x"] is None


@pytest.mark.parametrize("network", ["vit"], indirect=True)
def test_names_that_are_not_there(network):
    with pytest.raises(ConfigError, match=r"no linear layer named 'atn'; nearest: attn"):
        add_adapters(vit(network), LoRAConfig(targets=("atn",)))
    with pytest.raises(ConfigError, match=r"no linear layer named 'patch_embed'"):
        add_adapters(vit(network), LoRAConfig(targets=("patch_embed",)))


@pytest.mark.parametrize("network", ["lemevit"], indirect=True)
def test_parts_that_no_target_has(network):
    with pytest.raises(ConfigError, match=r"no layer of adapt\.targets projects to value"):
        add_adapters(network[0], LoRAConfig(targets=("q",), parts=("value",)))


@pytest.mark.parametrize("network", ["vit"], indirect=True)
def test_adapters_are_not_put_on_adapters(network):
    add_adapters(vit(network), SMALL)
    with pytest.raises(ConfigError, match="has adapters already"):
        add_adapters(vit(network), SMALL)


def test_settings_that_cannot_be():
    for values, words in (
        ({"rank": 0}, "adapt.rank must be 1 or more, got 0"),
        ({"dropout": 1.0}, "adapt.dropout must be 0 up to below 1, got 1.0"),
        ({"targets": ()}, "name at least one each"),
        ({"parts": ()}, "name at least one each"),
    ):
        with pytest.raises(ConfigError, match=words):
            LoRAConfig(**values)
    with pytest.raises(ConfigError, match="cycles must be 1 or more, got 0"):
        CycleConfig(cycles=0)
    with pytest.raises(ConfigError, match=r"floor must be 0 to 1, got 1\.5"):
        CycleConfig(floor=1.5)


def test_alpha_is_twice_the_rank_unless_given():
    assert (LoRAConfig(rank=6).scaled_by, LoRAConfig(rank=6, alpha=3.0).scaled_by) == (12.0, 3.0)
    model = nn.Sequential(nn.Linear(4, 4))
    add_adapters(model, LoRAConfig(rank=4, alpha=6.0, targets=("0",)))
    assert model[0].scale == 1.5


# Strength


def test_strength_goes_down_and_up_again():
    config = CycleConfig(cycles=1, floor=0.2)
    assert [round(strength_at(step, steps=5, config=config), 12) for step in range(5)] == [1.0, 0.6, 0.2, 0.6, 1.0]
    half = 0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2
    assert strength_at(1, steps=9, config=config) == pytest.approx(half, rel=1e-12)
    twice = [strength_at(step, steps=9, config=CycleConfig(cycles=2, floor=0.0)) for step in range(9)]
    assert twice == pytest.approx([1, 0.5, 0, 0.5, 1, 0.5, 0, 0.5, 1], abs=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 7, 100])
def test_strength_is_1_in_the_first_and_the_last_step(steps):
    config = CycleConfig(cycles=3, floor=0.1)
    values = [strength_at(step, steps=steps, config=config) for step in range(steps)]
    assert values[0] == values[-1] == 1.0
    assert all(0.1 <= value <= 1 for value in values)


@pytest.mark.parametrize("network", ["swin"], indirect=True)
@torch.inference_mode()
def test_strength_scales_what_adapters_add_and_merging_keeps_to_it(network):
    model, x = network
    plain = model(x)
    add_adapters(model, SMALL)
    learned(model)
    full = model(x)
    set_strength(model, 0.5)
    half = model(x)
    merge(model)
    assert relative(model(x), half) < 1e-5
    unmerge(model)
    set_strength(model, 0.0)
    assert torch.equal(model(x), plain)
    set_strength(model, 1.0)
    assert torch.equal(model(x), full)
    assert relative(half, full) > 1e-3 < relative(half, plain)


def test_strength_goes_with_the_weights():
    layer = linear()
    set_strength(nn.Sequential(layer), 0.25)
    other = linear()
    other.load_state_dict(layer.state_dict())
    assert other.strength == 0.25
