"""What a classifier starts from, and first layers for other bands; segmenters: test_official.py and test_layouts.py."""

import pytest
import timm
import torch
from safetensors.torch import save_file

from terralean.errors import WeightsDoNotFit
from terralean.models import create, lemevit
from terralean.models.lemevit import LeMeViT
from terralean.spec import Bands
from terralean.weights.pretrained import load_pretrained

RGB = Bands(names=("red", "green", "blue"))
RGBN = Bands(names=("red", "green", "blue", "nir"))
TWO = Bands(names=("band_1", "band_2"))
STEM = "downsample_layers.0.0.weight"


def classifier(*, bands: int = 3, classes: int = 7, seed: int = 0) -> LeMeViT:
    torch.manual_seed(seed)
    return LeMeViT(lemevit.tiny(bands=bands, classes=classes)).eval()


@pytest.fixture
def file(tmp_path):
    torch.save({"state_dict": classifier().state_dict()}, tmp_path / "file.pth")
    return tmp_path / "file.pth"


def test_a_classifier_takes_all_of_a_classifier(file):
    model, image = classifier(seed=1), torch.randn(1, 3, 32, 40)
    assert load_pretrained(model, file, bands=RGB) == f"all layers of {file}"
    with torch.inference_mode():
        assert torch.equal(model(image), classifier()(image))


def test_of_other_classes_the_last_layer_stays(file):
    model = classifier(classes=4, seed=1)
    before = model.head.weight.clone()
    assert load_pretrained(model, file, bands=RGB) == f"all layers of {file} but the last, whose classes differ"
    assert torch.equal(model.head.weight, before)
    assert torch.equal(model.norm.weight, classifier().norm.weight)
    assert torch.equal(model.stages[4][1].attn.qkv.weight, classifier().stages[4][1].attn.qkv.weight)


def test_a_file_without_a_last_layer_gives_the_rest(tmp_path):
    save_file(classifier(classes=0).state_dict(), tmp_path / "body.safetensors")
    model = classifier(classes=4, seed=1)
    before = model.head.bias.clone()
    assert "but the last" in load_pretrained(model, tmp_path / "body.safetensors", bands=RGB)
    assert torch.equal(model.head.bias, before)


@pytest.mark.parametrize("name", ["resnet10t", "pvt_v2_b0", "vit_tiny_patch16_224"])
def test_a_network_of_timm_takes_what_timm_wrote(tmp_path, name):
    theirs = timm.create_model(name, num_classes=6)
    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    same, other = timm.create_model(name, num_classes=6), timm.create_model(name, num_classes=9)
    assert load_pretrained(same, tmp_path / "timm.pth", bands=RGB) == f"all layers of {tmp_path / 'timm.pth'}"
    assert all(torch.equal(tensor, same.state_dict()[key]) for key, tensor in theirs.state_dict().items())
    assert "but the last" in load_pretrained(other, tmp_path / "timm.pth", bands=RGB)
    heads = {key for key, tensor in theirs.state_dict().items() if not torch.equal(tensor, other.state_dict()[key])}
    assert heads == {f"{timm.get_pretrained_cfg(name).classifier}.{part}" for part in ("weight", "bias")}


def test_the_averaged_weights_of_a_file_are_taken_if_asked(tmp_path):
    plain, average = classifier(seed=2).state_dict(), classifier(seed=3).state_dict()
    torch.save({"state_dict": plain, "state_dict_ema": average}, tmp_path / "both.pth")
    model = classifier()
    load_pretrained(model, tmp_path / "both.pth", bands=RGB)
    assert torch.equal(model.head.weight, plain["head.weight"])
    load_pretrained(model, tmp_path / "both.pth", bands=RGB, averaged=True)
    assert torch.equal(model.head.weight, average["head.weight"])


def test_averaged_weights_that_are_not_there_are_refused(file):
    with pytest.raises(WeightsDoNotFit, match=r"holds no averaged weights \(state_dict_ema\); leave model\.averaged out"):
        load_pretrained(classifier(), file, bands=RGB, averaged=True)


def test_known_bands_keep_their_kernels_and_new_ones_get_the_mean(file):
    model = classifier(bands=4, seed=1)
    told = load_pretrained(model, file, bands=RGBN)
    assert told.endswith(
        "its first layer was made for 4 bands from its 3 (red, green, blue as they were and nir the mean of all)"
    )
    theirs = classifier().state_dict()[STEM]
    torch.testing.assert_close(model.state_dict()[STEM][:, :3], theirs * 3 / 4)
    torch.testing.assert_close(model.state_dict()[STEM][:, 3], theirs.mean(dim=1) * 3 / 4)
    assert torch.equal(model.head.weight, classifier().head.weight)


def test_bands_without_names_all_get_the_mean(file):
    model = create("lemevit_tiny_light", bands=2, classes=2)
    told = load_pretrained(model, file, bands=TWO)
    assert told == (f"the backbone of {file}; its first layer was made for 2 bands from its 3 (band_1, band_2 the mean of all)")
    theirs = classifier().state_dict()[STEM].mean(dim=1) * 3 / 2
    torch.testing.assert_close(model.backbone.state_dict()[STEM], torch.stack([theirs, theirs], dim=1))


def test_names_of_bands_come_from_a_runs_card(untrained):
    model = create("lemevit_tiny_light", bands=2, classes=3)
    told = load_pretrained(model, untrained, bands=Bands(names=("blue", "thermal")))
    assert told.endswith("for 2 bands from its 3 (blue as they were and thermal the mean of all)")


def test_networks_of_timm_get_a_first_layer_too(tmp_path):
    theirs = timm.create_model("resnet10t", num_classes=6).state_dict()
    torch.save(theirs, tmp_path / "timm.pth")
    model = timm.create_model("resnet10t", num_classes=6, in_chans=4)
    load_pretrained(model, tmp_path / "timm.pth", bands=RGBN)
    stem = next(name for name, tensor in theirs.items() if tensor.ndim == 4)
    torch.testing.assert_close(model.state_dict()[stem][:, :3], theirs[stem] * 3 / 4)


def test_the_backbone_of_a_change_network_is_taken(tmp_path):
    whole = classifier(classes=0)
    body = {f"backbone.{key}": value for key, value in whole.state_dict().items()}
    heads = {"conv_pred.weight": torch.zeros(1), "transformer_decoder.layers.0.1.fn.net.0.bias": torch.zeros(1)}
    torch.save(body | heads | {"pos_embedding": torch.zeros(1)}, tmp_path / "change.pth")
    model = create("lemevit_tiny_light", bands=3, classes=2)
    assert load_pretrained(model, tmp_path / "change.pth", bands=RGB) == f"the backbone of {tmp_path / 'change.pth'}"
    assert torch.equal(model.backbone.meta_tokens, whole.meta_tokens)


def test_a_classifier_of_another_size_is_refused_with_both_lists(tmp_path):
    save_file(LeMeViT(lemevit.small(classes=7)).state_dict(), tmp_path / "small.safetensors")
    model = classifier(seed=1)
    before = model.head.weight.clone()
    with pytest.raises(
        WeightsDoNotFit, match=r"missing: stages\.3\.6(.|\n)*of another shape: (.|\n)*\(48,\), expected \(32,\)"
    ):
        load_pretrained(model, tmp_path / "small.safetensors", bands=RGB)
    assert torch.equal(model.head.weight, before)


def test_a_segmenters_file_is_no_classifier(untrained):
    with pytest.raises(WeightsDoNotFit, match=r"missing: meta_token_downsample\.3\.0\.bias"):
        load_pretrained(classifier(), untrained, bands=RGB)
