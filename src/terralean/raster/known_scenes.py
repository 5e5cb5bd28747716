"""Recognising the public scenes: a genuine file is told by name, one that goes by a name and is something else is refused."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from terralean.errors import LabelError, UnreadableScene
from terralean.raster.cube import Cube
from terralean.raster.public_scenes import PUBLIC_SCENES, LabelMap, PublicScene
from terralean.spec import Classes

Size = tuple[int, int]
Counts = Mapping[int, int]

# Colours that stay apart under normal sight and the common colour-vision deficiencies (Machado et al. 2009, full severity),
# each the farthest in CIELAB from those before it: any two of the first 10 differ by 24, of the first 16 by 20, of all by 15.
COLOURS: tuple[tuple[int, int, int], ...] = (
    (0, 120, 180),
    (255, 120, 15),
    (150, 120, 105),
    (150, 255, 150),
    (90, 0, 195),
    (105, 45, 0),
    (165, 180, 210),
    (0, 60, 75),
    (165, 105, 255),
    (255, 225, 0),
    (180, 105, 60),
    (120, 180, 255),
    (90, 0, 120),
    (255, 165, 165),
    (60, 60, 45),
    (105, 105, 120),
    (60, 210, 75),
    (0, 30, 255),
    (240, 0, 195),
    (105, 180, 105),
    (225, 60, 0),
    (135, 45, 135),
    (225, 105, 165),
    (105, 90, 60),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownCube:
    """The public scene that a cube is."""

    scene: PublicScene
    raw: bool  # with the bands that water takes
    by: str  # how it was recognised: "name and size", or "size"

    @property
    def words(self) -> str:
        """In words."""
        what = f", all {self.scene.raw_bands} bands" if self.raw else ""
        return f"{self.scene.name} ({self.scene.sensor}){what}, by its {self.by}"

    @property
    def good(self) -> tuple[bool, ...]:
        """Which bands count: of a raw file those that the file in use has."""
        if not self.raw:
            return (True,) * self.scene.bands
        return tuple(i not in self.scene.removed for i in range(1, (self.scene.raw_bands or 0) + 1))

    @property
    def wavelength_nm(self) -> tuple[float, ...] | None:
        """Centres of the bands, where they are known."""
        return self.scene.raw_nm if self.raw else self.scene.used_nm


@dataclass(frozen=True, kw_only=True, slots=True)
class KnownLabels:
    """The published label map that a file is, or is a part of."""

    scene: PublicScene
    labels: LabelMap
    whole: bool
    pixels: int

    @property
    def words(self) -> str:
        """In words."""
        part = "" if self.whole else f"{self.pixels} of {self.labels.pixels} px of "
        return f"{part}{self.scene.name}: {self.labels.title}"

    @property
    def classes(self) -> Classes:
        """Its classes, in our colours."""
        return coloured(self.labels.names)


def cube_keys() -> tuple[str, ...]:
    """What the variables of public cubes are called."""
    return tuple(key for scene in PUBLIC_SCENES for key in (*scene.keys, *scene.raw_keys))


def label_keys() -> tuple[str, ...]:
    """What the variables of public label maps are called."""
    return tuple(key for scene in PUBLIC_SCENES for labels in scene.labels for key in labels.keys)


def known_cube(key: str | None, *, rows: int, cols: int, bands: int, axes_told: bool, path: str) -> KnownCube | None:
    """The public scene of a cube, by the name of its variable and its size, or by its size alone.

    Raises UnreadableScene for a cube that goes by the name of one and has its axes in another order, or other bands.
    """
    named = next((s for s in PUBLIC_SCENES if key is not None and key.lower() in _lower((*s.keys, *s.raw_keys))), None)
    if named is None:
        sized = [s for s in PUBLIC_SCENES if (s.rows, s.cols) == (rows, cols) and bands in (s.bands, s.raw_bands)]
        return KnownCube(scene=sized[0], raw=bands != sized[0].bands, by="size") if len(sized) == 1 else None
    if (named.rows, named.cols) == (rows, cols):
        _check_bands(named, key or "", bands, path)
        return KnownCube(scene=named, raw=bands != named.bands, by="name and size") if _has(named, bands) else None
    if not axes_told:
        _check_order(named, (rows, cols, bands), path)
    return None


def as_known(cube: Cube, known: KnownCube) -> Cube:
    """A cube with what is known of the scene and the file does not say."""
    nm = cube.bands.wavelength_nm or known.wavelength_nm
    good = cube.good if not all(cube.good) else known.good
    notes = list(cube.notes)
    if known.raw and all(cube.good):
        notes.append(f"{good.count(False)} bands in which water hides the ground are bad bands")
    if known.scene.doubt:
        notes.append(known.scene.doubt)
    return replace(cube, bands=replace(cube.bands, wavelength_nm=nm), good=good, scene=known.words, notes=tuple(notes))


def _has(scene: PublicScene, bands: int) -> bool:
    return bands in (scene.bands, scene.raw_bands)


def _check_bands(scene: PublicScene, key: str, bands: int, path: str) -> None:
    if bands == scene.raw_bands and key.lower() in _lower(scene.keys):
        raise UnreadableScene(
            f"{path}: {key} has {bands} bands, as the raw file of {scene.name} has; under that name {scene.bands} are "
            f"expected, without those that water takes ({_span(scene.removed)}); take the corrected file, or read it as it is "
            "with #known=no"
        )
    if not _has(scene, bands):
        raise UnreadableScene(
            f"{path}: {key} has {bands} bands, {scene.name} has {scene.bands}"
            f"{f' (raw {scene.raw_bands})' if scene.raw_bands else ''}: it is made of it, principal components perhaps; "
            "to read it as it is: #known=no"
        )


def _check_order(scene: PublicScene, shape: tuple[int, int, int], path: str) -> None:
    for order in permutations("rcb"):
        lengths = dict(zip(order, shape, strict=True))
        if (lengths["r"], lengths["c"]) == (scene.rows, scene.cols) and _has(scene, lengths["b"]):
            raise UnreadableScene(
                f"{path} is {scene.name} with its axes in another order, {' x '.join(map(str, shape))} for {scene.rows} rows x "
                f"{scene.cols} columns x {lengths['b']} bands; its label map would not fit; "
                f"say #axes={''.join(order)} behind the path"
            )


def known_labels(key: str | None, *, size: Size, counts: Counts, path: str) -> KnownLabels | None:
    """The published label map with this number of rows and columns and these pixels of each number, or of which it is a part.

    Raises LabelError for one that goes by the name of a public label map and is another.
    """
    labelled = {number: count for number, count in counts.items() if number}
    candidates = [(s, m) for s in PUBLIC_SCENES for m in s.labels if (s.rows, s.cols) == size]
    exact = [(s, m) for s, m in candidates if labelled == dict(zip(m.numbers, m.counts, strict=True))]
    if exact:
        scene, labels = exact[0]
        return KnownLabels(scene=scene, labels=labels, whole=True, pixels=labels.pixels)
    named = [(s, m) for s in PUBLIC_SCENES for m in s.labels if key is not None and key.lower() in _lower(m.keys)]
    if not named:
        return None
    scene, labels = named[0]
    if size != (scene.rows, scene.cols):
        raise LabelError(_other_size(scene, size, path))
    published = dict(zip(labels.numbers, labels.counts, strict=True))
    if labels.counted and any(count > published.get(number, 0) for number, count in labelled.items()):
        raise LabelError(_other_map(scene, labels, labelled, published, path))
    return KnownLabels(scene=scene, labels=labels, whole=False, pixels=sum(labelled.values()))


def _other_size(scene: PublicScene, size: Size, path: str) -> str:
    turned = size == (scene.cols, scene.rows)
    why = (
        "it is transposed; say #axes=crb behind the path"
        if turned
        else "it is of another scene; take the one that belongs to it"
    )
    return f"{path} is {size[0]} x {size[1]} px, the label map of {scene.name} is {scene.rows} x {scene.cols}: {why}"


def _other_map(scene: PublicScene, labels: LabelMap, found: Counts, published: Counts, path: str) -> str:
    more = [
        f"{number}: {count} for {published.get(number, 0)}"
        for number, count in sorted(found.items())
        if count > published.get(number, 0)
    ]
    other = next((m for m in scene.labels if m is not labels and sum(found.values()) == m.pixels), None)
    whose = f"; {other.title} has as many" if other else ""
    return (
        f"{path} has {sum(found.values())} labelled px, {labels.title} has {labels.pixels}, and more than these of class "
        f"{', '.join(more[:5])}: it is another label map, or numbers its classes otherwise{whose}; never mix them; to read it "
        "as it is: #known=no, and name its classes"
    )


def check_pixels(known: KnownLabels, values: NDArray[Any], *, path: str) -> None:
    """Raise LabelError for a map (H, W) that has the counts of a published one, and its pixels elsewhere."""
    expected = known.labels.crc32
    if not known.whole or expected is None or _crc32(values) == expected:
        return
    turns = {
        "transposed": values.T,
        "upside down": values[::-1],
        "mirrored": values[:, ::-1],
        "turned about": values[::-1, ::-1],
    }
    how = next((name for name, turned in turns.items() if _crc32(turned) == expected), None)
    fix = "say #axes=crb behind the path" if how == "transposed" else "take the original file"
    raise LabelError(
        f"{path} has as many pixels of each class as {known.words}, but elsewhere: it is {how or 'another map'}; {fix}, or "
        "read it as it is with #known=no"
    )


def _crc32(values: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(values.astype(np.uint8)).data)


def published_file(path: Path) -> str | None:
    """The name under which this very file, byte for byte, was published; None if it is none that is known."""
    names = {blob: f"{name} of {scene.name}" for scene in PUBLIC_SCENES for name, blob in scene.blobs}
    stat = path.stat()
    return names.get(_blob_id(str(path), stat.st_mtime_ns, stat.st_size))


@lru_cache(maxsize=64)
def _blob_id(path: str, changed: int, size: int) -> str:
    """What git calls a file of these bytes; kept as long as the file does not change."""
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with open(path, "rb") as file:
        while chunk := file.read(2**20):
            digest.update(chunk)
    return digest.hexdigest()


def coloured(names: Sequence[str]) -> Classes:
    """Classes of these names in colours that stay apart, as far as there are such; beyond them as `Classes.named` has them."""
    if len(names) > len(COLOURS):
        return Classes.named(names)
    return Classes(names=tuple(names), colours=COLOURS[: len(names)])


def _lower(names: Sequence[str]) -> tuple[str, ...]:
    return tuple(name.lower() for name in names)


def _span(numbers: Sequence[int]) -> str:
    return f"{len(numbers)} bands from {min(numbers)} to {max(numbers)}" if numbers else "none"
