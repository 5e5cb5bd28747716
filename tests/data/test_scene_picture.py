"""Images of any format are read as what they show, by whichever library, or refused by name."""

import numpy as np
import pytest
from PIL import Image

from terralean.data import scene_picture
from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_picture import GREY, RGB, read_picture, shrink_factor
from terralean.errors import BandMismatch, UnreadableScene
from terralean.raster.scene import open_scene

STORED, COLOUR = SceneDataConfig(), SceneDataConfig(colour="rgb")


def read(path, config=STORED, keep_px=None):
    return read_picture(str(path), config=config, keep_px=keep_px)


def reference(path, mode: str) -> np.ndarray:
    """What Pillow says (C, H, W)."""
    values = np.asarray(Image.open(path).convert(mode))
    return np.moveaxis(values if values.ndim == 3 else values[..., None], -1, 0)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp", "a.tif"])
@pytest.mark.parametrize(("mode", "bands"), [("RGB", RGB), ("L", GREY)])
def test_colour_has_three_bands_and_grey_one(paint, name, mode, bands):
    path = paint(name, mode=mode)
    picture = read(path)
    assert picture.bands == bands == open_scene(path).bands
    assert np.array_equal(picture.values, reference(path, mode))
    assert picture.valid.all()
    assert picture.valid.shape == (20, 24)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_a_palette_is_looked_up(paint, name):
    path = paint(name, mode="P")
    assert read(path).bands == RGB
    assert np.array_equal(read(path).values, reference(path, "RGB"))


def test_transparent_entries_of_a_palette_are_not_valid(paint, monkeypatch):
    path = paint("a.png", mode="P", transparency=29)
    entries = np.asarray(Image.open(path))
    for small in (scene_picture.SMALL_BYTES, 0):  # by Pillow, then by GDAL
        monkeypatch.setattr(scene_picture, "SMALL_BYTES", small)
        assert np.array_equal(read(path).valid, entries != 29)
        assert (entries == 29).any()


@pytest.mark.parametrize(("mode", "bands"), [("RGBA", 3), ("LA", 1)])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_alpha_is_no_band(tmp_path, mode, bands, name):
    values = np.random.default_rng(0).integers(0, 256, (12, 10, bands + 1), dtype=np.uint8)
    values[..., -1] = np.where(np.arange(10) < 3, 0, 9)
    Image.fromarray(values, mode).save(tmp_path / name)
    picture = read(tmp_path / name)
    assert np.array_equal(picture.valid, np.broadcast_to(np.arange(10) >= 3, (12, 10)))
    assert np.array_equal(picture.values[:, :, 3:], np.moveaxis(values[:, 3:, :-1], -1, 0))


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("bands", [1, 3])
def test_sixteen_bits_stay_sixteen(write_image, name, bands):
    values = np.arange(bands * 20 * 24, dtype=np.uint16).reshape(bands, 20, 24) * 40
    picture = read(write_image(name, values))
    assert picture.bands.dtype == "uint16"
    assert np.array_equal(picture.values, values)


def test_many_bands_with_nodata(write_image):
    values = np.arange(13 * 20 * 24, dtype=np.float32).reshape(13, 20, 24)
    values[:, 2, 3] = -1
    values[4, 5, 6] = np.nan
    picture = read(write_image("a.tif", values, nodata=-1))
    assert len(picture.bands) == 13
    assert (~picture.valid).nonzero()[0].tolist() == [2, 5]
    assert (~picture.valid).nonzero()[1].tolist() == [3, 6]


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_cmyk_is_refused_unless_asked_for(paint, name):
    path = paint(name, mode="CMYK")
    with pytest.raises(BandMismatch) as error:
        read(path)
    assert str(error.value) == (
        f"{path} is stored as CMYK, inks for print; expected what a sensor sees. Write it as RGB, or have such images "
        "converted as they are read: --set data.colour=rgb"
    )
    picture = read(path, COLOUR)
    assert picture.bands == RGB
    assert np.array_equal(picture.values, reference(path, "RGB"))
    scene = open_scene(path)
    assert np.array_equal(scene.read(scene.grid.window)[0], picture.values)  # as maps read it


