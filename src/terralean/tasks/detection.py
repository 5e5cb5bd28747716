"""Oriented detection: what a network finds and what labels say, as what scores compare; labels as boxes to learn."""

from __future__ import annotations

import torch
from torch import Tensor

from terralean.boxes.detected import Detected
from terralean.boxes.form import to_polygons
from terralean.boxes.rectangle import from_polygons
from terralean.data.oriented.record import CORNERS, Detections, Record
from terralean.data.sample import Sample


def as_detections(detected: Detected, *, image: str) -> Detections:
    """What a network found in an image, as polygons."""
    return Detections(
        image=image,
        polygons=to_polygons(detected.boxes.double()).cpu().numpy().reshape(-1, 2 * CORNERS),
        scores=detected.scores.double().cpu().numpy(),
        labels=detected.labels.cpu().numpy(),
    )


def as_record(sample: Sample, *, image: str) -> Record:
    """The objects of a sample, as labelled."""
    return Record(
        image=image,
        polygons=sample["bbox"].double().cpu().numpy(),
        labels=sample["labels"].cpu().numpy(),
        difficult=sample["difficult"].to(torch.uint8).cpu().numpy(),
    )


def learned_boxes(polygons: Tensor) -> Tensor:
    """Corners (n, 8) -> the boxes (n, 5) that a network learns: the smallest round them."""
    return from_polygons(polygons)
