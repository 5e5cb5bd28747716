import numpy as np
import pytest

from terralean.data.spectral import patches as cut
from terralean.data.spectral.config import SpectralAugmentConfig
from terralean.data.spectral.patches import (
    CubeReader,
    PixelCrops,
    PixelPatches,
    changed,
    normalisation_of,
    normalised,
    open_cubes,
    scene_spectra,
    spectra,
    with_data,
)
from terralean.data.spectral.pixels import Pixels
from terralean.errors import EmptySplit
from terralean.raster.envi_write import CubeFormat, write_cube
from terralean.raster.grid import Grid
from terralean.spec import Bands, Normalisation

BANDS, ROWS, COLS = 3, 7, 6
VALUES = np.arange(1, BANDS * ROWS * COLS + 1).reshape(BANDS, ROWS, COLS).astype(np.int16)
NAMES = Bands(names=("x", "y", "z"), dtype="int16")
FLOATS = Bands(names=("x", "y", "z"), dtype="float32")


@pytest.fixture
def reader(tmp_path):
    values = VALUES.copy()
    values[:, 2, 3] = -9
    grid = Grid(width=COLS, height=ROWS, crs=None)
    path = write_cube(tmp_path / "cube", values, grid=grid, bands=NAMES, how=CubeFormat(nodata=-9))
    return CubeReader(str(path), bands=None)


def at(*places, labels=None):
    row, col = np.array(places).T
    label = np.zeros(len(row), np.int64) if labels is None else np.array(labels)
    return Pixels(scene=np.zeros(len(row), np.int64), row=row, col=col, label=label)


@pytest.mark.parametrize("held", [True, False])
def test_a_patch_is_what_lies_around_its_pixel(reader, held):
    reader.hold = held
    sample = PixelPatches([reader], at((0, 0), (3, 3), labels=[1, 2]), side_px=3)[1]
    expected = VALUES[:, 2:5, 2:5].astype(np.float32)
    expected[:, 0, 1] = 0  # no data
    assert (sample["image"].numpy() == expected).all()
    assert (~sample["valid"]).nonzero().tolist() == [[0, 1]]
    assert sample["label"].item() == 2
    corner = PixelPatches([reader], at((0, 0)), side_px=3)[0]
    assert (corner["image"][:, 1:, 1:].numpy() == VALUES[:, :2, :2]).all()
    assert corner["image"][:, 0].abs().sum() == corner["image"][:, :, 0].abs().sum() == 0
    assert corner["valid"].sum() == 4


def test_no_more_is_held_than_may_be(reader, monkeypatch):
    path, size = reader.scene.path, VALUES.nbytes
    monkeypatch.setattr(cut, "HELD_BYTES", 2 * size)
    assert [one.hold for one in open_cubes([path] * 3, bands=None)] == [True, True, False]


def test_pixels_without_data_are_left_out_and_told(reader, caplog):
    kept = with_data(at((2, 3), (2, 4)), [reader])
    assert (kept.row.tolist(), kept.col.tolist()) == ([2], [4])
    assert "1 of 2 labelled pixels hold no data" in caplog.text


def test_a_band_without_data_is_named_where_it_leaves_no_pixel(tmp_path):
    values = VALUES.astype(np.float32)
    values[1] = np.nan
    path = write_cube(tmp_path / "cube", values, grid=Grid(width=COLS, height=ROWS, crs=None), bands=FLOATS)
    with pytest.raises(EmptySplit, match=r"none of the 2 labelled pixels .*: bands 2 hold NaN .*\(bbl\).*data.bands"):
        with_data(at((2, 3), (0, 4)), [CubeReader(str(path), bands=None)])
    path = write_cube(tmp_path / "none", values * np.nan, grid=Grid(width=COLS, height=ROWS, crs=None), bands=FLOATS)
    with pytest.raises(EmptySplit, match="none of the 2 labelled pixels holds data in all bands; check the nodata value"):
        with_data(at((2, 3), (0, 4)), [CubeReader(str(path), bands=None)])


def test_statistics_are_of_the_pixels_asked_for(reader, monkeypatch):
    places = at((0, 0), (1, 1), (6, 5))
    values = spectra(places, [reader])
    assert (values == VALUES[:, places.row, places.col].T).all()
    found = normalisation_of(values, bands=NAMES, told="cube")
    np.testing.assert_allclose(found.mean, values.mean(axis=0))
    np.testing.assert_allclose(found.std, values.std(axis=0))
    monkeypatch.setattr(cut, "STRIP_VALUES", 2 * BANDS * COLS)
    _, whole = scene_spectra([reader], seed=0)
    known = np.delete(VALUES.reshape(BANDS, -1), 2 * COLS + 3, axis=1)
    np.testing.assert_allclose(whole.mean, known.mean(axis=1))
    np.testing.assert_allclose(whole.std, known.std(axis=1))
    np.testing.assert_allclose(normalised(values, found).numpy(), (values - found.mean) / found.std, rtol=1e-5)


def test_a_band_that_says_nothing_is_named(caplog):
    values = np.array([[1, 5, 2], [3, 5, 4]], np.float32)
    assert normalisation_of(values, bands=NAMES, told="cube").std == (1.0, 1.0, 1.0)
    assert "the same value in all training pixels: y" in caplog.text


def test_classes_are_drawn_as_the_balance_says(reader):
    places = at(*[(r, c) for r in range(3, 7) for c in range(5)], labels=[0] * 16 + [1] * 4)
    still = SpectralAugmentConfig(turn=False, gain=0, noise=0)
    shares = {}
    for balance in ("none", "root", "full"):
        crops = PixelCrops(
            PixelPatches([reader], places, side_px=1),
            normalisation=Normalisation(mean=(0.0,) * 3, std=(1.0,) * 3),
            config=still,
            balance=balance,
            length=5,
            seed=0,
        )
        shares[balance] = crops.chance[16:].sum()
    assert shares == pytest.approx({"none": 0.2, "root": 1 / 3, "full": 0.5})
    first = [crops[i]["image"] for i in range(5)]
    assert all((crops[i]["image"] == first[i]).all() for i in range(5))
    crops.set_epoch(1)
    assert any((crops[i]["image"] != first[i]).any() for i in range(5))


def test_a_patch_is_changed_as_asked():
    values, valid = VALUES[:, :5, :5].astype(np.float32), np.ones((5, 5), bool)
    valid[0, 1] = False
    std, rng = np.array([1.0, 10.0, 100.0], np.float32)[:, None, None], np.random.default_rng(0)

    def made(**settings):
        config = SpectralAugmentConfig(**{"turn": False, "gain": 0.0, "noise": 0.0, **settings})
        return changed(values, valid, config, std=std, rng=rng)

    same, known = made()
    assert (same[:, valid] == values[:, valid]).all()
    assert (known == valid).all()
    turned = [made(turn=True) for _ in range(40)]
    assert len({image.tobytes() for image, _ in turned}) == 8
    assert all((image[:, 2, 2] == values[:, 2, 2]).all() for image, _ in turned)
    assert all((image[:, ~known] == 0).all() and (~known).sum() == 1 for image, known in turned)
    lit = made(gain=0.2)[0][:, valid] / values[:, valid]
    assert lit.std() < 1e-6
    assert 0.8 <= lit.mean() <= 1.2
    noise = np.stack([made(noise=0.5)[0] - same for _ in range(50)])[:, :, valid]
    np.testing.assert_allclose(noise.std(axis=(0, 2)), [0.5, 5, 50], rtol=0.1)
