"""Deterministic weights and inputs for the reference numbers in this folder.

A golden file holds what a reference implementation computed, float32, CPU, eval mode, with `fill(state_dict)` loaded, on
`image(seed, shape)`. A model of ours with the same keys and shapes must agree, so no weights are shipped.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray


def fill(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same keys, shapes and dtypes, each value a function of its key and shape alone."""
    return {k: torch.from_numpy(_values(k, tuple(v.shape))).to(v.dtype).reshape(v.shape) for k, v in state_dict.items()}


def image(seed: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The input that a golden case names by `seed` and `shape`: standard normal, (B, C, H, W)."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def _values(name: str, shape: tuple[int, ...]) -> NDArray[np.generic]:
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith(("running_mean", "bias")):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if len(shape) == 1:  # the scale of a normalisation layer
        return (1.0 + 0.1 * rng.standard_normal(shape)).astype(np.float32)
    fan_in = int(np.prod(shape[1:]))
    return (0.5 * rng.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)
