import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from terralean.cost.macs import count_macs_at, parameters
from terralean.errors import ConfigError
from terralean.models import CHANGE_DETECTORS, create
from terralean.models.bit import CrossRead, PlaceRead, by_date
from terralean.spec import Bands
from terralean.weights.pretrained import load_pretrained
from weights import fill, image

GOLDEN = Path(__file__).parents[1] / "golden"


def relative(ours: Tensor, theirs: np.ndarray) -> float:
    expected = torch.from_numpy(theirs)
    assert ours.shape == expected.shape
    return float((ours - expected).norm() / expected.norm())


@pytest.fixture(scope="module")
def filled():
    """The networks with everything that the authors' hold, by size, with the weights of the golden numbers."""
    made = {}
    for size in ("tiny", "small"):
        model = create(f"bit_lemevit_{size}", bands=6, classes=2, unused=True)
        model.load_state_dict(fill(model.state_dict()))
        made[size] = model.eval()
    return made


@pytest.fixture(scope="module")
def pair() -> Tensor:
    return torch.from_numpy(np.stack([image(0, (2, 3, 256, 256)), image(100, (2, 3, 256, 256))], axis=1))


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_scores_agree_with_the_authors(filled, pair, size):
    with torch.inference_mode():
        scores = filled[size](pair)
    found = {
        "logits_every_8": scores[:, :, ::8, ::8],
        "mean": scores.double().mean((0, 2, 3)),
        "std": scores.double().std((0, 2, 3), unbiased=False),
    }
    with np.load(GOLDEN / "change_bit_lemevit.npz") as golden:
        for name, value in found.items():
            # The spread of 0.01 is that of logits of 0.08 in float32: the reference's own rounding, which float64 shows, too.
            assert relative(value, golden[f"{size}/0/2x3x256x256/{name}"]) < (2e-5 if name == "std" else 1e-5), name


@pytest.mark.parametrize("size", ["tiny", "small"])
def test_state_has_the_authors_keys_and_shapes(filled, size):
    expected = json.loads((GOLDEN / "change_bit_lemevit_keys.json").read_text())[size]
    assert {key: list(value.shape) for key, value in filled[size].state_dict().items()} == expected


# Millions of parameters of what the authors hold; GMACs of its layers with S4, which are the published ones (Jiang et al. 2024,
# table 5); and of layers alone, and with attention products, as counted in the authors' code without S4.
SIZES = {
    "bit_lemevit_tiny": (9.009, 5.75, 5.34, 5.97),
    "bit_lemevit_tiny_d7": (8.563, 5.52, None, 5.69),
    "bit_lemevit_small": (16.747, 10.71, 10.07, 10.86),
    "bit_lemevit_base": (53.335, 28.47, 26.56, 28.89),
}
PLACES = 2 * 32 * 32  # of both dates on the map of S2, and on the map that is refined
READS = 8 * 2 * PLACES * 32 * 512  # projections of places to queries and back, which tokens spare: 8 layers, 8 heads of 64


@pytest.mark.parametrize("name", SIZES)
def test_parameters_and_macs(name):
    million, published, layers, total = SIZES[name]
    with torch.device("meta"):
        whole, lean = (create(name, bands=6, classes=2, unused=unused) for unused in (True, False))
    assert round(parameters(whole) / 1e6, 3) == million
    assert count_macs_at(whole, (1, 6, 256, 256)).layers / 1e9 == pytest.approx(published, abs=0.01)
    macs = count_macs_at(lean, (1, 6, 256, 256))
    unread = 2 * PLACES * lean.backbone.config.dims[2] ** 2  # keys and values of the last block of S2, which nobody reads
    assert layers is None or (macs.layers + unread + READS) / 1e9 == pytest.approx(layers, abs=0.01)
    # What was counted there has norms, too, which are no products.
    assert (macs.total + unread + READS) / 1e9 == pytest.approx(total, rel=0.015)


