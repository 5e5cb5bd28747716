"""LeMeViT by its timm names: `timm.create_model("lemevit_tiny", features_only=True)` and all that builds on timm, smp's `tu-`
encoders among them. Also, as classifiers only, the networks it is compared with that timm does not have.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import timm
from safetensors.torch import load_file
from timm.models import load_pretrained, register_model
from torch import nn

from terralean.errors import ConfigError
from terralean.models import biformer, lemevit, vitae
from terralean.models.lemevit import (
    S3_WINDOW_PX,
    Fusion,
    LeMeViT,
    LeMeViTConfig,
    LeMeViTPyramid,
    MetaStem,
    S3Attention,
    Scale,
    Stages,
)

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
        in_chans: int | None = None,  # as the folder of the weights has it, else 3
        num_classes: int | None = None,  # likewise, else 1000
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        meta_tokens: int = 16,
        stages: Stages = "CDDSS",
        meta_stem: MetaStem = "mlp",
        fusion: Fusion = "sum",
        attention_scale: Scale = "official",
        s3_attention: S3Attention = "global",
        s3_window_px: int = S3_WINDOW_PX,
        features_only: bool = False,
        out_indices: int | Sequence[int] = (0, 1, 2, 3),
        pretrained_cfg: object = None,  # what a folder that `terralean export` wrote says; the last two are timm's own
        pretrained_cfg_overlay: object = None,
        cache_dir: object = None,
    ) -> LeMeViT | LeMeViTPyramid:
        saved = pretrained_cfg if isinstance(pretrained_cfg, dict) and "file" in pretrained_cfg else {}
        if pretrained and not saved:
            raise ConfigError(f"no weights of {name} are published; build it with pretrained=False and load a checkpoint")
        if drop_rate:
            raise ConfigError(f"{name} has no dropout, so drop_rate cannot be {drop_rate}; use drop_path_rate")
        bands = in_chans or saved.get("input_size", (3,))[0]
        classes = saved.get("num_classes", 1000) if num_classes is None else num_classes
        sizes = config(bands=bands, classes=classes, drop_path=drop_path_rate, meta_tokens=meta_tokens)
        sizes = replace(sizes, stages=stages, meta_stem=meta_stem, fusion=fusion, attention_scale=attention_scale)
        sizes = replace(sizes, s3_attention=s3_attention, s3_window_px=s3_window_px)
        sizes = replace(sizes, **saved.get("sizes", {}))  # its weights fit no others
        model = LeMeViTPyramid(sizes, out_indices=out_indices) if features_only else LeMeViT(sizes)
        told = {**DATA_CFG, **saved, "architecture": name}
        for attribute in ("default_cfg", "pretrained_cfg"):  # where timm looks
            setattr(model, attribute, told)
        if pretrained:
            _load_folder(model, told, bands=bands, classes=classes)
        return model

    build.__name__ = build.__qualname__ = name
    build.__doc__ = config.__doc__
    return build


def _load_folder(model: LeMeViT | LeMeViTPyramid, told: dict[str, Any], *, bands: int, classes: int) -> None:
    """Fill a model from a folder in timm's layout; a classifier may have other classes and bands than the saved one."""
    if isinstance(model, LeMeViT):
        load_pretrained(model, pretrained_cfg=told, num_classes=classes, in_chans=bands)
        return
    state, own = load_file(Path(told["file"]) / "model.safetensors"), model.state_dict()
    model.load_state_dict({name: tensor for name, tensor in state.items() if name in own})


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
