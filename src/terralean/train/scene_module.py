"""What one step of training and validation does where an image as a whole has a class."""

from __future__ import annotations

from itertools import chain
from typing import Any

import lightning
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from terralean.data.sample import Sample
from terralean.errors import ConfigError
from terralean.models.pyramid import FOREIGN
from terralean.predict.normalise import Normalise
from terralean.spec import Normalisation
from terralean.tasks.classification import UNLABELLED, mean_view, mixer, shares, tally, training_loss
from terralean.tasks.together import sum_over_processes
from terralean.train.course import Course
from terralean.train.scene_config import SceneTrainConfig
from terralean.train.schedule import optimiser, schedule


def check_size(model: nn.Module, *, bands: int, size_px: int, batch: int) -> None:
    """Raise ConfigError for a network that cannot learn from a batch of images (batch, bands, size_px, size_px).

    Nothing is computed: shapes alone pass through it.
    """
    state = {name: t.to("meta") for name, t in chain(model.named_parameters(), model.named_buffers())}
    image = torch.empty(batch, bands, size_px, size_px, device="meta")
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            functional_call(model.train(), state, (image,))
    except FOREIGN as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise ConfigError(
            f"the network cannot learn from {batch} x {size_px} px (train.batch, data.size_px): {reason}; change data.size_px "
            f"and data.resize_px, or of a network that is built for one size say this one, model.sizes.image_px={size_px}"
            f"{', or raise train.batch' if batch == 1 else ''}"
        ) from error


class SceneModule(lightning.LightningModule):
    """A scene classifier with its loss, optimiser and validation scores."""

    def __init__(
        self,
        model: nn.Module,
        config: SceneTrainConfig,
        course: Course,
        *,
        normalisation: Normalisation,
        classes: int,
        seed: int,
    ) -> None:
        super().__init__()
        self.model = model
        self.normalise = Normalise(normalisation)
        self.mix = mixer(config.mix, classes=classes, label_smoothing=config.label_smoothing)
        self.config, self.course, self.seed, self.classes = config, course, seed, classes
        # Of the validation that is under way, in this process.
        self.ranks = torch.zeros(classes, classes, dtype=torch.int64)
        self.loss_sum = torch.zeros((), dtype=torch.float64)

    def on_train_epoch_start(self) -> None:
        """Seed by the epoch, so that a run that was killed and goes on draws what it would have drawn.

        And by the process: each drops other paths and mixes other images. timm mixes with numpy's global generator.
        """
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch + (self.global_rank << 40))
        state = np.random.SeedSequence([self.seed, self.current_epoch, self.global_rank]).generate_state(1)
        np.random.seed(int(state[0]))

    def training_step(self, batch: Sample, _: int) -> Tensor:
        """Loss of a batch of images."""
        seen, target = self.normalise(batch["image"], batch["valid"]), batch["label"]
        if self.mix is not None:
            seen, target = self.mix(seen, target)
        loss = training_loss(self.model(seen), target, label_smoothing=self.config.label_smoothing)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch["label"]), sync_dist=True)
        return loss

    def on_validation_epoch_start(self) -> None:
        """Begin from nothing."""
        self.ranks = torch.zeros(self.classes, self.classes, dtype=torch.int64, device=self.device)
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Sample, _: int) -> None:
        """Count images by class and by rank of the true one, each by the mean of its views."""
        image, valid, label = batch["image"], batch["valid"], batch["label"]
        logits = self.model(self.normalise(image.flatten(0, 1), valid.flatten(0, 1)))
        probabilities = mean_view(logits, views=image.shape[1])
        entropy = F.nll_loss(probabilities.log(), label, reduction="sum", ignore_index=UNLABELLED)
        self.loss_sum = self.loss_sum + entropy.double()
        self.ranks += tally(probabilities, label)

    def on_validation_epoch_end(self) -> None:
        """Log the scores."""
        self.log_dict(self.validation_scores(), sync_dist=True)

    def validation_scores(self) -> dict[str, float]:
        """Of all processes together: mean cross-entropy, and the shares of images whose class is first or among five."""
        ranks = sum_over_processes(self.ranks)
        loss = (sum_over_processes(self.loss_sum) / ranks.sum()).item()
        return {"val_loss": loss, **{f"val_{key}": value for key, value in shares(ranks).items()}}

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule, by the step."""
        adamw = optimiser(self.model, self.course)
        return {"optimizer": adamw, "lr_scheduler": {"scheduler": schedule(adamw, self.course), "interval": "step"}}
