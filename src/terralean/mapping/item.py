"""The STAC item of a map that has been made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from numpy.typing import NDArray

import terralean
from terralean.mapping.scenes import SceneSource
from terralean.predict import Predictor
from terralean.raster.acquired import Acquired
from terralean.raster.cog import Content
from terralean.raster.footprint import Extent, Footprint, footprint
from terralean.raster.grid import Grid
from terralean.raster.scene import Scene
from terralean.raster.stac_item import Link, MapFacts, MapFile, map_item, write_item
from terralean.raster.write import Totals
from terralean.spec import Classes
from terralean.weights import card as cards

EXPORTED_ITEM = "model.stac.json"  # beside an exported graph
ROLES = {"map": ("data", "classification"), "polygons": ("data",), "table": ("data",), "style": ("metadata",)}
TITLES = {
    "map": "classes",
    "confidence": "probability of the class in percent",
    "scores": "probabilities of all classes in percent",
    "compute": "tokens that the model kept in percent",
    "polygons": "regions of one class as polygons",
    "table": "cells of the map in rows",
    "style": "QGIS style of the classes",
    "table of classes": "GDAL attribute table of the classes",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """What a map comes from."""

    scene: str
    acquired: Acquired
    sensor: Mapping[str, Any]
    lineage: str
    links: tuple[Link, ...]


def origin_of(source: SceneSource, scene: Scene, predictor: Predictor) -> Origin:
    """Of the map that a model makes of a scene, which is open."""
    card = predictor.card
    return Origin(
        scene=source.name,
        acquired=source.acquired(scene),
        sensor={} if source.item is None else source.item.sensor,
        lineage=f"{card.task} by {card.model} ({card.length}, training data {card.training.data}) in {predictor.precision}",
        links=(source.link, *_model_links(predictor)),
    )


def write_map_item(
    path: Path,
    files: Mapping[str, tuple[Path, Content | None]],
    *,
    labels: Iterator[NDArray[np.uint8]],
    grid: Grid,
    classes: Classes,
    totals: Totals,
    origin: Origin,
    out: Path,
) -> None:
    """Write the item of a map whose rows are `labels` and whose files are there already, but in the end in `out`."""
    extent = Extent()
    for rows in labels:
        extent.write(rows)
    facts = _facts(path.stem, footprint(extent.hull, grid), grid=grid, classes=classes, totals=totals, origin=origin)
    assets = {
        key: MapFile(path=file, title=TITLES[key], roles=ROLES.get(key, ("metadata",)), content=content)
        for key, (file, content) in files.items()
    }
    write_item(path, map_item(facts, assets, out=out))


def _facts(name: str, place: Footprint, *, grid: Grid, classes: Classes, totals: Totals, origin: Origin) -> MapFacts:
    return MapFacts(
        name=name,
        title=f"Map of {origin.scene}",
        grid=grid,
        classes=classes,
        counts=totals.pixels,
        footprint=place,
        acquired=origin.acquired,
        software={"terralean": terralean.__version__, "torch": str(torch.__version__), "GDAL": rasterio.__gdal_version__},
        lineage=origin.lineage,
        links=origin.links,
        sensor=origin.sensor,
    )


def _model_links(predictor: Predictor) -> Iterator[Link]:
    """To the model's card, and to its own item where it was exported."""
    if predictor.folder is None:
        return
    name = predictor.card.model
    for file, rel, title, media in (
        (cards.NAME, "about", f"model card of {name}", "application/json"),
        (EXPORTED_ITEM, "derived_from", f"STAC item of {name}", "application/geo+json"),
    ):
        if (predictor.folder / file).is_file():
            yield Link(rel=rel, href=str(predictor.folder / file), title=title, media=media)
