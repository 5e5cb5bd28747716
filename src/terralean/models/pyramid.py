"""Feature pyramids of the backbones that timm has, LeMeViT's own among them, for images of any size.

timm's backbones differ in what they give (maps from half resolution on, channels first or last, normalised or not) and in
what they take (any size, one size, multiples of something). Here all of them give the maps at reductions of 4 and more,
finest first, channels first, and take everything.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import timm
import torch
import torch.nn.functional as F
from timm.layers import Format
from timm.models import FeatureInfo
from torch import Tensor, nn

from terralean.errors import ConfigError, UnknownName
from terralean.models.lemevit import LeMeViTPyramid
from terralean.models.timm_names import CONFIGS

if TYPE_CHECKING:
    from terralean.models.swin import SwinPyramid

FINEST = 4  # smallest reduction that a head reads; finer maps, which convolutional networks have, cost more than they tell
# Families whose stages end on an un-normalised residual; their authors' segmentation networks put a layer norm on each map.
RESIDUAL = ("swin_", "convnext")
# Swin is built for one image size unless told otherwise. Its windows then shift on every map, as in its authors' segmentation
# code, and not only on maps that were larger than a window at the size it was built for. timm shifts a map before it pads it to
# whole windows, those authors after: where a side is no multiple of 4 x 7 x 8 px, windows at its end look at its beginning too.
SIZE_OPTIONS: tuple[dict[str, Any], ...] = ({}, {"strict_img_size": False, "always_partition": True})
# What timm's constructors and networks raise where they cannot do what is asked.
FOREIGN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
KNOWN_TO_WORK = "swin_tiny_patch4_window7_224, pvt_v2_b1, convnext_atto, resnet18 or lemevit_tiny"


def pyramid(name: str, *, bands: int, drop_path: float) -> LeMeViTPyramid | SwinPyramid | TimmPyramid:
    """The backbone of a timm name, with random weights; `feature_info` tells its maps' channels and reductions.

    Raises UnknownName for a name that timm does not have, ConfigError for a backbone without a pyramid, one that cannot take
    images of any size, and one that has no drop path where it is asked for.
    """
    if name in CONFIGS:
        return LeMeViTPyramid(CONFIGS[name](bands=bands, drop_path=drop_path))
    check_name(name, example=KNOWN_TO_WORK)
    if name.startswith("swin_"):
        from terralean.models.swin import SwinPyramid  # noqa: PLC0415 - it is made of what stands here

        return SwinPyramid(name, bands=bands, drop_path=drop_path)
    return TimmPyramid(name, bands=bands, drop_path=drop_path)


def check_name(name: str, *, example: str) -> None:
    """Raise UnknownName, with the nearest names or else the example, for a network that timm does not have."""
    if timm.is_model(name):
        return
    known = timm.list_models()
    near = [other for other in known if other.startswith(name)][:3] or get_close_matches(name, known)
    hint = f"nearest: {', '.join(near)}" if near else f"use for instance {example}"
    raise UnknownName(f"timm has no backbone {name!r}; {hint}")


class TimmPyramid(nn.Module):
    """(B, bands, H, W) -> maps (B, C, H / r, W / r), rounded up, at rising reductions r, for any H and W.

    An image whose sides are no multiples of the largest reduction is padded with zeros at its right and bottom, as if there
    were pixels without data, and what only the padding made is cut off the maps.
    """

    def __init__(self, name: str, *, bands: int, drop_path: float) -> None:
        super().__init__()
        plan = _plan(name, bands=bands, drop_path=drop_path)
        self.body = timm.create_model(name, **plan.options)
        self.positions, self.channels_last = plan.positions, plan.channels_last
        self.feature_info = FeatureInfo(plan.maps, tuple(range(len(plan.maps))))
        self.step_px = math.lcm(*self.feature_info.reduction())
        normed = self.feature_info.channels() if name.startswith(RESIDUAL) else []
        self.norms = nn.ModuleList(nn.LayerNorm(channels) for channels in normed)

    def forward(self, image: Tensor) -> list[Tensor]:
        """The maps, finest first."""
        height, width = image.shape[-2:]
        found = self.body(F.pad(image, (0, -width % self.step_px, 0, -height % self.step_px)))
        maps = self._normed([found[i] if self.channels_last else found[i].permute(0, 2, 3, 1) for i in self.positions])
        return [
            x[:, : _ceil(height, reduction), : _ceil(width, reduction)].permute(0, 3, 1, 2)
            for x, reduction in zip(maps, self.feature_info.reduction(), strict=True)
        ]

    def no_weight_decay(self) -> set[str]:
        """Names of parameters to leave without weight decay beside the one-dimensional ones: tables of positions."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}

    def _normed(self, maps: list[Tensor]) -> list[Tensor]:
        return [norm(x) for norm, x in zip(self.norms, maps, strict=True)] if self.norms else maps


