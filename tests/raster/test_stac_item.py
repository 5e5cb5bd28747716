import hashlib
import importlib.resources
import json
import os
from dataclasses import replace

import jsonschema
import numpy as np
import pystac
import pytest
from pystac.extensions.classification import ClassificationExtension
from pystac.extensions.file import FileExtension
from pystac.extensions.projection import ProjectionExtension
from pystac.validation.local_validator import get_local_schema_cache
from referencing import Registry, Resource

from terralean.raster.acquired import Acquired
from terralean.raster.footprint import footprint, whole
from terralean.raster.grid import Grid
from terralean.raster.rows import RowFile
from terralean.raster.stac_item import Link, MapFacts, MapFile, map_item, write_item
from terralean.raster.write import count_classes, map_content, write_map
from terralean.spec import Classes

GRID = Grid(width=6, height=4, crs="EPSG:32633", transform=(10.0, 0.0, 5e5, 0.0, -10.0, 5e6))
CLASSES = Classes.named(("bare soil", "forêt", "水", "bare-soil"))


def facts(grid=GRID, **changes):
    values = {
        "name": "scene_map",
        "title": "Map of scene.tif",
        "grid": grid,
        "classes": CLASSES,
        "counts": (12, 6, 3, 0),
        "footprint": footprint(whole(grid), grid),
        "acquired": Acquired(moment="2020-05-01T09:08:07Z", told_by="TIFFTAG_DATETIME"),
        "software": {"terralean": "0.1", "torch": "2.15"},
        "lineage": "classes by lemevit_tiny_light",
        "links": (),
    }
    return MapFacts(**{**values, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a map."""
    out = tmp_path_factory.mktemp("maps")
    labels = np.array([[0] * 6, [0] * 6, [1] * 6, [2, 2, 2, 255, 255, 255]], np.uint8)
    rows = RowFile(out / "rows", width=6, bands=1, dtype="uint8")
    rows.append(labels[None])
    totals = count_classes(rows, grid=GRID, classes=CLASSES)
    write_map(out / "scene_map.tif", rows, totals=totals, grid=GRID, classes=CLASSES, tags={})
    rows.close()
    return out


def files(folder):
    content = map_content(CLASSES)
    return {
        "map": MapFile(path=folder / "scene_map.tif", title="classes", roles=("data",), content=content),
        "style": MapFile(path=folder / "scene_map.qml", title="QGIS style", roles=("metadata",)),
    }


def valid(item):
    """By the schemas of STAC 1.1.0 that pystac brings."""
    schemas = [(uri, Resource.from_contents(schema)) for uri, schema in get_local_schema_cache().items()]
    name = importlib.resources.files("pystac.validation.jsonschemas") / "stac-spec" / "v1.1.0" / "item.json"
    jsonschema.Draft7Validator(json.loads(name.read_text()), registry=Registry().with_resources(schemas)).validate(item)
    return item


def test_an_item_of_a_map_is_valid_and_opens_in_pystac(folder):
    item = valid(map_item(facts(), files(folder), out=folder))
    write_item(folder / "scene_map.json", item)
    read = pystac.Item.from_file(str(folder / "scene_map.json"))
    assert read.datetime.isoformat() == "2020-05-01T09:08:07+00:00"
    assert read.bbox == item["bbox"] == list(facts().footprint.bbox)
    projection = ProjectionExtension.ext(read)
    assert (projection.code, projection.shape) == ("EPSG:32633", [4, 6])
    assert tuple(projection.transform) == GRID.transform
    assert projection.bbox == [5e5, 5e6 - 40, 5e5 + 60, 5e6]
    asset = read.assets["map"]
    assert os.path.exists(asset.get_absolute_href())
    assert asset.media_type == pystac.MediaType.COG
    assert [band["name"] for band in item["assets"]["map"]["bands"]] == ["class"]
    assert (item["assets"]["map"]["data_type"], item["assets"]["map"]["nodata"]) == ("uint8", 255)


def test_classes_have_plain_names_titles_colours_and_counts(folder):
    item = map_item(facts(), files(folder), out=folder)
    found = ClassificationExtension.ext(pystac.Item.from_dict(item).assets["map"]).classes
    assert [one.value for one in found] == [0, 1, 2, 3, 255]
    assert [one.title for one in found] == [*CLASSES.names, "no data"]
    names = [one.name for one in found]
    assert names == ["bare-soil-0", "for-t", "class-2", "bare-soil-3", "nodata"]
    assert [one.count for one in found] == [12, 6, 3, 0, 3]
    assert [one.percentage for one in found] == [50, 25, 12.5, 0, 12.5]
    assert [one.color_hint for one in found[:4]] == ["{:02X}{:02X}{:02X}".format(*colour) for colour in CLASSES.colours]
    assert found[-1].nodata
    assert "classification:classes" not in item["assets"]["style"]


def test_checksums_are_those_of_the_files(folder):
    item = pystac.Item.from_dict(map_item(facts(), files(folder), out=folder))
    for asset in item.assets.values():
        data = (folder / asset.href).read_bytes()
        found = FileExtension.ext(asset)
        assert (found.size, found.checksum) == (len(data), "1220" + hashlib.sha256(data).hexdigest())


def test_links_are_relative_where_they_can_be(folder):
    links = (
        Link(rel="derived_from", href=str(folder.parent / "a scene.tif"), title="scene", media="image/tiff"),
        Link(rel="derived_from", href="https://example.org/item.json", title="item"),
    )
    item = valid(map_item(facts(links=links), files(folder), out=folder))
    assert [link["href"] for link in item["links"]] == ["../a%20scene.tif", "https://example.org/item.json"]
    assert [link.get("type") for link in item["links"]] == ["image/tiff", None]
    assert item["assets"]["map"]["href"] == "./scene_map.tif"


def test_where_no_time_is_known_there_are_a_first_and_a_last_one(folder):
    item = valid(map_item(facts(acquired=Acquired()), files(folder), out=folder))
    assert item["properties"]["datetime"] is None
    read = pystac.Item.from_dict(item)
    assert read.common_metadata.start_datetime.year == 1
    assert read.common_metadata.end_datetime.year == 9999
    assert item["properties"]["terralean:datetime_from"].startswith("nothing")


def test_without_a_place_there_is_no_geometry(folder):
    grid = replace(GRID, crs=None, transform=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0))
    item = valid(map_item(facts(grid), files(folder), out=folder))
    assert item["geometry"] is None
    assert "bbox" not in item
    assert item["properties"]["proj:code"] is None
    assert "gsd" not in item["properties"]


def test_a_crs_without_a_code_is_told_as_wkt(folder):
    laea = "+proj=laea +lat_0=10 +lon_0=20 +datum=WGS84 +units=m"
    grid = replace(GRID, crs=laea)
    properties = valid(map_item(facts(grid), files(folder), out=folder))["properties"]
    assert properties["proj:code"] is None
    assert properties["proj:wkt2"].startswith("PROJCRS[")


def test_the_same_item_again_has_the_same_bytes(folder, tmp_path):
    for name in ("one", "two"):
        write_item(tmp_path / name, map_item(facts(), files(folder), out=folder))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert "水" in (tmp_path / "one").read_text(encoding="utf-8")
