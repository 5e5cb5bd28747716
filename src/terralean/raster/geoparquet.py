"""Polygons as GeoParquet 1.1, row group by row group (OGC, opengeospatial/geoparquet, format-specs/geoparquet.md)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray
from pyproj import CRS

from terralean.errors import MissingExtra
from terralean.raster.features import Attributed
from terralean.spec import Classes

OF_REGIONS = {"class": "string", "value": "int32", "pixels": "int64", "area_m2": "float64", "confidence": "float64"}
NULLABLE = ("area_m2",)
SIDES = ("xmin", "ymin", "xmax", "ymax")


class GeoParquet:
    """A GeoParquet of polygons in WKB with a column of their bounds, by which readers skip what they do not need."""

    def __init__(self, path: Path, *, crs: str | None, kinds: Mapping[str, str] = OF_REGIONS) -> None:
        self.path, self._crs = path, crs
        self._bounds = np.zeros((0, len(SIDES)))  # of all polygons so far, where there are any
        pa = import_pyarrow(path.name)
        self._arrow = pa
        bounds = pa.struct([pa.field(side, pa.float64(), nullable=False) for side in SIDES])
        self._schema = pa.schema(
            [
                *(pa.field(name, getattr(pa, kind)(), nullable=name in NULLABLE) for name, kind in kinds.items()),
                pa.field("bbox", bounds, nullable=False),
                pa.field("geometry", pa.binary(), nullable=False),
            ]
        )
        self._file = pa.parquet.ParquetWriter(path, self._schema, compression="zstd", use_dictionary=["class", "value"])

    def write(self, features: Attributed, classes: Classes) -> None:
        """A row group."""
        if not len(features.polygons):
            return
        pa, bounds = self._arrow, shapely.bounds(features.polygons)
        self._bounds = _around(np.concatenate([self._bounds, bounds]))
        columns = features.columns(classes)
        arrays = {name: pa.array(column, from_pandas=name in NULLABLE) for name, column in columns.items()}  # NaN is null
        sides = [pa.array(column) for column in bounds.T]
        arrays["bbox"] = pa.StructArray.from_arrays(sides, fields=[*self._schema.field("bbox").type])
        arrays["geometry"] = pa.array(shapely.to_wkb(features.polygons), type=pa.binary())
        table = pa.Table.from_arrays([arrays[name] for name in self._schema.names], schema=self._schema)
        self._file.write_table(table, row_group_size=len(table))

    def close(self) -> None:
        """Write what the file says of itself."""
        self._file.add_key_value_metadata({"geo": json.dumps(self._metadata())})
        self._file.close()

    def abandon(self) -> None:
        """Let go of the file; it will be deleted."""
        with suppress(OSError):  # closing writes what could not be written
            self._file.close()

    def _metadata(self) -> dict[str, Any]:
        column: dict[str, Any] = {
            "encoding": "WKB",
            "geometry_types": ["Polygon"],
            "crs": None if self._crs is None else CRS.from_user_input(self._crs).to_json_dict(),
            "edges": "planar",
            "orientation": "counterclockwise",
            "covering": {"bbox": {side: ["bbox", side] for side in SIDES}},
        }
        if len(self._bounds):
            column["bbox"] = self._bounds[0].tolist()
        return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def import_pyarrow(name: str) -> Any:
    """The package that writes the file. MissingExtra where it is not installed."""
    try:
        import pyarrow.parquet  # noqa: PLC0415 - an extra that only this format needs
    except ImportError as error:
        raise MissingExtra(
            f"{name}: GeoParquet is written by pyarrow, which is not installed; pip install 'terralean[geo]', or ask for gpkg "
            "or fgb"
        ) from error
    return pyarrow


def _around(bounds: NDArray[np.float64]) -> NDArray[np.float64]:
    """The bounds (1, 4) of bounds (n, 4)."""
    return np.concatenate([bounds[:, :2].min(axis=0), bounds[:, 2:].max(axis=0)])[None]
