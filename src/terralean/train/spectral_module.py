"""What one step of training and validation does where the pixel in the middle of a patch has a class."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from torch import Tensor, nn

from terralean.data.sample import Sample
from terralean.predict.normalise import Normalise
from terralean.spec import Normalisation
from terralean.tasks.pixels import loss, mix, mixed_loss, shares, tally
from terralean.tasks.together import sum_over_processes
from terralean.train.schedule import optimiser, schedule
from terralean.train.spectral_config import SpectralTrainConfig


class SpectralModule(lightning.LightningModule):
    """A classifier of pixels with its loss, optimiser and validation scores."""

    def __init__(
        self, model: nn.Module, config: SpectralTrainConfig, *, normalisation: Normalisation, classes: int, seed: int
    ) -> None:
        super().__init__()
        self.model = model
        self.normalise = Normalise(normalisation)
        self.config, self.seed, self.classes = config, seed, classes
        # Of the validation that is under way, in this process.
        self.confusion = torch.zeros(classes, classes, dtype=torch.int64)
        self.sums = torch.zeros(2, dtype=torch.float64)

    def on_train_epoch_start(self) -> None:
        """Seed by the epoch, so that a run that was killed and goes on draws what it would have drawn.

        And by the process: each drops other paths.
        """
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch + (self.global_rank << 40))

    def training_step(self, batch: Sample, _: int) -> Tensor:
        """Loss of a batch of patches."""
        image, label, smoothing = self.normalise(batch["image"], batch["valid"]), batch["label"], self.config.label_smoothing
        if self.config.mixup:
            mixed = mix(image, label, alpha=self.config.mixup)
            found = mixed_loss(self.model(mixed.image), label, mixed, label_smoothing=smoothing)
        else:
            found = loss(self.model(image), label, label_smoothing=smoothing)
        self.log("train_loss", found, on_step=False, on_epoch=True, batch_size=len(batch["label"]), sync_dist=True)
        return found

    def on_validation_epoch_start(self) -> None:
        """Begin from nothing."""
        self.confusion = torch.zeros(self.classes, self.classes, dtype=torch.int64, device=self.device)
        self.sums = torch.zeros(2, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Sample, _: int) -> None:
        """Count pixels by class and answer, and add up how likely the true class was."""
        counts, sums = tally(self.model(self.normalise(batch["image"], batch["valid"])).float(), batch["label"])
        self.confusion += counts
        self.sums = self.sums + sums

    def on_validation_epoch_end(self) -> None:
        """Log the scores."""
        self.log_dict(self.validation_scores(), sync_dist=True)

    def validation_scores(self) -> dict[str, float]:
        """Of all processes together: mean cross-entropy, mean probability of the true class, OA, AA and kappa."""
        found = shares(sum_over_processes(self.confusion), sum_over_processes(self.sums))
        return {f"val_{key}": value for key, value in found.items()}

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule, by the step."""
        adamw = optimiser(self.model, self.config)
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": schedule(adamw, self.config), "interval": "step"}}
