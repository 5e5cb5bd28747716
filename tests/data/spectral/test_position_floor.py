import numpy as np
import pytest
from scipy.io import loadmat

from terralean.data.spectral.position_floor import position_floor
from terralean.errors import EmptySplit


def test_the_nearest_training_pixel_gives_its_class():
    train, labels = np.array([[0, 0], [0, 10], [10, 0]]), np.array([7, 3, 5])
    test = np.array([[1, 1], [0, 6], [6, 0], [9, 9.5], [20, 1]])
    assert position_floor(train, labels, test).tolist() == [7, 3, 5, 3, 5]
    assert position_floor(train, labels, np.zeros((0, 2))).shape == (0,)


def test_without_training_pixels_there_is_none():
    with pytest.raises(EmptySplit, match="no training pixel has a label"):
        position_floor(np.zeros((0, 2)), np.zeros(0), np.zeros((1, 2)))


@pytest.mark.parametrize(("share", "measured"), [(0.02, 98.05), (0.10, 99.83)])
def test_on_salinas_at_random_it_is_right_nearly_everywhere(shared, share, measured):
    classes = loadmat(shared / "data/hsi/label_maps/Salinas_gt.mat")["salinas_gt"]
    places, labels, rng = np.argwhere(classes > 0), classes[classes > 0], np.random.default_rng(0)
    members = [np.flatnonzero(labels == value) for value in np.unique(labels)]
    train = np.concatenate([rng.choice(of, max(3, round(share * len(of))), replace=False) for of in members])
    test = np.setdiff1d(np.arange(len(labels)), train)
    found = position_floor(places[train], labels[train], places[test])
    assert 100 * (found == labels[test]).mean() == pytest.approx(measured, abs=0.5)
