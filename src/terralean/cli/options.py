"""Options that several verbs have, and how their texts are read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from terralean.errors import ConfigError

Run = Annotated[Path, typer.Argument(help="Folder of a training run.", show_default=False)]
RunOrExport = Annotated[
    Path, typer.Argument(metavar="RUN", help="Folder of a training run, or of an export.", show_default=False)
]
Changes = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe's value, e.g. train.lr=0.0005.")
]
Reduce = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="reduce.KEY=VALUE",
        help="Take out or merge tokens by another method than the run's, e.g. reduce.method=tome; reduce=null: not at all.",
        show_default=False,
    ),
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:N. Default: CUDA where there is one.")]
Precision = Annotated[
    Literal["fp32", "bf16"] | None,
    typer.Option(help="Of the model's arithmetic; of an export its own.", show_default="fp32"),
]
SceneBands = Annotated[str | None, typer.Option("--bands", help="Positions of the model's bands in the scene, e.g. 3,2,1.")]
Tile = Annotated[int | None, typer.Option("--tile", help="Side of a window in px. Default: the model's.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Say more on stderr.")]


def only_given(options: dict[str, Any]) -> dict[str, Any]:
    """Those that are not None; for the others a config has its defaults."""
    return {name: value for name, value in options.items() if value is not None}


def positions(text: str | None) -> tuple[int, ...] | None:
    """Of bands, from 1: what `--bands` says."""
    return _whole(text, flag="--bands", kind="positions from 1", example="3,2,1")


def numbers(text: str | None, *, flag: str, example: str) -> tuple[int, ...] | None:
    """Whole numbers with commas; None where the option is not given."""
    return _whole(text, flag=flag, kind="whole numbers", example=example)


def seed_numbers(text: str) -> list[int]:
    """What `--seeds` says."""
    seeds = [int(part) if part.strip().isascii() and part.strip().isdigit() else None for part in text.split(",")]
    numbers = [seed for seed in seeds if seed is not None]
    if len(numbers) < len(seeds) or len(set(numbers)) < len(numbers) or len(numbers) < 2:  # noqa: PLR2004 - one is --seed
        raise ConfigError(f"--seeds {text!r} must be two or more different numbers from 0, e.g. --seeds 0,1,2; one is --seed")
    return numbers


def _whole(text: str | None, *, flag: str, kind: str, example: str) -> tuple[int, ...] | None:
    if text is None:
        return None
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"{flag} {text!r} must be {kind} with commas, e.g. {flag} {example}") from error
