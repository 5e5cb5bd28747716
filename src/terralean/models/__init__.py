"""Architectures by name: `create` builds the segmenters, and after `import terralean.models` timm builds the backbones."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from difflib import get_close_matches

from torch import nn

from terralean.errors import ConfigError, UnknownName
from terralean.models import light
from terralean.models.timm_names import register

MODELS: dict[str, Callable[..., nn.Module]] = {
    "lemevit_tiny_light": light.lemevit_tiny_light,
    "lemevit_small_light": light.lemevit_small_light,
    "lemevit_base_light": light.lemevit_base_light,
}


def create(name: str, *, bands: int, classes: int, **sizes: float) -> nn.Module:
    """The model of this name; `sizes` are the other keyword arguments of its function in MODELS, checked by name."""
    if name not in MODELS:
        near = get_close_matches(name, MODELS) or sorted(MODELS)
        raise UnknownName(f"no model {name!r}; nearest: {', '.join(near)}")
    build = MODELS[name]
    known = [key for key in inspect.signature(build).parameters if key not in ("bands", "classes")]
    for unknown in sorted(sizes.keys() - set(known)):
        near = get_close_matches(unknown, known) or known
        raise ConfigError(f"model {name} has no setting {unknown!r}; nearest: {', '.join(near)}")
    return build(bands=bands, classes=classes, **sizes)


register()
