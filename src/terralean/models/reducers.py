"""Methods of token reduction by name, as a network with attention layers uses them.

What a method decides and how it applies that stands in the room `tokens`; what it does between the parts of a network's
layers stands in `models.pruning` and `models.merging`. A config's type says which method it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from terralean.errors import ConfigError
from terralean.layers.hooks import DENSE, Hooks, MakeHooks, Point, Setting
from terralean.models import merging, pruning
from terralean.models.place import Place

MakeHeads = Callable[[Any, Place], nn.ModuleDict]


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """How a network uses one method."""

    hooks: MakeHooks
    layers: Callable[[Any], tuple[int, ...]] = lambda config: config.after  # what it is to be checked against
    heads: MakeHeads | None = None  # its own parameters, by layer
    multiple: Callable[[Any], int] = lambda config: 1  # what both sides of the grid of tokens are filled up to


METHODS: Mapping[str, Method] = {
    "matp": Method(hooks=pruning.matp_hooks, heads=pruning.graded_heads),
    "random": Method(hooks=pruning.random_hooks),
    "topk": Method(hooks=pruning.topk_hooks, heads=pruning.graded_heads),
    "threshold": Method(hooks=pruning.threshold_hooks, heads=pruning.graded_heads),
    "dtop": Method(hooks=pruning.dtop_hooks, heads=pruning.graded_heads),
    "tome": Method(hooks=merging.tome_hooks, heads=merging.check_tome, layers=lambda config: ()),
    "algm": Method(hooks=merging.algm_hooks),
    "elvit": Method(hooks=merging.elvit_hooks, heads=merging.check_elvit),
}


def heads_of(config: Any, place: Place) -> nn.ModuleDict:
    """The parameters that the method adds, after checking that the network has its layers."""
    if config.method not in METHODS:
        raise ConfigError(
            f"reduce.method={config.method} leaves out windows and needs a network that has them, e.g. swin_tiny_upernet; here "
            f"{', '.join(METHODS)} can be used"
        )
    method = METHODS[config.method]
    wrong = [layer for layer in method.layers(config) if not 1 <= layer <= place.depth]
    if wrong:
        raise ConfigError(
            f"reduce: {config.method} is to act at layer {', '.join(map(str, wrong))}, the network has the layers 1 to "
            f"{place.depth}; set reduce.after to some of these"
        )
    return nn.ModuleDict() if method.heads is None else method.heads(config, place)


def hooks_of(config: Any, setting: Setting) -> Hooks:
    """What the method does in one pass; without a config, nothing."""
    return DENSE if config is None else METHODS[config.method].hooks(config, setting)


def grid_multiple(config: Any) -> int:
    """What the sides of the grid have to be multiples of."""
    return 1 if config is None else METHODS[config.method].multiple(config)


def seeds_of_values(image: Tensor) -> list[int]:
    """A number for each image (B, ...), from its values alone: sums of whole numbers do not depend on their order."""
    bits = image.detach().float().contiguous().view(torch.int32)
    return bits.flatten(1).sum(dim=1, dtype=torch.int64).tolist()


def drawn_seeds(images: int) -> list[int]:
    """A number for each image, from torch's own generator, which a training run seeds."""
    return torch.randint(2**31, (images,)).tolist()


def told(record: Sequence[Point], *, inside: tuple[int, int], last: int, token_px: tuple[int, int]) -> tuple[Point, ...]:
    """The points of a stage whose last layer is `last`, without what lies past the image's rows and columns of tokens."""
    ends = [*(point.layer for point in record[1:]), last]
    return tuple(
        cut_point(point, inside=inside, layers=end - point.layer, token_px=token_px)
        for point, end in zip(record, ends, strict=False)
    )


def cut_point(point: Point, *, inside: tuple[int, int], layers: int, token_px: tuple[int, int]) -> Point:
    """Without what lies past the image, and with what it stands for."""
    height, width = inside
    alive, group = (None if x is None else x[:, :height, :width] for x in (point.alive, point.group))
    return point._replace(alive=alive, group=group, layers=layers, token_px=token_px)
