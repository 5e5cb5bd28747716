"""`terralean map`: scenes become maps."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from terralean.cli.bars import mapping_bar
from terralean.cli.console import configure_logging, out_console, print_json
from terralean.cli.options import Device, Json, Precision, Reduce, RunOrExport, SceneBands, Tile, Verbose, only_given, positions
from terralean.errors import ConfigError, SomeScenesFailed

if TYPE_CHECKING:
    from terralean.mapping.many import ManyConfig
    from terralean.mapping.run import MapConfig, MapResult
    from terralean.mapping.scenes import SceneSource

    Made = tuple[list[tuple[MapResult, str | None]], dict[str, str]]  # with what a budget gave up; what failed, by scene

MADE, MUCH, MANY, ITEMS = "What is written", "Memory, speed and time", "Many scenes", "STAC items"  # panels of the help


def map_(
    run: RunOrExport,
    out: Annotated[Path, typer.Option(help="Folder for the maps.", show_default=False)],
    scenes: Annotated[
        list[str] | None,
        typer.Argument(
            help="Rasters that GDAL opens, quoted patterns, @LIST (a text file with one on each line), STAC items and the "
            "results of STAC searches (JSON); of a model of change BEFORE:AFTER.",
            show_default=False,
        ),
    ] = None,
    bands: SceneBands = None,
    aoi: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Map only what lies in the polygons of a vector file.", show_default=False),
    ] = None,
    tile: Tile = None,
    overlap: Annotated[
        int | None,
        typer.Option(help="Px that neighbouring windows share; over these their answers are blended. Default: the model's."),
    ] = None,
    confidence: Annotated[
        bool, typer.Option("--confidence", help="Also a raster of the class's probability, percent.", rich_help_panel=MADE)
    ] = False,
    scores: Annotated[
        bool, typer.Option("--scores", help="Also a raster of the probabilities of all classes, percent.", rich_help_panel=MADE)
    ] = False,
    compute: Annotated[
        bool,
        typer.Option(
            "--compute",
            help="Also a raster of the share of layers that worked on each pixel's token, percent; of a model that takes out "
            "or merges tokens.",
            rich_help_panel=MADE,
        ),
    ] = False,
    polygons: Annotated[
        Literal["gpkg", "fgb", "parquet"] | None,
        typer.Option(
            help="Also polygons of each class: GeoPackage, FlatGeobuf or GeoParquet.", show_default=False, rich_help_panel=MADE
        ),
    ] = None,
    min_area: Annotated[
        float | None,
        typer.Option(
            help="Leave smaller polygons out and close smaller holes, m2.",
            metavar="M2",
            show_default=False,
            rich_help_panel=MADE,
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option(
            help="Leave out oriented boxes that are less sure, 0 to 1.",
            metavar="SHARE",
            show_default="all that the model calls an object",
            rich_help_panel=MADE,
        ),
    ] = None,
    table: Annotated[
        bool, typer.Option("--table", help="Also a CSV table of cells, of a scene classifier.", rich_help_panel=MADE)
    ] = False,
    stac: Annotated[bool, typer.Option("--stac", help="Also a STAC item of each map.", rich_help_panel=MADE)] = False,
    envi: Annotated[
        bool, typer.Option("--envi", help="Also the classes as an ENVI Classification.", rich_help_panel=MADE)
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace maps that exist; begin again where one was begun otherwise.", rich_help_panel=MADE
        ),
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(
            help="Batches of windows predicted side by side. Default: one for each processor, or one on a GPU.",
            show_default=False,
            rich_help_panel=MUCH,
        ),
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Of a worker's arithmetic on a CPU.", show_default="1", rich_help_panel=MUCH)
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(
            help="Windows predicted at once by a worker.", show_default="4, of a scene classifier 16", rich_help_panel=MUCH
        ),
    ] = None,
    memory: Annotated[
        str | None,
        typer.Option(
            metavar="SIZE",
            help="Take no more than this, e.g. 4GB: with fewer workers, or not at all and say what would fit.",
            show_default=False,
            rich_help_panel=MUCH,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Be done in 10min, 90s or 1h30m, or by area in 2s/km2: overlap, precision and token reduction are chosen by "
            "the run's accuracy-cost curve (terralean evaluate RUN --curve).",
            show_default=False,
            rich_help_panel=MUCH,
        ),
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option(help="Scenes mapped side by side, each by a process of its own. Default: 1.", rich_help_panel=MANY),
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            help="Map on a Ray cluster: its address, auto, or local for one of this machine's own.",
            show_default=False,
            rich_help_panel=MANY,
        ),
    ] = None,
    assets: Annotated[
        str | None,
        typer.Option(
            help="Assets with the model's bands, in their order, e.g. B04,B03,B02. Default: found by their bands.",
            rich_help_panel=ITEMS,
        ),
    ] = None,
    resample: Annotated[
        bool,
        typer.Option(
            "--resample",
            help="Interpolate bilinearly: coarser assets to the finest, the later date of a pair to the grid of the earlier.",
            rich_help_panel=ITEMS,
        ),
    ] = False,
    pairs: Annotated[
        Path | None,
        typer.Option(
            metavar="CSV",
            help="Of a model of change: a table of pairs with the columns before,after and perhaps name.",
            show_default=False,
            rich_help_panel=MANY,
        ),
    ] = None,
    changes: Reduce = None,
    device: Device = None,
    precision: Precision = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Map scenes: Cloud-Optimized GeoTIFFs with class names, colours and a QGIS style.

    A scene classifier gives each cell of a grid a class: the middle of a window, less what windows share. The same command goes
    on with a map that was stopped or killed, to the same bytes. Exit status 1 where some of several scenes failed; the others
    are mapped.
    """
    configure_logging(verbose)
    from terralean.mapping.estimate import read_size
    from terralean.mapping.many import ManyConfig
    from terralean.mapping.run import MapConfig

    given: dict[str, Any] = {"tile_px": tile, "overlap_px": overlap, "batch": batch, "bands": positions(bands)}
    given |= {"polygons": polygons, "confidence": confidence, "table": table, "min_area_m2": min_area, "stac": stac}
    given |= {"envi": envi, "min_score": min_score}
    given |= {"aoi": aoi, "scores": scores, "compute": compute, "workers": workers, "threads": threads}
    given |= {"memory_bytes": None if memory is None else read_size(memory)}
    config = MapConfig(overwrite=overwrite, **only_given(given))
    found = _scenes(run, scenes or [], pairs=pairs, assets=assets, resample=resample)
    if budget is None:
        many = ManyConfig(jobs=jobs, cluster=cluster)
        made, failed = _map(run, found, out, config, precision=precision, changes=changes, device=device, many=many)
    else:
        _check_free({"--precision": precision, "--set": changes, "--jobs": jobs, "--cluster": cluster})
        made, failed = _map_within(run, found, out, config, budget=budget, device=device)
    if as_json:
        documents = [asdict(one) | ({} if words is None else {"budget": words}) for one, words in made]
        print_json({"maps": documents, "failed": failed})
    else:
        for result, _ in made:
            _print(result)
    if failed:
        lines = "\n".join(f"  {message}" for message in failed.values())
        raise SomeScenesFailed(f"{len(failed)} of {len(found)} scenes failed:\n{lines}")


