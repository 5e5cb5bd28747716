import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.svm import SVC
from torch import Tensor

from terralean.errors import ConfigError, EmptySplit
from terralean.layers.every_pixel import EveryPixel
from terralean.models import create
from terralean.train.svm import FittedSVM, fit_svm
from terralean.train.svm_config import CONTEXT, SPECTRA, SVMConfig
from terralean.weights.checkpoint import load_exactly
from weights import image

SMALL = SVMConfig(costs=(1.0, 100.0), gammas=(0.3, 3.0))
BANDS = 6


def labelled(classes: tuple[int, ...], *, each: int = 15, side: int = 3) -> tuple[Tensor, Tensor]:
    """Patches whose bands tell the class, but not surely."""
    labels = torch.tensor([label for label in classes for _ in range(each)])
    means = torch.from_numpy(image(1, (max(classes) + 1, BANDS)))
    noise = torch.from_numpy(image(2, (len(labels), BANDS, side, side)))
    return means[labels][:, :, None, None] + 0.8 * noise, labels


def fitted(patches: Tensor, labels: Tensor, config: SVMConfig = SMALL, *, classes: int = 5, seed: int = 0, **more) -> FittedSVM:
    batches = zip(patches.split(7), labels.split(7), strict=True)
    return fit_svm(config, batches, bands=BANDS, classes=classes, seed=seed, **more)


def features_by_hand(patches: Tensor, *, components: int, fitted_to: Tensor | None = None) -> np.ndarray:
    """Whitened components of the middle pixel and their means over the patch, by scikit-learn."""
    middle = patches[:, :, 1, 1].double().numpy()
    pca = PCA(components, whiten=True, svd_solver="full").fit(middle if fitted_to is None else fitted_to.double().numpy())
    pixels = patches.permute(0, 2, 3, 1).flatten(0, 2).double().numpy()
    means = pca.transform(pixels).reshape(len(patches), 9, components).mean(axis=1)
    return np.concatenate([pca.transform(middle), means], axis=1)


def scaled(features: np.ndarray, reference: np.ndarray) -> np.ndarray:
    return (features - reference.mean(axis=0)) / reference.std(axis=0)


@pytest.mark.parametrize("classes", [(0, 1), (1, 3), (0, 1, 2), (0, 2, 3, 4)])
def test_it_answers_as_scikit_learns_machine(classes):
    patches, labels = labelled(classes)
    found = fitted(patches, labels)
    mean, deviation = found.model.mean.double().numpy(), found.model.deviation.double().numpy()
    values, others = patches[:, :, 1, 1].double().numpy(), torch.from_numpy(image(3, (200, BANDS, 3, 3)))
    np.testing.assert_allclose((values - mean) / deviation, scaled(values, values), rtol=0, atol=1e-5)
    # On the very same numbers: the solver stops where it is right to three digits.
    theirs = SVC(C=found.cost, gamma=found.gamma, break_ties=len(classes) > 2)
    theirs.fit((values - mean) / deviation, labels)
    asked = (others[:, :, 1, 1].double().numpy() - mean) / deviation
    scores, expected = found.model(others), theirs.predict(asked)
    assert scores.shape == (200, 5)
    assert (scores.argmax(dim=1).numpy() == expected).all()
    assert len(np.unique(expected)) == len(classes)
    if len(classes) > 2:
        np.testing.assert_allclose(scores[:, list(classes)].numpy(), theirs.decision_function(asked), rtol=0, atol=1e-5)


def test_cost_and_gamma_are_the_best_on_pixels_left_out():
    patches, labels = labelled((0, 1, 2))
    found = fitted(patches, labels)
    values = patches[:, :, 1, 1].double().numpy()
    folds = StratifiedKFold(3, shuffle=True, random_state=0)
    tried = {
        (cost, gamma / BANDS): cross_val_score(
            SVC(C=cost, gamma=gamma / BANDS), scaled(values, values), labels, cv=folds
        ).mean()
        for cost in SMALL.costs
        for gamma in SMALL.gammas
    }
    assert found.accuracy == pytest.approx(max(tried.values()))
    assert tried[found.cost, found.gamma] == pytest.approx(max(tried.values()))


