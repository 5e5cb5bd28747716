"""`terralean classify`: the class of whole images."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from terralean.cli.bars import bar
from terralean.cli.console import configure_logging, out_console, print_json
from terralean.cli.options import Device, Json, Precision, RunOrExport, Verbose, only_given, positions
from terralean.errors import SomeScenesFailed


def classify(
    run: RunOrExport,
    paths: Annotated[list[str], typer.Argument(help="Images, and folders of images at any depth.", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="Also write a CSV table to this file.", show_default=False)] = None,
    top: Annotated[int | None, typer.Option(help="Classes told of an image, the likeliest first.", show_default="5")] = None,
    bands: Annotated[str | None, typer.Option(help="Positions of the model's bands in the images, e.g. 3,2,1.")] = None,
    batch: Annotated[int | None, typer.Option(help="Views recognised at once.", show_default=False)] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a table that exists.")] = False,
    device: Device = None,
    precision: Precision = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Tell the class of whole images, by a scene classifier. Exit status 1 where some could not be read."""
    configure_logging(verbose)
    from terralean import recipes
    from terralean.mapping.images import ClassifyConfig
    from terralean.mapping.images import classify as classify_images
    from terralean.predict import load

    given: dict[str, Any] = {"top": top, "batch": batch, "bands": positions(bands)}
    config = ClassifyConfig(overwrite=overwrite, **only_given(given))
    with bar("classifying") as tell:
        predictor = load(run, device=device, precision=precision)
        data = recipes.read_scene_data(run)
        result = classify_images(predictor, paths, config=config, data=data, out=out, progress=tell)
    if as_json:
        print_json(asdict(result))
    elif result.table is None:
        for image in result.images:
            told = ", ".join(f"{likely.name} {likely.probability:.1%}" for likely in image.likeliest)
            out_console.print(f"{image.path}: {told}", markup=False, highlight=False, soft_wrap=True)
    else:
        counts = Counter(image.likeliest[0].name for image in result.images)
        shares = ", ".join(f"{name} {count}" for name, count in counts.most_common())
        out_console.print(f"{result.table}: {len(result.images)} images\n  {shares}", markup=False, soft_wrap=True)
    if result.failed:
        lines = "\n".join(f"  {message}" for message in result.failed.values())
        raise SomeScenesFailed(f"{len(result.failed)} of {len(result.failed) + len(result.images)} images failed:\n{lines}")
