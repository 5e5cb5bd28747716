"""An image file decoded, whatever its format, bands and type.

JPEG, PNG and BMP of 8 bits are read by Pillow, which is quick and refuses what breaks off; all else, and large files, by GDAL.
Both give the same pixels, but for JPEG, whose colours their decoders interpolate otherwise (by 0.7 of 255 on average on the
photographs looked at, 18 at most). What is made of them:
- grey is one band, colour three; alpha and what a file marks as nodata or masked are not valid, and no band,
- a palette is looked up: numbers of its entries mean nothing,
- CMYK, inks for print, is refused unless `data.colour` is rgb; grey of 8 bits then becomes three equal bands, too,
- 16 bits, floats and any number of bands stay as they are,
- a rotation noted in EXIF is not obeyed: seen from above no side is up, and maps are made of pixels as they are stored.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from rasterio.enums import ColorInterp

from terralean.data.scene_config import SceneDataConfig
from terralean.errors import BandMismatch, UnreadableScene
from terralean.raster.cog import bounded_cache
from terralean.raster.scene import Scene, describe, read_preview, read_reduced
from terralean.raster.source import check_there
from terralean.spec import Bands

PILLOWS = (".jpg", ".jpeg", ".png", ".bmp")
PLAIN = {"L", "LA", "RGB", "RGBA", "P", "PA", "CMYK"}  # Pillow's modes that hold all that the file has
SMALL_BYTES = 8_000_000  # of a file that Pillow reads; larger ones may not fit in memory decoded
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error)  # what Pillow raises for a file that breaks off
RGB = Bands(names=("red", "green", "blue"))
GREY = Bands(names=("band_1",))


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """A decoded image, perhaps with fewer pixels than its file has."""

    values: NDArray[Any]  # (C, H, W) as stored
    valid: NDArray[np.bool_]  # (H, W)
    bands: Bands


def read_picture(path: str, *, config: SceneDataConfig, keep_px: int | None = None) -> Picture:
    """Decode a file. With `keep_px` a larger one comes with fewer pixels, at least so many along its shorter side.

    Raises MissingFile, UnreadableScene and BandMismatch with the file, what was found and what mends it.
    """
    check_there(path, expected="an image")
    small = Path(path).stat().st_size <= SMALL_BYTES
    if small and Path(path).suffix.lower() in PILLOWS:
        picture = _by_pillow(path, config, keep_px)
        if picture is not None:
            return picture
    with nullcontext() if small else bounded_cache():
        return _by_gdal(path, config, keep_px)


def shrink_factor(height: int, width: int, *, keep_px: int | None) -> int:
    """The largest power of two by which an image can shrink and keep so many pixels along its shorter side."""
    return 1 if keep_px is None else 1 << max(0, (min(height, width) // keep_px).bit_length() - 1)


# By Pillow.


def _by_pillow(path: str, config: SceneDataConfig, keep_px: int | None) -> Picture | None:
    """None where Pillow would lose something, or knows nothing of the format."""
    try:
        with Image.open(path) as image:
            if image.mode not in PLAIN or _deep(image):
                return None
            _check_colour(path, config, cmyk=image.mode == "CMYK")
            factor = shrink_factor(image.height, image.width, keep_px=keep_px)
            image.draft(None, (image.width // factor, image.height // factor))
            factor = shrink_factor(image.height, image.width, keep_px=keep_px)  # what the JPEG's coefficients left to do
            plain = _plain(image, rgb=config.colour == "rgb")
            return _unpacked(path, plain.reduce(factor) if factor > 1 else plain, config)
    except (UnidentifiedImageError, Image.DecompressionBombError):
        return None
    except BROKEN as error:
        raise UnreadableScene(
            f"{path} breaks off: {error or type(error).__name__}; expected a complete image, copy or download it again"
        ) from error


def _deep(image: Image.Image) -> bool:
    """Whether values have more than 8 bits, of which Pillow keeps 8 where there are several bands."""
    return any(";16" in str(tile.args) for tile in image.tile)  # type: ignore[attr-defined]


def _plain(image: Image.Image, *, rgb: bool) -> Image.Image:
    """Without a palette, and with an alpha band where any pixel is transparent."""
    if image.has_transparency_data:
        return image.convert("LA" if image.mode in ("L", "LA") and not rgb else "RGBA")
    return image.convert("L" if image.mode == "L" and not rgb else "RGB")


def _unpacked(path: str, image: Image.Image, config: SceneDataConfig) -> Picture:
    values = np.asarray(image)
    values = values[..., None] if values.ndim == 2 else values  # noqa: PLR2004 - rows and columns
    valid = np.ones(values.shape[:2], dtype=bool)
    if image.mode in ("LA", "RGBA"):
        values, valid = values[..., :-1], values[..., -1] != 0
    bands = GREY if values.shape[-1] == 1 else RGB
    return _pick(path, np.moveaxis(values, -1, 0), valid, bands, config)


# By GDAL.


def _by_gdal(path: str, config: SceneDataConfig, keep_px: int | None) -> Picture:
    scene = describe(path, expected="an image")
    try:
        stored = _stored(scene)
        _check_colour(path, config, cmyk=stored.cmyk)
        if stored.palette is not None or (stored.grey and config.colour == "rgb"):
            return _coloured(scene, stored, config, keep_px)
    finally:
        scene.close()
    with describe(path, bands=config.bands, expected="an image") as scene:
        values, valid = _read(scene, keep_px)
        return Picture(values=values, valid=valid, bands=scene.bands)


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """What the colours of a file are."""

    cmyk: bool
    grey: bool  # of 8 bits
    palette: Mapping[int, tuple[int, int, int, int]] | None


def _stored(scene: Scene) -> _Stored:
    with scene.source.dataset() as dataset:
        first = dataset.colorinterp[0]
        single = len(scene.bands) == 1 and scene.bands.dtype == "uint8"
        return _Stored(
            cmyk=dataset.tags(ns="IMAGE_STRUCTURE").get("SOURCE_COLOR_SPACE") == "CMYK",
            grey=single and first == ColorInterp.gray,
            palette=dataset.colormap(1) if single and first == ColorInterp.palette else None,
        )


def _coloured(scene: Scene, stored: _Stored, config: SceneDataConfig, keep_px: int | None) -> Picture:
    """Red, green and blue of grey or of the entries of a palette, some of which may be transparent."""
    if stored.palette is None:
        values, valid = _read(scene, keep_px)
        return _pick(scene.path, np.repeat(values, 3, axis=0), valid, RGB, config)
    table = np.zeros((256, 4), dtype=np.uint8)
    for entry, colour in stored.palette.items():
        table[entry] = colour
    # Entries have no mean: the nearest pixel stands for its surroundings where there are to be fewer.
    longest = max(scene.grid.height, scene.grid.width) // _factor(scene, keep_px)
    entries, valid = read_preview(scene, longest)
    found = np.moveaxis(table[entries[0]], -1, 0)
    return _pick(scene.path, found[:3], valid & (found[3] != 0), RGB, config)


def _read(scene: Scene, keep_px: int | None) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    factor = _factor(scene, keep_px)
    if factor == 1:
        return scene.read(scene.grid.window)
    return read_reduced(scene, height=scene.grid.height // factor, width=scene.grid.width // factor)


def _factor(scene: Scene, keep_px: int | None) -> int:
    return shrink_factor(scene.grid.height, scene.grid.width, keep_px=keep_px)


# Of both.


def _pick(path: str, values: NDArray[Any], valid: NDArray[np.bool_], bands: Bands, config: SceneDataConfig) -> Picture:
    """The bands that the config chooses."""
    if config.bands is None:
        return Picture(values=values, valid=valid, bands=bands)
    if max(config.bands) > len(bands):
        raise BandMismatch(
            f"{path} has {len(bands)} band{'s' * (len(bands) > 1)} ({', '.join(bands.names)}), data.bands asks for "
            f"{', '.join(map(str, config.bands))}; choose different ones of these, by position from 1"
        )
    positions = [band - 1 for band in config.bands]
    return Picture(values=values[positions], valid=valid, bands=bands.choose(positions))


def _check_colour(path: str, config: SceneDataConfig, *, cmyk: bool) -> None:
    if cmyk and config.colour != "rgb":
        raise BandMismatch(
            f"{path} is stored as CMYK, inks for print; expected what a sensor sees. Write it as RGB, or have such images "
            "converted as they are read: --set data.colour=rgb"
        )