def test_context_is_components_and_their_means():
    patches, labels = labelled((0, 1, 2))
    config = SVMConfig(components=4, side_px=3, costs=(10.0,), gammas=(1.0,))
    found = fitted(patches, labels, config)
    by_hand = features_by_hand(patches, components=4)
    theirs = SVC(C=10.0, gamma=1 / 8, break_ties=True).fit(scaled(by_hand, by_hand), labels)
    others = torch.from_numpy(image(3, (100, BANDS, 3, 3)))
    middle = patches[:, :, 1, 1]
    expected = theirs.predict(scaled(features_by_hand(others, components=4, fitted_to=middle), by_hand))
    assert found.accuracy is None
    assert (found.model(others).argmax(dim=1).numpy() == expected).mean() > 0.98  # signs of components are free, their sums not


def test_components_may_be_those_of_other_pixels():
    patches, labels = labelled((0, 1))
    config = SVMConfig(components=2, side_px=3, costs=(10.0,), gammas=(1.0,))
    own = fitted(patches, labels, config)
    others = fitted(patches, labels, config, component_pixels=torch.from_numpy(image(5, (50, BANDS))))
    assert not torch.allclose(own.model.axes, others.model.axes)


def test_only_the_middle_of_larger_patches_is_seen():
    patches, labels = labelled((0, 1), side=7)
    small, large = (fitted(x, labels, SVMConfig(side_px=3)) for x in (patches[:, :, 2:5, 2:5], patches))
    assert all(torch.equal(tensor, large.model.state_dict()[name]) for name, tensor in small.model.state_dict().items())


def test_a_checkpoint_of_it_answers_the_same():
    patches, labels = labelled((0, 1, 3))
    found = fitted(patches, labels, SVMConfig(components=3, side_px=3))
    other = create("svm", bands=BANDS, classes=5, **found.sizes)
    load_exactly(other, found.model.state_dict(), source="it")
    picture = torch.from_numpy(image(4, (1, BANDS, 6, 5)))
    assert torch.equal(EveryPixel(other)(picture), EveryPixel(found.model)(picture))


def test_the_same_seed_gives_the_same_machine_and_settings_count():
    patches, labels = labelled((0, 1, 2))
    one, other = fitted(patches, labels), fitted(patches, labels)
    assert all(torch.equal(tensor, other.model.state_dict()[name]) for name, tensor in one.model.state_dict().items())
    assert fitted(patches, labels, SVMConfig(costs=(0.01,), gammas=(1.0,))).cost == 0.01
    assert fitted(patches, labels, SVMConfig(costs=(1.0, 2.0), gammas=(1.0,), folds=5)).accuracy != one.accuracy


def test_a_class_with_one_pixel():
    patches, labels = labelled((0, 1, 2))
    keep = torch.cat([torch.arange(30), torch.tensor([30])])
    found = fitted(patches[keep], labels[keep])
    assert found.model.known.tolist() == [True, True, True, False, False]


def test_the_two_that_papers_compare_with():
    assert (SPECTRA.components, SPECTRA.side_px, CONTEXT.components, CONTEXT.side_px) == (0, 1, 15, 7)


def test_mistakes():
    patches, labels = labelled((0, 1))
    with pytest.raises(EmptySplit, match="two classes at least"):
        fitted(patches[:15], labels[:15])
    with pytest.raises(EmptySplit, match="two classes at least"):
        fit_svm(SMALL, [], bands=BANDS, classes=2, seed=0)
    with pytest.raises(ConfigError, match=r"patches of 3 x 3 px are smaller than svm\.side_px 7"):
        fitted(patches, labels, CONTEXT)
    for values, words in (
        ({"components": -1}, r"svm\.components must be 0 \(bands\) or more, got -1"),
        ({"side_px": 2}, r"svm\.side_px must be an odd number, got 2"),
        ({"costs": ()}, "above 0, at least one each"),
        ({"gammas": (0.0,)}, "above 0, at least one each"),
        ({"folds": 1}, r"svm\.folds must be 2 or more, got 1"),
    ):
        with pytest.raises(ConfigError, match=words):
            SVMConfig(**values)
