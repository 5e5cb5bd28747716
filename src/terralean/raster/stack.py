"""Bands of several files as one scene: a virtual raster that exists in memory only, and in every process that needs it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from xml.etree import ElementTree as Xml

from terralean.errors import GridMismatch, UnreadableScene
from terralean.raster.grid import Grid, check_same_grid
from terralean.raster.scene import Scene, describe, scene_from
from terralean.raster.source import Source
from terralean.raster.stac_search import Part
from terralean.spec import Bands

GDAL_TYPES = {
    "uint8": "Byte",
    **{kind: kind.replace("ui", "UI").capitalize() for kind in ("int8", "int16", "int32", "int64", "float32", "float64")},
    **{f"uint{bits}": f"UInt{bits}" for bits in (16, 32, 64)},
}
EXPECTED = "an image"


def open_stack(name: str, parts: Sequence[Part], *, names: Sequence[str], resample: bool) -> Scene:
    """One scene of bands, called by `names`, on the finest of their grids.

    Coarser bands are interpolated where `resample` says so, bilinearly, else refused: GridMismatch. So are bands of different
    places. Where a part masks pixels, by a mask of its own or an alpha band, they are not valid.
    """
    scenes = [describe(part.path, bands=[part.position], expected=EXPECTED) for part in parts]
    for scene in scenes:
        scene.close()
    finest = min(scenes, key=lambda scene: (-scene.grid.width, -scene.grid.height))
    for scene in scenes:
        _check(finest, scene, resample=resample)
    raster = _raster(finest.grid)
    for position, (scene, band) in enumerate(zip(scenes, names, strict=True), start=1):
        raster.append(_band(scene, band, position=position, grid=finest.grid, block=finest.block()))
    masked = list({scene.path: scene for scene in scenes if scene.masks or scene.alpha}.values())
    if masked:
        raster.append(_mask(masked, grid=finest.grid))
    for scene in scenes:
        scene.close()
    return scene_from(Source(name, opened=Xml.tostring(raster, encoding="unicode")))


def renamed(scene: Scene, names: Sequence[str]) -> Scene:
    """A scene whose bands are called otherwise."""
    return replace(scene, bands=replace(scene.bands, names=tuple(names)))


def _check(finest: Scene, scene: Scene, *, resample: bool) -> None:
    """Raise GridMismatch unless a band can lie on the finest grid."""
    ours, theirs = finest.grid, scene.grid
    if (ours.width, ours.height) == (theirs.width, theirs.height):
        check_same_grid(ours, theirs, image_name=finest.path, mask_name=scene.path)
        return
    if not resample:
        raise GridMismatch(
            f"{scene.path} is {theirs.width} x {theirs.height} px (width, height), {finest.path} {ours.width} x {ours.height}; "
            "say --resample to have coarser bands interpolated bilinearly to the finest, or name other assets with --assets"
        )
    a, b, c, d, e, f = theirs.transform
    across, down = theirs.width / ours.width, theirs.height / ours.height
    same_size = replace(ours, crs=theirs.crs, transform=(a * across, b * down, c, d * across, e * down, f))
    check_same_grid(ours, same_size, image_name=finest.path, mask_name=scene.path)


def _raster(grid: Grid) -> Xml.Element:
    raster = Xml.Element("VRTDataset", rasterXSize=str(grid.width), rasterYSize=str(grid.height))
    if grid.crs is not None:
        Xml.SubElement(raster, "SRS").text = grid.crs
    a, b, c, d, e, f = grid.transform
    Xml.SubElement(raster, "GeoTransform").text = ", ".join(map(repr, (c, a, b, f, d, e)))
    return raster


def _band(scene: Scene, name: str, *, position: int, grid: Grid, block: tuple[int, int]) -> Xml.Element:
    """A band as its file has it."""
    if scene.bands.dtype not in GDAL_TYPES:
        raise UnreadableScene(f"{scene.path} holds {scene.bands.dtype} values; expected real numbers")
    rows, cols = block
    band = Xml.Element("VRTRasterBand", dataType=GDAL_TYPES[scene.bands.dtype], band=str(position))
    band.attrib |= {"blockXSize": str(min(cols, grid.width)), "blockYSize": str(min(rows, grid.height))}
    nm = scene.bands.wavelength_nm
    if nm is not None and nm[0] is not None:
        imagery = Xml.SubElement(band, "Metadata", domain="IMAGERY")
        Xml.SubElement(imagery, "MDI", key="CENTRAL_WAVELENGTH_UM").text = f"{nm[0] / 1000:.7g}"
    Xml.SubElement(band, "Description").text = name
    if scene.bands.units != Bands(names=("any",)).units:
        Xml.SubElement(band, "UnitType").text = scene.bands.units
    if scene.nodata is not None:
        Xml.SubElement(band, "NoDataValue").text = repr(scene.nodata)
    Xml.SubElement(band, "Scale").text = repr(scene.bands.scale)
    band.append(_simple(scene, str(scene.positions[0]), grid=grid))
    return band


def _simple(scene: Scene, band: str, *, grid: Grid) -> Xml.Element:
    """All of a file on all of the grid."""
    theirs = scene.grid
    source = Xml.Element("SimpleSource")
    if (theirs.width, theirs.height) != (grid.width, grid.height) and not band.startswith("mask"):
        source.set("resampling", "bilinear")
    Xml.SubElement(source, "SourceFilename", relativeToVRT="0").text = scene.path
    Xml.SubElement(source, "SourceBand").text = band
    for what, place in (("SrcRect", theirs), ("DstRect", grid)):
        Xml.SubElement(source, what, xOff="0", yOff="0", xSize=str(place.width), ySize=str(place.height))
    return source


def _mask(scenes: Sequence[Scene], *, grid: Grid) -> Xml.Element:
    """What no file masks: the product of their masks."""
    mask = Xml.Element("MaskBand")
    band = Xml.SubElement(mask, "VRTRasterBand", dataType="Byte", subClass="VRTDerivedRasterBand")
    Xml.SubElement(band, "PixelFunctionType").text = "mul"
    Xml.SubElement(band, "SourceTransferType").text = "Byte"
    band.extend(_simple(scene, f"mask,{scene.positions[0]}", grid=grid) for scene in scenes)
    return mask
