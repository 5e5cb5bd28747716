"""Names that other libraries give to tensors, turned into ours.

mmsegmentation writes UPerNet as `decode_head.*` and its auxiliary head as `auxiliary_head.*`. timm numbers the stages of a
classifier as `layers.0.*` and those of the same network giving maps as `layers_0.*`, or puts the whole under `model.*`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import cast

import timm
import torch
from torch import Tensor, nn

from terralean.models.pyramid import TimmPyramid
from terralean.models.swin import SwinPyramid
from terralean.models.vit import ViTEncoder

MMSEG = (
    (re.compile(r"^decode_head\.psp_modules\.(\d+)\.1\."), r"head.context.reduce.\1."),
    (re.compile(r"^decode_head\.bottleneck\."), "head.context.fuse."),
    (re.compile(r"^decode_head\.lateral_convs\.(\d+)\."), r"head.lateral.\1."),
    (re.compile(r"^decode_head\.fpn_convs\.(\d+)\."), r"head.smooth.\1."),
    (re.compile(r"^decode_head\.fpn_bottleneck\."), "head.fuse."),
    (re.compile(r"^decode_head\.conv_seg\."), "head.classify."),
    (re.compile(r"^auxiliary_head\.convs\.0\."), "auxiliary.convolve."),
    (re.compile(r"^auxiliary_head\.conv_seg\."), "auxiliary.classify."),
)
COMPUTED = ("relative_position_index", "attn_mask")  # tables that older files hold and the network makes itself


def from_mmseg(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict with the heads of mmsegmentation's UPerNet under our names; other names stay."""
    return {_ours(name): tensor for name, tensor in state.items()}


def timm_body(backbone: nn.Module) -> nn.Module | None:
    """The network that timm built, of a backbone that is or holds one."""
    body = backbone.body if isinstance(backbone, TimmPyramid | SwinPyramid | ViTEncoder) else backbone
    return body if hasattr(body, "pretrained_cfg") else None


def from_timm(state: Mapping[str, Tensor], *, body: nn.Module) -> dict[str, Tensor]:
    """What a state dict of timm's classifier holds for the same network giving maps, under that network's names.

    What only the classifier uses is left out; names that the classifier does not have stay, for the caller to refuse.
    """
    own = body.state_dict()
    with torch.device("meta"):
        classifier = timm.create_model(cast(dict[str, str], body.pretrained_cfg)["architecture"]).state_dict()
    found = {}
    for name, tensor in state.items():
        place = next((other for other in _as_maps(name) if other in own), None)
        if place is not None:
            found[place] = tensor
        elif name not in classifier and not name.endswith(COMPUTED):
            found[name] = tensor
    return found


def _ours(name: str) -> str:
    for theirs, ours in MMSEG:
        if theirs.match(name):
            return theirs.sub(ours, name).replace(".bn.", ".norm.")
    return name


def _as_maps(name: str) -> tuple[str, str, str]:
    return name, name.replace(".", "_", 1), f"model.{name}"
