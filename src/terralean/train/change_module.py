"""What one step of training and validation of a change detector does; Lightning does the loop."""

from __future__ import annotations

import torch

from terralean.data.sample import Sample
from terralean.predict.normalise import enlarge
from terralean.tasks.change import F1, F1_BATCHES, change_scores
from terralean.tasks.together import sum_over_processes
from terralean.train.module import SegmentationModule, confusion


class ChangeModule(SegmentationModule):
    """A segmenter of pairs, with the scores of change detection: what is fed and learned is as in segmentation."""

    def on_validation_epoch_start(self) -> None:
        """Begin from nothing."""
        super().on_validation_epoch_start()
        self.batches = torch.zeros(2, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Sample, _: int) -> None:
        """Count pixels by reference (rows) and answer (columns), of all batches and of this one."""
        mask = batch["mask"]
        scores = self.model(self.normalise(batch["image"], batch["valid"]))
        scores = enlarge(scores, shrink=self.normalise.shrink, height=mask.shape[-2], width=mask.shape[-1])
        self.sums = self.sums + self.loss.sums(scores, mask).double()
        counts = confusion(scores, mask)
        self.confusion += counts
        if counts.any():  # a batch that only fills up a process's share has no labels
            self.batches += torch.tensor([change_scores(counts)[F1], 1.0], dtype=torch.float64, device=self.device)

    def validation_scores(self) -> dict[str, float]:
        """Of all processes together: the loss as of one batch, and the scores of change by their columns."""
        loss = self.loss.value(sum_over_processes(self.sums)).item()
        total, count = sum_over_processes(self.batches).tolist()
        found = change_scores(sum_over_processes(self.confusion)) | {F1_BATCHES: total / max(count, 1.0)}
        return {"val_loss": loss, **{f"val_{name}": value for name, value in found.items()}}
