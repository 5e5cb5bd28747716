import pytest
import timm
import torch
from torch import Tensor, nn

from terralean.errors import WeightsDoNotFit
from terralean.models import create, lemevit
from terralean.models.lemevit import LeMeViT
from terralean.spec import Bands
from terralean.weights.layouts import from_mmseg
from terralean.weights.pretrained import load_pretrained

RGB = Bands(names=("red", "green", "blue"))

# A segmenter's names beside mmsegmentation's, written out one by one for the first of each kind
HEADS = {
    "head.context.reduce.0.conv.weight": "decode_head.psp_modules.0.1.conv.weight",
    "head.context.reduce.3.norm.running_mean": "decode_head.psp_modules.3.1.bn.running_mean",
    "head.context.fuse.norm.bias": "decode_head.bottleneck.bn.bias",
    "head.lateral.2.conv.weight": "decode_head.lateral_convs.2.conv.weight",
    "head.smooth.1.norm.num_batches_tracked": "decode_head.fpn_convs.1.bn.num_batches_tracked",
    "head.fuse.conv.weight": "decode_head.fpn_bottleneck.conv.weight",
    "head.classify.bias": "decode_head.conv_seg.bias",
    "auxiliary.convolve.norm.weight": "auxiliary_head.convs.0.bn.weight",
    "auxiliary.classify.weight": "auxiliary_head.conv_seg.weight",
}


def mmseg_name(name: str) -> str:
    """The way back, by another route than the one under test."""
    if name.startswith("backbone."):
        return name
    for ours, theirs in (
        ("head.context.reduce.", "decode_head.psp_modules."),
        ("head.context.fuse.", "decode_head.bottleneck."),
        ("head.lateral.", "decode_head.lateral_convs."),
        ("head.smooth.", "decode_head.fpn_convs."),
        ("head.fuse.", "decode_head.fpn_bottleneck."),
        ("head.classify.", "decode_head.conv_seg."),
        ("auxiliary.convolve.", "auxiliary_head.convs.0."),
        ("auxiliary.classify.", "auxiliary_head.conv_seg."),
    ):
        if name.startswith(ours):
            rest = name.removeprefix(ours).replace("norm.", "bn.")
            return theirs + (f"{rest[0]}.1{rest[1:]}" if "psp" in theirs else rest)
    raise AssertionError(name)


