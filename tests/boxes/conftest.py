"""Boxes to test with, and what shapely says of them."""

import math

import numpy as np
import pytest
import shapely
import torch

from terralean.boxes.form import corners


class Boxes:
    """Random boxes in float64, the same for the same seed."""

    def __call__(self, count: int, *, seed: int, span: float = 50.0, low: float = 0.5, high: float = 30.0) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)
        draws = torch.rand(count, 5, generator=generator, dtype=torch.float64)
        size = low * (high / low) ** draws[:, 2:4]
        angle = (draws[:, 4:] - 0.5) * 4 * math.pi
        return torch.cat([draws[:, :2] * span, size, angle], dim=1)

    @staticmethod
    def shapes(boxes: torch.Tensor) -> np.ndarray:
        """As shapely's polygons."""
        return shapely.polygons(corners(boxes.double()).numpy())

    @classmethod
    def shared(cls, boxes: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
        """Areas of the intersections, pair by pair, by shapely."""
        return torch.from_numpy(shapely.area(shapely.intersection(cls.shapes(boxes), cls.shapes(others))))


@pytest.fixture(scope="session")
def random_boxes() -> Boxes:
    return Boxes()
