"""Progress on stderr while a verb works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from terralean.cli.console import err_console


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
    """Called with how far a map is."""
    with _progress() as shown:
        task = shown.add_task("mapping", total=None)

        def tell(progress: Any) -> None:
            before = f", {_amount(progress.resumed)} from before" if progress.resumed else ""
            at = f"{progress.index + 1}" + (f" to {progress.index + progress.together}" if progress.together > 1 else "")
            several = f" (scene {at} of {progress.scenes})" if progress.scenes > 1 else ""
            text = f"{_amount(progress.done)} of {_amount(progress.total)} {progress.unit}{before}{several}"
            done = progress.index + progress.together * progress.done / progress.total
            shown.update(task, completed=done, total=progress.scenes, description=text)

        yield tell


def _amount(value: float) -> str:
    """With three digits at least, and no more behind the point than these need."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def _progress() -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    return Progress(*columns, console=err_console, transient=True)
