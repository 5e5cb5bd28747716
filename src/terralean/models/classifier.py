"""Scene classifiers by name: LeMeViT in its three sizes, and every classifier that timm has.

An image (B, bands, H, W) becomes logits (B, classes).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import timm
import torch
from torch import nn

from terralean.errors import ConfigError
from terralean.models import lemevit
from terralean.models.lemevit import S3_WINDOW_PX, Fusion, LeMeViT, LeMeViTConfig, MetaStem, S3Attention, Scale, Stages
from terralean.models.pyramid import FOREIGN, check_name

KNOWN_TO_WORK = "resnet18, swin_tiny_patch4_window7_224, pvt_v2_b1, convnext_atto or lemevit_tiny"


def _lemevit(name: str, size: Callable[..., LeMeViTConfig]) -> Callable[..., LeMeViT]:
    def build(
        *,
        bands: int,
        classes: int,
        drop_path: float = 0.15,
        meta_tokens: int = 16,
        stages: Stages = "CDDSS",
        meta_stem: MetaStem = "mlp",
        fusion: Fusion = "sum",
        attention_scale: Scale = "official",
        s3_attention: S3Attention = "global",
        s3_window_px: int = S3_WINDOW_PX,
    ) -> LeMeViT:
        config = size(bands=bands, classes=classes, drop_path=drop_path, meta_tokens=meta_tokens)
        config = replace(config, stages=stages, meta_stem=meta_stem, fusion=fusion, attention_scale=attention_scale)
        return LeMeViT(replace(config, s3_attention=s3_attention, s3_window_px=s3_window_px))

    build.__name__ = build.__qualname__ = name
    build.__doc__ = size.__doc__
    return build


lemevit_tiny = _lemevit("lemevit_tiny", lemevit.tiny)
lemevit_small = _lemevit("lemevit_small", lemevit.small)
lemevit_base = _lemevit("lemevit_base", lemevit.base)


def classifier(*, bands: int, classes: int, backbone: str, drop_path: float = 0.0, image_px: int = 224) -> nn.Module:
    """The classifier of a timm name, with random weights and timm's own layout of them.

    `image_px` is the side of the images that it will see; a network that is built for one size is built for this one. Raises
    UnknownName for a name that timm does not have, ConfigError where its network cannot do what is asked.
    """
    check_name(backbone, example=KNOWN_TO_WORK)
    reasons = []
    for options in _ways(backbone, drop_path=drop_path, image_px=image_px):
        settings = {"in_chans": bands, "num_classes": classes, **options}
        try:
            _try(backbone, settings, image_px=image_px)
        except FOREIGN as error:
            reasons.append(next(iter(str(error).strip().splitlines()), type(error).__name__))
        else:
            return timm.create_model(backbone, **settings)
    raise _refusal(backbone, reasons[0], drop_path=drop_path, asked=f"{bands} bands and images of {image_px} px")


def _ways(name: str, *, drop_path: float, image_px: int) -> Iterator[dict[str, Any]]:
    """Ways of building it. Without drop path it may be one that does not know of it, but timm's default may differ; one for
    images of a single size may resize them itself, and then it does not take another.
    """
    told = timm.get_pretrained_cfg(name)
    fixed = told is not None and told.fixed_input_size
    for rate in [{"drop_path_rate": drop_path}] if drop_path else [{"drop_path_rate": 0.0}, {}]:
        for size in [{"img_size": image_px}, {}] if fixed else [{}]:
            yield {**rate, **size}


def _try(name: str, settings: dict[str, Any], *, image_px: int) -> None:
    """Raise where it cannot be built so or gives no logits for such an image; nothing is computed."""
    with torch.device("meta"), torch.no_grad():
        shell = timm.create_model(name, **settings).eval()
        found = shell(torch.empty(2, settings["in_chans"], image_px, image_px))
    if tuple(found.shape) != (2, settings["num_classes"]):
        raise ValueError(f"for two images it gives scores of shape {tuple(found.shape)}")


def _refusal(name: str, reason: str, *, drop_path: float, asked: str) -> ConfigError:
    if "drop_path_rate" in reason:
        return ConfigError(f"{name} of timm has no drop path, so that it cannot be {drop_path}; set model.sizes.drop_path=0")
    return ConfigError(f"{name} of timm cannot classify {asked} ({reason}); set model.sizes.image_px or use {KNOWN_TO_WORK}")
