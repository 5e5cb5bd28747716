"""Architectures by name: `create` builds segmenters and classifiers, of images and of hyperspectral pixels.

After `import terralean.models` timm builds ours, too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Literal, get_args, get_origin, get_type_hints

from torch import nn

from terralean.errors import ConfigError, UnknownName
from terralean.models import (
    bit,
    change,
    change_vector,
    classifier,
    factseg,
    forest,
    hybridsn,
    light,
    lola_specvit,
    oriented_rcnn,
    segvit,
    small_cnn,
    ssftt,
    svm,
    unet,
    unetformer,
    upernet,
)
from terralean.models.timm_names import register

Size = bool | int | float | str  # of a model's settings, as a recipe writes them

SEGMENTERS: dict[str, Callable[..., nn.Module]] = {
    "lemevit_tiny_light": light.lemevit_tiny_light,
    "lemevit_small_light": light.lemevit_small_light,
    "lemevit_base_light": light.lemevit_base_light,
    "light": light.light,
    "lemevit_tiny_upernet": upernet.lemevit_tiny_upernet,
    "lemevit_small_upernet": upernet.lemevit_small_upernet,
    "lemevit_base_upernet": upernet.lemevit_base_upernet,
    "swin_tiny_upernet": upernet.swin_tiny_upernet,
    "upernet": upernet.upernet,
    "vit_base_segvit": segvit.vit_base_segvit,
    "vit_tiny_segvit": segvit.vit_tiny_segvit,
    "segvit": segvit.segvit,
    "unet_resnet18": unet.unet_resnet18,
    "unetformer_resnet18": unetformer.unetformer_resnet18,
    "factseg_resnet50": factseg.factseg_resnet50,
    "forest": forest.forest,
}
CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {
    "lemevit_tiny": classifier.lemevit_tiny,
    "lemevit_small": classifier.lemevit_small,
    "lemevit_base": classifier.lemevit_base,
    "small_cnn": small_cnn.small_cnn,
    "classifier": classifier.classifier,
}
CHANGE_DETECTORS: dict[str, Callable[..., nn.Module]] = {  # of pairs: `bands` are those of both dates together
    "bit_lemevit_tiny": bit.bit_lemevit_tiny,
    "bit_lemevit_tiny_d7": bit.bit_lemevit_tiny_d7,
    "bit_lemevit_small": bit.bit_lemevit_small,
    "bit_lemevit_base": bit.bit_lemevit_base,
    "bit_swin_tiny": bit.bit_swin_tiny,
    "bit": bit.bit,
    "change_difference_light": change.change_difference_light,
    "change_concatenation_light": change.change_concatenation_light,
    "change_vector": change_vector.change_vector,
}
PIXEL_CLASSIFIERS: dict[str, Callable[..., nn.Module]] = {  # of a pixel by the patch around it, of many bands
    "lola_specvit": lola_specvit.lola_specvit,
    "lola_specvit_published": lola_specvit.lola_specvit_published,
    "ssftt": ssftt.ssftt,
    "hybridsn": hybridsn.hybridsn,
    "svm": svm.svm,
}
DETECTORS: dict[str, Callable[..., nn.Module]] = {  # of oriented boxes
    "lemevit_tiny_orcnn": oriented_rcnn.lemevit_tiny_orcnn,
    "lemevit_small_orcnn": oriented_rcnn.lemevit_small_orcnn,
    "lemevit_base_orcnn": oriented_rcnn.lemevit_base_orcnn,
    "swin_tiny_orcnn": oriented_rcnn.swin_tiny_orcnn,
    "orcnn": oriented_rcnn.orcnn,
}
RATES = ("drop_path", "dropout", "band_dropout")  # settings that are shares of what is dropped, so never all
MAY_BE_NONE = ("background", "components", "meta_tokens", "rank")  # whole numbers that 0 means something for
MODELS = {**SEGMENTERS, **CLASSIFIERS, **PIXEL_CLASSIFIERS, **DETECTORS, **CHANGE_DETECTORS}


def create(name: str, *, bands: int, classes: int, reduce: Any = None, **sizes: Size) -> nn.Module:
    """The model of this name; `sizes` are the other keyword arguments of its function in MODELS, checked by name.

    `reduce` is the config of a method of token reduction, one of `terralean.tokens.REDUCERS`, for a model that can use it.
    """
    check_sizes(name, sizes)
    model = MODELS[name](bands=bands, classes=classes, **sizes)
    if reduce is not None:
        _reduce(name, model, reduce)
    return model


def _reduce(name: str, model: nn.Module, config: Any) -> None:
    take: Callable[[Any], None] | None = getattr(model, "reduce_tokens", None)
    if take is None:
        raise ConfigError(
            f"model {name} has no place for reduce.method={config.method}; segvit, vit_base_segvit and vit_tiny_segvit have, "
            "and the light head and UPerNet on LeMeViT or Swin"
        )
    take(config)


def check_sizes(name: str, sizes: Mapping[str, Size]) -> None:
    """Raise UnknownName for a model that is not there, ConfigError for settings that are not its own, or cannot be."""
    if name not in MODELS:
        near = get_close_matches(name, MODELS)
        raise UnknownName(
            f"no model {name!r}; " + (f"nearest: {', '.join(near)}" if near else "terralean list models names all")
        )
    build: Callable[..., nn.Module] = MODELS[name]
    known = {key: p for key, p in inspect.signature(build).parameters.items() if key not in ("bands", "classes")}
    for unknown in sorted(sizes.keys() - known.keys()):
        near = get_close_matches(unknown, known) or [*known]
        has = f"nearest: {', '.join(near)}" if near else "it has none; leave model.sizes out"
        raise ConfigError(f"model {name} has no setting {unknown!r}; {has}")
    types = get_type_hints(build)
    for key, value in sizes.items():
        if get_origin(types[key]) is Literal:
            _check_choice(name, key, value, get_args(types[key]))
            continue
        # Python counts a bool as an int and an int as no float; a recipe means the opposite.
        fits = type(value) in ((int, float) if types[key] is float else (types[key],))
        if not fits:
            raise ConfigError(f"model {name}: sizes.{key} must be of type {types[key].__name__}, got {value!r}")
        _check_range(name, key, value, kind=types[key])
    for key, parameter in known.items():
        if parameter.default is parameter.empty and key not in sizes:
            raise ConfigError(f"model {name} needs sizes.{key}; set it with --set model.sizes.{key}=...")


def _check_range(name: str, key: str, value: Any, *, kind: type) -> None:
    """Raise ConfigError for a share outside its range, and for a number of things that there cannot be."""
    if kind is float and not (0 <= value < 1 if key in RATES else 0 <= value <= 1):
        raise ConfigError(f"model {name}: model.sizes.{key} must be 0 up to {'below ' if key in RATES else ''}1, got {value}")
    least = 0 if key in MAY_BE_NONE else 1
    if kind is int and value < least:
        raise ConfigError(f"model {name}: model.sizes.{key} must be {least} or more, got {value}")


def _check_choice(name: str, key: str, value: Size, choices: tuple[Size, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"model {name}: sizes.{key} must be one of {', '.join(map(str, choices))}, got {value!r}")


register()
