import numpy as np
import pytest
import rasterio

from terralean.raster.acquired import NOTHING, Acquired, acquired


def tagged(path, **domains):
    """A small GeoTIFF with these tags."""
    size = {"width": 2, "height": 2, "count": 1, "dtype": "uint8", "transform": rasterio.Affine(10, 0, 5e5, 0, -10, 5e6)}
    with rasterio.open(path, "w", driver="GTiff", crs="EPSG:32633", **size) as file:
        file.write(np.ones((1, 2, 2), np.uint8))
        for domain, tags in domains.items():
            file.update_tags(ns=None if domain == "plain" else domain, **tags)
    with rasterio.open(path) as file:
        return acquired(file)


@pytest.mark.parametrize(
    ("domain", "key", "text", "moment"),
    [
        ("IMAGERY", "ACQUISITIONDATETIME", "2011-04-28 10:13:15", "2011-04-28T10:13:15Z"),
        ("IMD", "IMAGE_1.firstLineTime", '"2009-10-22T16:53:04.456789Z";', "2009-10-22T16:53:04.456789Z"),
        ("plain", "PRODUCT_START_TIME", "2019-06-01T10:10:31.024Z", "2019-06-01T10:10:31.024000Z"),
        ("ENVI", "acquisition_time", "2005-07-08T12:00:00-02:30", "2005-07-08T14:30:00Z"),
        ("plain", "TIFFTAG_DATETIME", "2020:05:01 09:08:07", "2020-05-01T09:08:07Z"),
    ],
)
def test_the_time_stands_in_many_places(tmp_path, domain, key, text, moment):
    found = tagged(tmp_path / "scene.tif", **{domain: {key: text}})
    assert found.moment == moment
    assert key in found.told_by
    assert found.properties() == {"datetime": moment}


def test_when_it_was_acquired_counts_for_more_than_when_it_was_written(tmp_path):
    found = tagged(
        tmp_path / "scene.tif",
        plain={"TIFFTAG_DATETIME": "2020:05:01 09:08:07"},
        IMAGERY={"ACQUISITIONDATETIME": "2011-04-28 10:13:15"},
    )
    assert found.moment == "2011-04-28T10:13:15Z"
    assert found.told_by == "IMAGERY ACQUISITIONDATETIME"


def test_a_date_is_a_day(tmp_path):
    found = tagged(tmp_path / "scene.tif", ENVI={"acquisition_time": "2005-07-08"})
    assert found.properties() == {
        "datetime": None,
        "start_datetime": "2005-07-08T00:00:00Z",
        "end_datetime": "2005-07-08T23:59:59Z",
    }


def test_what_is_no_time_is_passed_over(tmp_path):
    found = tagged(
        tmp_path / "scene.tif", IMAGERY={"ACQUISITIONDATETIME": "unknown"}, plain={"TIFFTAG_DATETIME": "0000:00:00 00:00:00"}
    )
    assert found == Acquired()
    assert found.told_by == NOTHING
    assert found.properties()["datetime"] is None
