import copy

import pytest
import torch

from terralean.adapt.freezing import adapt
from terralean.adapt.lora import LoRAConfig, adapters, add_adapters, set_strength
from terralean.adapt.peft_names import adapter_state, add_adapter_state
from terralean.errors import WeightsDoNotFit

vit = pytest.mark.parametrize("network", ["vit"], indirect=True)


def learned(model) -> None:
    with torch.no_grad():
        for _, layer in adapters(model):
            layer.lora_B.weight.normal_()


@vit
def test_names_are_those_of_peft(network):
    model, _ = network
    adapt(model, LoRAConfig(rank=2, targets=("attn.qkv",)))
    shapes = {name: tuple(tensor.shape) for name, tensor in adapter_state(model).items()}
    assert shapes == {
        "base_model.model.blocks.0.attn.qkv.lora_A.weight": (2, 32),
        "base_model.model.blocks.0.attn.qkv.lora_B.weight": (96, 2),
        "base_model.model.blocks.1.attn.qkv.lora_A.weight": (2, 32),
        "base_model.model.blocks.1.attn.qkv.lora_B.weight": (96, 2),
        "base_model.model.head.weight": (5, 32),
        "base_model.model.head.bias": (5,),
    }


@vit
def test_parts_that_are_not_adapted_are_rows_of_zeros(network):
    model, _ = network
    add_adapters(model, LoRAConfig(rank=2, targets=("qkv",), parts=("query", "value")))
    learned(model)
    b = adapter_state(model)["base_model.model.blocks.1.attn.qkv.lora_B.weight"]
    assert b.any(dim=1).nonzero().flatten().tolist() == [*range(32), *range(64, 96)]
    layer = dict(adapters(model))["blocks.1.attn.qkv"]
    assert torch.equal(b[layer.rows], layer.lora_B.weight)


@vit
def test_b_holds_the_strength(network):
    model, _ = network
    add_adapters(model, LoRAConfig(rank=2))
    learned(model)
    full = adapter_state(model)
    set_strength(model, 0.25)
    for name, tensor in adapter_state(model).items():
        torch.testing.assert_close(tensor, full[name] * (0.25 if "lora_B" in name else 1), rtol=1e-6, atol=0)


def test_a_state_is_what_adapting_changed(network):
    model, x = network
    other = copy.deepcopy(model)
    adapt(model, LoRAConfig(rank=2, alpha=3.0, parts=("query", "value")))
    learned(model)
    set_strength(model, 0.5)
    with torch.no_grad():
        next(model.head.parameters()).mul_(2)
        add_adapter_state(other, adapter_state(model), alpha=3.0, source="it")
        torch.testing.assert_close(other(x), model(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("network", ["lola"], indirect=True)
def test_norms_that_learn_have_their_statistics_in_it(network):
    model, x = network
    other = copy.deepcopy(model)
    adapt(model, LoRAConfig(rank=2, targets=("qkv",), train=("head", "patch_embed", "qkv.bias")))
    model.train()(x + 1)
    names = {name.removeprefix("base_model.model.") for name in adapter_state(model) if ".lora_" not in name}
    assert {name for name in names if not name.endswith("qkv.bias")} == {
        *(f"patch_embed.1.{own}" for own in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")),
        *(f"{part}.{own}" for part in ("patch_embed.0", "head") for own in ("weight", "bias")),
    }
    add_adapter_state(other, adapter_state(model), alpha=4.0, source="it")
    assert torch.equal(other.patch_embed[1].running_mean, model.patch_embed[1].running_mean)


@vit
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.clear(), "it holds no adapters"),
        (lambda state: state.update({"base_model.model.it.lora_A.weight": torch.zeros(2, 3)}), "it: the network has no such"),
        (lambda state: state.update({"base_model.model.gone": torch.zeros(2)}), "gone: the network has no such parameter"),
        (lambda state: state.update({"base_model.model.head.bias": torch.zeros(7)}), r"head.bias: \(7,\), expected \(5,\)"),
        (
            lambda state: state.update({"base_model.model.blocks.0.attn.qkv.lora_A.weight": torch.zeros(2, 31)}),
            r"blocks.0.attn.qkv: A and B are \(2, 31\) and \(96, 2\), the layer takes 32 and gives 96",
        ),
        (lambda state: state.pop("base_model.model.blocks.0.attn.qkv.lora_B.weight"), "and nothing, the layer takes"),
        (
            lambda state: state.update(
                {
                    "base_model.model.blocks.0.attn.qkv.lora_A.weight": torch.zeros(3, 32),
                    "base_model.model.blocks.0.attn.qkv.lora_B.weight": torch.zeros(96, 3),
                }
            ),
            r"adapters of ranks \[2, 3\]; one rank",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_changes_nothing(network, change, words):
    model, x = network
    other = copy.deepcopy(model)
    adapt(model, LoRAConfig(rank=2, targets=("attn.qkv",)))
    learned(model)
    state = adapter_state(model)
    change(state)
    with torch.inference_mode():
        before = other(x)
        with pytest.raises(WeightsDoNotFit, match=words):
            add_adapter_state(other, state, alpha=4.0, source="FILE")
        assert torch.equal(other(x), before)
    assert not [*adapters(other)]
