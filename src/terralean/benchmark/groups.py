"""Names of many models at once, and the check that every name is somebody's."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path

import timm

from terralean.benchmark.published import OURS, TABLE_3, TABLE_4
from terralean.errors import UnknownName
from terralean.models import MODELS


def _others(table: dict[str, tuple[str | None, str]]) -> tuple[str, ...]:
    named = dict.fromkeys(model for model, _ in table.values() if model is not None)
    return tuple(model for model in named if model not in OURS)


GROUPS: dict[str, tuple[str, ...]] = {
    "lemevit": OURS,
    "imagenet-peers": _others(TABLE_3),  # of the LeMeViT paper's table 3
    "scene-peers": _others(TABLE_4),
    "more-peers": (  # of about the same cost, not in the paper's tables
        *("convnext_tiny", "convnext_small", "convnext_base", "poolformer_s12", "poolformer_s24", "poolformer_s36"),
        *("tnt_s_patch16_224", "crossvit_small_240", "resnet50"),
    ),
}


def expand(names: Sequence[str]) -> tuple[str, ...]:
    """Names of models, groups replaced by their models, each once.

    Raises UnknownName for a name that is neither a group, nor ours, nor timm's.
    """
    check_names([name for name in names if name not in GROUPS])
    return tuple(dict.fromkeys(model for name in names for model in GROUPS.get(name, (name,))))


def check_names(names: Sequence[str]) -> None:
    """Raise UnknownName for a name that is neither ours nor timm's."""
    for name in names:
        if name not in MODELS and not timm.is_model(name):
            if Path(name).is_dir():
                raise UnknownName(f"{name} is a folder, not the name of a model; a run is measured on images, with --on SCENE")
            known = [*GROUPS, *MODELS, *timm.list_models()]
            near = get_close_matches(name, known) or [*GROUPS, "see terralean list models"]
            raise UnknownName(f"no model {name!r} here or in timm, and no group; nearest: {', '.join(near)}")
