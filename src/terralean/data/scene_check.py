"""Every image opened and decoded once before training starts, so that a broken one is named and not learnt from."""

from __future__ import annotations

import hashlib
import logging
import os
import statistics
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from terralean.data.index import bands_differ, bands_words
from terralean.data.reading import STRIP_PX
from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_index import SceneDataset, SceneImage
from terralean.data.scene_picture import GREY, RGB, SMALL_BYTES, read_picture
from terralean.data.split import relative
from terralean.data.words import SHOWN, counted, listed
from terralean.errors import BandMismatch, LabelError, MissingFile, SizeError, TerraleanError, UnreadableScene
from terralean.raster.cog import bounded_cache
from terralean.raster.grid import Window
from terralean.raster.scene import describe
from terralean.raster.source import check_there
from terralean.spec import Bands

log = logging.getLogger(__name__)

AT_ONCE = 1024  # images between two words on progress
THREADS = 8  # at most; decoding lets other threads run, and waits for disks


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a file holds."""

    height: int
    width: int
    digest: str  # of the decoded pixels: the same only for the very same pixels


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A dataset whose every image can be read."""

    dataset: SceneDataset  # without the images that were left out
    left_out: tuple[str, ...]
    seen: Mapping[str, Seen] = field(repr=False)  # by path

    @property
    def side_px(self) -> int:
        """Median of the images' shorter sides."""
        return round(statistics.median(min(seen.height, seen.width) for seen in self.seen.values()))


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What came of opening a file."""

    image: SceneImage
    seen: Seen | None = None
    bands: Bands | None = None
    fault: TerraleanError | None = None


def check_images(
    dataset: SceneDataset, config: SceneDataConfig, *, progress: Callable[[int, int], None] | None = None
) -> Checked:
    """Open and decode each image. `progress` is told how many of how many are done.

    Raises UnreadableScene or SizeError naming those that cannot be used, unless the config says to leave them out, and
    BandMismatch where images differ in bands or type.
    """
    looks = []
    for look in look_at_all(dataset.images, config):
        looks.append(look)
        if progress is not None and (len(looks) % AT_ONCE == 0 or len(looks) == len(dataset.images)):
            progress(len(looks), len(dataset.images))
    _stop_or_leave_out([look for look in looks if look.fault is not None], dataset, config)
    good = [look for look in looks if look.fault is None]
    images = tuple(look.image for look in good)
    _check_classes_left(dataset, images)
    bands = one_kind(dataset, [(look.image.path, look.bands) for look in good if look.bands is not None])
    seen = {look.image.path: look.seen for look in good if look.seen is not None}
    _tell_contradictions(dataset, images, seen)
    return Checked(
        dataset=replace(dataset, images=images, bands=bands),
        left_out=tuple(look.image.path for look in looks if look.fault is not None),
        seen=seen,
    )


# One image.


def look_at_all(images: Sequence[SceneImage], config: SceneDataConfig) -> Iterator[Look]:
    """What came of opening and decoding each image, in order; what is wrong with one is its `fault`."""
    with ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1)) as pool:
        for start in range(0, len(images), AT_ONCE):
            # Said here once: threads that each ignore a warning for a while undo each other's ignoring.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", NotGeoreferencedWarning)
                looks = list(pool.map(lambda image: _look(image, config), images[start : start + AT_ONCE]))
            yield from looks


def _look(image: SceneImage, config: SceneDataConfig) -> Look:
    try:
        seen, bands = _decode(image.path, config)
    except (MissingFile, UnreadableScene, SizeError, BandMismatch) as error:
        return Look(image=image, fault=error)
    return Look(image=image, seen=seen, bands=bands)


def _decode(path: str, config: SceneDataConfig) -> tuple[Seen, Bands]:
    """Raises SizeError for what is too thin, UnreadableScene for what breaks off or has no valid pixel."""
    check_there(path, expected="an image")
    small = Path(path).stat().st_size <= SMALL_BYTES
    bands, height, width, pieces = _whole(path, config) if small else _streamed(path, config)
    if min(height, width) < config.least_px:
        raise SizeError(
            f"{path} is {width} x {height} px (width, height); expected {config.least_px} px or more along both (data.least_px)"
        )
    digest, any_valid = hashlib.blake2b(f"{height} {width} {len(bands)} {bands.dtype}".encode(), digest_size=16), False
    for values, valid in pieces:
        digest.update(np.ascontiguousarray(values).tobytes())
        digest.update(np.packbits(valid).tobytes())
        any_valid = any_valid or bool(valid.any())
    if not any_valid:
        raise UnreadableScene(f"{path} has no valid pixel: all are nodata, masked or transparent; expected an image")
    return Seen(height=height, width=width, digest=digest.hexdigest()), bands


_Pieces = Iterator[tuple[NDArray[Any], NDArray[np.bool_]]]


def _whole(path: str, config: SceneDataConfig) -> tuple[Bands, int, int, _Pieces]:
    picture = read_picture(path, config=config)
    height, width = picture.valid.shape
    return picture.bands, height, width, ((picture.values[:, r], picture.valid[r]) for r in _rows(height, width))


def _streamed(path: str, config: SceneDataConfig) -> tuple[Bands, int, int, _Pieces]:
    """All pixels of a large file as they are stored, some millions at a time."""
    bands = read_picture(path, config=config, keep_px=config.least_px).bands
    with describe(path, expected="an image") as scene:
        height, width = scene.grid.height, scene.grid.width

    def pieces() -> _Pieces:
        with bounded_cache(), scene:
            for rows in _rows(height, width):
                yield scene.read(Window(row=rows.start, col=0, height=rows.stop - rows.start, width=width))

    return bands, height, width, pieces()


def _rows(height: int, width: int) -> Iterator[slice]:
    step = max(1, STRIP_PX // width)
    return (slice(row, min(row + step, height)) for row in range(0, height, step))


# All images.


def _stop_or_leave_out(faulty: Sequence[Look], dataset: SceneDataset, config: SceneDataConfig) -> None:
    odd = [look.fault for look in faulty if isinstance(look.fault, BandMismatch)]
    if odd:
        raise BandMismatch(_several(odd, dataset))
    faults = [look.fault for look in faulty if look.fault is not None]
    if not faults:
        return
    if config.unreadable == "skip" and len(faults) < len(dataset.images):
        told = _several(faults, dataset, shown=len(faults))  # all of them: nothing else says which are missing
        log.warning("%s\nThey are left out (data.unreadable is skip).", told)
        return
    kind = SizeError if all(isinstance(fault, SizeError) for fault in faults) else UnreadableScene
    raise kind(f"{_several(faults, dataset)}\nMend or remove them, or go on without them: --set data.unreadable=skip")


def _several(faults: Sequence[TerraleanError], dataset: SceneDataset, *, shown: int = SHOWN) -> str:
    told = "".join(f"\n  {fault}" for fault in faults[:shown])
    more = f"\n  and {len(faults) - shown} more" if len(faults) > shown else ""
    return f"{dataset.root}: {len(faults)} of {len(dataset.images)} images cannot be used:{told}{more}"


def _check_classes_left(dataset: SceneDataset, images: Sequence[SceneImage]) -> None:
    before, left = ({image.label for image in each} for each in (dataset.images, images))
    if lost := sorted(before - left):
        raise LabelError(
            f"{dataset.root}: without the images that cannot be used there is none of "
            f"{listed([dataset.classes.names[label] for label in lost])}; mend some, or take the class out"
        )


def one_kind(dataset: SceneDataset, found: Sequence[tuple[str, Bands]]) -> Bands:
    """The bands of all images. Raises BandMismatch naming those that differ from the most."""
    counts = Counter(bands for _, bands in found)
    usual = counts.most_common(1)[0][0]
    odd: dict[Bands, list[str]] = defaultdict(list)
    for path, bands in found:
        if bands != usual and bands_differ(bands, usual):
            odd[bands].append(relative(path, Path(dataset.root)))
    if odd:
        raise BandMismatch(f"{dataset.root}: images of one dataset must be of one kind{_kinds(usual, counts[usual], odd)}")
    return dataset.bands if dataset.bands in counts else usual


def _kinds(usual: Bands, count: int, odd: Mapping[Bands, Sequence[str]]) -> str:
    told = [f"{bands_words(usual)}: {counted(count, 'image')}"]
    told += [f"{bands_words(bands)}: {counted(len(paths), 'image')}, {listed(paths)}" for bands, paths in odd.items()]
    if {usual, *odd} == {GREY, RGB}:
        fix = "read grey ones as colour with --set data.colour=rgb, or convert them"
    else:
        fix = "convert or remove the odd ones, or choose common bands with data.bands"
    return "".join(f"\n  {line}" for line in told) + f"\n{fix}"


def _tell_contradictions(dataset: SceneDataset, images: Sequence[SceneImage], seen: Mapping[str, Seen]) -> None:
    """Warn of the very same pixels under two classes."""
    first: dict[str, SceneImage] = {}
    pairs = [
        (image, other) for image in images if (other := first.setdefault(seen[image.path].digest, image)).label != image.label
    ]
    if pairs:
        image, other = pairs[0]
        log.warning(
            "%s: %s with the very pixels of one of another class, %s (%s) and %s (%s) for one; one of the two labels is wrong",
            dataset.root,
            counted(len(pairs), "image"),
            image.path,
            dataset.classes.names[image.label],
            other.path,
            dataset.classes.names[other.label],
        )
