"""What feature maps hold in rotated boxes, turned upright: RoI align (He et al. 2017) along a box's own edges.

Each box is cut into equal bins, each bin takes the mean of a few points in it, each point is read bilinearly. Bins run along
the box's width and height, so the same object looks the same whichever way it lies (up to half a turn). Plain tensor
operations, differentiable with respect to the features; points further than a pixel outside the map are 0, as in torchvision's
`roi_align`, which this equals (`aligned=True`) for boxes at angle 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from terralean.errors import ConfigError

TOGETHER = 256  # boxes read at once: what is read is samples^2 times as large as what comes back
ROUNDING = 1e-6  # so that a box of exactly the size at which a level begins belongs to it


@dataclass(frozen=True, kw_only=True, slots=True)
class AlignConfig:
    """How boxes are read. Sizes as in OBBDetection's Oriented R-CNN."""

    bins: int = 7  # along width and height
    samples: int = 2  # points of a bin along width and height
    wider: float = 1.4  # a box is read with so many times its width, for some surroundings
    higher: float = 1.2
    finest_px: float = 56.0  # boxes of less than twice this size, the root of their area, are read from the finest map

    def __post_init__(self) -> None:
        for name in ("bins", "samples", "wider", "higher", "finest_px"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"align.{name} must be above 0, got {getattr(self, name)}")


def align_pyramid(
    features: Sequence[Tensor], boxes: Tensor, image: Tensor, *, strides: Sequence[int], config: AlignConfig
) -> Tensor:
    """Maps (B, C, H_l, W_l) from fine to coarse, boxes (R, 5) px and the image (R,) of each -> (R, C, bins, bins).

    Boxes are enlarged first; then each is read from the one map that suits its size (Lin et al. 2017, eq. 1).
    """
    assert len(features) == len(strides), f"{len(features)} maps, {len(strides)} strides"
    larger = enlarged(boxes, width=config.wider, height=config.higher)
    level = pyramid_level(larger, finest_px=config.finest_px, levels=len(features))
    if torch.compiler.is_exporting() or boxes.is_meta:  # without storage, too, no shape may depend on values
        return _align_from_table(features, larger, image, level, strides=strides, config=config)
    out = features[0].new_zeros(boxes.shape[0], features[0].shape[1], config.bins, config.bins)
    for number, (values, stride) in enumerate(zip(features, strides, strict=True)):
        chosen = (level == number).nonzero().squeeze(1)
        some = larger[chosen], image[chosen]
        read = rotated_align(values, *some, stride=stride, bins=config.bins, samples=config.samples)
        out = out.index_copy(0, chosen, read)
    return out


def rotated_align(features: Tensor, boxes: Tensor, image: Tensor, *, stride: int, bins: int, samples: int) -> Tensor:
    """One map (B, C, H, W) of a stride, boxes (R, 5) in px and the image (R,) of each -> (R, C, bins, bins).

    Rows of what comes back run along the boxes' height, columns along their width.
    """
    out = features.new_zeros(boxes.shape[0], features.shape[1], bins, bins)
    for number in range(len(features)):
        mine = (image == number).nonzero().squeeze(1)
        for some in mine.split(TOGETHER):
            points = sample_points(boxes[some], count=bins * samples)
            read = F.avg_pool2d(_read(features[number], points / stride), samples)
            out = out.index_copy(0, some, read.to(out.dtype))
    return out


def sample_points(boxes: Tensor, *, count: int) -> Tensor:
    """Middles of count x count equal cells of boxes (R, 5): x, y in px (R, count, count, 2), rows along the height. float32."""
    x, y, width, height, angle = boxes.float().unbind(-1)
    place = (torch.arange(count, device=boxes.device) + 0.5) / count - 0.5
    along, across = place * width[:, None], place * height[:, None]
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    columns, rows = along[:, None, :], across[:, :, None]
    centre_x, centre_y = x[:, None, None], y[:, None, None]
    return torch.stack([centre_x + columns * cos - rows * sin, centre_y + columns * sin + rows * cos], dim=-1)


def enlarged(boxes: Tensor, *, width: float, height: float) -> Tensor:
    """Boxes (..., 5) of so many times the width and height."""
    return boxes * boxes.new_tensor([1.0, 1.0, width, height, 1.0])


def pyramid_level(boxes: Tensor, *, finest_px: float, levels: int) -> Tensor:
    """Which of so many maps each box (R, 5) is read from (R,): one coarser each time its size doubles."""
    size = (boxes[:, 2] * boxes[:, 3]).clamp(min=0).sqrt()
    level = torch.log2(size / finest_px + ROUNDING).floor()
    return level.clamp(min=0, max=levels - 1).long()


def _read(values: Tensor, points: Tensor) -> Tensor:
    """Bilinear values (R, C, n, n) of a map (C, H, W) at points (R, n, n, 2) in its own px, measured from its corner."""
    size = points.new_tensor([values.shape[2], values.shape[1]])
    inside = ((points + 0.5 >= 0) & (points <= size + 0.5)).all(dim=-1)
    grid = (points / size * 2 - 1).flatten(0, 1)[None]
    # The mean of bf16 coordinates would be pixels off, so points and values are float32 here.
    read = F.grid_sample(values[None].float(), grid, mode="bilinear", padding_mode="border", align_corners=False)
    read = read[0].unflatten(1, points.shape[:2]).transpose(0, 1)
    return read * inside[:, None]


def _align_from_table(
    features: Sequence[Tensor], boxes: Tensor, image: Tensor, level: Tensor, *, strides: Sequence[int], config: AlignConfig
) -> Tensor:
    """The same in static shapes, for exported graphs: the places of all maps are rows of one table, found by their number."""
    table = torch.cat([values.flatten(2).transpose(1, 2) for values in features], dim=1)  # (B, places, C)
    lengths = [values.shape[2] * values.shape[3] for values in features]
    before = boxes.new_tensor([sum(lengths[:number]) for number in range(len(lengths))], dtype=torch.int64)
    sizes = boxes.new_tensor([[values.shape[3], values.shape[2]] for values in features])
    points = sample_points(boxes, count=config.bins * config.samples) / boxes.new_tensor(strides)[level][:, None, None, None]
    first = before[level] + image * sum(lengths)
    read = _read_rows(table.flatten(0, 1), points, first=first[:, None, None], size=sizes[level][:, None, None])
    bins = read.unflatten(2, (config.bins, config.samples)).unflatten(1, (config.bins, config.samples))
    return bins.mean(dim=(2, 4)).permute(0, 3, 1, 2).to(table.dtype)


def _read_rows(table: Tensor, points: Tensor, *, first: Tensor, size: Tensor) -> Tensor:
    """As `_read` from rows (places, C), each box from a map that begins at row `first` (R, 1, 1), of `size` (R, 1, 1, 2)."""
    inside = ((points + 0.5 >= 0) & (points <= size + 0.5)).all(dim=-1)
    place = torch.minimum((points - 0.5).clamp(min=0.0), size - 1)
    low = place.floor()
    high, share = torch.minimum(low + 1, size - 1), place - low
    read = torch.zeros((), device=points.device)
    for columns, along in ((low, 1 - share), (high, share)):
        for rows, across in ((low, 1 - share), (high, share)):
            row = first + (rows[..., 1] * size[..., 0] + columns[..., 0]).long()
            read = read + table[row].float() * (along[..., 0] * across[..., 1] * inside)[..., None]
    return read
