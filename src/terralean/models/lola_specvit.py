"""LoLA-SpecViT: three-dimensional convolutions over the spectrum, then attention in windows, for the class of a pixel.

Zidi et al. 2025, "LoLA-SpecViT" (arXiv 2506.17759), and their released network (FadiZidiDz/LoLA-SpecViT-Model). `published` is
theirs, with 254.64 M parameters. `lola_specvit` is the same idea made small, 0.4 M, without what is wrong with theirs: padding
takes part in no attention, nothing is frozen that has learned nothing, and a patch keeps its level; and as few pixels are
labelled, components are channels of flat convolutions, not the depth of a volume. Each of their ways comes back by a setting.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.layers.spectra import Reduction, SpectralReduction, filled_up
from terralean.models.lola_adapters import AdaptedLinear, AdapterConfig, Adapters, adapters_of, layer_of
from terralean.models.lola_blocks import (
    Block,
    Downsample,
    SqueezeExcitation,
    WindowAttention,
    slim_mlp,
    wide_mlp,
)

Stem = Literal["volume", "plane"]
Edges = Literal["inside", "zeros"]
Padding = Literal["masked", "attended"]
MLP = Literal["slim", "wide"]
MLPS = {"slim": slim_mlp, "wide": wide_mlp}
DEPTHS = (7, 5, 3)  # of the kernels of the stem, along the spectrum
EMBED_PX = 4  # side of the convolution that makes tokens; its stride is 2, its padding 1
FLAT = 1e-6  # added to deviations within a patch; of a uniform one they are 0


@dataclass(frozen=True, kw_only=True, slots=True)
class LoLAConfig:
    """Sizes of a LoLA-SpecViT, and where it does as the authors do."""

    bands: int
    classes: int
    window_px: int  # side of the patch around a pixel
    spectral: Reduction  # how bands become components
    components: int
    whitening: float  # how far small principal components are brought up to the largest, 0 to 1
    stem: Stem  # "plane": convolutions over rows and columns only, components being channels
    stem_widths: tuple[int, int]  # of the first two convolutions; the third has the first of dims
    edges: Edges  # convolutions stay inside the patch, or see zeros around it
    dims: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    attention_px: int  # side of the windows of attention, in tokens
    padding: Padding
    mlp: MLP
    centre: bool  # the classifier also gets what the stem says of the pixel itself
    spectrum: bool  # and what two layers make of its components alone
    patch_norm: bool  # each component of each patch to mean 0 and deviation 1
    adapters: AdapterConfig | None
    dropout: float  # of tokens
    band_dropout: float  # of planes of the volume
    drop_path: float  # of the last block; earlier ones rise linearly from 0

    @property
    def lost_px(self) -> int:
        """What a patch loses in the stem, on each side."""
        return len(DEPTHS) if self.edges == "inside" else 0

    @property
    def least_px(self) -> int:
        """Side of the smallest patch of which the stem leaves a token."""
        return 2 * self.lost_px + EMBED_PX - 2

    def __post_init__(self) -> None:
        if self.window_px < 1 or self.window_px % 2 == 0:
            raise ConfigError(f"window_px must be an odd number of px, as the pixel stands in the middle, got {self.window_px}")
        if self.window_px < self.least_px:
            other = "; or take model.sizes.edges=zeros" if self.edges == "inside" else ""
            raise ConfigError(
                f"window_px must be {self.least_px | 1} or more with edges={self.edges}, got {self.window_px}{other}"
            )
        odd = [f"{dim} by {heads}" for dim, heads in zip(self.dims, self.heads, strict=True) if dim % heads]
        if odd:
            raise ConfigError(f"widths must be multiples of the numbers of heads, got {', '.join(odd)}")
        if any(after != 2 * before for before, after in pairwise(self.dims)):
            raise ConfigError(f"each stage is twice as wide as the one before, got {', '.join(map(str, self.dims))}")


class LoLASpecViT(nn.Module):
    """The class of the pixel in the middle of a patch: (B, bands, h, w) -> logits (B, classes), for any h and w.

    `answer(shared(patch))` is the same in two steps: what neighbouring patches have in common, and the rest.
    """

    def __init__(self, config: LoLAConfig) -> None:
        super().__init__()
        self.config = config
        self.window_px = config.window_px
        self.num_classes = config.classes
        first, last = config.dims[0], config.dims[-1]
        self.spectral = SpectralReduction(
            config.spectral, bands=config.bands, components=config.components, whitening=config.whitening
        )
        self.spectral_conv = _stem(config, components=self.spectral.components)
        self.band_dropout = nn.Dropout2d(config.band_dropout)
        self.spectral_attention = SqueezeExcitation(first)
        embed = nn.Conv2d(first, first, EMBED_PX, stride=2, padding=1)
        self.patch_embed = nn.Sequential(embed, nn.BatchNorm2d(first), nn.SiLU())
        side = _tokens(config.window_px - 2 * config.lost_px)
        self.pos_embed = nn.Parameter(torch.zeros(1, side, side, first))
        self.dropout = nn.Dropout(config.dropout)
        self.levels = _levels(config, side=side)
        self.norm = nn.LayerNorm(last)
        self.centre = nn.Linear(first, last) if config.centre else None
        self.spectrum = _spectrum(config, components=self.spectral.components) if config.spectrum else None
        self.head = _head(config)
        _initialise(self, config.adapters)

    @property
    def margin_px(self) -> int:
        """How much less than its image `shared` covers, on each side."""
        return 0 if self.config.patch_norm else self.config.lost_px

    def forward(self, patch: Tensor) -> Tensor:
        """Logits (B, classes)."""
        return self.answer(self.shared(self._large_enough(patch)))

    def shared(self, image: Tensor) -> Tensor:
        """image (B, bands, H, W) -> what patches of it have in common, `margin_px` smaller on each side.

        That is what convolutions inside the patch give, and the components where the classifier gets them. Where convolutions
        see the edges of the patch, or it is normalised by itself, neighbours share nothing, and it is the image.
        """
        if not self.margin_px:
            return image
        components, lost = self.spectral(image), self.margin_px
        maps = self._stem(components)
        return maps if self.spectrum is None else torch.cat([maps, components[..., lost:-lost, lost:-lost]], dim=1)

    def answer(self, windows: Tensor) -> Tensor:
        """windows (B, C, h, w) of what `shared` gives -> logits (B, classes)."""
        width = self.config.dims[0]
        components = windows[:, width:] if self.margin_px else self._levelled(self.spectral(windows))
        maps = windows[:, :width] if self.margin_px else self._stem(components)
        pooled = self.norm(self._stages(maps)[-1]).mean(dim=(1, 2))
        if self.centre is not None:
            pooled = pooled + self.centre(_middle(maps))
        if self.spectrum is not None:
            pooled = pooled + self.spectrum(_middle(components))
        return self.head(pooled)

    def stages(self, patch: Tensor) -> list[Tensor]:
        """What the stem gives (B, C, h, w), and the tokens as each stage leaves them, behind its halving: (B, C, h, w)."""
        maps = self._stem(self._levelled(self.spectral(self._large_enough(patch))))
        return [maps, *(x.permute(0, 3, 1, 2) for x in self._stages(maps))]

    def start_from(self, pixels: Tensor) -> None:
        """Begin with the principal components of pixels (n, bands), normalised as the network sees them."""
        self.spectral.start_from(pixels)

    def get_classifier(self) -> nn.Module:
        """The last layer."""
        return self.head

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave without weight decay beside the one-dimensional ones: tables of positions."""
        tables = {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}
        return {"pos_embed", *tables}

    def _large_enough(self, patch: Tensor) -> Tensor:
        return filled_up(patch, least_px=self.config.least_px)

    def _levelled(self, components: Tensor) -> Tensor:
        if not self.config.patch_norm:
            return components
        deviation, mean = torch.std_mean(components, dim=(2, 3), keepdim=True)
        return (components - mean) / (deviation + FLAT)

    def _stem(self, components: Tensor) -> Tensor:
        """(B, components, H, W) -> (B, C, H, W), or smaller by what convolutions inside the image lose."""
        if self.config.stem == "plane":
            return self.band_dropout(self.spectral_conv(components))
        volume = self.spectral_conv(components[:, None])
        return self.band_dropout(volume.flatten(1, 2)).unflatten(1, volume.shape[1:3]).mean(dim=2)

    def _stages(self, maps: Tensor) -> list[Tensor]:
        """(B, C, h, w) -> tokens (B, h, w, C) as each stage leaves them."""
        x = self.patch_embed(self.spectral_attention(maps)).permute(0, 2, 3, 1)
        x = self.dropout(x + self._positions(x.shape[1:3]))
        found = []
        for level in self.levels:
            x = level(x)
            found.append(x)
        return found

    def _positions(self, size: torch.Size) -> Tensor:
        if self.pos_embed.shape[1:3] == size:
            return self.pos_embed
        table = F.interpolate(self.pos_embed.permute(0, 3, 1, 2), size=tuple(size), mode="bilinear", align_corners=False)
        return table.permute(0, 2, 3, 1)


