"""The Python API: arrays and scenes through a loaded model."""

import numpy as np
import pytest
import rasterio
import torch

import terralean
from terralean.errors import BandMismatch, ConfigError
from terralean.mapping.run import MapConfig
from terralean.raster.grid import Grid
from terralean.raster.scene import open_scene
from terralean.raster.write import write_scene
from terralean.spec import Bands


@pytest.fixture(scope="module")
def model(untrained):
    return terralean.load(untrained, device="cpu")


def values(height=90, width=75):
    return np.random.default_rng(3).integers(1, 255, (3, height, width)).astype(np.uint8)


def test_an_array_is_predicted_as_its_scene_is_mapped(model, tmp_path):
    array = values()
    array[:, 20:30, 40:60] = 0  # nodata of the scene
    grid = Grid(width=75, height=90, crs="EPSG:32633", transform=(10.0, 0.0, 5e5, 0.0, -10.0, 5e6))
    write_scene(tmp_path / "scene.tif", array, grid=grid, bands=Bands(names=("red", "green", "blue")), nodata=0)
    result = model.map(tmp_path / "scene.tif", out=tmp_path / "maps")
    with open_scene(tmp_path / "scene.tif") as scene:
        stored, valid = scene.read(scene.grid.window)
    found = model.predict(stored, valid=valid)
    with rasterio.open(result.path) as mapped:
        assert np.array_equal(found.classes, mapped.read(1))
    assert (found.classes[20:30, 40:60] == 255).all()
    assert (found.classes != 255).sum() == 90 * 75 - 200


def test_probabilities_sum_to_one_where_there_is_data_and_are_zero_elsewhere(model):
    array = values().astype(np.float32)
    array[1, 5, 7] = np.nan
    valid = np.ones((90, 75), bool)
    valid[60:, :10] = False
    found = model.predict(array, valid=valid)
    total = found.probabilities.sum(axis=0)
    known = valid & ~np.isnan(array[1])
    assert np.allclose(total[known], 1, atol=1e-5) and not total[~known].any()
    assert np.array_equal(found.classes[known], found.probabilities.argmax(axis=0)[known])
    assert (found.classes[~known] == 255).all()


def test_one_window_equals_the_network_itself(model):
    array = values(64, 64)
    network, card = model._predictor.model, model.card
    mean, std = (torch.tensor(v)[:, None, None] for v in (card.normalisation.mean, card.normalisation.std))
    with torch.inference_mode():
        scores = network(((torch.from_numpy(array).float() - mean) / std)[None])
    found = model.predict(array)
    np.testing.assert_allclose(found.probabilities, scores[0].softmax(dim=0).numpy(), atol=1e-5)  # norms are folded there


def test_tile_and_overlap_are_obeyed(model):
    array = values()
    whole = model.predict(array, config=MapConfig(tile_px=96, overlap_px=0)).probabilities
    assert not np.allclose(whole, model.predict(array).probabilities, atol=1e-4)


@pytest.mark.parametrize(
    ("array", "valid", "config", "error", "words"),
    [
        (np.zeros((4, 64, 64), np.uint8), None, None, BandMismatch, "values has 4 bands, the model was trained on 3: red"),
        (np.zeros((64, 64), np.uint8), None, None, ConfigError, r"\(bands, height, width\), got one of shape \(64, 64\)"),
        (np.zeros((3, 0, 64), np.uint8), None, None, ConfigError, r"got one of shape \(3, 0, 64\)"),
        (np.zeros((3, 64, 64), bool), None, None, ConfigError, "must be numbers, got dtype bool"),
        (np.zeros((3, 64, 64)), np.ones((64, 32), bool), None, ConfigError, r"64 x 64 px, got bool of shape \(64, 32\)"),
        (np.zeros((3, 64, 64)), np.ones((64, 64)), None, ConfigError, "64 x 64 px, got float64"),
        (np.zeros((3, 64, 64)), None, MapConfig(bands=(3, 2, 1)), ConfigError, "bands are for scenes"),
        (np.zeros((3, 64, 64)), None, MapConfig(overwrite=True), ConfigError, "overwrite is for maps; predict writes nothing"),
        (np.zeros((3, 64, 64)), None, MapConfig(polygons="gpkg"), ConfigError, "polygons is for maps; predict writes nothing"),
    ],
)
def test_what_cannot_be_predicted_is_refused(model, array, valid, config, error, words):
    with pytest.raises(error, match=words):
        model.predict(array, valid=valid, config=config)


def test_arguments_of_another_type_are_refused(model, tmp_path):
    with pytest.raises(ConfigError, match=r"numpy array \(bands, height, width\), got str; files: map"):
        model.predict("scene.tif")
    with pytest.raises(ConfigError, match="MapConfig, got dict"):
        model.predict(values(), config={"tile_px": 64})
    with pytest.raises(ConfigError, match="path of a raster, got ndarray; arrays: predict"):
        model.map(values(), out=tmp_path)


@pytest.mark.parametrize(("factor", "warned"), [(1, False), (1 / 255, True), (257, True)])
def test_scaled_values_are_warned_of(model, caplog, factor, warned):
    model.predict(values() * np.float32(factor))
    assert ("give them as the scenes store them, not scaled" in caplog.text) == warned


@pytest.fixture(scope="module")
def recognises(recogniser):
    return terralean.load(recogniser, device="cpu")


def test_a_scene_classifier_recognises_an_array_as_one_image(recognises):
    """The middle square of 32 x 48 px is of one colour, what is cut off of another; a quarter of the square has no data."""
    array = np.empty((3, 32, 48), np.float32)
    array[:] = np.array([90, 80, 240])[:, None, None]
    array[:, :, 8:40] = np.array([120, 210, 125])[:, None, None]
    array[:, :16, 8:24] = np.nan
    found = recognises.predict(array)
    scores = np.exp(0.75 * np.array([20 / 40, 100 / 50, 5 / 60]))
    np.testing.assert_allclose(found.probabilities, scores / scores.sum(), atol=1e-6)
    assert (found.name, found.label) == ("forest", 1)
    assert found.probabilities.dtype == np.float32


def test_what_a_scene_classifier_cannot_answer_is_refused(recognises):
    with pytest.raises(ConfigError, match=r"recognised as one image, which config cannot change; .* use map"):
        recognises.predict(values(64, 64), config=MapConfig())
    with pytest.raises(ConfigError, match="no valid pixel in its middle square"):
        recognises.predict(values(64, 64), valid=np.zeros((64, 64), bool))
    with pytest.raises(BandMismatch, match="values has 2 bands, the model was trained on 3"):
        recognises.predict(values(64, 64)[:2])


def test_a_scene_classifier_maps_cells(recognises, tmp_path):
    grid = Grid(width=64, height=96, crs="EPSG:32633", transform=(10.0, 0.0, 5e5, 0.0, -10.0, 5e6))
    array = values(96, 64)
    write_scene(tmp_path / "scene.tif", array, grid=grid, bands=Bands(names=("red", "green", "blue")))
    with rasterio.open(recognises.map(tmp_path / "scene.tif", out=tmp_path).path) as mapped:
        labels = mapped.read(1)
    assert labels.shape == (3, 2)
    for row, col in np.ndindex(3, 2):
        assert labels[row, col] == recognises.predict(array[:, 32 * row :, 32 * col :][:, :32, :32]).label
