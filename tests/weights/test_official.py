import pytest
import torch

from terralean.errors import MissingFile, WeightsDoNotFit
from terralean.models import create, lemevit
from terralean.models.lemevit import LeMeViT, LeMeViTPyramid
from terralean.spec import Bands
from terralean.weights.official import lemevit_config, load_lemevit, load_lemevit_pyramid
from terralean.weights.pretrained import load_pretrained

RGB = Bands(names=("red", "green", "blue"))


@pytest.fixture(scope="module")
def classifier() -> LeMeViT:
    torch.manual_seed(0)
    return LeMeViT(lemevit.tiny(classes=7)).eval()


def old_names(state: dict) -> dict:
    names = {"meta_tokens": "prototypes", "meta_token_downsample": "prototype_downsample"}
    return {".".join([names.get(key.split(".")[0], key.split(".")[0]), *key.split(".")[1:]]): v for key, v in state.items()}


def wrappings(state: dict) -> dict:
    """The ways in which the authors' files hold one state dict."""
    average = {key: torch.zeros_like(value) for key, value in state.items()}
    return {
        "bare": state,
        "trainer": {"epoch": 3, "state_dict": state, "state_dict_ema": average},
        "model": {"model": state, "optimizer": {"lr": 1.0}},
        "only_ema": {"state_dict_ema": state},
        "distributed": {"state_dict": {f"module.{key}": value for key, value in state.items()}},
        "downstream": {f"backbone.{key}": value for key, value in state.items()},
        "prototypes": {"state_dict": old_names(state)},
        "detection": {"state_dict": state | {"extra_norms.0.weight": torch.ones(64)}},
    }


@pytest.mark.parametrize("wrapping", sorted(wrappings({})))
def test_official_layouts_load_exactly(classifier, tmp_path, wrapping):
    torch.save(wrappings(classifier.state_dict())[wrapping], tmp_path / "file.pth")
    image = torch.randn(1, 3, 40, 56)
    with torch.inference_mode():
        assert torch.equal(load_lemevit(tmp_path / "file.pth")(image), classifier(image))
        maps = load_lemevit_pyramid(tmp_path / "file.pth")(image)
        assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(maps, classifier.pyramid(image), strict=True))


@pytest.mark.parametrize("size", ["tiny", "tiny_d7", "small", "base"])
def test_size_is_read_from_the_shapes(size):
    with torch.device("meta"):
        config = getattr(lemevit, size)(bands=5, classes=9, meta_tokens=8)
        assert lemevit_config(LeMeViT(config).state_dict(), source="file") == config


def test_backbone_of_a_segmenter(classifier, tmp_path):
    torch.save(classifier.state_dict(), tmp_path / "file.pth")
    model = create("lemevit_tiny_light", bands=3, classes=4)
    assert load_pretrained(model, tmp_path / "file.pth", bands=RGB).startswith("the backbone of")
    assert torch.equal(model.backbone.stages[3][7].mlp[0].weight, classifier.stages[3][7].mlp[0].weight)


def test_whole_segmenter_gives_all_but_a_last_layer_of_other_classes(untrained):
    source = create("lemevit_tiny_light", bands=3, classes=3)
    load_pretrained(source, untrained, bands=RGB)
    same, other = (create("lemevit_tiny_light", bands=3, classes=n) for n in (3, 5))
    fresh = other.head.classify.weight.clone()
    assert "but the last" not in load_pretrained(same, untrained, bands=RGB)
    assert "but the last" in load_pretrained(other, untrained, bands=RGB)
    assert torch.equal(same.head.classify.weight, source.head.classify.weight)
    assert torch.equal(other.head.classify.weight, fresh)
    assert torch.equal(other.head.smooth[0][0].weight, source.head.smooth[0][0].weight)


def test_another_size_is_refused_with_both_sizes(classifier, tmp_path):
    torch.save(classifier.state_dict(), tmp_path / "file.pth")
    with pytest.raises(WeightsDoNotFit, match=r"\(1, 2, 2, 8, 2\)(.|\n)*\(1, 2, 2, 6, 2\)"):
        load_pretrained(create("lemevit_small_light", bands=3, classes=2), tmp_path / "file.pth", bands=RGB)


def test_a_missing_tensor_is_no_fit(classifier, tmp_path):
    state = dict(classifier.state_dict())
    del state["stages.3.2.attn.proj.bias"]
    torch.save(state, tmp_path / "file.pth")
    with pytest.raises(WeightsDoNotFit, match=r"missing: stages\.3\.2\.attn\.proj\.bias"):
        load_lemevit(tmp_path / "file.pth")


def test_files_that_are_no_checkpoint(tmp_path):
    with pytest.raises(MissingFile, match="no checkpoint at"):
        load_lemevit(tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(WeightsDoNotFit, match="cannot be read as a checkpoint"):
        load_lemevit(tmp_path / "text.pth")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(WeightsDoNotFit, match="is not a safetensors file"):
        load_lemevit(tmp_path / "text.safetensors")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsDoNotFit, match=r"no LeMeViT checkpoint; its keys begin with conv\.weight"):
        load_lemevit(tmp_path / "other.pth")


def test_dense_backbone_has_nothing_that_only_the_classifier_uses(classifier):
    dense = LeMeViTPyramid(lemevit.tiny())
    dropped = classifier.state_dict().keys() - dense.state_dict().keys()
    assert {key.split(".")[0] for key in dropped} == {"norm", "norm_c", "head", "meta_token_downsample", "stages"}
    assert {key for key in dropped if key.startswith("stages")} == {f"stages.2.1.attn.proj_c.{p}" for p in ("weight", "bias")}
    assert not dense.state_dict().keys() - classifier.state_dict().keys()