def lola_specvit(
    *,
    bands: int,
    classes: int,
    window_px: int = 15,
    spectral: Reduction = "learned",
    components: int = 15,
    whitening: float = 0.5,
    stem: Stem = "plane",
    edges: Edges = "inside",
    dim: int = 48,
    depth: int = 2,
    heads: int = 4,
    stages: int = 2,
    attention_px: int = 7,
    padding: Padding = "masked",
    mlp: MLP = "slim",
    centre: bool = True,
    spectrum: bool = True,
    patch_norm: bool = False,
    adapters: Adapters = "none",
    rank: int = 16,
    dropout: float = 0.1,
    band_dropout: float = 0.1,
    drop_path: float = 0.2,
) -> LoLASpecViT:
    """Stages of `depth` blocks, the first `dim` wide, each later one twice as wide: 0.4 M parameters as it stands."""
    widths = tuple(dim * 2**stage for stage in range(stages))
    config = LoLAConfig(
        bands=bands,
        classes=classes,
        window_px=window_px,
        spectral=spectral,
        components=components,
        whitening=whitening,
        stem=stem,
        stem_widths=(8, 16),
        edges=edges,
        dims=widths,
        depths=(depth,) * stages,
        heads=tuple(heads * 2**stage for stage in range(stages)),
        attention_px=attention_px,
        padding=padding,
        mlp=mlp,
        centre=centre,
        spectrum=spectrum,
        patch_norm=patch_norm,
        adapters=adapters_of(adapters, rank=rank),
        dropout=dropout,
        band_dropout=band_dropout,
        drop_path=drop_path,
    )
    return LoLASpecViT(config)


