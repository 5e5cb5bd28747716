"""Patches of cubes around labelled pixels, cut when they are asked for; and what is measured of the pixels themselves."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from terralean.data.sample import Sample
from terralean.data.spectral.config import SpectralAugmentConfig
from terralean.data.spectral.pixels import Pixels
from terralean.errors import EmptySplit
from terralean.raster.cube import span
from terralean.raster.grid import Window
from terralean.raster.scene import Scene, open_scene, valid_pixels
from terralean.spec import Bands, Normalisation

log = logging.getLogger(__name__)

HELD_BYTES = 1 << 30  # of cubes that are read once and held; what is larger is read window by window
STRIP_VALUES = 1 << 25  # of a cube that are read at once
POWERS = {"none": 1.0, "root": 0.5, "full": 0.0}  # of the pixels that a class has: how often it is drawn
COMPONENT_PIXELS = 20_000  # of a whole scene, from which components come at most


class CubeReader:
    """Windows of a cube with zeros beyond its edges. Where it is to be held it is read once, at the first window."""

    def __init__(self, image: str, *, bands: Sequence[int] | None, hold: bool = True) -> None:
        self.scene: Scene = open_scene(image, bands=bands)
        self.hold = hold
        self._held: tuple[NDArray[Any], NDArray[np.bool_]] | None = None

    def read(self, window: Window) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Values (C, h, w), 0 where not valid, and valid (h, w)."""
        values, valid = self._cut(window) if self.hold else self.scene.read(window)
        return np.where(valid, values, 0).astype(np.float32), valid

    def _cut(self, window: Window) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        if self._held is None:
            self._held = self.scene.read(self.scene.grid.window)
            self.scene.close()
        whole, known = self._held
        values = np.zeros((len(whole), window.height, window.width), whole.dtype)
        valid = np.zeros((window.height, window.width), np.bool_)
        inside = window.cut(self.scene.grid.window)
        to, source = inside.slices(origin=window), inside.slices()
        values[:, *to], valid[to] = whole[:, *source], known[source]
        return values, valid


def open_cubes(images: Sequence[str], *, bands: Sequence[int] | None) -> list[CubeReader]:
    """Readers of cubes, of which as many are held as HELD_BYTES allow, the first ones first."""
    readers, left = [], HELD_BYTES
    for image in images:
        reader = CubeReader(image, bands=bands)
        scene = reader.scene
        size = scene.grid.window.pixels * len(scene.bands) * np.dtype(scene.bands.dtype).itemsize
        reader.hold = size <= left
        left -= size if reader.hold else 0
        readers.append(reader)
    return readers


class PixelPatches(Dataset[Sample]):
    """The patch around each pixel: `image` (C, side, side) raw, `valid` (side, side), and `label` of the pixel."""

    def __init__(self, readers: Sequence[CubeReader], pixels: Pixels, *, side_px: int) -> None:
        self.readers, self.pixels, self.side_px = readers, pixels, side_px

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"pixel {index} of {len(self)}")
        values, valid, label = self.patch(index)
        return {"image": torch.from_numpy(values), "valid": torch.from_numpy(valid), "label": torch.tensor(label)}

    def patch(self, index: int) -> tuple[NDArray[np.float32], NDArray[np.bool_], int]:
        """As arrays."""
        pixels, half = self.pixels, self.side_px // 2
        row, col = int(pixels.row[index]) - half, int(pixels.col[index]) - half
        window = Window(row=row, col=col, height=self.side_px, width=self.side_px)
        return *self.readers[int(pixels.scene[index])].read(window), int(pixels.label[index])


class PixelCrops(Dataset[Sample]):
    """Training patches drawn at random and changed, `length` an epoch; the same seed and epoch give the same ones."""

    def __init__(
        self,
        patches: PixelPatches,
        *,
        normalisation: Normalisation,
        config: SpectralAugmentConfig,
        balance: str,
        length: int,
        seed: int,
    ) -> None:
        self.patches, self.config, self.length, self.seed = patches, config, length, seed
        self.std = np.array(normalisation.std, np.float32)[:, None, None]
        counts = patches.pixels.counts(int(patches.pixels.label.max()) + 1)
        weight = np.where(counts > 0, np.maximum(counts, 1).astype(np.float64) ** POWERS[balance], 0)
        each = weight[patches.pixels.label] / counts[patches.pixels.label]
        self.chance = each / each.sum()  # of each pixel
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Which draws are next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.default_rng([self.seed, self.epoch, index])
        values, valid, label = self.patches.patch(int(rng.choice(len(self.chance), p=self.chance)))
        values, valid = changed(values, valid, self.config, std=self.std, rng=rng)
        return {"image": torch.from_numpy(values), "valid": torch.from_numpy(valid), "label": torch.tensor(label)}


