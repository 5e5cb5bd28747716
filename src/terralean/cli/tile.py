"""`terralean tile`: large images with oriented objects cut into tiles."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from terralean.cli.console import configure_logging, out_console, print_json
from terralean.cli.options import Changes, Json, Verbose, only_given


def tile(
    data: Annotated[
        Path, typer.Argument(help="Images with oriented objects, in any layout that is trained on.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(help="Folder for the tiles.", show_default=False)],
    size: Annotated[int | None, typer.Option(help="Side of a tile, px. Default: 1024.")] = None,
    overlap: Annotated[int | None, typer.Option(help="Px that neighbouring tiles share. Default: 200.")] = None,
    iof: Annotated[
        float | None, typer.Option(help="Share of an object's area from which on a tile has it. Default: 0.7.")
    ] = None,
    cut: Annotated[
        Literal["drop", "difficult"] | None,
        typer.Option(help="What becomes of an object of which a tile has less.", show_default="drop"),
    ] = None,
    empty: Annotated[bool, typer.Option("--empty", help="Keep tiles without objects.")] = False,
    changes: Changes = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Cut images and their oriented objects into tiles, as DOTA is trained on: GeoTIFFs in their place, with labelTxt.

    Training cuts images by itself; tiles on disk are for other tools, and for images that are slow to read.
    """
    configure_logging(verbose)
    from terralean import recipes
    from terralean.data.oriented.layouts import ObjectsConfig, find_objects
    from terralean.data.oriented.tiles import TilesConfig, write_tiles

    given: dict[str, Any] = only_given({"size_px": size, "overlap_px": overlap, "iof": iof, "cut": cut})
    config = TilesConfig(empty=empty, **given)
    found = find_objects(data, recipes.data_settings(ObjectsConfig, changes or []))
    written = write_tiles(found, out, config)
    if as_json:
        print_json(asdict(written) | {"out": str(out)})
        return
    lost = f", {written.lost} in none" if written.lost else ""
    out_console.print(f"{out}: {written.tiles} tiles with {written.objects} objects{lost}", markup=False, soft_wrap=True)