def lola_specvit_published(
    *,
    bands: int,
    classes: int,
    window_px: int = 15,
    spectral: Reduction = "none",
    components: int = 15,
    patch_norm: bool = False,
    dropout: float = 0.1,
    band_dropout: float = 0.1,
    drop_path: float = 0.2,
) -> LoLASpecViT:
    """The authors' network: 254.64 M parameters with 16 classes, 73.59 M of them trained; its bands are 15 components."""
    config = LoLAConfig(
        bands=bands,
        classes=classes,
        window_px=window_px,
        spectral=spectral,
        components=components,
        whitening=1.0,
        stem="volume",
        stem_widths=(32, 64),
        edges="zeros",
        dims=(96, 192, 384),
        depths=(3, 4, 19),
        heads=(4, 8, 16),
        attention_px=7,
        padding="attended",
        mlp="wide",
        centre=False,
        spectrum=False,
        patch_norm=patch_norm,
        adapters=adapters_of("published", rank=16),
        dropout=dropout,
        band_dropout=band_dropout,
        drop_path=drop_path,
    )
    return LoLASpecViT(config)


def _spectrum(config: LoLAConfig, *, components: int) -> nn.Sequential:
    """Two layers for the spectrum of a pixel: where few are labelled, one of 30 m is told best by what no neighbour blurs."""
    width = config.dims[-1]
    return nn.Sequential(nn.Linear(components, width), nn.SiLU(), nn.Dropout(config.dropout), nn.Linear(width, width))


