"""A class for each pixel of a scene."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from terralean.mapping.blend import Strip, Weighted, blend, predict_pixels
from terralean.mapping.crew import Crew, answered
from terralean.mapping.plan import Plan
from terralean.mapping.reading import Batch, bytes_read
from terralean.mapping.stages import Stages
from terralean.mapping.work import Finished, percent
from terralean.predict import Predictor
from terralean.raster.clip import Clip
from terralean.raster.cog import Content
from terralean.raster.grid import Grid
from terralean.raster.scene import Scene
from terralean.spec import IGNORE


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class PixelWork:
    """Windows of a scene, predicted and blended."""

    predictor: Predictor
    scene: Scene
    lattice: Plan
    clip: Clip | None
    crew: Crew
    contents: Mapping[str, Content]

    @property
    def grid(self) -> Grid:
        """Of the map: pixels are those of the scene."""
        return self.lattice.map_grid

    @property
    def place(self) -> Grid:
        """The same; without a CRS, x and y are columns and rows."""
        return self.grid

    @property
    def cell_px(self) -> int:
        """A pixel is a pixel."""
        return 1

    @property
    def heights(self) -> list[int]:
        """Of strips."""
        return [self.lattice.strip(row).height for row in self.lattice.rows]

    def with_crew(self, crew: Crew) -> PixelWork:
        """The same work by others."""
        return replace(self, crew=crew)

    def predict(self, batch: Batch) -> Weighted:
        """Blend weights are applied by the workers, so that blending only adds."""
        return predict_pixels(self.predictor, self.lattice, batch, compute="compute" in self.contents)

    def finished(self, stages: Stages, *, done: int) -> Iterator[Finished]:
        """What a strip shares with the one above comes of predicting the windows above it again."""
        first_row = self.lattice.rows[max(0, done - 1)]
        answers = answered(stages, self.scene, self.lattice, self.predict, crew=self.crew, first_row=first_row, clip=self.clip)
        classes, compute = len(self.predictor.card.classes), "compute" in self.contents
        strips = blend(answers, self.lattice, classes=classes, compute=compute, done=done)
        return stages.ahead((self._finish(strip) for strip in strips), depth=1)

    def bytes_held(self) -> int:
        """Rows read, batches on their way with their answers, sums of a strip, and rows on their way to disk."""
        card, side, width = self.predictor.card, self.lattice.tile_px, self.lattice.cols[-1] + self.lattice.tile_px
        per_px = 4 * (len(card.classes) + ("compute" in self.contents))
        kept = sum(len(content.bands) for content in self.contents.values())
        answers = (self.crew.at_once + 1) * self.crew.batch * side**2 * (per_px + 4)
        sums = side * (width - self.lattice.cols[0]) * (per_px + 1)
        to_disk = (side - self.lattice.overlap_px) * self.grid.width * (3 * kept + 9)
        read = bytes_read(self.scene, self.lattice, batch=self.crew.batch, at_once=self.crew.at_once)
        return read + answers + sums + to_disk

    def _finish(self, strip: Strip) -> Finished:
        classes, probability = likeliest(strip.probabilities)
        rows = {"classes": np.where(strip.valid, classes, np.uint8(IGNORE))[None]}
        if "confidence" in self.contents:
            rows["confidence"] = percent(probability, strip.valid)[None]
        if "scores" in self.contents:
            rows["scores"] = np.stack([percent(scores, strip.valid) for scores in strip.probabilities])
        if strip.kept is not None:
            rows["compute"] = percent(strip.kept, strip.valid)[None]
        return Finished(rows=rows, windows=strip.windows, kept_sum=strip.kept_sum)


def likeliest(probabilities: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """(K, h, w) -> the likeliest class of each pixel, the first of equals, and its probability.

    Class by class, as memory lies: numpy's argmax over the first axis is many times slower.
    """
    best = probabilities[0].copy()
    classes = np.zeros(best.shape, np.uint8)
    for index, scores in enumerate(probabilities[1:], start=1):
        higher = scores > best
        np.copyto(best, scores, where=higher)
        classes[higher] = index
    return classes, best
