import json

import pytest

from terralean.errors import BandMismatch, UnreadableScene
from terralean.raster.stac_search import Part, find_parts, gdal_path, read_items
from terralean.spec import Bands

RGB = Bands(names=("red", "green", "blue"), dtype="uint16")
COG = "image/tiff; application=geotiff; profile=cloud-optimized"


def item(assets, **changes):
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "S2A_33",
        "geometry": None,
        "properties": {"datetime": "2021-06-01T10:10:31Z", "platform": "sentinel-2a"},
        "links": [],
        "assets": assets,
        **changes,
    }


def asset(href, *, kind=COG, roles=("data",), **more):
    return {"href": href, "type": kind, "roles": list(roles), **more}


def band(name, common=None, um=None):
    said = {"name": name, "common_name": common, "center_wavelength": um}
    return {key: value for key, value in said.items() if value is not None}


def sentinel2():
    """As a public catalogue has them: each band as GeoTIFF and as JPEG 2000, and a picture of three of them."""
    named = {"red": ("B04", 0.665), "green": ("B03", 0.56), "blue": ("B02", 0.49), "nir": ("B08", 0.842)}
    assets = {"thumbnail": asset("t.jpg", kind="image/jpeg", roles=["thumbnail"])}
    for common, (name, um) in named.items():
        more = {"eo:bands": [band(name, common, um)], "raster:bands": [{"data_type": "uint16", "nodata": 0}]}
        assets[common] = asset(f"https://data.example/{name}.tif", **more)
        assets[f"{common}-jp2"] = asset(f"s3://bucket/{name}.jp2", kind="image/jp2", **more)
    three = [band(*named[common][:1], common) for common in ("red", "green", "blue")]
    assets["visual"] = asset(
        "https://data.example/TCI.tif", roles=["visual"], **{"eo:bands": three, "raster:bands": [{"data_type": "uint8"}] * 3}
    )
    return assets


def read(tmp_path, document, name="item.json"):
    path = tmp_path / name
    path.write_text(json.dumps(document))
    return read_items(str(path))


def test_bands_are_found_by_common_name_name_and_wavelength(tmp_path):
    (found,) = read(tmp_path, item(sentinel2()))
    expected = tuple(Part(path=f"/vsicurl/https://data.example/B0{i}.tif", position=1) for i in (4, 3, 2))
    assert find_parts(found, RGB) == expected
    assert find_parts(found, Bands(names=("B04", "B03", "B02"), dtype="uint16")) == expected
    colours = Bands(names=("R", "G", "B"), wavelength_nm=(660.0, 555.0, 492.0), dtype="uint16")
    assert find_parts(found, colours) == expected


def test_a_model_of_bytes_gets_the_picture(tmp_path):
    (found,) = read(tmp_path, item(sentinel2()))
    parts = find_parts(found, Bands(names=("red", "green", "blue"), dtype="uint8"))
    assert parts == tuple(Part(path="/vsicurl/https://data.example/TCI.tif", position=i) for i in (1, 2, 3))


def test_bands_too_far_away_are_not_taken(tmp_path):
    (found,) = read(tmp_path, item(sentinel2()))
    with pytest.raises(
        BandMismatch, match=r"S2A_33: no asset has swir, far(.|\n)*item: red \(B04\), red-jp2 \(B04\)(.|\n)*--assets"
    ):
        find_parts(found, Bands(names=("red", "swir", "far"), wavelength_nm=(665.0, 1610.0, 900.0)))


def test_bands_of_stac_1_1_and_of_one_file(tmp_path):
    bands = [{"name": name, "eo:common_name": common} for name, common in (("n", "nir"), ("r", "red"), ("g", "green"))]
    (found,) = read(tmp_path, item({"image": asset("./image.tif", bands=bands)}, stac_version="1.1.0"))
    parts = find_parts(found, Bands(names=("green", "nir")))
    assert parts == tuple(Part(path=str(tmp_path / "image.tif"), position=i) for i in (3, 1))


def test_what_the_item_says_of_a_band_counts_for_assets_that_only_name_it(tmp_path):
    properties = {"datetime": "2021-06-01T10:10:31Z", "bands": [{"name": "B04", "eo:common_name": "red"}]}
    (found,) = read(tmp_path, item({"one": asset("one.tif", bands=[{"name": "B04"}])}, properties=properties))
    assert find_parts(found, Bands(names=("red",))) == (Part(path=str(tmp_path / "one.tif"), position=1),)