def _middle(maps: Tensor) -> Tensor:
    """(B, C, h, w) -> what stands in the middle (B, C)."""
    return maps[..., maps.shape[2] // 2, maps.shape[3] // 2]


def _head(config: LoLAConfig) -> nn.Module:
    """The classifier; its adapter has neither gate nor residual."""
    adapters, inputs = config.adapters, config.dims[-1]
    if adapters is None:
        return nn.Linear(inputs, config.classes)
    return AdaptedLinear(inputs, config.classes, rank=adapters.rank, alpha=adapters.alpha, gate=False, residual=False)


def _stem(config: LoLAConfig, *, components: int) -> nn.Sequential:
    """Three convolutions, each with norm and SiLU; along the spectrum they always see zeros beyond its ends."""
    widths = (*config.stem_widths, config.dims[0])
    padding = 1 if config.edges == "zeros" else 0
    layers: list[nn.Module] = []
    if config.stem == "plane":
        for before, after in pairwise((components, *widths)):
            layers += [nn.Conv2d(before, after, 3, padding=padding), nn.BatchNorm2d(after), nn.SiLU()]
    else:
        for depth, (before, after) in zip(DEPTHS, pairwise((1, *widths)), strict=True):
            convolve = nn.Conv3d(before, after, (depth, 3, 3), padding=(depth // 2, padding, padding))
            layers += [convolve, nn.BatchNorm3d(after), nn.SiLU()]
    return nn.Sequential(*layers)


def _tokens(side: int) -> int:
    """Tokens along a side of so many px, one at least."""
    return max(1, (side + 2 - EMBED_PX) // 2 + 1)


def _levels(config: LoLAConfig, *, side: int) -> nn.ModuleList:
    """Stages of blocks, of maps that begin with `side` tokens a side; all but the last end by halving."""
    rates = torch.linspace(0, config.drop_path, sum(config.depths), device="cpu").tolist()
    levels, linear = nn.ModuleList(), layer_of(config.adapters)
    for stage, (dim, depth, heads) in enumerate(zip(config.dims, config.depths, config.heads, strict=True)):
        window = config.attention_px if config.padding == "attended" else min(config.attention_px, side)
        parts: list[nn.Module] = []
        for _ in range(depth):
            attention = WindowAttention(
                dim, heads=heads, side=window, linear=linear, attend_padding=config.padding == "attended"
            )
            parts.append(Block(dim, attention, MLPS[config.mlp](dim, linear=linear), drop_path=rates.pop(0)))
        if stage < len(config.dims) - 1:
            parts.append(Downsample(dim))
        levels.append(nn.Sequential(*parts))
        side = (side + 1) // 2
    return levels


def _initialise(model: nn.Module, adapters: AdapterConfig | None) -> None:
    for name, part in model.named_modules():
        if isinstance(part, nn.Linear) and not name.startswith("spectrum."):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
        if isinstance(part, WindowAttention):
            nn.init.trunc_normal_(part.relative_position_bias_table, std=0.02)
        if adapters is not None and adapters.zero_start and name.endswith("lora_up"):
            nn.init.zeros_(part.weight)
    if adapters is not None and adapters.frozen:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name)
