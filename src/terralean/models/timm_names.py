"""LeMeViT by its timm names: `timm.create_model("lemevit_tiny", features_only=True)` and all that builds on timm, smp's `tu-`
encoders among them. Also, as classifiers only, the networks it is compared with that timm does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import timm
from timm.models import register_model
from torch import nn

from terralean.errors import ConfigError
from terralean.models import biformer, lemevit, vitae
from terralean.models.lemevit import Fusion, LeMeViT, LeMeViTConfig, LeMeViTPyramid, MetaStem, Scale, Stages

# What timm's data helpers read. ImageNet statistics, as the authors trained.
DATA_CFG = {
    "url": "",
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "pool_size": (7, 7),
    "crop_pct": 0.875,
    "interpolation": "bicubic",
    "fixed_input_size": False,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "first_conv": "downsample_layers.0.0",
    "classifier": "head",
}


def register() -> None:
    """Make timm know our backbones; a second call changes nothing."""
    for name, config in CONFIGS.items():
        if not timm.is_model(name):
            register_model(_entrypoint(name, config))
    for name, rival in RIVALS.items():
        if not timm.is_model(name):
            register_model(_rival_entrypoint(name, rival))


CONFIGS: dict[str, Callable[..., LeMeViTConfig]] = {
    "lemevit_tiny": lemevit.tiny,
    "lemevit_tiny_d7": lemevit.tiny_d7,
    "lemevit_small": lemevit.small,
    "lemevit_base": lemevit.base,
}


class Rival(NamedTuple):
    """A classifier that LeMeViT is compared with, and its layers that read the image."""

    build: Callable[..., nn.Module]
    first_conv: str | tuple[str, ...]


RIVALS = {
    "vitae_v2_s": Rival(vitae.vitae_v2_s, vitae.FIRST_CONVOLUTIONS),
    "biformer_tiny": Rival(biformer.biformer_tiny, "downsample_layers.0.0"),
    "biformer_base": Rival(biformer.biformer_base, "downsample_layers.0.0"),
}


def _entrypoint(name: str, config: Callable[..., LeMeViTConfig]) -> Callable[..., LeMeViT | LeMeViTPyramid]:
    def build(
        pretrained: bool = False,
        *,
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        meta_tokens: int = 16,
        stages: Stages = "CDDSS",
        meta_stem: MetaStem = "mlp",
        fusion: Fusion = "sum",
        attention_scale: Scale = "official",
        features_only: bool = False,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        pretrained_cfg: object = None,  # the last three are timm's own and say nothing about a model without weights
        pretrained_cfg_overlay: object = None,
        cache_dir: object = None,
    ) -> LeMeViT | LeMeViTPyramid:
        if pretrained:
            raise ConfigError(f"no weights of {name} are published; build it with pretrained=False and load a checkpoint")
        if drop_rate:
            raise ConfigError(f"{name} has no dropout, so drop_rate cannot be {drop_rate}; use drop_path_rate")
        sizes = config(bands=in_chans, classes=num_classes, drop_path=drop_path_rate, meta_tokens=meta_tokens)
        sizes = replace(sizes, stages=stages, meta_stem=meta_stem, fusion=fusion, attention_scale=attention_scale)
        model = LeMeViTPyramid(sizes, out_indices=out_indices) if features_only else LeMeViT(sizes)
        for attribute in ("default_cfg", "pretrained_cfg"):  # where timm looks
            setattr(model, attribute, {**DATA_CFG, "architecture": name})
        return model

    build.__name__ = build.__qualname__ = name
    build.__doc__ = config.__doc__
    return build


def _rival_entrypoint(name: str, rival: Rival) -> Callable[..., nn.Module]:
    def build(
        pretrained: bool = False,
        *,
        in_chans: int = 3,
        num_classes: int = 1000,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        features_only: bool = False,
        pretrained_cfg: object = None,  # as above
        pretrained_cfg_overlay: object = None,
        cache_dir: object = None,
    ) -> nn.Module:
        if pretrained:
            raise ConfigError(f"{name} is our own writing and has no weights; build it with pretrained=False and train it")
        if drop_rate:
            raise ConfigError(f"{name} has no dropout, so drop_rate cannot be {drop_rate}; use drop_path_rate")
        if features_only:
            raise ConfigError(f"{name} is a classifier only; as a backbone use for instance lemevit_tiny or pvt_v2_b2")
        model = rival.build(bands=in_chans, classes=num_classes, drop_path=drop_path_rate)
        settings = {**DATA_CFG, "first_conv": rival.first_conv, "architecture": name}
        for attribute in ("default_cfg", "pretrained_cfg"):
            setattr(model, attribute, settings)
        return model

    build.__name__ = build.__qualname__ = name
    build.__doc__ = rival.build.__doc__
    return build
