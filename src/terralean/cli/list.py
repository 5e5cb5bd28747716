"""`terralean list`: the names of what there is."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from terralean.cli.console import out_console, print_json
from terralean.cli.options import Json


class Listed(StrEnum):
    """What `terralean list` knows."""

    models = "models"
    recipes = "recipes"
    tasks = "tasks"
    reducers = "reducers"


def list_(what: Annotated[Listed, typer.Argument(show_default=False)], as_json: Json = False) -> None:
    """Name what there is."""
    found = _listing(what)
    if as_json:
        print_json(found)
    else:
        out_console.print("\n".join(found))


def _listing(what: Listed) -> list[str]:
    if what is Listed.recipes:
        from terralean import recipes

        return recipes.names()
    if what is Listed.models:
        from terralean.models import MODELS
        from terralean.models.timm_names import CONFIGS

        return sorted({*MODELS, *CONFIGS})
    if what is Listed.reducers:
        from terralean.tokens import REDUCERS

        return list(REDUCERS)
    from terralean.train.kinds import KINDS

    return sorted(KINDS)
