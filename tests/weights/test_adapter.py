import json

import pytest
import torch
from safetensors.torch import load_file

from terralean.adapt.freezing import adapt
from terralean.adapt.lora import LoRAConfig, adapters
from terralean.errors import MissingFile, WeightsDoNotFit
from terralean.models import create
from terralean.weights.adapter import load_adapter, save_adapter
from weights import image

CONFIG = LoRAConfig(rank=2, alpha=3.0, targets=("attn",), parts=("query", "value"))


def lola():
    torch.manual_seed(0)
    return create("lola_specvit", bands=4, classes=3, components=4, dim=16, heads=2).eval()


@pytest.fixture
def adapted():
    model = lola()
    adapt(model, CONFIG)
    with torch.no_grad():
        for _, layer in adapters(model):
            layer.lora_B.weight.normal_()
        model.head.weight.normal_()
    return model


def test_a_folder_holds_adapters_and_what_else_learned_and_no_more(adapted, tmp_path):
    save_adapter(adapted, tmp_path / "adapter", base="RUN_A")
    files = {path.name for path in (tmp_path / "adapter").iterdir()}
    assert files == {"adapter_model.safetensors", "adapter_config.json"}
    tensors = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    assert sum(tensor.numel() for tensor in tensors.values()) < 0.5 * sum(weight.numel() for weight in adapted.parameters())
    assert all(name.startswith("base_model.model.") for name in tensors)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 2, 3.0)
    assert config["base_model_name_or_path"] == "RUN_A"
    assert config["target_modules"] == sorted(name for name, _ in adapters(adapted))
    assert config["modules_to_save"] == ["head"]


def test_read_back_the_network_is_the_same(adapted, tmp_path):
    x = torch.from_numpy(image(0, (2, 4, 15, 15)))
    save_adapter(adapted, tmp_path, base="RUN_A")
    other = lola()
    load_adapter(other, tmp_path)
    with torch.inference_mode():
        assert not torch.allclose(lola()(x), adapted(x), rtol=1e-2)
        torch.testing.assert_close(other(x), adapted(x), rtol=1e-5, atol=1e-6)


def test_a_folder_without_adapters(tmp_path):
    with pytest.raises(MissingFile, match=r"holds no adapter_config.json; give a folder with adapters"):
        load_adapter(lola(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type 'IA3', expected LORA"),
        ({"use_dora": True, "fan_in_fan_out": True}, r"has use_dora=True, fan_in_fan_out=True; only adapters W \+"),
        ({"rank_pattern": {"qkv": 4}}, "has rank_pattern={'qkv': 4}"),
    ],
)
def test_other_kinds_of_adapters_are_refused(adapted, tmp_path, changes, words):
    save_adapter(adapted, tmp_path, base="RUN_A")
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(WeightsDoNotFit, match=words):
        load_adapter(lola(), tmp_path)
    path.write_text("{")
    with pytest.raises(WeightsDoNotFit, match="is not JSON"):
        load_adapter(lola(), tmp_path)
