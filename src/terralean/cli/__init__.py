"""The command line: each verb parses, calls one function, prints. Progress goes to stderr, results to stdout."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

import terralean
from terralean.cli.benchmark import benchmark
from terralean.cli.classify import classify
from terralean.cli.console import err_console, out_console
from terralean.cli.demo import demo
from terralean.cli.evaluate import evaluate
from terralean.cli.explain import explain
from terralean.cli.export import export
from terralean.cli.inspect import inspect
from terralean.cli.list import list_
from terralean.cli.map import map_
from terralean.cli.tile import tile
from terralean.cli.train import train
from terralean.errors import SomeScenesFailed, Stopped, TerraleanError

INTERRUPTED = 130  # what typer makes of Ctrl-C
VERBS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "inspect": inspect,
    "tile": tile,
    "train": train,
    "evaluate": evaluate,
    "map": map_,
    "classify": classify,
    "explain": explain,
    "benchmark": benchmark,
    "export": export,
    "list": list_,
}
app = typer.Typer(
    help="From overhead imagery to maps, with vision transformers whose cost follows the content of the scene.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for name, verb in VERBS.items():
    app.command(name)(verb)


@app.callback(invoke_without_command=True)
def start(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    """Print the version where asked."""
    if version:
        out_console.print(terralean.__version__)
        raise typer.Exit


def main() -> None:
    """Entry point: a mistake of the user is a message and status 2, some failed scenes are status 1."""
    try:
        app()
    except Stopped:
        sys.exit(2)
    except TerraleanError as error:
        err_console.print(f"error: {error}", style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1 if isinstance(error, SomeScenesFailed) else 2)
    except SystemExit as stop:
        if stop.code == INTERRUPTED:
            err_console.print(
                "stopped; nothing half-written is left, and the same command goes on with a training run or a map"
            )
        raise
