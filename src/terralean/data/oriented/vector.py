"""Polygons in a vector file, GeoJSON, GeoPackage, FlatGeobuf or Shapefile, over an image that has a place on the ground."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import shapely
from shapely.geometry.base import BaseGeometry

from terralean.data.oriented.corners import four_corners
from terralean.data.oriented.record import Labelled, labelled
from terralean.data.words import counted
from terralean.raster.grid import Grid
from terralean.raster.polygons import polygons_in_px

log = logging.getLogger(__name__)


def read_vector(path: str | Path, *, like: Grid, image: str, field: str | None) -> Labelled:
    """The objects that meet the image, whose grid is `like`. `field` is the attribute with the class; without one it is found.

    A polygon of four corners is kept, any other becomes the smallest rectangle round it, on the ground as the image shows it.
    Raises MissingFile, LabelError, and GridMismatch where the image has no CRS.
    """
    shapes, names = polygons_in_px(str(path), like=like, window=like.window, field=field, name=image)
    if several := sum(len(shape.geoms) > 1 for shape in shapes if isinstance(shape, shapely.MultiPolygon)):
        log.warning(
            "%s: %s over %s %s several parts; one box is taken round all of them. Where each part is an object, split them "
            "first (QGIS: Multipart to singleparts)",
            path,
            counted(several, "polygon"),
            image,
            "has" if several == 1 else "have",
        )
    rows = [
        (f"polygon {number} over {image}", four_corners(_points(shape)), name, 0)
        for number, (shape, name) in enumerate(zip(shapes, names, strict=True), start=1)
    ]
    return labelled(str(path), rows)


def _points(shape: BaseGeometry) -> np.ndarray:
    """Corners (V, 2) of the outline, without holes; of several parts those of all."""
    parts = [shape] if isinstance(shape, shapely.Polygon) else list(shape.geoms)
    return np.concatenate([shapely.get_coordinates(part.exterior)[:-1] for part in parts])
