"""Rotated boxes as the numbers a network regresses: where a box lies in the frame of a proposal.

As in the head of Oriented R-CNN (Xie et al. 2021) and RoI Transformer (Ding et al. 2019): shift and turn are measured in the
frame of the proposal, so that the same picture has the same numbers whichever way it lies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from terralean.boxes.form import QUARTER_TURN, le90, wrap
from terralean.errors import ConfigError

SMALLEST_PX = 1e-3  # of a side: nothing is divided by 0, and no logarithm is infinite
LARGEST_LOG = abs(math.log(16 / 1000))  # a side grows or shrinks by this factor at most when deltas are decoded


@dataclass(frozen=True, kw_only=True, slots=True)
class DeltaCoding:
    """Deltas are divided by these, so that all of them vary alike."""

    stds: tuple[float, float, float, float, float] = (0.1, 0.1, 0.2, 0.2, 0.1)  # of dx, dy, dw, dh and the turn

    def __post_init__(self) -> None:
        if not all(std > 0 for std in self.stds):
            raise ConfigError(f"stds of rotated deltas must be above 0, got {list(self.stds)}")


def encode(boxes: Tensor, proposals: Tensor, coding: DeltaCoding) -> Tensor:
    """Boxes (..., 5) as seen from proposals (..., 5): deltas (..., 5) of x, y, width, height, angle.

    Of a box and the same box with its edges exchanged the one that is turned less is taken.
    """
    x, y = _in_frame(boxes[..., :2] - proposals[..., :2], proposals[..., 4])
    size, own = boxes[..., 2:4].clamp(min=SMALLEST_PX), proposals[..., 2:4].clamp(min=SMALLEST_PX)
    turn = wrap(boxes[..., 4] - proposals[..., 4])
    other = wrap(turn + QUARTER_TURN)
    exchange = other.abs() < turn.abs()
    size = torch.where(exchange[..., None], size.flip(-1), size)
    turn = torch.where(exchange, other, turn)
    deltas = [x / own[..., 0], y / own[..., 1], *(size / own).log().unbind(-1), turn]
    return torch.stack(deltas, dim=-1) / _stds(coding.stds, like=boxes)


def decode(deltas: Tensor, proposals: Tensor, coding: DeltaCoding) -> Tensor:
    """The inverse of `encode`, in normal form: deltas (..., 5), proposals (..., 5) -> boxes (..., 5)."""
    dx, dy, dw, dh, turn = (deltas * _stds(coding.stds, like=deltas)).unbind(-1)
    own = proposals[..., 2:4].clamp(min=SMALLEST_PX)
    x, y = _in_frame(torch.stack([dx, dy], dim=-1) * own, -proposals[..., 4])
    size = own * torch.stack([dw, dh], dim=-1).clamp(-LARGEST_LOG, LARGEST_LOG).exp()
    centre = proposals[..., :2] + torch.stack([x, y], dim=-1)
    return le90(torch.cat([centre, size, (proposals[..., 4] + turn)[..., None]], dim=-1))


def _in_frame(offset: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Offsets (..., 2) along and across a direction (...)."""
    cos, sin = angle.cos(), angle.sin()
    return offset[..., 0] * cos + offset[..., 1] * sin, offset[..., 1] * cos - offset[..., 0] * sin


def _stds(stds: tuple[float, ...], *, like: Tensor) -> Tensor:
    return torch.tensor(stds, dtype=like.dtype, device=like.device)
