import json

import numpy as np
import pytest
from scipy import ndimage

from terralean.raster.grid import Grid
from terralean.raster.write import write_scene
from terralean.spec import Bands

BANDS = Bands(names=("red", "green"))


def write(folder, *, shift: int, names=("0.tif", "0.tif"), changed: int = 255) -> None:
    rng = np.random.default_rng(0)
    ground = (ndimage.gaussian_filter(rng.standard_normal((2, 128, 128)), (0, 4, 4)) > 0) * 90 + rng.integers(
        60, 70, (2, 128, 128)
    )
    mask = np.zeros((1, 128, 128))
    mask[:, 20:40, 50:70] = changed
    grid = Grid(width=128, height=128, crs="EPSG:32633", transform=(1.0, 0.0, 3e5, 0.0, -1.0, 5.2e6))
    parts = (("A", names[0], ground), ("B", names[1], np.roll(ground, shift, axis=1)), ("label", names[0], mask))
    for place, name, array in parts:
        bands = Bands(names=("change",)) if place == "label" else BANDS
        write_scene(folder / place / name, array.astype(np.uint8), grid=grid, bands=bands)


@pytest.mark.parametrize(("shift", "warned"), [(0, False), (3, True)])
def test_misregistration_beyond_a_pixel_is_warned_of(tmp_path, terralean, shift, warned):
    write(tmp_path, shift=shift)
    _, told, err = terralean("inspect", tmp_path, "--json")
    (report,) = json.loads(told)
    messages = [finding["message"] for finding in report["findings"] if "off the earlier" in finding["message"]]
    assert bool(messages) == warned, err
    if warned:
        assert "0.tif by 3.0 px (+3.0 down" in messages[0]
    assert [entry["name"] for entry in report["classes"]] == ["unchanged", "changed"]
    assert report["classes"][1]["pixels"] == 400


def test_a_pair_is_looked_at_as_a_scene(tmp_path, terralean):
    write(tmp_path, shift=2, names=("2015.tif", "2011.tif"))
    _, told, err = terralean("inspect", f"{tmp_path / 'A' / '2015.tif'}:{tmp_path / 'B' / '2011.tif'}", "--json")
    (report,) = json.loads(told)
    messages = " ".join(finding["message"] for finding in report["findings"])
    assert "by 2.0 px" in messages, err
    assert "later year first: 2015.tif before 2011.tif" in messages


def test_what_is_wrong_with_pairs_is_a_finding(tmp_path, terralean):
    write(tmp_path, shift=0, changed=200)
    status, told, _ = terralean("inspect", tmp_path, "--json")
    (report,) = json.loads(told)
    assert status == 2
    assert "a mask of change has two values" in report["findings"][0]["message"]
