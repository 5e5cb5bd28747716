"""`terralean map`: scenes become maps."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from terralean.cli.bars import mapping_bar
from terralean.cli.console import configure_logging, out_console, print_json
from terralean.cli.options import Device, Json, Precision, Reduce, Run, SceneBands, Tile, Verbose, only_given, positions
from terralean.errors import SomeScenesFailed


def map_(
    run: Run,
    scenes: Annotated[list[str], typer.Argument(help="Rasters that GDAL opens.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the maps.", show_default=False)],
    bands: SceneBands = None,
    tile: Tile = None,
    overlap: Annotated[int | None, typer.Option(help="Shared by neighbouring windows, px. Default: the model's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Windows predicted at once.", show_default=False)] = None,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Also a raster of the class's probability, percent.")
    ] = False,
    polygons: Annotated[
        Literal["gpkg", "fgb"] | None, typer.Option(help="Also polygons of each class, in this format.", show_default=False)
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Also a CSV table of cells, of a scene classifier.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace maps that exist.")] = False,
    changes: Reduce = None,
    device: Device = None,
    precision: Precision = "fp32",
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Map scenes: Cloud-Optimized GeoTIFFs with class names, colours and a QGIS style.

    A scene classifier gives each cell of a grid a class: the middle of a window, less what windows share.
    """
    configure_logging(verbose)
    from terralean import recipes
    from terralean.mapping.many import map_scenes
    from terralean.mapping.run import MapConfig
    from terralean.predict import load

    given: dict[str, Any] = {"tile_px": tile, "overlap_px": overlap, "batch": batch, "bands": positions(bands)}
    given |= {"polygons": polygons, "confidence": confidence, "table": table}
    config = MapConfig(overwrite=overwrite, **only_given(given))
    with mapping_bar() as tell:
        predictor = load(run, device=device, precision=precision, reduce=recipes.reduction(changes or []))
        results, failed = map_scenes(predictor, scenes, out=out, config=config, progress=tell)
    if as_json:
        print_json({"maps": [asdict(result) for result in results], "failed": failed})
    else:
        for result in results:
            shares = ", ".join(f"{name} {share:.1%}" for name, share in result.class_share.items())
            files = [file for file in (result.confidence, result.polygons, result.table) if file is not None]
            lines = "".join(f"\n  {line}" for line in (shares, *files))
            out_console.print(f"{result.path}  ({result.seconds} s){lines}", markup=False, soft_wrap=True)
    if failed:
        lines = "\n".join(f"  {message}" for message in failed.values())
        raise SomeScenesFailed(f"{len(failed)} of {len(scenes)} scenes failed:\n{lines}")
