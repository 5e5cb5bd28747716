import numpy as np
import pytest
import torch

from terralean.cost.macs import count_macs, parameters
from terralean.errors import BandMismatch, ConfigError
from terralean.models import create, forest
from terralean.models.forest import features, read_sides, write_sides

# Three bands and the means and deviations of 3 x 3 px: nine features. The first tree asks whether band 1 is above 0.5, the
# second whether the mean of band 0 is above 0, and if so whether band 2 is above -1.
STUMPS = {
    "feature": [1, 0, 0, 3, 0, 2, 0, 0],
    "threshold": [0.5, torch.inf, torch.inf, 0.0, torch.inf, -1.0, torch.inf, torch.inf],
    "below": [1, 1, 2, 4, 4, 6, 6, 7],
    "root": [0, 3],
    "probability": [[1.0, 0.0], [0.25, 0.75], [0.5, 0.5], [0.0, 1.0], [0.75, 0.25]],
}


def stumps() -> forest.Forest:
    model = create("forest", bands=3, classes=2, trees=2, nodes=8, sides_px="3")
    model.load_state_dict({name: torch.tensor(values) for name, values in STUMPS.items()})
    return model.eval()


def picture(height: int = 24, width: int = 33, bands: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.randn(1, bands, height, width, generator=torch.Generator().manual_seed(seed))


def by_loops(image: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Means and deviations over the square around each pixel, of what is in the image and not 0 in every band."""
    mean, std = np.zeros(image.shape), np.zeros(image.shape)
    half = side // 2
    for row, col in np.ndindex(image.shape[1:]):
        square = image[:, max(0, row - half) : row + half + 1, max(0, col - half) : col + half + 1].reshape(len(image), -1)
        square = square[:, (square != 0).any(axis=0)]
        if square.shape[1]:
            mean[:, row, col], std[:, row, col] = square.mean(axis=1), square.std(axis=1)
    return mean, std


def test_trees_vote_as_they_do_on_paper():
    image = picture()
    mean, _ = by_loops(image[0].double().numpy(), 3)
    first = np.where(image[0, 1] > 0.5, 0.75, 0.0)
    second = np.where(mean[0] <= 0, 0.5, np.where(image[0, 2] <= -1, 1.0, 0.25))
    found = stumps()(image).softmax(dim=1)
    np.testing.assert_allclose(found[0, 1], (first + second) / 2, atol=1e-6)
    torch.testing.assert_close(found.sum(dim=1), torch.ones(1, 24, 33))


def test_features_are_those_of_a_loop_over_pixels():
    image = picture(height=13, width=18)
    image[:, :, 4:9, :7] = 0  # no data
    image[:, 1, 10] = 0  # a value of one band
    found = features(image, sides_px=(3, 7))[0].double().numpy()
    assert found.shape == (15, 13, 18)
    assert np.array_equal(found[:3], image[0].double().numpy())
    for place, side in ((3, 3), (9, 7)):
        mean, std = by_loops(image[0].double().numpy(), side)
        np.testing.assert_allclose(found[place : place + 3], mean, rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(found[place + 3 : place + 6], std, rtol=1e-6, atol=1e-7)


def test_windows_that_show_the_whole_square_agree_to_the_last_bit():
    image = picture(height=90, width=101) * 1000 + 1e5
    whole, part = features(image, sides_px=(3, 31)), features(image[..., 11:71, 20:95], sides_px=(3, 31))
    assert torch.equal(part[..., 15:-15, 15:-15], whole[..., 26:56, 35:80])


def test_a_window_beyond_the_image_changes_nothing():
    image = picture()
    beyond = torch.zeros(1, 3, 40, 50)
    beyond[..., 5:29, 9:42] = image
    assert torch.equal(stumps()(beyond)[..., 5:29, 9:42], stumps()(image))


@pytest.mark.parametrize(("name", "value"), [("WALKERS", 1), ("WALKERS", 100), ("LEVELS", 1), ("LEVELS", 2)])
def test_how_many_go_down_together_changes_nothing(monkeypatch, name, value):
    before = stumps()(picture())
    monkeypatch.setattr(forest, name, value)
    assert torch.equal(stumps()(picture()), before)


def test_images_of_a_batch_do_not_see_each_other():
    one, two = picture(seed=1), picture(seed=2)
    assert torch.equal(stumps()(torch.cat([one, two])), torch.cat([stumps()(one), stumps()(two)]))


@pytest.mark.gpu
def test_the_answer_is_the_same_on_a_gpu():
    image = picture(height=200, width=300)
    there, here = stumps().cuda()(image.cuda()).cpu(), stumps()(image)
    torch.testing.assert_close(there.softmax(dim=1), here.softmax(dim=1), rtol=0, atol=1e-6)


def test_what_no_tree_votes_for_has_a_finite_score():
    model = stumps()
    model.probability[:] = torch.tensor([0.0, 1.0])
    scores = model(picture())
    assert torch.isfinite(scores).all()
    assert torch.equal(scores.softmax(dim=1)[:, 1], torch.ones(1, 24, 33))


def test_a_forest_without_trees_of_its_own_knows_nothing():
    model = create("forest", bands=2, classes=4, trees=3, nodes=9, sides_px="")
    torch.testing.assert_close(model(picture(bands=2)).softmax(dim=1), torch.full((1, 4, 24, 33), 0.25))


def test_a_forest_has_no_parameters_and_no_macs():
    model = stumps()
    assert parameters(model) == 0
    assert count_macs(model, picture()).total == 0


def test_fewer_digits_are_refused():
    with pytest.raises(ConfigError, match=r"in float32, got torch\.bfloat16.*leave --precision at fp32"):
        stumps().bfloat16()(picture().bfloat16())
    with pytest.raises(ConfigError, match="in float32"):
        stumps().half()(picture())


def test_other_bands_are_refused():
    with pytest.raises(BandMismatch, match="the image has 2 bands, the forest was fitted on 3"):
        stumps()(picture(bands=2))


@pytest.mark.parametrize("sides", [(3,), (3, 7, 15, 31), ()])
def test_sides_on_a_card_are_one_word(sides):
    assert read_sides(write_sides(sides)) == sides


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sides_px": "4"}, r"different odd numbers of px from 3, got \[4\]"),
        ({"sides_px": "1"}, r"from 3, got \[1\]"),
        ({"sides_px": "3,3"}, r"got \[3, 3\]"),
        ({"sides_px": "3;7"}, "sides_px '3;7' must be numbers with commas"),
        ({"trees": 4}, "no forest has 4 trees of 9 nodes in all: each has an odd number"),
        ({"trees": 11}, "no forest has 11 trees of 9 nodes"),
        ({"trees": 0}, "model.sizes.trees must be 1 or more, got 0"),
    ],
)
def test_a_forest_that_cannot_be_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        create("forest", **{"bands": 2, "classes": 4, "trees": 3, "nodes": 9, "sides_px": "3"} | change)
