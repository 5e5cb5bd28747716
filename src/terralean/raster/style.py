"""How a GIS names and draws the classes of a map: a QGIS style, and the attribute table GDAL keeps beside a raster."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from xml.etree import ElementTree as Xml

from terralean.spec import Classes

# GDAL's numbers for the kind and the use of a column (GDALRATFieldType, GDALRATFieldUsage).
INTEGER, REAL, TEXT = 0, 1, 2
GENERIC, COUNT, NAME, VALUE, RED, GREEN, BLUE = 0, 1, 2, 5, 6, 7, 8
COLUMNS = (
    ("Value", INTEGER, VALUE),
    ("Class", TEXT, NAME),
    ("Red", INTEGER, RED),
    ("Green", INTEGER, GREEN),
    ("Blue", INTEGER, BLUE),
    ("Count", REAL, COUNT),  # GDAL's integers have 32 bits; a map may have more pixels
)
NOT_XML = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def qml(classes: Classes) -> str:
    """A QGIS 3 layer style: each class value in its colour, under its name."""
    root = Xml.Element("qgis", version="3.22.0", styleCategories="Symbology")
    pipe = Xml.SubElement(root, "pipe")
    renderer = Xml.SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1", nodataColor="")
    Xml.SubElement(renderer, "rasterTransparency")
    palette = Xml.SubElement(renderer, "colorPalette")
    for value, (name, (red, green, blue)) in enumerate(zip(classes.names, classes.colours, strict=True)):
        colour = f"#{red:02x}{green:02x}{blue:02x}"
        Xml.SubElement(palette, "paletteEntry", value=str(value), color=colour, alpha="255", label=_text(name))
    Xml.SubElement(pipe, "rasterresampler", maxOversampling="1")  # smoothing would invent colours between classes
    Xml.SubElement(root, "blendMode").text = "0"
    return "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n" + _written(root)


def attribute_table(classes: Classes, counts: Sequence[int], *, area_m2: Sequence[float] | None = None) -> str:
    """GDAL's `.aux.xml` of a class map: category names, and a row per class with value, name, colour, pixel count and area."""
    columns = (*COLUMNS, ("Area_m2", REAL, GENERIC)) if area_m2 is not None else COLUMNS
    root = Xml.Element("PAMDataset")
    band = Xml.SubElement(root, "PAMRasterBand", band="1")
    names = Xml.SubElement(band, "CategoryNames")
    for name in classes.names:
        Xml.SubElement(names, "Category").text = _text(name)
    table = Xml.SubElement(band, "GDALRasterAttributeTable", tableType="thematic")
    for index, (title, kind, use) in enumerate(columns):
        column = Xml.SubElement(table, "FieldDefn", index=str(index))
        for tag, value in (("Name", title), ("Type", str(kind)), ("Usage", str(use))):
            Xml.SubElement(column, tag).text = value
    for index, (name, colour) in enumerate(zip(classes.names, classes.colours, strict=True)):
        area = () if area_m2 is None else (f"{area_m2[index]:.15g}",)
        _row(table, index, (str(index), _text(name), *map(str, colour), str(counts[index]), *area))
    return _written(root)


def join_pam(ours: str, gdals: str) -> str:
    """One `.aux.xml` of two: ours, and what GDAL wrote that ours does not say (a CRS that GeoTIFF keys cannot hold)."""
    root, other = Xml.fromstring(ours), Xml.fromstring(gdals)
    bands = {band.get("band"): band for band in root.iter("PAMRasterBand")}
    for position, child in enumerate([child for child in other if child.tag != "PAMRasterBand"]):
        root.insert(position, child)
    for band in other.iter("PAMRasterBand"):
        if band.get("band") not in bands:
            root.append(band)
            continue
        said = {child.tag for child in bands[band.get("band")]}
        bands[band.get("band")].extend([child for child in band if child.tag not in said])
    return _written(root)


def _row(table: Xml.Element, index: int, values: Iterable[str]) -> None:
    row = Xml.SubElement(table, "Row", index=str(index))
    for value in values:
        Xml.SubElement(row, "F").text = value


def _text(name: str) -> str:
    """A name without the control characters that XML cannot hold."""
    return NOT_XML.sub("\ufffd", name)


def _written(root: Xml.Element) -> str:
    Xml.indent(root)
    return Xml.tostring(root, encoding="unicode") + "\n"
