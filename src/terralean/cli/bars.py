"""Progress on stderr while a verb works."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from terralean.cli.console import err_console

EVERY_S = 30.0  # a line of progress in a log file


@contextmanager
def bar(title: str) -> Iterator[Callable[[int, int], None]]:
    """Called with how much is done, and of how much."""
    with _progress() as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def training_bar() -> Iterator[Callable[[Any], None]]:
    """Called with where a training run is."""
    with _progress() as shown:
        task = shown.add_task("training", total=None)

        def tell(progress: Any) -> None:
            best = "" if progress.best is None else f", best {progress.score} {progress.best:.3f}"
            loss = "" if progress.loss is None else f"loss {progress.loss:.3f}"
            text = f"step {progress.step}/{progress.steps} {loss}{best}"
            shown.update(task, completed=progress.step, total=progress.steps, description=text)

        yield tell


@contextmanager
def mapping_bar() -> Iterator[Callable[[Any], None]]:
    """Called with how far a map is. Where stderr is no terminal but a log file, a line every half minute tells it."""
    if not err_console.is_terminal:
        yield MappingLines()
        return
    with _progress() as shown:
        task = shown.add_task("mapping", total=None)

        def tell(progress: Any) -> None:
            done = progress.index + progress.together * progress.done / progress.total
            shown.update(task, completed=done, total=progress.scenes, description=mapping_words(progress))

        yield tell


class MappingLines:
    """Says on stderr how far a map is, not more often than every `EVERY_S` seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._due = clock, clock() + EVERY_S

    def __call__(self, progress: Any) -> None:
        """Called with how far a map is."""
        if self._clock() >= self._due:
            self._due = self._clock() + EVERY_S
            text = f"{mapping_words(progress)}, {progress.done / progress.total:.0%}"
            err_console.print(text, markup=False, highlight=False, soft_wrap=True)


def mapping_words(progress: Any) -> str:
    """How much is mapped: `12.3 of 450 km2 (scene 2 of 5)`."""
    before = f", {_amount(progress.resumed)} from before" if progress.resumed else ""
    at = f"{progress.index + 1}" + (f" to {progress.index + progress.together}" if progress.together > 1 else "")
    several = f" (scene {at} of {progress.scenes})" if progress.scenes > 1 else ""
    return f"{_amount(progress.done)} of {_amount(progress.total)} {progress.unit}{before}{several}"


def _amount(value: float) -> str:
    """With three digits at least, and no more behind the point than these need."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    return Progress(*columns, console=err_console, transient=True)
