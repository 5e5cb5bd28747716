import json
import sys

import numpy as np
import pyarrow as pa
import pytest
import shapely
from pyarrow import parquet
from pyproj import CRS

from terralean.errors import MissingExtra
from terralean.raster import outlines
from terralean.raster.grid import Grid
from terralean.raster.outlines import PolygonWriter
from terralean.spec import Classes

CLASSES = Classes.named(("field", "forest"))
GRID = Grid(width=6, height=9, crs="EPSG:32633", transform=(10.0, 0.0, 5e5, 0.0, -10.0, 5e6))


@pytest.fixture
def written(tmp_path, monkeypatch):
    """A map of 54 regions in row groups of six."""
    monkeypatch.setattr(outlines, "AT_ONCE", 6)
    monkeypatch.setattr("terralean.raster.regions.BLOCK_PX", 6)
    return write(tmp_path / "map.parquet", GRID)


def write(path, grid):
    labels = (np.indices((grid.height, grid.width)).sum(axis=0) % 2).astype(np.uint8)
    with PolygonWriter(path, grid=grid, classes=CLASSES) as writer:
        writer.write(labels, np.full(labels.shape, 0.25, np.float32))
    return path


def said(path):
    return json.loads(parquet.ParquetFile(path).metadata.metadata[b"geo"])


def test_metadata_is_what_version_1_1_asks_for(written):
    geo = said(written)
    assert (geo["version"], geo["primary_column"], [*geo["columns"]]) == ("1.1.0", "geometry", ["geometry"])
    column = geo["columns"]["geometry"]
    assert (column["encoding"], column["geometry_types"]) == ("WKB", ["Polygon"])
    assert (column["orientation"], column["edges"]) == ("counterclockwise", "planar")
    assert CRS.from_json_dict(column["crs"]) == CRS.from_epsg(32633)
    assert column["bbox"] == [5e5, 5e6 - 90, 5e5 + 60, 5e6]
    assert column["covering"]["bbox"] == {side: ["bbox", side] for side in ("xmin", "ymin", "xmax", "ymax")}


def test_bounds_cover_each_polygon_and_skip_row_groups(written):
    file = parquet.ParquetFile(written)
    assert file.num_row_groups > 1
    table = file.read()
    bounds = shapely.bounds(shapely.from_wkb(table["geometry"].to_pylist()))
    sides = [[row[side] for side in ("xmin", "ymin", "xmax", "ymax")] for row in table["bbox"].to_pylist()]
    assert sides == bounds.tolist()
    names = [file.metadata.row_group(0).column(i).path_in_schema for i in range(file.metadata.num_columns)]
    at = names.index("bbox.ymin")
    lowest = [file.metadata.row_group(i).column(at).statistics.min for i in range(file.num_row_groups)]
    assert lowest == sorted(lowest, reverse=True)  # the map goes down
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"


def test_columns_have_types_that_a_database_understands(written):
    schema = parquet.read_schema(written)
    assert {name: schema.field(name).type for name in ("class", "value", "pixels", "area_m2", "confidence", "geometry")} == {
        "class": pa.string(),
        "value": pa.int32(),
        "pixels": pa.int64(),
        "area_m2": pa.float64(),
        "confidence": pa.float64(),
        "geometry": pa.binary(),
    }


def test_without_a_place_there_is_no_crs_and_no_area(tmp_path):
    path = write(tmp_path / "map.parquet", Grid(width=6, height=4, crs=None))
    assert said(path)["columns"]["geometry"]["crs"] is None  # left out it would mean longitude and latitude
    assert parquet.read_table(path)["area_m2"].null_count == len(parquet.read_table(path))


def test_without_pyarrow_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r"pyarrow, which is not installed; pip install 'terralean\[geo\]'"):
        write(tmp_path / "map.parquet", GRID)
    assert not [*tmp_path.iterdir()]
