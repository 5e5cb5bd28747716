"""Score a run that recognises scenes on images it has not learned from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from terralean.errors import RunError
from terralean.evaluate.contenders import ReadRun
from terralean.evaluate.evaluation import Evaluation
from terralean.predict.predictor import Precision


def evaluate_scenes(
    folder: Path,
    *,
    read: ReadRun,
    against: Sequence[Path],
    data: Path | None,
    out: Path,
    device: str | None,
    precision: Precision,
    progress: Callable[[int, int], None],
) -> Evaluation:
    """Score and compare."""
    raise RunError(f"{folder} is a run of classification, which cannot be scored yet")
