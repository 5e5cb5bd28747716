"""What one step of training and validation does; Lightning does the loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from terralean.data.sample import Sample
from terralean.predict.normalise import Normalise
from terralean.spec import IGNORE, Normalisation
from terralean.tasks.segmentation import SegmentationLoss
from terralean.train.config import TrainConfig
from terralean.train.material import Material
from terralean.train.schedule import optimiser, schedule


class SegmentationModule(lightning.LightningModule):
    """A segmenter with its loss, optimiser and validation scores."""

    def __init__(
        self, model: nn.Module, config: TrainConfig, *, normalisation: Normalisation, class_pixels: Sequence[int], seed: int
    ) -> None:
        super().__init__()
        self.model = model
        self.normalise = Normalise(normalisation)
        background: int | None = getattr(model, "background", None)  # of models that tell it from foreground
        self.loss = SegmentationLoss(config.loss, class_pixels=class_pixels, background=background)
        self.config, self.seed, self.classes = config, seed, len(class_pixels)
        self.confusion = torch.zeros(self.classes, self.classes, dtype=torch.int64)  # of the validation that is under way

    def on_train_epoch_start(self) -> None:
        """Seed by the epoch, so that a run that was killed and goes on draws what it would have drawn."""
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)

    def training_step(self, batch: Sample, _: int) -> Tensor:
        """Loss of a batch of crops."""
        loss = self.loss(self.model(self.normalise(batch["image"], batch["valid"])), batch["mask"])
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["mask"]))
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin an empty confusion matrix."""
        self.confusion = torch.zeros(self.classes, self.classes, dtype=torch.int64, device=self.device)

    def validation_step(self, batch: Sample, _: int) -> None:
        """Count pixels by reference (rows) and answer (columns)."""
        scores = self.model(self.normalise(batch["image"], batch["valid"]))
        mask = batch["mask"]
        self.log("val_loss", self.loss(scores, mask), on_epoch=True, batch_size=len(mask))
        known = mask != IGNORE
        pairs = mask[known] * self.classes + scores.argmax(dim=1)[known]
        self.confusion += torch.bincount(pairs, minlength=self.classes**2).view(self.classes, self.classes)

    def on_validation_epoch_end(self) -> None:
        """Log the scores."""
        self.log_dict(self.validation_scores())

    def validation_scores(self) -> dict[str, float]:
        """Overall accuracy and mean IoU of all processes together; classes that occur nowhere are left out."""
        gathered = cast(Tensor, self.all_gather(self.confusion))
        confusion = gathered.view(-1, self.classes, self.classes).sum(dim=0).double()
        hit = confusion.diagonal()
        union = confusion.sum(dim=0) + confusion.sum(dim=1) - hit
        return {"val_miou": (hit / union)[union > 0].mean().item(), "val_oa": (hit.sum() / confusion.sum()).item()}

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule, by the step."""
        adamw = optimiser(self.model, self.config)
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": schedule(adamw, self.config), "interval": "step"}}


class SegmentationData(lightning.LightningDataModule):
    """Random crops to train on, a fixed list of samples to validate on."""

    def __init__(self, material: Material, config: TrainConfig) -> None:
        super().__init__()
        self.material, self.config = material, config

    def train_dataloader(self) -> DataLoader:
        """One epoch: as many crops as there are steps between two validations. Made anew each epoch."""
        crops = self.material.crops
        crops.set_epoch(self.trainer.current_epoch if self.trainer else 0)
        return DataLoader(crops, batch_size=self.config.batch, num_workers=self.config.workers, drop_last=True)

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """All validation samples, in order; nothing where there are none."""
        if self.material.validation is None:
            return []
        batch = self.material.validation_batch
        return DataLoader(self.material.validation, batch_size=batch, num_workers=self.config.workers)
