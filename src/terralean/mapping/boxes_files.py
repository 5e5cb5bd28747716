"""Oriented boxes into files: polygons on the ground with their attributes, and DOTA's result files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from terralean.boxes.form import to_polygons
from terralean.boxes.merge import Merged
from terralean.raster.features import FeatureFile, FlatGeobuf, GeoPackage
from terralean.raster.geoparquet import GeoParquet
from terralean.raster.grid import Grid
from terralean.spec import Classes

COLUMNS = {
    "class": "string",
    "value": "int32",
    "score": "float64",
    "x_px": "float64",
    "y_px": "float64",
    "width_px": "float64",
    "height_px": "float64",
    "angle_deg": "float64",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class BoxFeatures:
    """Boxes as polygons on the ground, (n,) all."""

    polygons: NDArray[Any]
    boxes: NDArray[np.float64]  # (n, 5) px of the scene
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]

    def columns(self, classes: Classes) -> dict[str, NDArray[Any]]:
        """The attributes as files hold them. The angle turns the image's x axis towards its y axis."""
        x, y, width, height = self.boxes[:, :4].round(3).T
        values = (
            np.array(classes.names, dtype=object)[self.labels],
            self.labels.astype(np.int32),
            self.scores.round(6),
            *(x, y, width, height),
            np.rad2deg(self.boxes[:, 4]).round(3),
        )
        return dict(zip(COLUMNS, values, strict=True))


def features_of(merged: Merged, grid: Grid) -> BoxFeatures:
    """Boxes of a scene on its ground, outlines counterclockwise; in px, x right and y down, where it has no place."""
    boxes = merged.boxes.double()
    corners = to_polygons(boxes).numpy().reshape(-1, 4, 2)
    a, b, c, d, e, f = grid.transform
    x, y = corners[..., 0], corners[..., 1]
    ground = np.stack([a * x + b * y + c, d * x + e * y + f], axis=-1)
    if a * e - b * d < 0:
        ground = ground[:, ::-1]
    return BoxFeatures(
        polygons=shapely.polygons(ground),
        boxes=boxes.numpy(),
        scores=merged.scores.double().numpy(),
        labels=merged.labels.numpy(),
    )


def open_file(path: Path, *, crs: str | None) -> FeatureFile:
    """A file of boxes in the making, by its suffix: .gpkg, .fgb or .parquet."""
    if path.suffix == ".parquet":
        return GeoParquet(path, crs=crs, kinds=COLUMNS)
    return (FlatGeobuf if path.suffix == ".fgb" else GeoPackage)(path, crs=crs)