def test_a_key_is_the_name_of_the_only_band(tmp_path):
    (found,) = read(tmp_path, item({"B04": asset("a.tif"), "B03": asset("b.tif")}))
    assert [part.path for part in find_parts(found, Bands(names=("b03", "B04")))] == [
        str(tmp_path / "b.tif"),
        str(tmp_path / "a.tif"),
    ]


def test_two_that_may_be_meant_are_told_and_can_be_chosen(tmp_path):
    both = {key: asset(f"{key}.tif", **{"eo:bands": [band("B04", "red")]}) for key in ("morning", "evening")}
    (found,) = read(tmp_path, item(both))
    with pytest.raises(BandMismatch, match=r"red may be morning \(band 1\), evening \(band 1\)"):
        find_parts(found, Bands(names=("red",)))
    assert find_parts(found, Bands(names=("red",)), assets=["evening"]) == (
        Part(path=str(tmp_path / "evening.tif"), position=1),
    )
    pair = Bands(names=("before", "after"))
    assert [part.path for part in find_parts(found, pair, assets=["evening", "morning"])] == [
        str(tmp_path / "evening.tif"),
        str(tmp_path / "morning.tif"),
    ]
    with pytest.raises(BandMismatch, match="has no image asset noon; it has morning, evening"):
        find_parts(found, pair, assets=["noon", "morning"])


def test_one_file_of_which_nothing_is_said_is_taken_as_it_is(tmp_path):
    (found,) = read(tmp_path, item({"data": asset("data.tif"), "meta": asset("meta.xml", kind="text/xml")}))
    assert find_parts(found, RGB) == str(tmp_path / "data.tif")
    assert found.others == ("meta",)


def test_relative_addresses_are_seen_from_the_item(tmp_path):
    own = {"rel": "self", "href": "https://data.example/items/S2A_33.json"}
    collection = {"type": "FeatureCollection", "features": [item({"data": asset("../data.tif")}, links=[own])]}
    (found,) = read(tmp_path, collection)
    assert found.images[0].path == "/vsicurl/https://data.example/data.tif"
    (alone,) = read(tmp_path, item({"data": asset("a%20b.tif")}, links=[own]))  # saved here, its files beside it
    assert alone.images[0].path == str(tmp_path / "a b.tif")
    (tmp_path / "a%20b.tif").write_text("")
    (alone,) = read(tmp_path, item({"data": asset("a%20b.tif")}))
    assert alone.images[0].path == str(tmp_path / "a%20b.tif")


@pytest.mark.parametrize(
    ("href", "path"),
    [
        ("https://a.example/b.tif?sig=1&x=2", "/vsicurl/https://a.example/b.tif?sig=1&x=2"),
        ("s3://bucket/b.tif", "/vsis3/bucket/b.tif"),
        ("gs://bucket/b.tif", "/vsigs/bucket/b.tif"),
        ("file:///a%20b/c.tif", "/a b/c.tif"),
        ("/vsizip/a.zip/b.tif", "/vsizip/a.zip/b.tif"),
        ("/a/b.tif", "/a/b.tif"),
    ],
)
def test_addresses_as_gdal_opens_them(href, path):
    assert gdal_path(href) == path


def test_when_and_by_what_it_was_acquired(tmp_path):
    (found,) = read(tmp_path, item({"data": asset("data.tif")}))
    assert (found.acquired.moment, found.sensor) == ("2021-06-01T10:10:31Z", {"platform": "sentinel-2a"})
    span = {"datetime": None, "start_datetime": "2021-06-01T00:00:00Z", "end_datetime": "2021-06-30T00:00:00Z"}
    (found,) = read(tmp_path, item({"data": asset("data.tif")}, properties=span))
    assert found.acquired.properties() == span


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "is not JSON"),
        ('{"type": "Collection"}', "is a STAC collection, not its items"),
        ('{"type": "FeatureCollection", "features": []}', "holds no items: the search found nothing"),
        ('{"type": "Feature", "geometry": null, "properties": {}}', "a feature without id or assets"),
        ("[1, 2]", "is no STAC file"),
    ],
)
def test_what_is_no_item_is_told(tmp_path, document, said):
    (tmp_path / "file.json").write_text(document)
    with pytest.raises(UnreadableScene, match=rf"file\.json .*{said}"):
        read_items(str(tmp_path / "file.json"))


def test_an_item_without_an_image_names_what_it_has(tmp_path):
    (found,) = read(tmp_path, item({"meta": asset("a.xml", kind="text/xml"), "thumbnail": asset("t.png", roles=["thumbnail"])}))
    with pytest.raises(UnreadableScene, match="has no image, only meta, thumbnail"):
        find_parts(found, RGB)