def _scenes(run: Path, scenes: list[str], *, pairs: Path | None, assets: str | None, resample: bool) -> list[SceneSource]:
    from terralean.mapping.scenes import ScenesConfig, find_mapped_pairs, find_scenes
    from terralean.weights.card import read_card

    if read_card(run).task == "change":
        if assets is not None:
            raise ConfigError("--assets is about STAC items, and a model of change maps pairs of files; leave it out")
        return find_mapped_pairs(scenes, table=pairs, resample=resample)
    if pairs is not None:
        raise ConfigError("--pairs is for a model of change, which compares two dates; name scenes instead")
    if not scenes:
        raise ConfigError("no scene is named; give rasters, a quoted pattern, @LIST or a STAC file")
    how = ScenesConfig(assets=None if assets is None else tuple(assets.split(",")), resample=resample)
    return find_scenes(scenes, config=how)


def _map(
    run: Path,
    scenes: list[SceneSource],
    out: Path,
    config: MapConfig,
    *,
    precision: Literal["fp32", "bf16"] | None,
    changes: list[str] | None,
    device: str | None,
    many: ManyConfig,
) -> Made:
    from terralean import recipes
    from terralean.mapping.many import map_many
    from terralean.predict import load

    opens = partial(
        load, run if many.cluster is None else run.absolute(), precision=precision, reduce=recipes.reduction(changes or [])
    )
    with mapping_bar() as tell:
        results, failed = map_many(opens, scenes, out=out, config=config, many=many, device=device, progress=tell)
    return [(result, None) for result in results], failed


def _map_within(run: Path, scenes: list[SceneSource], out: Path, config: MapConfig, *, budget: str, device: str | None) -> Made:
    from terralean.mapping.budget import parse_budget
    from terralean.mapping.within import map_within
    from terralean.predict import load

    allowed, opens = parse_budget(budget), partial(load, run, device=device)
    with mapping_bar() as tell:
        within, failed = map_within(opens, scenes, run=run, out=out, budget=allowed, config=config, progress=tell)
    return [(one.result, one.told) for one in within], failed


def _print(result: MapResult) -> None:
    """The map, shares of its classes or how many objects of each there are, and what lies beside it."""
    shares = [f"{name} {share:.1%}" for name, share in result.class_share.items()]
    counts = [f"{name} {count:,}" for name, count in result.objects.items()]
    maps = (result.confidence, result.scores, result.compute, result.polygons, result.table)
    kinds = (*maps, result.stac, result.envi, result.dota)
    work = [] if result.compute_share is None else [f"{result.compute_share:.1%} of the compute of all tokens"]
    lines = "".join(
        f"\n  {line}"
        for line in (", ".join(shares or counts or ["nothing found"]), *work, *(file for file in kinds if file is not None))
    )
    out_console.print(f"{result.path}  ({result.seconds} s){lines}", markup=False, soft_wrap=True)


def _check_free(given: dict[str, Any]) -> None:
    if clash := [flag for flag, value in given.items() if value is not None]:
        raise ConfigError(
            f"--budget chooses precision and token reduction, and maps one scene after the other; leave {', '.join(clash)} out"
        )
