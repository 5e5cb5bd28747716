"""One set of boxes from the answers of overlapping windows.

Where an object lies across the border of a window, that window finds a part of it: a box of its own, which the IoU with the
whole object does not betray. Two answers are of one object if they agree on the ground that both windows see. So a box that
reaches its window's border is joined to the box of another window that agrees with it there, if any does: of a group joined
thus, a whole box speaks for all; of parts alone, the smallest rectangle round them does. Then comes ordinary suppression.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from terralean.boxes.clip import clip_polygons
from terralean.boxes.form import corners, hull, le90
from terralean.boxes.near import apart, near
from terralean.boxes.overlap import paired_iof, sane
from terralean.boxes.polygons import polygon_areas, polygon_intersection
from terralean.boxes.rectangle import smallest_rectangle
from terralean.boxes.suppress import nms
from terralean.errors import ConfigError


@dataclass(frozen=True, kw_only=True, slots=True)
class MergeConfig:
    """When boxes of overlapping windows are one object."""

    iou: float = 0.1  # a box goes whose IoU with a better one of its class is above; 0.1 is DOTA's own, patches take 0.5 too
    agreement: float = 0.4  # IoU on the ground that two windows share, above which a part belongs to the other box
    border_px: float = 2.0  # a box whose hull is this near to the border of its window, or beyond, may be a part

    def __post_init__(self) -> None:
        for name in ("iou", "agreement"):
            if not 0 < getattr(self, name) < 1:
                raise ConfigError(f"merge.{name} must lie between 0 and 1, got {getattr(self, name)}")
        if self.border_px < 0:
            raise ConfigError(f"merge.border_px must be 0 or more, got {self.border_px}")


class Merged(NamedTuple):
    """Boxes of a scene, best first."""

    boxes: Tensor  # (k, 5) px of the scene
    scores: Tensor  # (k,) the best of the boxes that each stands for
    labels: Tensor  # (k,)
    best: Tensor  # (k,) index of that best box among those given


class _Found(NamedTuple):
    """What is known of n boxes."""

    boxes: Tensor  # (n, 5) float64
    windows: Tensor  # (n, 4) float64
    window: Tensor  # (n,) number of the window
    part: Tensor  # (n,) whether the window may have cut it


def merge(
    boxes: Tensor, scores: Tensor, labels: Tensor, windows: Tensor, *, width: float, height: float, config: MergeConfig
) -> Merged:
    """Boxes (n, 5) in px of a scene of this size, the windows (n, 4) that each was found in -> one box for each object.

    Windows are left, top, right, bottom in px; border of the scene is no border of a window. Memory grows with the number of
    boxes and of pairs that overlap across windows.
    """
    exact, windows = sane(boxes.detach()), windows.double()
    _, window = windows.unique(dim=0, return_inverse=True)
    part = reaches_border(exact, windows, width=width, height=height, border_px=config.border_px)
    found = _Found(boxes=exact, windows=windows, window=window, part=part)
    first, second = _links(found, labels, agreement=config.agreement)
    group = _groups(first, second, count=len(boxes))
    speaker, joined = _joined(found, scores, group)
    best = _best_of(scores, group)
    kept = nms(joined, scores[best], iou_threshold=config.iou, labels=labels[speaker])
    of = torch.where((joined == exact[speaker]).all(dim=1)[:, None], le90(boxes[speaker]), joined.to(boxes.dtype))
    return Merged(boxes=of[kept], scores=scores[best][kept], labels=labels[speaker][kept], best=best[kept])


def reaches_border(boxes: Tensor, windows: Tensor, *, width: float, height: float, border_px: float) -> Tensor:
    """Whether the hulls of boxes (n, 5) come within `border_px` of a side of their windows (n, 4) that is inside the scene."""
    low, high = hull(boxes).split(2, dim=1)
    size = windows.new_tensor([width, height])
    early = (low <= windows[:, :2] + border_px) & (windows[:, :2] > 0)
    late = (high >= windows[:, 2:] - border_px) & (windows[:, 2:] < size)
    return (early | late).any(dim=1)


def agreement(boxes: Tensor, others: Tensor, shared: Tensor) -> Tensor:
    """IoU (p,) of what windows (p, 4) leave of boxes (p, 5) and of others (p, 5)."""
    mine, theirs = (clip_polygons(corners(some.double()), shared) for some in (boxes, others))
    common = polygon_intersection(mine, theirs)
    union = polygon_areas(mine) + polygon_areas(theirs) - common
    return torch.where(union > 0, common / union.where(union > 0, 1.0), 0.0)


def _links(found: _Found, labels: Tensor, *, agreement: float) -> tuple[Tensor, Tensor]:
    """Pairs of boxes that are of one object: each part with the box of each other window that agrees best with it."""
    hulls = apart(hull(found.boxes), labels)
    parts = found.part.nonzero().squeeze(1)
    pairs = [(parts.new_zeros(0), parts.new_zeros(0), found.boxes.new_zeros(0))]
    for i, j in near(hulls[parts], hulls):
        foreign = found.window[parts[i]] != found.window[j]
        pairs.append(_agreeing(found, parts[i[foreign]], j[foreign], least=agreement))
    part, other, value = (torch.cat(some) for some in zip(*pairs, strict=True))
    order = value.argsort(descending=True, stable=True)
    key = (part * (int(found.window.max()) + 1) + found.window[other])[order] if len(order) else order
    first = _first_of_each(key)
    return part[order[first]], other[order[first]]


def _agreeing(found: _Found, part: Tensor, other: Tensor, *, least: float) -> tuple[Tensor, Tensor, Tensor]:
    """Those pairs that agree on shared ground, or whose part lies mostly within a whole box, with how much."""
    low = torch.maximum(found.windows[part, :2], found.windows[other, :2])
    high = torch.minimum(found.windows[part, 2:], found.windows[other, 2:])
    meet = (low < high).all(dim=1)
    part, other, shared = part[meet], other[meet], torch.cat([low, high], dim=1)[meet]
    value = agreement(found.boxes[part], found.boxes[other], shared)
    within = paired_iof(found.boxes[part], found.boxes[other]).where(~found.part[other], 0.0)
    value = torch.maximum(value, within)
    above = value > least
    return part[above], other[above], value[above]


def _first_of_each(key: Tensor) -> Tensor:
    """Index of the first place of each value in key (p,)."""
    values, inverse = key.unique(return_inverse=True)
    place = torch.arange(len(key), device=key.device)
    return place.new_full((len(values),), len(key)).scatter_reduce(0, inverse, place, reduce="amin")


def _groups(first: Tensor, second: Tensor, *, count: int) -> Tensor:
    """Number (n,) of the group of each of so many things, of which pairs belong together: the least index in the group."""
    group = torch.arange(count, device=first.device)
    while True:
        least = torch.minimum(group[first], group[second])
        lower = group.scatter_reduce(0, first, least, reduce="amin").scatter_reduce(0, second, least, reduce="amin")
        lower = lower[lower]
        if torch.equal(lower, group):
            return torch.unique(group, return_inverse=True)[1]
        group = lower


def _best_of(scores: Tensor, group: Tensor) -> Tensor:
    """Index (g,) of the best score in each group; of equal ones the first."""
    order = scores.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
    return order[_first_of_each(group[order])]


def _joined(found: _Found, scores: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """For each group the index (g,) of its best whole box, or of its best part, and the box (g, 5) of all."""
    rank = scores.nan_to_num(nan=-torch.inf).argsort(descending=True, stable=True)
    whole_first = rank[found.part[rank].to(torch.uint8).argsort(stable=True)]
    speaker = whole_first[_first_of_each(group[whole_first])]
    boxes = found.boxes[speaker].clone()
    size = torch.bincount(group, minlength=len(speaker))
    for number in (found.part[speaker] & (size > 1)).nonzero().squeeze(1).tolist():
        boxes[number] = smallest_rectangle(corners(found.boxes[group == number]).flatten(0, 1))
    return speaker, boxes
