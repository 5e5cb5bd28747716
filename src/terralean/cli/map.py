"""`terralean map`: scenes become maps."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from terralean.cli.bars import mapping_bar
from terralean.cli.console import configure_logging, out_console, print_json
from terralean.cli.options import Device, Json, Precision, Reduce, RunOrExport, SceneBands, Tile, Verbose, only_given, positions
from terralean.errors import ConfigError, SomeScenesFailed


def map_(
    run: RunOrExport,
    scenes: Annotated[
        list[str],
        typer.Argument(
            help="Rasters that GDAL opens, quoted patterns, @LIST (a text file with one on each line), STAC items and the "
            "results of STAC searches (JSON).",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the maps.", show_default=False)],
    bands: SceneBands = None,
    tile: Tile = None,
    overlap: Annotated[int | None, typer.Option(help="Shared by neighbouring windows, px. Default: the model's.")] = None,
    batch: Annotated[int | None, typer.Option(help="Windows predicted at once.", show_default=False)] = None,
    aoi: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Map only what lies in the polygons of a vector file.", show_default=False),
    ] = None,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Also a raster of the class's probability, percent.")
    ] = False,
    scores: Annotated[
        bool, typer.Option("--scores", help="Also a raster of the probabilities of all classes, percent.")
    ] = False,
    compute: Annotated[
        bool, typer.Option("--compute", help="Also a raster of the share of tokens that the model kept, percent.")
    ] = False,
    polygons: Annotated[
        Literal["gpkg", "fgb", "parquet"] | None,
        typer.Option(help="Also polygons of each class, in this format.", show_default=False),
    ] = None,
    min_area: Annotated[
        float | None,
        typer.Option(help="Leave smaller polygons out and close smaller holes, m2.", metavar="M2", show_default=False),
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Also a CSV table of cells, of a scene classifier.")] = False,
    stac: Annotated[bool, typer.Option("--stac", help="Also a STAC item of each map.")] = False,
    envi: Annotated[bool, typer.Option("--envi", help="Also the classes as an ENVI Classification.")] = False,
    assets: Annotated[
        str | None,
        typer.Option(help="Assets of STAC items with the model's bands, e.g. B04,B03,B02. Default: by their bands."),
    ] = None,
    resample: Annotated[
        bool, typer.Option("--resample", help="Interpolate coarser assets of STAC items to the finest, bilinearly.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Batches predicted side by side. Default: one for each processor, or one on a GPU.", show_default=False
        ),
    ] = None,
    threads: Annotated[int | None, typer.Option(help="Of a worker's arithmetic on a CPU.", show_default="1")] = None,
    memory: Annotated[
        str | None,
        typer.Option(metavar="SIZE", help="Take no more than this, e.g. 4GB, or say what would fit.", show_default=False),
    ] = None,
    jobs: Annotated[int | None, typer.Option(help="Scenes mapped side by side, each by a process. Default: 1.")] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Map on a Ray cluster: its address, auto, or local for one of this machine's own.", show_default=False
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Be done in 10min, 90s or 1h30m, or by area in 2s/km2: overlap, precision and token reduction are chosen by "
            "the run's accuracy-cost curve (evaluate --curve).",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace maps that exist.")] = False,
    changes: Reduce = None,
    device: Device = None,
    precision: Precision = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Map scenes: Cloud-Optimized GeoTIFFs with class names, colours and a QGIS style.

    A scene classifier gives each cell of a grid a class: the middle of a window, less what windows share.
    """
    configure_logging(verbose)
    from terralean import recipes
    from terralean.mapping.budget import parse_budget
    from terralean.mapping.estimate import read_size
    from terralean.mapping.many import ManyConfig, map_many
    from terralean.mapping.run import MapConfig
    from terralean.mapping.scenes import ScenesConfig, find_scenes
    from terralean.mapping.within import map_within
    from terralean.predict import load

    given: dict[str, Any] = {"tile_px": tile, "overlap_px": overlap, "batch": batch, "bands": positions(bands)}
    given |= {
        "polygons": polygons,
        "confidence": confidence,
        "table": table,
        "min_area_m2": min_area,
        "stac": stac,
        "envi": envi,
    }
    given |= {"aoi": aoi, "scores": scores, "compute": compute, "workers": workers, "threads": threads}
    given |= {"memory_bytes": None if memory is None else read_size(memory)}
    config = MapConfig(overwrite=overwrite, **only_given(given))
    of_items = ScenesConfig(assets=None if assets is None else tuple(assets.split(",")), resample=resample)
    found = find_scenes(scenes, config=of_items)
    many = ManyConfig(jobs=jobs, cluster=cluster)
    opens = partial(
        load, run if cluster is None else run.absolute(), precision=precision, reduce=recipes.reduction(changes or [])
    )
    with mapping_bar() as tell:
        if budget is None:
            results, failed = map_many(opens, found, out=out, config=config, many=many, device=device, progress=tell)
            told: list[str | None] = [None] * len(results)
        else:
            _check_free({"--precision": precision, "--set": changes, "--jobs": jobs, "--cluster": cluster})
            within, failed = map_within(
                partial(load, run, device=device),
                found,
                run=run,
                out=out,
                budget=parse_budget(budget),
                config=config,
                progress=tell,
            )
            results, told = [one.result for one in within], [one.told for one in within]
    if as_json:
        documents = [
            asdict(one) | ({} if words is None else {"budget": words}) for one, words in zip(results, told, strict=True)
        ]
        print_json({"maps": documents, "failed": failed})
    else:
        for result in results:
            shares = ", ".join(f"{name} {share:.1%}" for name, share in result.class_share.items())
            kinds = (result.confidence, result.scores, result.compute, result.polygons, result.table, result.stac, result.envi)
            work = [] if result.compute_share is None else [f"{result.compute_share:.1%} of the compute of all tokens"]
            lines = "".join(f"\n  {line}" for line in (shares, *work, *(file for file in kinds if file is not None)))
            out_console.print(f"{result.path}  ({result.seconds} s){lines}", markup=False, soft_wrap=True)
    if failed:
        lines = "\n".join(f"  {message}" for message in failed.values())
        raise SomeScenesFailed(f"{len(failed)} of {len(found)} scenes failed:\n{lines}")


def _check_free(given: dict[str, Any]) -> None:
    if clash := [flag for flag, value in given.items() if value is not None]:
        raise ConfigError(
            f"--budget chooses precision and token reduction, and maps one scene after the other; leave {', '.join(clash)} out"
        )