def test_tokens_asking_all_places_is_places_reading_tokens():
    torch.manual_seed(0)
    by_token, by_place = CrossRead(), PlaceRead()
    by_place.load_state_dict(by_token.state_dict())
    x, memory = torch.randn(2, 15, 32), torch.randn(2, 4, 32)
    torch.testing.assert_close(by_token(x, memory), by_place(x, memory), rtol=1e-5, atol=1e-6)
    gradients = [torch.autograd.grad(read(x, memory).square().sum(), [*read.parameters()]) for read in (by_token, by_place)]
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_without_what_is_unused_scores_are_the_same_and_cost_less(filled, pair, tmp_path):
    torch.save({"model": filled["tiny"].state_dict()}, tmp_path / "theirs.pth")
    lean = create("bit_lemevit_tiny", bands=6, classes=2).eval()
    told = load_pretrained(lean, tmp_path / "theirs.pth", bands=Bands(names=("red", "green", "blue")))
    assert told.startswith("all layers of")
    small = pair[..., :64, :96]
    with torch.inference_mode():
        torch.testing.assert_close(lean(small), filled["tiny"](small), rtol=1e-5, atol=1e-6)
    assert parameters(lean) < 0.7 * parameters(filled["tiny"])


def test_the_authors_file_fits_the_whole_network(filled, pair, tmp_path):
    torch.save(filled["tiny"].state_dict(), tmp_path / "theirs.pth")
    model = create("bit_lemevit_tiny", bands=6, classes=2, unused=True).eval()
    load_pretrained(model, tmp_path / "theirs.pth", bands=Bands(names=("red", "green", "blue")))
    small = pair[..., :64, :64]
    with torch.inference_mode():
        assert torch.equal(model(small), filled["tiny"](small))


def test_a_classifier_gives_the_backbone(tmp_path):
    classifier = create("lemevit_tiny", bands=3, classes=5)
    torch.save(classifier.state_dict(), tmp_path / "classifier.pth")
    model = create("bit_lemevit_tiny", bands=6, classes=2)
    assert "the backbone of" in load_pretrained(model, tmp_path / "classifier.pth", bands=Bands(names=("r", "g", "b")))
    assert torch.equal(model.backbone.stages[3][0].attn.qkv.weight, classifier.stages[3][0].attn.qkv.weight)


@pytest.mark.parametrize("name", ["bit_lemevit_tiny", "change_difference_light", "change_concatenation_light"])
def test_folded_network_says_the_same(name):
    torch.manual_seed(0)
    model = create(name, bands=4, classes=2).eval()
    for norm in (part for part in model.modules() if isinstance(part, torch.nn.BatchNorm2d)):
        torch.nn.init.uniform_(norm.running_mean, -0.5, 0.5)
        torch.nn.init.uniform_(norm.running_var, 0.5, 1.5)
    x = torch.randn(2, 4, 50, 35)
    with torch.inference_mode():
        torch.testing.assert_close(model.fold()(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", [*CHANGE_DETECTORS])
def test_bands_of_both_dates_in_one_axis_are_the_same_pair(name):
    torch.manual_seed(0)
    model = create(name, bands=4, classes=2, **({"backbone": "resnet18"} if name == "bit" else {})).eval()
    x = torch.randn(1, 2, 2, 33, 64)
    with torch.inference_mode():
        scores = model(x)
        assert scores.shape == (1, 2, 33, 64)
        assert torch.equal(model(x.flatten(1, 2)), scores)


def test_by_date_puts_the_earlier_dates_first():
    x = torch.arange(2 * 2 * 3).reshape(2, 2, 3, 1, 1)
    assert by_date(x)[:, 0, 0, 0].tolist() == [0, 6, 3, 9]


@pytest.mark.parametrize("name", ["bit_lemevit_tiny", "change_difference_light", "change_vector"])
def test_scores_do_not_depend_on_which_date_comes_first(name):
    torch.manual_seed(0)
    model = create(name, bands=6, classes=2).eval()
    if hasattr(model, "pos_embedding"):
        torch.nn.init.zeros_(model.pos_embedding)  # all that tells the dates apart
    x = torch.randn(1, 2, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(model(x.flip(1)), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["bit_lemevit_tiny", "change_difference_light", "change_concatenation_light"])
def test_every_parameter_learns(name):
    torch.manual_seed(0)
    model = create(name, bands=6, classes=2)
    model(torch.randn(2, 6, 64, 64)).square().mean().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]


def test_bands_and_classes_that_no_pair_has_are_refused():
    with pytest.raises(ConfigError, match="an even number together, got 5"):
        create("bit_lemevit_tiny", bands=5, classes=2)
    with pytest.raises(ConfigError, match="two classes, got 3"):
        create("change_vector", bands=6, classes=3)