def changed(
    values: NDArray[np.float32],
    valid: NDArray[np.bool_],
    config: SpectralAugmentConfig,
    *,
    std: NDArray[np.float32],
    rng: np.random.Generator,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A patch (C, h, w) with its mask (h, w) turned, lit otherwise and with noise; std (C, 1, 1) of the bands."""
    if config.turn:
        turns, mirrored = int(rng.integers(4)), bool(rng.integers(2))
        values, valid = np.rot90(values, turns, axes=(1, 2)), np.rot90(valid, turns)
        if mirrored:
            values, valid = values[..., ::-1], valid[..., ::-1]
    if config.gain:
        values = values * np.float32(1 + rng.uniform(-config.gain, config.gain))
    if config.noise:
        values = values + config.noise * std * rng.standard_normal(values.shape, np.float32)
    return np.ascontiguousarray(np.where(valid, values, 0), np.float32), np.ascontiguousarray(valid)


def with_data(pixels: Pixels, readers: Sequence[CubeReader]) -> Pixels:
    """Those of the pixels that hold data."""
    kept = np.zeros(len(pixels), bool)
    for index, reader in enumerate(readers):
        mine = np.flatnonzero(pixels.scene == index)
        for window in _strips(reader):
            here = mine[(pixels.row[mine] >= window.row) & (pixels.row[mine] < window.row + window.height)]
            if len(here):
                _, valid = reader.read(window)
                kept[here] = valid[pixels.row[here] - window.row, pixels.col[here]]
    if len(pixels) and not kept.any():
        raise EmptySplit(_nothing(pixels, readers))
    if lost := int((~kept).sum()):
        log.warning("%d of %d labelled pixels hold no data in the cube and are left out", lost, len(pixels))
    return pixels.take(kept)


def _nothing(pixels: Pixels, readers: Sequence[CubeReader]) -> str:
    """What to say where no labelled pixel holds data: which bands of the first scene with labels are to blame."""
    scene = readers[int(pixels.scene[0])].scene
    mine = pixels.take(pixels.scene == pixels.scene[0])
    known = np.zeros(len(scene.positions), bool)
    for row in np.unique(mine.row):
        values = scene.read(Window(row=int(row), col=0, height=1, width=scene.grid.width))[0][:, :, mine.col[mine.row == row]]
        one_by_one = zip(values, scene.nodata_values, strict=True)
        known |= [bool(valid_pixels(band[None], nodata=[nodata]).any()) for band, nodata in one_by_one]
    empty = [position for position, some in zip(scene.positions, known, strict=True) if not some]
    start = f"{scene.path}: none of the {len(pixels)} labelled pixels holds data in all bands"
    if not empty or len(empty) == len(known):
        return f"{start}; check the nodata value, and that the labels belong to it"
    return (
        f"{start}: bands {span(empty)} hold NaN or nodata in every one; mark them as bad (bbl), or choose the others with "
        "--set data.bands=[...]"
    )


def spectra(pixels: Pixels, readers: Sequence[CubeReader]) -> NDArray[np.float32]:
    """(n, C): the values of pixels."""
    one = PixelPatches(readers, pixels, side_px=1)
    return np.stack([one.patch(index)[0][:, 0, 0] for index in range(len(one))])


def scene_spectra(readers: Sequence[CubeReader], *, seed: int) -> tuple[NDArray[np.float32], Normalisation]:
    """Some of all pixels with data (m, C), and the statistics of all."""
    rng, parts = np.random.default_rng(seed), []
    count, sums, squares = 0, 0.0, 0.0
    share = min(1.0, COMPONENT_PIXELS / max(1, sum(reader.scene.grid.window.pixels for reader in readers)))
    for reader in readers:
        for window in _strips(reader):
            values, valid = reader.read(window)
            found = values[:, valid].T.astype(np.float64)
            count, sums, squares = count + len(found), sums + found.sum(axis=0), squares + (found**2).sum(axis=0)
            parts.append(found[rng.random(len(found)) < share].astype(np.float32))
    mean = np.asarray(sums) / count
    deviation = np.sqrt(np.maximum(np.asarray(squares) / count - mean**2, 0))
    return np.concatenate(parts), Normalisation(mean=tuple(mean.tolist()), std=_above_zero(deviation))


def normalisation_of(values: NDArray[np.float32], *, bands: Bands, told: str) -> Normalisation:
    """Mean and deviation of spectra (n, C); bands that are the same in all of them stay as they are, with a warning."""
    wide = values.astype(np.float64)
    deviation = wide.std(axis=0)
    if flat := [name for name, one in zip(bands.names, deviation, strict=True) if not one > 0]:
        log.warning("%s: the same value in all %s: %s; such bands say nothing", told, "training pixels", ", ".join(flat[:5]))
    return Normalisation(mean=tuple(wide.mean(axis=0).tolist()), std=_above_zero(deviation))


def normalised(values: NDArray[np.float32], normalisation: Normalisation) -> Tensor:
    """Spectra (n, C) as a network sees them."""
    mean, std = (np.array(part, np.float32) for part in (normalisation.mean, normalisation.std))
    return torch.from_numpy((values - mean) / std)


def _above_zero(deviation: NDArray[np.float64]) -> tuple[float, ...]:
    return tuple(np.where(deviation > 0, deviation, 1.0).tolist())


def _strips(reader: CubeReader) -> list[Window]:
    grid = reader.scene.grid
    step = max(1, STRIP_VALUES // (grid.width * len(reader.scene.bands)))
    return [
        Window(row=row, col=0, height=min(step, grid.height - row), width=grid.width) for row in range(0, grid.height, step)
    ]
