import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from terralean.errors import RunError, WeightsDoNotFit
from terralean.models import create
from terralean.weights.card import read_card, write_card
from terralean.weights.checkpoint import load_checkpoint, load_exactly, save_checkpoint


def test_model_and_card_come_back_as_they_were(untrained):
    model, card = load_checkpoint(untrained)
    assert card == read_card(untrained)
    saved = load_file(untrained / "weights.safetensors")
    assert saved.keys() == model.state_dict().keys()
    assert all(torch.equal(saved[key], value) for key, value in model.state_dict().items())
    assert not model.training


def test_weights_can_be_read_by_others(untrained):
    assert (untrained / "weights.safetensors").stat().st_mode & 0o044 == 0o044


def test_no_part_is_left(untrained):
    assert sorted(path.name for path in untrained.iterdir()) == ["card.json", "weights.safetensors"]


def test_misfit_says_what_is_missing_left_over_and_of_another_shape():
    model = create("lemevit_tiny_light", bands=3, classes=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = dict(before) | {"strange": torch.zeros(1), "head.classify.weight": torch.zeros(5, 128, 1, 1)}
    del state["backbone.meta_tokens"]
    with pytest.raises(WeightsDoNotFit) as error:
        load_exactly(model, state, source="some.safetensors")
    text = str(error.value)
    assert text.startswith("some.safetensors does not fit")
    assert "missing: backbone.meta_tokens" in text
    assert "left over: strange" in text
    assert "head.classify.weight (5, 128, 1, 1), expected (3, 128, 1, 1)" in text
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "is not JSON"), ("[]", "has format None"), ('{"format": 99}', "has format 99"), ('{"format": 1}', "Field required")],
)
def test_broken_card(tmp_path, text, message):
    (tmp_path / "card.json").write_text(text)
    with pytest.raises(RunError, match=message):
        read_card(tmp_path)


def test_folder_without_a_card(tmp_path):
    with pytest.raises(RunError, match=r"not a finished run: it has no card\.json"):
        load_checkpoint(tmp_path)
    with pytest.raises(RunError, match="nowhere is not there; give the folder named with --out"):
        load_checkpoint(tmp_path / "nowhere")


def test_unknown_key_in_a_card(untrained, tmp_path):
    values = json.loads((untrained / "card.json").read_text())
    (tmp_path / "card.json").write_text(json.dumps(values | {"colour": "red"}))
    with pytest.raises(RunError, match="colour"):
        read_card(tmp_path)


def test_card_of_another_model_does_not_take_the_weights(untrained, tmp_path):
    model, card = load_checkpoint(untrained)
    save_checkpoint(model, card, tmp_path)
    write_card(replace(card, model="lemevit_small_light"), tmp_path)
    with pytest.raises(WeightsDoNotFit, match="does not fit the model"):
        load_checkpoint(tmp_path)


def test_missing_and_broken_weights(untrained, tmp_path):
    write_card(read_card(untrained), tmp_path)
    with pytest.raises(RunError, match="missing beside its card"):
        load_checkpoint(tmp_path)
    (tmp_path / "weights.safetensors").write_bytes(b"no tensors")
    with pytest.raises(WeightsDoNotFit, match="not a safetensors file"):
        load_checkpoint(tmp_path)
