"""What one step of training and validation does where rotated boxes are found."""

from __future__ import annotations

from typing import Any, cast

import lightning
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from terralean.data.oriented.record import Detections, Record
from terralean.data.sample import Sample
from terralean.models.oriented_rcnn import OrientedRCNN
from terralean.predict.normalise import Normalise
from terralean.spec import Normalisation
from terralean.tasks.detection import as_detections, as_record, learned_boxes
from terralean.tasks.detection_scores import outcomes, score
from terralean.tasks.together import gathered
from terralean.train.course import Course
from terralean.train.schedule import optimiser, schedule

SCORES = ("map50_area", "map50_voc07")


class DetectionModule(lightning.LightningModule):
    """A detector with its losses, optimiser and validation scores."""

    def __init__(
        self, model: nn.Module, course: Course, *, normalisation: Normalisation, classes: int, freeze_norms: bool, seed: int
    ) -> None:
        super().__init__()
        self.model = model
        self.normalise = Normalise(normalisation)
        self.course, self.classes, self.freeze_norms, self.seed = course, classes, freeze_norms, seed
        # Of the validation that is under way, in this process; and its scores, once they are known.
        self.found: list[Detections] = []
        self.truth: list[Record] = []
        self.scores: dict[str, float] | None = None

    def on_train_epoch_start(self) -> None:
        """Seed by the epoch and the process, so that a run that was killed and goes on draws what it would have drawn."""
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch + (self.global_rank << 40))
        if self.freeze_norms:
            for part in cast("nn.Module", self.model.backbone).modules():
                if isinstance(part, _BatchNorm):
                    part.eval()

    def training_step(self, batch: dict[str, Any], _: int) -> Tensor:
        """Sum of the four losses of a batch of tiles."""
        seen = self.normalise(batch["image"], batch["valid"])
        objects = [learned_boxes(some) for some in batch["bbox"]]
        generator = torch.Generator().manual_seed(int(torch.randint(1 << 62, (1,))))
        losses = cast("OrientedRCNN", self.model).losses(seen, objects, batch["labels"], generator=generator)
        loss = torch.stack(list(losses.values())).sum()
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(seen), sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin from nothing."""
        self.found, self.truth, self.scores = [], [], None

    def validation_step(self, batch: dict[str, Any], _: int) -> None:
        """Find boxes in tiles, and keep them beside the objects that are there."""
        seen = self.normalise(batch["image"], batch["valid"])
        for number, detected in enumerate(self.model(seen)):
            if not (batch["valid"][number].any() or len(batch["bbox"][number])):
                continue  # nothing to look at: what makes the shares of processes equally long
            name = f"{self.global_rank}-{len(self.truth)}"
            self.found.append(as_detections(detected, image=name))
            self.truth.append(as_record(_one(batch, number), image=name))

    def on_validation_epoch_end(self) -> None:
        """Log the scores."""
        self.log_dict(self.validation_scores())

    def validation_scores(self) -> dict[str, float]:
        """Of the tiles of all processes together: mean average precision at an IoU of 0.5, by both rules."""
        if self.scores is None:
            found, truth = gathered(self.found), gathered(self.truth)
            values = score(outcomes(found, truth, classes=self.classes, thresholds=(0.5,)))
            self.scores = {f"val_{key}": float(np.nan_to_num(getattr(values, key))) for key in SCORES}
        return self.scores

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule, by the step."""
        adamw = optimiser(self.model, self.course)
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": schedule(adamw, self.course), "interval": "step"}}


def _one(batch: dict[str, Any], number: int) -> Sample:
    return {key: batch[key][number] for key in ("bbox", "labels", "difficult")}  # type: ignore[return-value]