def segmenter(*, classes: int = 3, auxiliary: bool = True, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return create("lemevit_tiny_upernet", bands=3, classes=classes, width=16, auxiliary=auxiliary).eval()


@pytest.fixture(scope="module")
def official(tmp_path_factory) -> tuple[nn.Module, dict[str, Tensor]]:
    """A segmenter, and its tensors as the authors' training with mmsegmentation would have written them."""
    model = segmenter()
    state = {mmseg_name(name): tensor for name, tensor in model.state_dict().items()}
    whole = LeMeViT(lemevit.tiny(classes=0)).state_dict()  # their backbone carries the classifier's layers
    unused = {f"backbone.{k}": v for k, v in whole.items() if f"backbone.{k}" not in state}
    return model, state | unused


def test_names_of_mmsegmentation_worked(official):
    model, state = official
    assert HEADS.keys() <= model.state_dict().keys()
    assert set(HEADS.values()) <= state.keys()
    assert list(from_mmseg(dict.fromkeys(HEADS.values(), torch.zeros(1)))) == list(HEADS)


def test_a_segmentation_checkpoint_of_mmsegmentation_loads_exactly(official, tmp_path):
    model, state = official
    torch.save({"meta": {"epoch": 1}, "state_dict": state}, tmp_path / "iter.pth")
    other, x = segmenter(seed=1), torch.randn(1, 3, 40, 56)
    assert load_pretrained(other, tmp_path / "iter.pth", bands=RGB) == f"all layers of {tmp_path / 'iter.pth'}"
    with torch.inference_mode():
        assert torch.equal(other(x), model(x))
        assert torch.equal(other.auxiliary(other.backbone(x)), model.auxiliary(model.backbone(x)))


def test_without_an_auxiliary_head_only_that_is_left_out(official, tmp_path):
    model, state = official
    torch.save(state, tmp_path / "iter.pth")
    other, x = segmenter(auxiliary=False, seed=1), torch.randn(1, 3, 40, 56)
    load_pretrained(other, tmp_path / "iter.pth", bands=RGB)
    with torch.inference_mode():
        assert torch.equal(other(x), model(x))


def test_an_auxiliary_head_that_the_file_lacks_is_new(official, tmp_path):
    model, state = official
    torch.save({k: v for k, v in state.items() if not k.startswith("auxiliary")}, tmp_path / "iter.pth")
    other, x = segmenter(seed=1), torch.randn(1, 3, 40, 56)
    before = other.auxiliary.convolve.conv.weight.clone()
    assert load_pretrained(other, tmp_path / "iter.pth", bands=RGB).endswith("; the auxiliary head is new")
    assert torch.equal(other.auxiliary.convolve.conv.weight, before)
    with torch.inference_mode():
        assert torch.equal(other(x), model(x))


def test_other_classes_leave_the_last_layers_of_both_heads(official, tmp_path):
    model, state = official
    torch.save(state, tmp_path / "iter.pth")
    other = segmenter(classes=5, seed=1)
    before = {k: v.clone() for k, v in other.state_dict().items() if ".classify." in k}
    assert "but the last, whose classes differ" in load_pretrained(other, tmp_path / "iter.pth", bands=RGB)
    after = other.state_dict()
    assert len(before) == 4
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(torch.equal(after[key], value) for key, value in model.state_dict().items() if key not in before)


def test_a_tensor_more_or_less_is_no_fit(official, tmp_path):
    _, state = official
    less = {k: v for k, v in state.items() if k != "decode_head.fpn_convs.1.conv.weight"}
    torch.save(less, tmp_path / "less.pth")
    with pytest.raises(WeightsDoNotFit, match=r"missing: head\.smooth\.1\.conv\.weight"):
        load_pretrained(segmenter(), tmp_path / "less.pth", bands=RGB)
    torch.save(state | {"decode_head.fpn_convs.3.conv.weight": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(WeightsDoNotFit, match=r"left over: .*head\.smooth\.3\.conv\.weight"):
        load_pretrained(segmenter(), tmp_path / "more.pth", bands=RGB)


def test_classifier_of_the_authors_fills_the_backbone_of_a_upernet(tmp_path):
    classifier = LeMeViT(lemevit.tiny(classes=7)).eval()
    torch.save(classifier.state_dict(), tmp_path / "file.pth")
    model, x = segmenter(), torch.randn(1, 3, 40, 56)
    assert load_pretrained(model, tmp_path / "file.pth", bands=RGB) == f"the backbone of {tmp_path / 'file.pth'}"
    with torch.inference_mode():
        for found, expected in zip(model.backbone(x), classifier.pyramid(x), strict=True):
            torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("name", ["resnet18", "convnext_atto", "swin_tiny_patch4_window7_224", "twins_svt_small"])
def test_classifiers_of_timm_fill_the_backbone(name, tmp_path):
    classifier = timm.create_model(name, num_classes=7)
    torch.save(classifier.state_dict() | {"relative_position_index": torch.zeros(2)}, tmp_path / "file.pth")
    model = create("light", bands=3, classes=2, width=8, backbone=name)
    assert load_pretrained(model, tmp_path / "file.pth", bands=RGB) == f"the backbone of {tmp_path / 'file.pth'}"
    theirs = {name.replace(".", "_"): tensor for name, tensor in classifier.state_dict().items()}
    body = model.backbone.body.state_dict()
    assert all(torch.equal(theirs[key.removeprefix("model.").replace(".", "_")], tensor) for key, tensor in body.items())


@pytest.mark.parametrize(("name", "backbone"), [("unetformer_resnet18", "resnet18"), ("factseg_resnet50", "resnet50")])
def test_other_segmenters_on_timm_take_its_classifiers_too(name, backbone, tmp_path):
    classifier = timm.create_model(backbone, num_classes=7)
    torch.save(classifier.state_dict(), tmp_path / "file.pth")
    model = create(name, bands=3, classes=2)
    assert load_pretrained(model, tmp_path / "file.pth", bands=RGB) == f"the backbone of {tmp_path / 'file.pth'}"
    assert torch.equal(model.backbone.layer4[1].conv2.weight, classifier.layer4[1].conv2.weight)


def test_a_file_of_another_backbone_is_no_fit(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "file.pth")
    with pytest.raises(WeightsDoNotFit, match=r"missing: layer1\.2\.bn1\.bias"):
        load_pretrained(create("light", bands=3, classes=2, width=8, backbone="resnet34"), tmp_path / "file.pth", bands=RGB)
    with pytest.raises(WeightsDoNotFit, match="no LeMeViT checkpoint"):
        load_pretrained(segmenter(), tmp_path / "file.pth", bands=RGB)


def test_a_backbone_cannot_fill_a_model_that_is_none(tmp_path):
    torch.save(timm.create_model("resnet18").state_dict(), tmp_path / "file.pth")
    with pytest.raises(WeightsDoNotFit, match="holds no Linear, and backbones alone cannot be given to one"):
        load_pretrained(nn.Linear(2, 2), tmp_path / "file.pth", bands=RGB)
