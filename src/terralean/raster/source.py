"""A raster file on disk or behind a URL: opened when first read, once per process, with errors that name the file."""

from __future__ import annotations

import os
import re
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.errors import NotGeoreferencedWarning, RasterioError

from terralean.errors import MissingFile, UnreadableScene
from terralean.raster.grid import Window

GDAL_ERRORS = (RasterioError, CPLE_BaseError)  # some calls, rasterio.shutil.copy for one, let GDAL's own errors through

# Few, large and repeated requests instead of many small ones. TRUE, not EMPTY_DIR: no listing of the folder, but the sidecars
# that hold a mask (.msk) or georeferencing (.aux.xml) are still looked for.
REMOTE_OPTIONS = {
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
    "GDAL_HTTP_MERGE_CONSECUTIVE_RANGES": "YES",
    "GDAL_HTTP_MULTIPLEX": "YES",
    "GDAL_HTTP_MAX_RETRY": "4",
    "GDAL_HTTP_RETRY_DELAY": "1",
    "CPL_VSIL_CURL_CACHE_SIZE": "200000000",
    "VSI_CACHE": "TRUE",
    "VSI_CACHE_SIZE": "5000000",
}
REMOTE = re.compile(
    r"/vsi(curl|s3|gs|az|adls|oss|swift|webhdfs)(_streaming)?[/?]|(?!file:|zip:|tar:)[a-z0-9+.-]+://", re.IGNORECASE
)
PNG_END, END_BYTES = b"IEND", 4096  # the last chunk, after which some programs append something
VIRTUAL = re.compile(r"\s*<")
BESIDE = (".aux.xml", ".ovr")  # that programs write when they show a raster
CONNECTION = re.compile(r"/vsi|\w{2,}:|\s*<")  # what GDAL opens that is no plain path: /vsizip/..., NETCDF:..., <VRTDataset>


class Source:
    """A file that GDAL opens, shared by a scene and its crops. Neither pickling nor forking carries the handle along."""

    def __init__(self, path: str, *, opened: str | None = None) -> None:
        self.path = path  # what errors call it
        self._opened = path if opened is None else opened  # what GDAL is given
        self._handle: Any = None
        self._lock = threading.RLock()  # GDAL datasets are not safe for two threads at once
        self._pid = os.getpid()

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (self.path, self._opened)

    @property
    def files(self) -> tuple[str, ...]:
        """What is opened, and of a virtual raster the files in it; without statistics and overviews, which change no pixel."""
        if VIRTUAL.match(self._opened):
            named = Xml.fromstring(self._opened).iter("SourceFilename")
            return tuple(dict.fromkeys(file.text or "" for file in named))
        if not self._opened.lower().endswith(".vrt"):
            return (self._opened,)
        apart = Source(self.path, opened=self._opened)  # opened and closed again: this one may be closed, and stay so
        with apart.dataset() as dataset:
            within = [file for file in dataset.files if not file.endswith(BESIDE)]
        apart.close()
        return tuple(dict.fromkeys((self._opened, *within)))

    @contextmanager
    def dataset(self) -> Iterator[Any]:
        """The open rasterio dataset, held by one thread at a time."""
        if self._pid != os.getpid():
            self._inherited = self._handle  # the parent's: kept, because closing it here could wait for a lock nobody holds
            self._handle, self._lock, self._pid = None, threading.RLock(), os.getpid()
        options = remote_options(self._opened)
        with self._lock, rasterio.Env(**options) if options else nullcontext():
            if self._handle is None:
                self._handle = _open(self._opened, name=self.path)
            yield self._handle

    @contextmanager
    def reading(self, window: Window) -> Iterator[Any]:
        """The open dataset; what GDAL raises becomes an error that names the file and the window (pixels of the file)."""
        try:
            with self.dataset() as dataset:
                yield dataset
        except GDAL_ERRORS as error:
            raise UnreadableScene(
                f"{self.path} breaks off at rows {window.row} to {window.row + window.height - 1}, columns {window.col} to "
                f"{window.col + window.width - 1}: {cause(error)}; expected a complete file, copy or download it again"
            ) from error

    def close(self) -> None:
        """Let go of the file; the next read opens it again."""
        if self._handle is not None and self._pid == os.getpid():
            self._handle.close()
        self._handle = None


def named_part(path: str) -> tuple[str, str]:
    """A path and what is said behind it: `scene.mat#key=X` names a part of a file. A file whose own name has a # is itself."""
    file, mark, said = path.rpartition("#")
    return (file, said) if mark and file and not os.path.exists(path) and os.path.isfile(file) else (path, "")


def check_there(path: str, *, expected: str) -> None:
    """Raise MissingFile unless a plain local path exists; anything else that GDAL may open is left for it to try."""
    if os.path.exists(named_part(path)[0]) or CONNECTION.match(path):
        return
    if os.path.islink(path):
        raise MissingFile(f"{path} is a link to {os.readlink(path)}, which is not there; bring that back, or remove the link")
    parent = Path(path).parent
    if not parent.is_dir():
        raise MissingFile(f"{path} is not there (no folder {parent}); expected {expected}; check the path")
    near = get_close_matches(Path(path).name.partition("#")[0], os.listdir(parent), n=3)
    hint = f"nearest in that folder: {', '.join(near)}" if near else "check the path"
    raise MissingFile(f"{path} is not there; expected {expected}; {hint}")


def remote_options(path: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """GDAL options for a remote path, or a virtual raster of some, less those that the user has set; none for a local path."""
    if not (REMOTE.search(path) if VIRTUAL.match(path) else REMOTE.match(path)):
        return {}
    theirs = set(environ) | (set(rasterio.env.getenv()) if rasterio.env.hasenv() else set())
    return {key: value for key, value in REMOTE_OPTIONS.items() if key not in theirs}


def cause(error: BaseException) -> str:
    """What GDAL said first, without rasterio's pointer to it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error) or type(error).__name__


def _check_end(dataset: Any, path: str, *, name: str) -> None:
    """Raise UnreadableScene where a PNG on disk has no end: GDAL gives what happens to be in memory for its missing rows."""
    if dataset.driver != "PNG" or not os.path.isfile(path):
        return
    with open(path, "rb") as file:
        file.seek(-min(END_BYTES, os.path.getsize(path)), os.SEEK_END)
        ended = PNG_END in file.read()
    if not ended:
        dataset.close()
        raise UnreadableScene(f"{name} breaks off before its end; expected a complete PNG, copy or download it again")


def _again(path: str, opened: str) -> Source:
    return Source(path, opened=opened)


def _open(path: str, *, name: str) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # open_scene says it, with what follows from it
            dataset = rasterio.open(path)
        _check_end(dataset, path, name=name)
        return dataset
    except GDAL_ERRORS as error:
        if REMOTE.match(path):
            raise UnreadableScene(
                f"{name} cannot be fetched, or is no image ({cause(error)}); check the address, what you may read there and "
                "the network; links of a STAC search expire, so search again where it is old"
            ) from error
        raise UnreadableScene(
            f"{name} is not an image that GDAL can open ({cause(error)}); expected a GeoTIFF, VRT, ENVI, PNG, JPEG or another "
            "raster format; see what `rio info` says of it"
        ) from error
