"""`terralean explain`: where tokens go and look."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from terralean.cli.bars import bar
from terralean.cli.console import configure_logging, out_console, print_json
from terralean.cli.options import (
    Device,
    Json,
    Precision,
    Reduce,
    Run,
    SceneBands,
    Tile,
    Verbose,
    numbers,
    only_given,
    positions,
)

if TYPE_CHECKING:
    from terralean.explain.numbers import BlockNumbers
    from terralean.explain.token_numbers import LayerNumbers


def explain(
    run: Run,
    scene: Annotated[str, typer.Argument(help="A raster that GDAL opens.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for raster, figure and numbers.", show_default=False)],
    show: Annotated[
        Literal["tokens", "attention"] | None,
        typer.Option(
            help="Which tokens go on or are merged, or where meta tokens look. Default: tokens where the run, or --set, has a "
            "method for them, unless an option of meta tokens is given.",
            show_default=False,
        ),
    ] = None,
    changes: Reduce = None,
    direction: Annotated[
        Literal["meta", "image"] | None,
        typer.Option(help="Where meta tokens look, or what the image reads from them.", show_default="meta"),
    ] = None,
    stage: Annotated[int | None, typer.Option(help="0, 1 or 2. Default: the last that has this direction.")] = None,
    block: Annotated[int | None, typer.Option(help="Of the stage, from 0. Default: the last one.")] = None,
    tokens: Annotated[str | None, typer.Option(help="Meta tokens from 0, e.g. 0,3,7. Default: all.")] = None,
    head: Annotated[int | None, typer.Option(help="Of the attention, from 0. Default: the mean of all.")] = None,
    by: Annotated[
        Literal["token", "head"] | None,
        typer.Option(help="A map of each token, the mean of the heads, or of each head, of the tokens.", show_default="token"),
    ] = None,
    part: Annotated[
        str | None, typer.Option(metavar="ROW,COL,HEIGHT,WIDTH", help="What the figure shows, px. Default: the whole scene.")
    ] = None,
    bands: SceneBands = None,
    tile: Tile = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    device: Device = None,
    precision: Precision = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show which tokens a method of reduction keeps, or where the meta tokens of a LeMeViT look.

    A raster on the scene's grid, a figure, and numbers. --direction, --stage, --block, --tokens, --head and --by are of meta
    tokens.
    """
    configure_logging(verbose)
    from terralean import recipes
    from terralean.explain.run import ExplainConfig, ExplainResult, explain_scene
    from terralean.explain.show import what_to_show
    from terralean.explain.token_run import TokensConfig, TokensResult, explain_tokens
    from terralean.predict import load

    look: dict[str, Any] = {"direction": direction, "stage": stage, "block": block, "head": head, "by": by}
    look["tokens"] = numbers(tokens, flag="--tokens", example="0,3,7")
    cut: dict[str, Any] = {"tile_px": tile, "bands": positions(bands)}
    cut["part"] = numbers(part, flag="--part", example="0,0,512,512")
    look, cut = only_given(look), only_given(cut)
    attention, kept = ExplainConfig(overwrite=overwrite, **look, **cut), TokensConfig(overwrite=overwrite, **cut)
    with bar("explaining") as tell:
        reduce = recipes.reduction(changes or [])
        predictor = load(run, device=device, precision=precision, reduce=reduce)
        what = what_to_show(predictor, show=show, asked=[f"--{name}" for name in look], reduce=reduce)
        result: ExplainResult | TokensResult
        if what == "tokens":
            result = explain_tokens(predictor, scene, out=out, config=kept, progress=tell)
        else:
            result = explain_scene(predictor, scene, out=out, config=attention, progress=tell)
    if as_json:
        print_json(result.document)
        return
    out_console.print(_attention_table(result.shown) if isinstance(result, ExplainResult) else _layer_table(result.layers))
    out_console.print()
    for line in (
        *result.verdict,
        f"raster: {result.raster}",
        f"figure: {result.figure}",
        f"numbers: {result.csv}, {result.json}",
    ):
        out_console.print(line, markup=False, highlight=False, soft_wrap=True)


def _layer_table(layers: Sequence[LayerNumbers]) -> Table:
    """How many tokens each layer leaves."""
    table = Table("layer", "tokens", "left", "share", "p5", "p95", box=None, pad_edge=False)
    for one in layers:
        shares = (f"{share:.1%}" for share in (one.share, one.p5, one.p95))
        table.add_row(str(one.layer), str(one.grid**2), f"{one.left:.4g}", *shares)
    return table


def _attention_table(block: BlockNumbers) -> Table:
    """How even each map is and how much of the image it covers, or how much of what is read is from its token."""
    read = block.without_data is None
    names = (block.by, *(["read"] if read else []), "entropy", "of even", "half in", "90 % in", "most like", "cosine")
    table = Table(*names, box=None, pad_edge=False)
    for one in block.maps:
        table.add_row(
            str(one.number),
            *([f"{one.read:.1%}"] if one.read is not None else []),
            f"{one.entropy_bits:.2f} bits",
            *(f"{share:.1%}" for share in (one.entropy_share, one.half, one.ninety)),
            *(("-", "-") if one.cosine is None else (f"{block.by} {one.closest}", f"{one.cosine:.3f}")),
        )
    return table
