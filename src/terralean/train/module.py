"""What one step of training and validation does; Lightning does the loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor, nn

from terralean.data.sample import Sample
from terralean.errors import ConfigError
from terralean.predict.normalise import Normalise, enlarge, shrunk_mask
from terralean.spec import IGNORE, Normalisation
from terralean.tasks.segmentation import SegmentationLoss
from terralean.tasks.together import sum_over_processes
from terralean.train.config import TrainConfig
from terralean.train.schedule import optimiser, schedule


class SegmentationModule(lightning.LightningModule):
    """A segmenter with its loss, optimiser and validation scores."""

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        *,
        normalisation: Normalisation,
        shrink: int,
        class_pixels: Sequence[int],
        seed: int,
    ) -> None:
        super().__init__()
        if config.loss.auxiliary == 0 and getattr(model, "auxiliary", None) is not None:
            raise ConfigError(
                "train.loss.auxiliary is 0, so that the model's auxiliary head would cost time and never learn; give it a "
                "weight, or build a UPerNet without that head: --set model.sizes.auxiliary=false"
            )
        self.model = model
        self.normalise = Normalise(normalisation, shrink=shrink)
        background: int | None = getattr(model, "background", None)  # of models that tell it from foreground
        self.loss = SegmentationLoss(config.loss, class_pixels=class_pixels, background=background)
        self.config, self.seed, self.classes = config, seed, len(class_pixels)
        # Of the validation that is under way, in this process.
        self.confusion = torch.zeros(self.classes, self.classes, dtype=torch.int64)
        self.sums = torch.zeros((), dtype=torch.float64)

    def on_train_epoch_start(self) -> None:
        """Seed by the epoch, so that a run that was killed and goes on draws what it would have drawn.

        And by the process: each drops other paths.
        """
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch + (self.global_rank << 40))

    def training_step(self, batch: Sample, _: int) -> Tensor:
        """Loss of a batch of crops."""
        seen = self.normalise(batch["image"], batch["valid"])
        loss = self.loss(self._answer(seen), shrunk_mask(batch["mask"], shrink=self.normalise.shrink))
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["mask"]), sync_dist=True)
        return loss

    def _answer(self, seen: Tensor) -> Any:
        """A method of token reduction may go by how much of the training is done."""
        if getattr(self.model, "reduce", None) is None:
            return self.model(seen)
        return self.model(seen, done=self.global_step / self.config.steps)

    def on_validation_epoch_start(self) -> None:
        """Begin from nothing."""
        self.confusion = torch.zeros(self.classes, self.classes, dtype=torch.int64, device=self.device)
        self.sums = torch.zeros((), dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Sample, _: int) -> None:
        """Count pixels by reference (rows) and answer (columns), and add to the loss of the whole split."""
        mask = batch["mask"]
        scores = self.model(self.normalise(batch["image"], batch["valid"]))
        scores = enlarge(scores, shrink=self.normalise.shrink, height=mask.shape[-2], width=mask.shape[-1])
        self.sums = self.sums + self.loss.sums(scores, mask).double()
        self.confusion += confusion(scores, mask)

    def on_validation_epoch_end(self) -> None:
        """Log the scores."""
        self.log_dict(self.validation_scores(), sync_dist=True)

    def validation_scores(self) -> dict[str, float]:
        """Of all processes together: the loss as of one batch, overall accuracy, mean IoU of the classes that occur."""
        loss = self.loss.value(sum_over_processes(self.sums)).item()
        return {"val_loss": loss, **overall_scores(sum_over_processes(self.confusion))}

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule, by the step."""
        adamw = optimiser(self.model, self.config)
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": schedule(adamw, self.config), "interval": "step"}}


def confusion(scores: Tensor, mask: Tensor) -> Tensor:
    """scores (B, K, H, W), mask (B, H, W) -> labelled pixels by reference (rows) and answer (columns), (K, K)."""
    known, classes = mask != IGNORE, scores.shape[1]
    pairs = mask[known] * classes + scores.argmax(dim=1)[known]
    return torch.bincount(pairs, minlength=classes**2).view(classes, classes)


def overall_scores(counts: Tensor) -> dict[str, float]:
    """Overall accuracy, and mean IoU of the classes that occur, of a confusion matrix (K, K)."""
    hit = counts.diagonal().double()
    union = counts.sum(dim=0) + counts.sum(dim=1) - hit
    return {"val_miou": (hit / union)[union > 0].mean().item(), "val_oa": (hit.sum() / counts.sum()).item()}
