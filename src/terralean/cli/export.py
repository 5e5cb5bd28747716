"""`terralean export`: a trained model for other programs."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from terralean.cli.console import configure_logging, out_console, print_json
from terralean.cli.options import Json, Reduce, Run, Verbose, only_given
from terralean.errors import ConfigError

if TYPE_CHECKING:
    from terralean.export.run import ExportResult

MIB = 2**20


def export(
    run: Run,
    format_: Annotated[
        Literal["onnx", "openvino", "torch", "deepness", "timm"],
        typer.Option(
            "--format",
            help="onnx, openvino or torch: a folder that terralean map takes in place of RUN; deepness: ONNX for that QGIS "
            "plugin; timm: a folder that timm.create_model('local-dir:OUT') reads.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="A new folder.", show_default=False)],
    precision: Annotated[
        Literal["fp32", "bf16", "fp16", "int8"] | None,
        typer.Option(
            help="Of the graph: onnx and deepness fp32, fp16 or int8, torch fp32, fp16 or bf16, openvino any; of a detector "
            "onnx fp32 or fp16, openvino fp32.",
            show_default="fp32",
        ),
    ] = None,
    tile: Annotated[
        int | None,
        typer.Option(
            help="Side in px of the tiles it is compared on, and the only one it takes where a graph cannot leave it free. "
            "Default: the model's."
        ),
    ] = None,
    check: Annotated[
        list[str] | None,
        typer.Option(
            "--check", metavar="SCENE", help="Compare with RUN on tiles of this raster; repeatable. Default: its own data."
        ),
    ] = None,
    calibrate: Annotated[
        list[str] | None,
        typer.Option(
            "--calibrate",
            metavar="SCENE",
            help="Of int8: find the ranges of values on tiles of this raster; repeatable. Default: the training data.",
        ),
    ] = None,
    opset: Annotated[int | None, typer.Option(help="Of ONNX.", show_default="20, deepness 18")] = None,
    changes: Reduce = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a trained model for other programs: raw band values in, probabilities out, compared with RUN before it is kept."""
    configure_logging(verbose)
    given: dict[str, Any] = {"precision": precision, "tile_px": tile, "opset": opset}
    given |= {"check": check and tuple(check), "calibrate": calibrate and tuple(calibrate)}
    if format_ == "timm":
        _export_timm(run, out, unused=[*only_given(given), *(changes or [])], as_json=as_json)
        return
    from terralean import recipes
    from terralean.export.config import ExportConfig
    from terralean.export.run import export_run

    config = ExportConfig(format=format_, **only_given(given))
    result = export_run(
        run, out, config=config, read=lambda folder: recipes.read_run(folder)[0].data, reduce=recipes.reduction(changes or [])
    )
    if as_json:
        print_json(asdict(result))
        return
    for line in _lines(result):
        out_console.print(line, markup=False, highlight=False, soft_wrap=True)


def _lines(result: ExportResult) -> list[str]:
    found = result.agreement
    files = ", ".join(f"{name} {size / MIB:.3g} MiB" for name, size in result.files.items())
    return [
        f"{result.out}: {files}  ({result.seconds} s)",
        f"compared with the run on {found.source}: {found.words()}, probabilities differ by {found.difference:.2g} at most, "
        f"{found.mean_difference:.2g} on average",
        *result.notes,
    ]


def _export_timm(run: Path, out: Path, *, unused: list[str], as_json: bool) -> None:
    from terralean import recipes
    from terralean.export.timm_folder import export_timm

    if unused:
        raise ConfigError(f"{', '.join(unused)}: of no meaning with --format timm, which is the network alone; leave it out")
    folder = export_timm(run, out, data=recipes.read_scene_data(run))
    if as_json:
        print_json({"format": "timm", "out": str(folder)})
        return
    out_console.print(f"{folder}: timm.create_model('local-dir:{folder}', pretrained=True)", soft_wrap=True)
