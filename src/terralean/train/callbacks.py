"""What happens around training: the state to go on from, the best weights, the log, the word to the user."""

from __future__ import annotations

import csv
import math
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import lightning
from lightning.pytorch.callbacks import Callback, Checkpoint

from terralean.errors import RunError
from terralean.train.course import Course, Judged, Score
from terralean.weights.checkpoint import NAME, read_tensors, save_weights

BEFORE, AFTER = ("epoch", "step", "lr", "train_loss", "val_loss"), ("seconds",)  # columns of metrics.csv around the scores


PASSED_OVER = 20  # losses in a row that a scaler of gradients (fp16) may pass over


@dataclass(frozen=True, kw_only=True, slots=True)
class Progress:
    """Where a training run is."""

    step: int
    steps: int
    loss: float | None  # of the latest step
    best: float | None  # score of the validation split
    score: str  # what it is


class KeepBest(Callback):
    """Save the weights whenever the score of validation rises; stop when it has not risen for `patience` validations.

    Must stand before the averaging callback: until that one hands back the plain weights, the model holds the averaged.
    """

    def __init__(self, folder: Path, *, score: Score, patience: int | None) -> None:
        self.folder, self.score, self.patience = folder, score, patience
        self.best: float | None = None
        self.best_step = 0
        self.waited = 0

    def on_validation_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Compare with the best so far."""
        judged = cast("Judged", pl_module)
        found = judged.validation_scores()[self.score.column]
        self.waited += 1
        if math.isfinite(found) and (self.best is None or found > self.best):  # of a split without labels it is no number
            self.best, self.best_step, self.waited = found, trainer.global_step, 0
            if trainer.is_global_zero:
                save_weights(judged.model.state_dict(), self.folder / NAME)
        if self.patience is not None and self.waited >= self.patience:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run must know."""
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from there."""
        self.best, self.best_step, self.waited = state_dict["best"], state_dict["best_step"], state_dict["waited"]


class LastState(Checkpoint):
    """Save everything needed to go on, after every epoch; the file is replaced whole."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write beside, then rename."""
        if not _trained(trainer):
            return
        part = self.path.with_suffix(".part")
        trainer.save_checkpoint(part)
        if trainer.is_global_zero:
            part.replace(self.path)


class MetricsLog(Callback):
    """One row of metrics.csv an epoch; a resumed run drops the rows of steps that it does again."""

    def __init__(self, path: Path, *, score: Score) -> None:
        self.path, self.columns = path, (*BEFORE, *score.columns, *AFTER)
        self.before = 0.0  # seconds of earlier sittings
        self.began = 0.0

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Keep the rows that still hold."""
        rows = [row for row in read_metrics(self.path) if int(row["step"]) <= trainer.global_step]
        self.before, self.began = float(rows[-1]["seconds"]) if rows else 0.0, time.monotonic()
        if trainer.is_global_zero:
            self._write(rows)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add the epoch's row."""
        if not _trained(trainer):
            return
        seconds = self.before + time.monotonic() - self.began
        values = {name: value.item() for name, value in trainer.callback_metrics.items() if name in self.columns}
        row = {"epoch": trainer.current_epoch, "step": trainer.global_step, "seconds": round(seconds, 1)}
        row |= {"lr": trainer.optimizers[0].param_groups[0]["lr"]} | {k: round(v, 6) for k, v in values.items()}
        if trainer.is_global_zero:
            self._write([*read_metrics(self.path), row])

    def _write(self, rows: list[dict[str, Any]]) -> None:
        part = self.path.with_suffix(".part")
        with part.open("w", newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            writer.writeheader()
            writer.writerows(rows)
        part.replace(self.path)


class EndAtOnce(Callback):
    """Let a signal to end do what it did before; the run goes on from its last state another time.

    Lightning's handler speaks to the other processes from wherever they all are, and then ends with status 0.
    """

    def __init__(self) -> None:
        self.before = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Undo the handler."""
        if self.before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.before)


class Tell(Callback):
    """Report progress to a function, and stop where training has diverged.

    Both look at the loss, which then waits for the device once a step.
    """

    def __init__(self, tell: Callable[[Progress], None], *, course: Course, best: KeepBest) -> None:
        self.tell, self.course, self.best = tell, course, best
        self.no_number = 0  # losses one after the other that were none

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """After every step."""
        loss = float(outputs["loss"]) if outputs else None
        if loss is not None:
            self._check(loss, step=trainer.global_step)
        self.tell(
            Progress(
                step=trainer.global_step,
                steps=self.course.steps,
                loss=loss,
                best=self.best.best,
                score=self.best.score.name,
            )
        )

    def _check(self, loss: float, *, step: int) -> None:
        """Raise RunError at a loss that is no number; with a scaler of gradients, which passes such steps over, at many."""
        self.no_number = 0 if math.isfinite(loss) else self.no_number + 1
        if self.no_number > (PASSED_OVER if self.course.precision == "fp16" else 0):
            raise _diverged(f"the loss is {loss} at step {step} of {self.course.steps}", lr=self.course.lr)


def check_finite(path: Path, *, lr: float) -> None:
    """Raise RunError where weights that were kept are no numbers."""
    wrong = [name for name, tensor in read_tensors(path).items() if not bool(tensor.isfinite().all())]
    if wrong:
        raise _diverged(f"weights are no numbers ({wrong[0]} for one)", lr=lr)


def _diverged(what: str, *, lr: float) -> RunError:
    return RunError(f"training has diverged: {what}; train with a lower train.lr than {lr:g} and a new --out")


def _trained(trainer: lightning.Trainer) -> bool:
    """Whether the epoch had a step. A resumed run ends the epoch that it was saved in once more, without one."""
    return "train_loss" in trainer.callback_metrics


def read_metrics(path: Path) -> list[dict[str, str]]:
    """Rows of a metrics.csv, none where there is no file."""
    if not path.is_file():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
