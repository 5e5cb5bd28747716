"""Polygons with attributes into files of vectors, a part at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyogrio
import shapely
from numpy.typing import NDArray
from pyogrio.errors import DataLayerError, DataSourceError

from terralean.spec import Classes

LAYER = "classes"
VECTOR_ERRORS = (DataSourceError, DataLayerError)
CHANGED = {"OGR_CURRENT_DATE": "2000-01-01T00:00:00.000Z"}  # what a GeoPackage says of itself; the same map, the same bytes


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Features:
    """Polygons of regions, and what is known of each, (n,) all."""

    polygons: NDArray[Any]
    value: NDArray[np.uint8]
    pixels: NDArray[np.int64]
    area_m2: NDArray[np.float64]  # NaN where the ground is not known
    confidence: NDArray[np.float64]  # mean over the pixels

    @classmethod
    def joined(cls, parts: Sequence[Features]) -> Features:
        """All of some."""
        return cls(**{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)})

    @property
    def corners(self) -> int:
        """Of all polygons."""
        return int(shapely.get_num_coordinates(self.polygons).sum())

    def columns(self, classes: Classes) -> dict[str, NDArray[Any]]:
        """The attributes as files hold them."""
        return {
            "class": np.array(classes.names, dtype=object)[self.value],
            "value": self.value.astype(np.int32),
            "pixels": self.pixels,
            "area_m2": self.area_m2,
            "confidence": self.confidence,
        }


class Attributed(Protocol):
    """Polygons and what files say of each."""

    @property
    def polygons(self) -> NDArray[Any]:
        """Of each feature, (n,)."""

    def columns(self, classes: Classes) -> dict[str, NDArray[Any]]:
        """By the names of attributes."""


class FeatureFile(Protocol):
    """A file in the making at `path`."""

    path: Path

    def __init__(self, path: Path, *, crs: str | None) -> None: ...

    def write(self, features: Attributed, classes: Classes) -> None:
        """The next ones."""

    def close(self) -> None:
        """Make the file whole."""

    def abandon(self) -> None:
        """Let go of the file; it will be deleted."""


class GeoPackage:
    """A GeoPackage of one layer."""

    def __init__(self, path: Path, *, crs: str | None) -> None:
        self.path, self._crs = path, crs

    def write(self, features: Attributed, classes: Classes) -> None:
        """Append features."""
        columns = features.columns(classes)
        with _same_each_time():
            pyogrio.raw.write(
                self.path,
                geometry=shapely.to_wkb(features.polygons),
                field_data=[*columns.values()],
                fields=np.array([*columns], dtype=object),
                crs=self._crs,
                geometry_type="Polygon",
                driver="GPKG",
                layer=LAYER,
                append=self.path.exists(),
            )

    def close(self) -> None:
        """It is whole after each write."""

    def abandon(self) -> None:
        """It is closed after each write."""


class FlatGeobuf:
    """A FlatGeobuf, which cannot be appended to: a GeoPackage that is converted in the end."""

    def __init__(self, path: Path, *, crs: str | None) -> None:
        self.path = path
        self._first = GeoPackage(path.with_suffix(".gpkg"), crs=crs)

    def write(self, features: Attributed, classes: Classes) -> None:
        """Append features."""
        self._first.write(features, classes)

    def close(self) -> None:
        """Convert what is there, without holding it."""
        with _same_each_time(), pyogrio.raw.open_arrow(self._first.path, use_pyarrow=False) as (meta, features):
            pyogrio.raw.write_arrow(
                features,
                self.path,
                driver="FlatGeobuf",
                layer=LAYER,
                geometry_name=meta["geometry_name"],
                geometry_type="Polygon",
                crs=meta["crs"],
            )

    def abandon(self) -> None:
        """It is closed after each write."""


@contextmanager
def _same_each_time() -> Iterator[None]:
    """No date of today in the file, unless the user has set one; and no warning of a scene without a place."""
    theirs = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "'crs' was not provided")
        pyogrio.set_gdal_config_options(CHANGED if theirs is None else {})
        try:
            yield
        finally:
            pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": theirs})
