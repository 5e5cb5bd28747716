"""Tiles of images with the oriented objects in them, as samples: in random variants to train on, as they are to validate on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from terralean.boxes.form import hull
from terralean.boxes.rectangle import from_polygons
from terralean.data.augment import draw_jitter, jitter
from terralean.data.config import AugmentConfig, DataConfig
from terralean.data.oriented.augment import PER_OBJECT, augment_objects
from terralean.data.oriented.config import DetectionDataConfig
from terralean.data.oriented.layouts import Picture
from terralean.data.oriented.record import Record
from terralean.data.oriented.samples import ObjectSamples, objects_of
from terralean.data.oriented.tiles import Tile, TilesConfig, plan_tiles
from terralean.data.reading import Reader
from terralean.data.sample import Sample
from terralean.data.statistics import moments_of, no_moments, normalise
from terralean.errors import EmptySplit, LabelError
from terralean.raster.coding import Coding
from terralean.raster.grid import Window
from terralean.raster.scene import describe
from terralean.spec import Bands, Classes, Normalisation

MEASURED = 400  # tiles whose pixels give mean and spread


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedTile:
    """A tile of an image."""

    image: str  # path
    tile: Tile


class ObjectTiles(Dataset[Sample]):
    """Fixed tiles, all of one size: `image`, `valid`, and the objects in px of the tile, those that it cuts as difficult."""

    def __init__(self, tiles: Sequence[PlacedTile], *, classes: Classes, config: DetectionDataConfig) -> None:
        self.tiles, self.config = tuple(tiles), config
        reading = DataConfig(bands=config.bands, cache_mb=config.cache_mb)
        self.reader = Reader(classes=classes, coding=Coding(), config=reading)

    def __len__(self) -> int:
        return len(self.tiles)

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f"tile {index} of {len(self)}")
        placed, side = self.tiles[index], self.config.tile_px
        window = Window(row=placed.tile.window.row, col=placed.tile.window.col, height=side, width=side)
        values, valid = self.reader.values(placed.image, window)
        image = torch.from_numpy(np.where(valid, values, 0).astype(np.float32))
        return {"image": image, "valid": torch.from_numpy(valid), **objects_of(placed.tile.objects)}


Tiled = ObjectTiles | ObjectSamples


class ObjectCrops(Dataset[Sample]):
    """Training tiles in random order and variants: the same for the same seed, epoch and index, in any process.

    Every tile with objects is there once in a turn; a turn goes on over the end of an epoch. Objects too small to be learned
    are left out.
    """

    def __init__(
        self,
        tiles: Tiled,
        empty: ObjectTiles | None,
        *,
        normalisation: Normalisation,
        config: DetectionDataConfig,
        length: int,
        seed: int,
    ) -> None:
        self.tiles, self.empty, self.normalisation = tiles, empty, normalisation
        self.config, self.length, self.seed = config, length, seed
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()  # workers that outlive an epoch see it change

    def set_epoch(self, epoch: int) -> None:
        """Another epoch has other crops."""
        self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < self.length:
            raise IndexError(f"crop {index} of {self.length}")
        seeds = np.random.SeedSequence([self.seed, int(self._epoch), index])
        rng = np.random.default_rng(seeds)
        generator = torch.Generator().manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> 1))
        if self.empty and rng.random() < self.config.empty_share:
            sample = self.empty[int(rng.integers(len(self.empty)))]
        else:
            sample = self.tiles[self._in_turn(index)]
        sample = augment_objects(sample, self.config.augment, generator=generator)
        return learnable(self._toned(sample, generator), least_px=self.config.least_px)

    def _in_turn(self, index: int) -> int:
        turn, place = divmod(int(self._epoch) * self.length + index, len(self.tiles))
        return int(np.random.default_rng([self.seed, turn]).permutation(len(self.tiles))[place])

    def _toned(self, sample: Sample, generator: torch.Generator) -> Sample:
        tones = self.config.radiometry
        if not (tones.brightness or tones.contrast):
            return sample
        config = AugmentConfig(brightness=tones.brightness, contrast=tones.contrast)
        gain, shift = draw_jitter(config, bands=len(sample["image"]), generator=generator)
        return jitter(sample, gain=gain, shift=shift, normalisation=self.normalisation)


def learnable(sample: Sample, *, least_px: float) -> Sample:
    """The sample without objects whose shorter side is less, and without those that lie outside it altogether."""
    boxes = from_polygons(sample["bbox"])
    low, high = hull(boxes).split(2, dim=1)
    size = boxes.new_tensor(sample["image"].shape[:-3:-1])
    kept = (boxes[:, 3] >= least_px) & (high > 0).all(dim=1) & (low < size).all(dim=1)
    out = sample.copy()
    for key in PER_OBJECT:
        if key in sample:
            out[key] = sample[key][kept]  # type: ignore[literal-required]
    return out


def collate(samples: Sequence[Sample]) -> dict[str, Tensor | list[Tensor]]:
    """Samples of one size as a batch: `image` (B, C, H, W) and `valid` (B, H, W); of objects lists, as numbers differ."""
    batch: dict[str, Tensor | list[Tensor]] = {
        "image": torch.stack([one["image"] for one in samples]),
        "valid": torch.stack([one["valid"] for one in samples]),
    }
    for key in PER_OBJECT:
        batch[key] = [one[key] for one in samples]  # type: ignore[literal-required]
    return batch


def cut_pictures(pictures: Sequence[Picture], config: DetectionDataConfig, *, judge: bool) -> list[PlacedTile]:
    """The tiles of images. To judge, tiles without objects count too, and objects that a tile cuts are difficult."""
    cut = TilesConfig(
        size_px=config.tile_px,
        overlap_px=config.overlap_px,
        iof=config.iof,
        cut="difficult" if judge else "drop",
        empty=judge or config.empty_share > 0,
    )
    return [
        PlacedTile(image=one.record.image, tile=tile)
        for one in pictures
        for tile in plan_tiles(one.record, width=one.grid.width, height=one.grid.height, config=cut).tiles
    ]


def training_tiles(
    pictures: Sequence[Picture], *, classes: Classes, config: DetectionDataConfig
) -> tuple[ObjectTiles, ObjectTiles]:
    """Tiles that have an object to learn, and those that have none. Raises EmptySplit where no tile has one."""
    tiles = cut_pictures(pictures, config, judge=False)
    with_objects = [one for one in tiles if _has_learnable(one.tile.objects, config.least_px)]
    if not with_objects:
        raise EmptySplit(
            f"no training tile of {config.tile_px} px has an object with a side of {config.least_px:g} px or more; check the "
            "labels, or lower data.least_px"
        )
    without = [one for one in tiles if not len(one.tile.objects)]
    return tuple(ObjectTiles(some, classes=classes, config=config) for some in (with_objects, without))  # type: ignore[return-value]


def bands_of(pictures: Sequence[Picture], config: DetectionDataConfig) -> Bands:
    """The bands of the images, which are those of the first."""
    with describe(pictures[0].record.image, expected="an image") as scene:
        return scene.bands if config.bands is None else scene.bands.choose([number - 1 for number in config.bands])


def measure_tiles(tiles: Tiled, *, bands: Bands, seed: int) -> Normalisation:
    """Mean and spread of the valid pixels of a bounded number of tiles. Raises DatasetError for a constant band."""
    moments = no_moments(len(bands))
    order = np.random.default_rng(seed).permutation(len(tiles))[:MEASURED]
    for index in np.sort(order):
        sample = tiles[int(index)]
        moments = moments.merge(moments_of(sample["image"].numpy(), sample["valid"].numpy()))
    return normalise(moments, bands=bands, where=f"{len(order)} of {len(tiles)} training tiles")


def count_objects(tiles: Tiled, *, classes: Classes) -> tuple[int, ...]:
    """Objects of each class, those in the overlap of tiles as often. Raises LabelError for a class without one."""
    labels = (
        [one.tile.objects.labels for one in tiles.tiles]
        if isinstance(tiles, ObjectTiles)
        else [tiles[index]["labels"].numpy() for index in range(len(tiles))]
    )
    counts = np.bincount(np.concatenate(labels), minlength=len(classes)).tolist()
    if lacking := [name for name, count in zip(classes.names, counts, strict=True) if not count]:
        raise LabelError(f"no training tile has an object of {', '.join(lacking)}; give some, or leave the class out")
    return tuple(counts)


def _has_learnable(objects: Record, least_px: float) -> bool:
    if not len(objects):
        return False
    sides = from_polygons(torch.from_numpy(objects.polygons))[:, 3]
    return bool((sides >= least_px).any())