class Plan(NamedTuple):
    """How a backbone of timm's is built and which of its maps are used."""

    options: dict[str, Any]
    positions: list[int]
    maps: list[dict[str, Any]]  # timm's description of these
    channels_last: bool


def _plan(name: str, *, bands: int, drop_path: float) -> Plan:
    """The first way of building it that works, tried without storage on a size that is not its own."""
    reasons = []
    for options in _options(bands=bands, drop_path=drop_path):
        try:
            with torch.device("meta"), torch.no_grad():
                shell = timm.create_model(name, **options).eval()
                plan = _chosen(name, shell, options)
                _check_maps(shell, plan, bands=bands)
        except FOREIGN as error:
            reasons.append(next(iter(str(error).strip().splitlines()), type(error).__name__))
        else:
            return plan
    if "drop_path_rate" in reasons[0]:
        raise ConfigError(f"{name} of timm has no drop path, so that it cannot be {drop_path}; set model.sizes.drop_path=0")
    raise ConfigError(
        f"{name} of timm cannot be a backbone for {bands} bands and images of any size ({reasons[0]}); use for instance "
        f"{KNOWN_TO_WORK}"
    )


def _options(*, bands: int, drop_path: float) -> Iterator[dict[str, Any]]:
    """Ways of building a backbone. Without drop path it may be one that does not know of it, but timm's default may differ."""
    for rate in [{"drop_path_rate": drop_path}] if drop_path else [{"drop_path_rate": 0.0}, {}]:
        for size in SIZE_OPTIONS:
            yield {"features_only": True, "in_chans": bands, **rate, **size}


def _chosen(name: str, shell: nn.Module, options: dict[str, Any]) -> Plan:
    """The coarsest maps down to FINEST, the last one where several have the same reduction."""
    maps = cast(FeatureInfo, shell.feature_info).get_dicts(["num_chs", "reduction", "module"])
    last = {described["reduction"]: i for i, described in enumerate(maps) if described["reduction"] >= FINEST}
    if len(last) < 2:  # noqa: PLR2004 - one map is no pyramid
        raise ConfigError(
            f"{name} of timm gives maps at the reductions {', '.join(str(m['reduction']) for m in maps)}: a pyramid has at "
            f"least two different ones of {FINEST} or more; use for instance {KNOWN_TO_WORK}"
        )
    positions = sorted(last.values())
    channels_last = getattr(shell, "output_fmt", Format.NCHW) == Format.NHWC
    return Plan(options, positions, [maps[i] for i in positions], channels_last)


def _check_maps(shell: nn.Module, plan: Plan, *, bands: int) -> None:
    """Raise where it does not run on an oblong image, or where its maps are not what timm says."""
    step = math.lcm(*(described["reduction"] for described in plan.maps))
    found = shell(torch.empty(1, bands, 2 * step, 3 * step))
    for i, described in zip(plan.positions, plan.maps, strict=True):
        shape, side = tuple(found[i].shape), step // described["reduction"]
        expected = (2 * side, 3 * side, described["num_chs"])
        if shape[1:] != (expected if plan.channels_last else (expected[2], *expected[:2])):
            raise ValueError(f"its map at reduction {described['reduction']} of {2 * step} x {3 * step} px has shape {shape}")


def _ceil(length: int, reduction: int) -> int:
    return (length + reduction - 1) // reduction
