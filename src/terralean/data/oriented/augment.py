"""How training samples of oriented objects vary: flips, quarter turns, turns by any angle. Corners move as the pixels do.

Samples have `bbox` (n, 8) px, `labels` (n,) and perhaps `difficult` (n,). An object of which the picture has too small a share
afterwards is left out. Radiometry is that of `data.augment`, which leaves objects alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from terralean.boxes.move import flipped, move_polygons, scaled, shifted, turned
from terralean.boxes.polygons import share_in_windows
from terralean.data import augment
from terralean.data.sample import Sample
from terralean.errors import ConfigError
from terralean.spec import IGNORE

PER_OBJECT = ("bbox", "labels", "difficult")
HALF_TURN_DEG = 180.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectsAugmentConfig:
    """How the place of objects varies. Oriented R-CNN for DOTA has flips alone."""

    flips: bool = True
    rotate90: bool = True
    angle_deg: float = 0.0  # turned by up to so much either way, after flips and quarter turns; corners have no data then
    iof: float = 0.7  # share of an object's area that must be in the picture

    def __post_init__(self) -> None:
        if not 0 <= self.angle_deg <= HALF_TURN_DEG:
            raise ConfigError(f"angle_deg must be 0 to 180, got {self.angle_deg:g}")
        if not 0 < self.iof <= 1:
            raise ConfigError(f"iof must be above 0 up to 1, got {self.iof:g}")


def augment_objects(sample: Sample, config: ObjectsAugmentConfig, *, generator: torch.Generator) -> Sample:
    """A random variant of the way a sample lies."""
    draws = torch.rand(4, generator=generator)  # always as many, so that one setting does not change what another draws
    if config.flips:
        sample = flip_objects(sample, horizontal=bool(draws[0] < 1 / 2), vertical=bool(draws[1] < 1 / 2))
    if config.rotate90:
        sample = turn_objects(sample, turns=int(draws[2] * 4))
    if config.angle_deg:
        angle = math.radians(config.angle_deg) * (2 * float(draws[3]) - 1)
        sample = rotate_objects(sample, angle=angle, iof=config.iof)
    return sample


def flip_objects(sample: Sample, *, horizontal: bool, vertical: bool) -> Sample:
    """Left and right, top and bottom exchanged. Its own inverse."""
    height, width = sample["image"].shape[-2:]
    matrix = flipped(width=width if horizontal else None, height=height if vertical else None)
    return _with_corners(augment.flip(sample, horizontal=horizontal, vertical=vertical), matrix)


def turn_objects(sample: Sample, *, turns: int) -> Sample:
    """Quarter turns anticlockwise; four of them change nothing."""
    out = sample
    for _ in range(turns % 4):
        width = out["image"].shape[-1]
        out = _with_corners(augment.rotate90(out, turns=1), torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, width]]))
    return out


def rotate_objects(sample: Sample, *, angle: float, iof: float) -> Sample:
    """Turned by an angle in radians, positive clockwise on screen, about its middle, in a picture of the same size.

    The image is bilinear over valid pixels, mask and `valid` nearest; corners that nothing was turned into are not valid.
    """
    height, width = sample["image"].shape[-2:]
    points = _sources(height=height, width=width, angle=angle)
    out = sample.copy()
    valid = _look_up(sample["valid"][None].float(), points, mode="nearest")[0] > 1 / 2
    weight = _look_up(sample["valid"][None].float(), points, mode="bilinear")
    image = sample["image"].float()
    found = _look_up(image.reshape(-1, height, width), points, mode="bilinear") / weight.clamp_min(1e-6)
    out["image"] = (found * valid).reshape(image.shape)
    out["valid"] = valid
    if "mask" in sample:
        mask = _look_up(sample["mask"][None].double(), points.double(), mode="nearest")[0].long()
        out["mask"] = torch.where(valid, mask, IGNORE)
    return keep_inside(_with_corners(out, turned(angle, about=(width / 2, height / 2))), iof=iof)


def cut_objects(sample: Sample, *, row: int, col: int, height: int, width: int, iof: float) -> Sample:
    """A window of the sample, with the objects of which it holds the share `iof`; what lies outside is not valid."""
    out = augment.cut(sample, row=row, col=col, height=height, width=width)
    return keep_inside(_with_corners(out, shifted(x=-col, y=-row)), iof=iof)


def resize_objects(sample: Sample, *, height: int, width: int) -> Sample:
    """The same ground in other pixels."""
    rows, cols = sample["image"].shape[-2:]
    return _with_corners(augment.resize(sample, height=height, width=width), scaled(x=width / cols, y=height / rows))


def keep_inside(sample: Sample, *, iof: float) -> Sample:
    """The objects of which the picture holds a share of `iof` or more; of a line or a point, one that lies in it."""
    height, width = sample["image"].shape[-2:]
    window = sample["bbox"].new_tensor([[0.0, 0.0, width, height]])
    kept = share_in_windows(sample["bbox"], window)[:, 0] >= iof
    out = sample.copy()
    for key in PER_OBJECT:
        if key in sample:
            out[key] = sample[key][kept]  # type: ignore[literal-required]
    return out


def _with_corners(sample: Sample, matrix: Tensor) -> Sample:
    out = sample.copy()
    out["bbox"] = move_polygons(sample["bbox"], matrix)
    return out


def _sources(*, height: int, width: int, angle: float) -> Tensor:
    """For each pixel of the turned picture the place in the other that comes there: (1, H, W, 2) for `grid_sample`."""
    y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = x - width / 2, y - height / 2
    return torch.stack([(x * cos + y * sin) * 2 / width, (y * cos - x * sin) * 2 / height], dim=-1)[None]


def _look_up(values: Tensor, points: Tensor, *, mode: str) -> Tensor:
    """Values (C, H, W) at places (1, H, W, 2); 0 outside."""
    return F.grid_sample(values[None], points, mode=mode, padding_mode="zeros", align_corners=False)[0]
