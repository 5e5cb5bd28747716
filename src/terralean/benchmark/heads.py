"""What the paper's detection and change networks cost beside their backbones, by formula; tests count the networks as built.

Sizes of Jiang et al. 2024, section 4, where the text is silent those of the code that they name: Oriented R-CNN of
OBBDetection, BIT of Chen et al. 2022. MACs are convolutions and linear layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

# Oriented R-CNN at 1024 px: a feature pyramid of 256 channels, its fifth level by subsampling; 3 anchors at each place, each
# scored once and coded by 6 numbers; 1000 regions of 7 x 7; two layers of 1024; 15 classes, ground, and 5 numbers a box.
PYRAMID, ANCHORS, CODE, REGIONS, REGION, HIDDEN, ANSWERS = 256, 3, 6, 1000, 7 * 7, 1024, 16 + 5
DOTA_PX, REDUCTIONS = 1024, (4, 8, 16, 32)
# BIT at 256 px: the map of the third stage to 32 channels at an 8th of the resolution; 4 tokens a date; an encoder of one block
# over both dates, a decoder of 8 blocks for each date; 8 heads of 64; two convolutions at full size, to 2 classes.
CHANGE_PX, CHANNELS, TOKENS, DATES, DECODERS, INNER, MLP, CLASSES = 256, 32, 4, 2, 8, 512, 64, 2


class Cost(NamedTuple):
    """Of one forward pass: of one image, or of a pair."""

    parameters: int
    macs: int


def oriented_rcnn(channels: Sequence[int]) -> Cost:
    """Pyramid, proposals and regions on maps of so many channels, finest first."""
    places = [(DOTA_PX // reduction) ** 2 for reduction in REDUCTIONS]
    coarsest = (DOTA_PX // (2 * REDUCTIONS[-1])) ** 2
    smooth = 9 * PYRAMID * PYRAMID
    proposals = ANCHORS * (1 + CODE)
    layers = (REGION * PYRAMID * HIDDEN, HIDDEN * HIDDEN, HIDDEN * ANSWERS)
    macs = sum((PYRAMID * width + smooth) * n for width, n in zip(channels, places, strict=True))
    macs += (smooth + PYRAMID * proposals) * (sum(places) + coarsest) + REGIONS * sum(layers)
    weights = PYRAMID * sum(channels) + (len(channels) + 1) * smooth + PYRAMID * proposals + sum(layers)
    biases = (2 * len(channels) + 1) * PYRAMID + proposals + 2 * HIDDEN + ANSWERS
    return Cost(weights + biases, macs)


def bit(channels: int) -> Cost:
    """Everything of BIT on a third map of so many channels, for a pair of images."""
    places = (CHANGE_PX // 8) ** 2
    last = CHANGE_PX**2 * (9 * CHANNELS * CHANNELS + 9 * CHANNELS * CLASSES)
    narrow = DATES * places * (9 * channels * CHANNELS + CHANNELS * TOKENS)
    mlp = 2 * CHANNELS * MLP
    encoder = DATES * TOKENS * (4 * CHANNELS * INNER + mlp)
    decoder = DATES * DECODERS * (places * (2 * CHANNELS * INNER + mlp) + TOKENS * 2 * CHANNELS * INNER)
    block = 4 * CHANNELS * INNER + CHANNELS + 2 * CHANNELS + mlp + MLP + CHANNELS + 2 * CHANNELS
    convolutions = 9 * channels * CHANNELS + CHANNELS + CHANNELS * TOKENS + 9 * CHANNELS * CHANNELS + 2 * CHANNELS
    convolutions += 9 * CHANNELS * CLASSES + CLASSES
    return Cost(convolutions + DATES * TOKENS * CHANNELS + (1 + DECODERS) * block, last + narrow + encoder + decoder)
