"""Swin of timm's as a backbone whose windows and tokens a method of token reduction may leave out.

Liu et al., "Swin Transformer: Hierarchical Vision Transformer using Shifted Windows", ICCV 2021. Body, weights and names of
parameters are timm's, with its authors' layer norm on each map; without a method it gives what a `TimmPyramid` gives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

import torch.nn.functional as F
from timm.models.swin_transformer import SwinTransformerBlock, SwinTransformerStage
from torch import Tensor, nn

from terralean.models.pyramid import TimmPyramid

if TYPE_CHECKING:
    from terralean.layers.segmenter import ReducedMaps, Reduction

# The number of a stage, from 0, and its map (B, h, w, C) as its blocks get it -> the map as they leave it.
Stage = Callable[[int, Tensor], Tensor]


class SwinPyramid(nn.Module):
    """(B, bands, H, W) -> maps (B, C, H / r, W / r), rounded up, at reductions r of 4, 8, 16 and 32, for any H and W."""

    def __init__(self, name: str, *, bands: int, drop_path: float) -> None:
        super().__init__()
        plain = TimmPyramid(name, bands=bands, drop_path=drop_path)
        self.body, self.norms = plain.body, plain.norms
        self.feature_info, self.step_px = plain.feature_info, plain.step_px

    @property
    def stages(self) -> list[SwinTransformerStage]:
        """The four stages; each begins with merging patches, the first with nothing."""
        return [part for part in self.body.children() if isinstance(part, SwinTransformerStage)]

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps, finest first."""
        stages = self.stages
        return self.maps(image, run=lambda number, x: stages[number].blocks(x))

    def maps(self, image: Tensor, *, run: Stage) -> list[Tensor]:
        """As `forward`, with `run` in place of the blocks of a stage. The image is filled up with zeros to whole patches."""
        height, width = image.shape[-2:]
        x = cast("nn.Module", self.body.patch_embed)(F.pad(image, (0, -width % self.step_px, 0, -height % self.step_px)))
        maps = []
        for number, (stage, norm) in enumerate(zip(self.stages, self.norms, strict=True)):
            x = run(number, cast("nn.Module", stage.downsample)(x))
            reduction = self.feature_info.reduction()[number]
            maps.append(norm(x)[:, : -(-height // reduction), : -(-width // reduction)].permute(0, 3, 1, 2))
        return maps

    def graders(self, config: Any, *, classes: int) -> nn.ModuleDict:
        """The parameters that a method of token reduction adds (see models.reduced_swin)."""
        from terralean.models.reduced_swin import graders  # noqa: PLC0415 - it is made of what stands here

        return graders(self, config, classes=classes)

    def reduced(self, image: Tensor, reduction: Reduction) -> ReducedMaps:
        """The maps, by a method of token reduction, and what it did."""
        from terralean.models.reduced_swin import reduced  # noqa: PLC0415 - it is made of what stands here

        return reduced(self, image, reduction)

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave without weight decay beside the one-dimensional ones: tables of positions."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}


def blocks_of(stage: SwinTransformerStage) -> list[SwinTransformerBlock]:
    """The blocks of a stage."""
    return list(cast("Iterable[SwinTransformerBlock]", stage.blocks))
