"""Where a verb's words go: results to stdout, progress and what is logged to stderr."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

from rich.console import Console
from rich.logging import RichHandler

out_console = Console(width=None if sys.stdout.isatty() else 180)  # a file has no width; its tables must not be cut
err_console = Console(stderr=True)


def configure_logging(verbose: bool) -> None:
    """What the package says goes to stderr; with `verbose` all of it. In a log file each message is one line."""
    if err_console.is_terminal:
        handler: logging.Handler = RichHandler(console=err_console, show_time=False, show_path=False, markup=False)
        form = "%(message)s"
    else:
        handler, form = _Lines(), "%(levelname)-8s %(message)s"
    logging.basicConfig(level=logging.WARNING, handlers=[handler], format=form, force=True)
    logging.getLogger("terralean").setLevel(logging.DEBUG if verbose else logging.INFO)


class _Lines(logging.Handler):
    """A line for each message, however long."""

    def emit(self, record: logging.LogRecord) -> None:
        """As logging calls it."""
        err_console.print(self.format(record), markup=False, highlight=False, soft_wrap=True)


def print_json(document: Any) -> None:
    """One document on stdout."""
    sys.stdout.write(json.dumps(document, indent=1, default=str) + "\n")
