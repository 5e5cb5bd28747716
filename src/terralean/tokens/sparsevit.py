"""SparseViT: windows whose features are small are left out of some blocks of a network with window attention.

Chen et al., "SparseViT: Revisiting Activation Sparsity for Efficient High-Resolution Vision Transformer", CVPR 2023, section 3,
and facts about the authors' code. Every image keeps as many windows, so that shapes do not depend on its content.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from terralean.errors import ConfigError

GROUP = 2  # blocks, a regular and a shifted one, that share a ratio
DRAWN = tuple(tenths / 10 for tenths in range(9))  # ratios that training may draw


@dataclass(frozen=True, kw_only=True, slots=True)
class SparseViTConfig:
    """Which share of the windows is left out where. The default is published (34.2 ms), for Swin-T's 2, 2, 6, 2 blocks."""

    method: Literal["sparsevit"] = "sparsevit"
    ratios: tuple[float, ...] = (0.6, 0.0, 0.2, 0.4, 0.5, 0.0)  # one for every two blocks, rising within a stage
    # "random": other ratios in each step, after which one network can be used with any (its sparsity-aware adaptation).
    training: Literal["fixed", "random"] = "fixed"
    # Past the map: zeros as timm's Swin has them, or tokens of zeros put before the map is rolled and normed, as the authors'
    # code has it. The same where whole windows cover the map.
    filling: Literal["timm", "published"] = "timm"

    def __post_init__(self) -> None:
        wrong = [ratio for ratio in self.ratios if not 0 <= ratio < 1]
        if wrong or not self.ratios:
            raise ConfigError(f"reduce.ratios are shares of windows to leave out, from 0 to below 1, got {self.ratios}")


def ratios_by_stage(config: SparseViTConfig, *, depths: tuple[int, ...]) -> list[list[float]]:
    """The ratio of every block of stages with these depths; ConfigError where they do not go together."""
    groups = [(depth + GROUP - 1) // GROUP for depth in depths]
    if len(config.ratios) != sum(groups):
        raise ConfigError(
            f"reduce.ratios has {len(config.ratios)} values, the network {sum(groups)} groups of {GROUP} blocks in stages of "
            f"{', '.join(map(str, groups))}; give one for each"
        )
    left, stages = list(config.ratios), []
    for depth, count in zip(depths, groups, strict=True):
        own, left = left[:count], left[count:]
        if own != sorted(own):
            raise ConfigError(f"reduce.ratios must rise within a stage, so that windows left out stay out; got {own}")
        stages.append([ratio for ratio in own for _ in range(GROUP)][:depth])
    return stages


def drawn_ratios(blocks: int) -> list[float]:
    """The ratio of every block of a stage, one of DRAWN for each two, rising; from torch's own generator, which a run seeds."""
    groups = (blocks + GROUP - 1) // GROUP
    drawn = sorted(DRAWN[i] for i in torch.randint(len(DRAWN), (groups,)).tolist())
    return [ratio for ratio in drawn for _ in range(GROUP)][:blocks]


def window_scores(windows: Tensor) -> Tensor:
    """windows (B, windows, tokens of a window, C), zero past the map -> (B, windows): L2 norm of the mean absolute values."""
    return windows.abs().mean(dim=-1).norm(dim=-1)


def best_first(scores: Tensor) -> Tensor:
    """scores (B, windows) -> indices of windows (B, windows), the highest score first."""
    return scores.argsort(dim=1, descending=True)


def windows_kept(windows: int, *, ratio: float) -> int:
    """How many of them a block with this ratio works on, as published: in double precision 25 at 0.8 are 4, not 5."""
    return int(windows * (1 - ratio))


def keep_windows(windows: Tensor, kept: Tensor) -> Tensor:
    """windows (B, windows, tokens, C), kept (B, k) -> (B, k, tokens, C)."""
    return windows.gather(1, kept[:, :, None, None].expand(-1, -1, *windows.shape[2:]))


def put_windows_back(changed: Tensor, kept: Tensor, windows: Tensor) -> Tensor:
    """The inverse of `keep_windows`: windows (B, windows, tokens, C) with `changed` (B, k, tokens, C) at `kept` (B, k)."""
    return windows.scatter(1, kept[:, :, None, None].expand_as(changed), changed)
