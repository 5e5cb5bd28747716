"""Mean and spread are those of the pixels."""

import numpy as np
import pytest

from terralean.data import scene_statistics
from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_index import find_scenes
from terralean.data.scene_reading import SceneFiles
from terralean.data.scene_statistics import measure_scenes
from terralean.errors import DatasetError


def files(root, **settings) -> SceneFiles:
    config = SceneDataConfig(**settings)
    dataset = find_scenes(root, config)
    return SceneFiles(dataset.images, bands=dataset.bands, classes=dataset.classes, config=config)


def test_of_small_images_every_valid_pixel_counts(write_image, tmp_path):
    rng = np.random.default_rng(0)
    values = rng.integers(1, 3000, (5, 4, 20, 30)).astype(np.uint16)
    values[:, :, :2] = 0
    for i, image in enumerate(values):
        write_image(f"{'ab'[i % 2]}/{i}.tif", image, nodata=0)
    normalisation, counts = measure_scenes(files(tmp_path), seed=0)
    valid = values[:, :, 2:].astype(float)
    np.testing.assert_allclose(normalisation.mean, valid.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(normalisation.std, valid.std(axis=(0, 2, 3)), rtol=1e-12)
    assert counts == (3, 2)


def test_of_many_images_some_are_measured(class_folders, monkeypatch):
    root = class_folders({"a": 30, "b": 30})
    whole, _ = measure_scenes(files(root), seed=0)
    monkeypatch.setattr(scene_statistics, "MEASURED", 10)
    one, counts = measure_scenes(files(root), seed=0)
    assert counts == (30, 30)
    assert one == measure_scenes(files(root), seed=0)[0]
    assert one != measure_scenes(files(root), seed=1)[0]
    np.testing.assert_allclose(one.mean, whole.mean, rtol=0.05)


def test_a_large_image_is_measured_as_its_parts(tmp_path, paint):
    """White noise is the hardest: each step of averaging would halve its spread."""
    for name in ("a/large.png", "b/large.png"):
        paint(name, size=(1000, 700))
    normalisation, _ = measure_scenes(files(tmp_path), seed=0)
    np.testing.assert_allclose(normalisation.mean, 127.5, rtol=0.02)
    np.testing.assert_allclose(normalisation.std, 73.9, rtol=0.02)


def test_a_constant_band(write_image, tmp_path):
    for name in ("a/1.tif", "b/1.tif"):
        values = np.arange(3 * 400, dtype=np.uint8).reshape(3, 20, 20)
        values[1] = 7
        write_image(name, values, photometric="RGB")
    with pytest.raises(DatasetError, match=r"2 of 2 training images: constant in all valid pixels: green \(always 7\)"):
        measure_scenes(files(tmp_path), seed=0)