@pytest.mark.parametrize("name", ["a.jpg", "a.tif"])
def test_grey_becomes_colour_where_asked_for(paint, name):
    path = paint(name, mode="L")
    picture = read(path, COLOUR)
    assert picture.bands == RGB
    assert np.array_equal(picture.values, reference(path, "RGB"))


def test_grey_of_sixteen_bits_does_not_become_colour(write_image):
    assert len(read(write_image("a.png", np.full((20, 24), 300, np.uint16)), COLOUR).bands) == 1


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_bands_are_chosen_by_position(paint, name):
    path = paint(name)
    config = SceneDataConfig(bands=(3, 1))
    picture = read(path, config)
    assert picture.bands.names == ("blue", "red")
    assert np.array_equal(picture.values, reference(path, "RGB")[[2, 0]])
    with pytest.raises(BandMismatch, match=r"a\.(png|tif) has (3 bands|bands 1 to 3)"):
        read(path, SceneDataConfig(bands=(4,)))


def test_a_rotation_in_exif_is_not_obeyed(paint):
    turned = Image.Exif()
    turned[0x0112] = 6
    assert read(paint("a.jpg", exif=turned)).valid.shape == (20, 24)
    assert np.array_equal(read(paint("a.jpg", exif=turned)).values, read(paint("a.jpg")).values)


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "large.jpg"])
def test_what_breaks_off_is_refused_by_name(paint, name, monkeypatch):
    if name.startswith("large"):
        monkeypatch.setattr(scene_picture, "SMALL_BYTES", 0)
    path = paint(name, size=(200, 200))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UnreadableScene, match=rf"{name} .*(breaks off|not an image)"):
        read(path)


def test_what_is_no_image_is_refused_by_name(tmp_path):
    for name, content in (("a.jpg", b""), ("b.png", b"hello"), ("c.tif", b"II*")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UnreadableScene, match=f"{name} is not an image that GDAL can open"):
            read(tmp_path / name)


def test_a_wrong_extension_does_not_matter(paint):
    path = paint("a.png")
    values = read(path).values
    assert np.array_equal(read(path.rename(path.with_suffix(".jpg"))).values, values)


@pytest.mark.parametrize(
    ("height", "width", "keep", "factor"),
    [(100, 100, None, 1), (100, 100, 101, 1), (100, 100, 51, 1), (100, 400, 50, 2), (399, 400, 100, 2), (400, 900, 100, 4)],
)
def test_as_many_pixels_are_kept_as_are_asked_for(height, width, keep, factor):
    assert shrink_factor(height, width, keep_px=keep) == factor


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "palette.png", "palette.tif"])
@pytest.mark.parametrize("small_bytes", [scene_picture.SMALL_BYTES, 0], ids=["Pillow", "GDAL"])
def test_a_reduced_read_shows_the_same_scene(tmp_path, name, small_bytes, monkeypatch):
    monkeypatch.setattr(scene_picture, "SMALL_BYTES", small_bytes)
    coarse = np.random.default_rng(0).integers(0, 256, (10, 14, 3), dtype=np.uint8)
    image = Image.fromarray(np.kron(coarse, np.ones((16, 16, 1), np.uint8)))
    image = image.convert("P", palette=Image.Palette.ADAPTIVE) if "palette" in name else image
    image.save(tmp_path / name, quality=95, subsampling=0)
    full, reduced = read(tmp_path / name), read(tmp_path / name, keep_px=40)
    assert reduced.valid.shape == (40, 56)
    blocks = full.values.reshape(3, 40, 4, 56, 4).mean(axis=(2, 4))
    assert np.abs(reduced.values.astype(float) - blocks).max() <= (3 if name.endswith("jpg") else 1)


def test_what_is_not_valid_stays_out_of_a_reduced_read(write_image):
    values = np.full((1, 64, 64), 100, np.int16)
    values[:, :, 1::2] = -9999
    picture = read(write_image("a.tif", values, nodata=-9999), keep_px=16)
    assert picture.values.shape == (1, 16, 16)
    assert (picture.values[:, picture.valid] == 100).all()
