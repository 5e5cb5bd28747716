import socket

import pytest
import rasterio

from terralean.errors import UnreadableScene
from terralean.raster.scene import open_scene
from terralean.raster.source import REMOTE_OPTIONS, remote_options


def test_remote_options_are_for_remote_paths_only():
    for path in (
        "/vsicurl/https://a.org/b.tif",
        "/vsis3/bucket/b.tif",
        "s3://bucket/b.tif",
        "https://a.org/b.tif",
        "/vsicurl?url=a",
    ):
        assert remote_options(path, {}) == REMOTE_OPTIONS, path
    for path in (
        "/data/b.tif",
        "b.tif",
        "C:\\b.tif",
        "/vsizip/a.zip/b.tif",
        "/vsimem/b.tif",
        "file:///b.tif",
        "zip://a.zip!b.tif",
    ):
        assert remote_options(path, {}) == {}, path


def test_what_the_user_has_set_stays():
    assert "VSI_CACHE" not in remote_options("s3://bucket/b.tif", {"VSI_CACHE": "FALSE"})
    with rasterio.Env(GDAL_HTTP_MAX_RETRY="9"):
        assert "GDAL_HTTP_MAX_RETRY" not in remote_options("s3://bucket/b.tif", {})
    assert "GDAL_HTTP_MAX_RETRY" in remote_options("s3://bucket/b.tif", {})


def test_a_dead_link_is_told_with_its_cause():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # and nobody listens
        path = f"/vsicurl/http://127.0.0.1:{unused.getsockname()[1]}/scene.tif"
        with pytest.raises(
            UnreadableScene,
            match=rf"{path} cannot be fetched, or is no image \(CURL error.*\); check the address.*search again",
        ):
            open_scene(path)
