import io

import numpy as np
import pytest
from PIL import Image

from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_picture import Picture
from terralean.evaluate.scene_figures import CELL_PX, PHOTO_PX, Told, cells, colours, photograph, sheet
from terralean.raster.display import hatch, stretch
from terralean.spec import Bands

RGB = Bands(names=("red", "green", "blue"))


def opened(jpeg: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(jpeg)).convert("RGB")).astype(int)


def test_a_photograph_is_the_central_square_with_its_own_colours(tmp_path):
    values = np.zeros((300, 500, 3), np.uint8)
    values[:, 100:400] = (200, 40, 90)
    Image.fromarray(values).save(tmp_path / "a.png")
    found = opened(photograph(str(tmp_path / "a.png"), config=SceneDataConfig()).jpeg)
    assert found.shape == (PHOTO_PX, PHOTO_PX, 3)
    assert np.abs(found - (200, 40, 90)).max() <= 12


def test_a_small_image_is_not_enlarged(tmp_path):
    Image.fromarray(np.full((30, 40, 3), 99, np.uint8)).save(tmp_path / "a.png")
    assert opened(photograph(str(tmp_path / "a.png"), config=SceneDataConfig()).jpeg).shape == (30, 30, 3)


def test_colours_of_photographs_are_kept_and_other_values_stretched():
    values = np.random.default_rng(0).integers(20, 60, (3, 8, 8))
    valid = np.ones((8, 8), bool)
    valid[0] = False
    seen = colours(Picture(values=values.astype(np.uint8), valid=valid, bands=RGB))
    np.testing.assert_array_equal(seen[1:], np.moveaxis(values, 0, -1)[1:])
    np.testing.assert_array_equal(seen[0], hatch(8, 8)[0])
    deep = Bands(names=("red", "green", "blue"), dtype="uint16")
    stretched = colours(Picture(values=(values * 50).astype(np.uint16), valid=valid, bands=deep))
    np.testing.assert_array_equal(stretched, stretch(values * 50, valid, bands=deep))
    grey = Bands(names=("band_1",))
    assert colours(Picture(values=values[:1].astype(np.uint8), valid=valid, bands=grey)).shape == (8, 8, 3)


def test_cells_are_those_that_hold_images():
    found = cells(np.array([[999, 1], [0, 0]]))
    assert [(one.row, one.col, one.images, one.right) for one in found] == [(0, 0, 999, True), (0, 1, 1, False)]
    assert found[1].share == 0.001
    assert found[1].depth > 0.12
    assert found[0].depth == pytest.approx(1, abs=0.01)


def test_the_sheet_has_a_place_for_each_and_marks_what_is_wrong(tmp_path):
    Image.fromarray(np.full((30, 40, 3), 99, np.uint8)).save(tmp_path / "a.png")
    photo = photograph(str(tmp_path / "a.png"), config=SceneDataConfig())
    right = Told(photo=photo, label="river", answer="river", confidence=0.5)
    wrong = Told(photo=photo, label="a class whose name does not fit below its photograph", answer="river", confidence=1.0)
    page = np.asarray(Image.open(io.BytesIO(sheet([right] * 7 + [wrong]))).convert("RGB")).astype(int)
    assert page.shape[1] == 6 * (CELL_PX[0] + 10) + 10
    below = 10 + CELL_PX[1] + 1
    assert page[below, 50].tolist() == pytest.approx([0, 114, 178], abs=12)
    second = page.shape[0] // 2 + below - 5
    assert page[second, 10 + 186 + 50].tolist() == pytest.approx([213, 94, 0], abs=12)
    assert (page[second, 10 + 2 * 186 + 50] == 255).all()  # seven and one: no third in the second row
    assert (page[:, -10:] == 255).all()  # no name runs over
