import numpy as np
import pytest

from terralean.errors import BandMismatch, EmptySplit, GridMismatch
from terralean.evaluate import baselines
from terralean.evaluate.baselines import majority, pixel_forest, sample_pixels


def scene(height: int = 60, width: int = 80, noise: float = 60.0, seed: int = 0):
    """Four bands whose level tells the class of 20 px stripes, under strong noise; a corner is not valid."""
    generator = np.random.default_rng(seed)
    labels = np.broadcast_to(np.arange(width) // 20 % 3, (height, width)).astype(np.uint8).copy()
    values = (labels * 40.0 + 200 + generator.normal(0, noise, (4, height, width))).astype(np.uint16)
    valid = np.ones((height, width), bool)
    valid[:10, :15] = False
    return values, valid, labels


def trained(values, valid, labels, *, seed=0):
    drawn = sample_pixels(values, valid, labels, count=2000, generator=np.random.default_rng(1))
    return pixel_forest(*drawn, seed=seed, trees=20)


def test_majority_is_the_commonest_class_and_nothing_where_not_valid():
    found = majority(np.array([2, 2, 1, 255, 255, 255]))
    assert found.predict(np.zeros((1, 1, 3)), np.array([[True, False, True]])).tolist() == [[2, 255, 2]]
    assert majority(np.array([4, 1, 1, 4])).label == 1


def test_sampled_pixels_are_valid_labelled_and_in_place():
    values, valid, labels = scene()
    values = np.arange(values.size, dtype=np.float32).reshape(values.shape)
    labels[30:] = 255
    seen, chosen = sample_pixels(values, valid, labels, count=100, generator=np.random.default_rng(0))
    rows, cols = np.divmod(seen[:, 0].astype(int), labels.shape[1])
    assert len(seen) == len(set(seen[:, 0])) == 100
    assert valid[rows, cols].all()
    assert np.array_equal(labels[rows, cols], chosen)
    assert np.array_equal(seen[:, 3], values[3, rows, cols])


def test_sampling_takes_all_pixels_where_there_are_fewer_than_asked():
    values, valid, labels = scene(height=12)
    seen, chosen = sample_pixels(values, valid, labels, count=10**6, generator=np.random.default_rng(0))
    assert len(seen) == len(chosen) == valid.sum()


def test_the_forest_beats_the_commonest_class_under_noise():
    values, valid, labels = scene()
    fresh, _, truth = scene(seed=9)
    pixels = trained(values, valid, labels).predict(fresh, valid)
    common, right = ((guess == truth)[valid].mean() for guess in (majority(labels).predict(fresh, valid), pixels))
    assert common + 0.1 < right < 0.9
    assert (pixels[~valid] == 255).all()


def test_what_is_not_valid_is_never_looked_at():
    values, valid, labels = scene()
    forest = trained(values, valid, labels)
    spoiled = np.where(valid, values, np.nan)
    assert np.array_equal(forest.predict(spoiled, valid), forest.predict(values, valid))


def test_a_seed_fixes_the_forest_and_another_changes_it():
    values, valid, labels = scene()
    one, same, other = (trained(values, valid, labels, seed=seed).predict(values, valid) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_chunks_of_rows_give_the_map_of_the_whole_image(monkeypatch):
    values, valid, labels = scene()
    forest = trained(values, valid, labels)
    whole = forest.predict(values, valid)
    monkeypatch.setattr(baselines, "CHUNK_BYTES", 1)  # one row at a time
    assert np.array_equal(forest.predict(values, valid), whole)


def test_unlabelled_training_pixels_are_not_a_class():
    values, valid, labels = scene()
    labels[:, ::2] = 255
    forest = pixel_forest(values.reshape(4, -1).T, labels.reshape(-1), seed=0, trees=5)
    assert set(np.unique(forest.predict(values, np.ones_like(valid)))) == {0, 1, 2}


def test_mistakes_are_named():
    values, valid, labels = scene()
    with pytest.raises(BandMismatch, match="the image has 2 bands, the forest was trained on 4"):
        trained(values, valid, labels).predict(values[:2], valid)
    with pytest.raises(EmptySplit, match="no training pixel has a label"):
        majority(np.full(5, 255))
    with pytest.raises(GridMismatch, match="differ in height or width"):
        sample_pixels(values, valid, labels[:5], count=5, generator=np.random.default_rng(0))
