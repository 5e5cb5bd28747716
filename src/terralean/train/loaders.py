"""What a step of training and validation is fed."""

from __future__ import annotations

import lightning
from torch.utils.data import DataLoader

from terralean.train.course import Course
from terralean.train.material import Material
from terralean.train.processes import share_of_batch
from terralean.train.share import Share


class Loaders(lightning.LightningDataModule):
    """Random crops to train on, a fixed list of samples to validate on; of both, one process's share."""

    def __init__(self, material: Material, course: Course, *, rank: int, count: int) -> None:
        super().__init__()
        self.material, self.course, self.rank, self.count = material, course, rank, count
        self.batch = share_of_batch(course, count=count)

    def train_dataloader(self) -> DataLoader:
        """One epoch: as many crops as there are steps between two validations. Made anew each epoch.

        A process takes every `count`-th crop, so that a step has the same crops however many processes there are.
        """
        crops = self.material.crops
        crops.set_epoch(self.trainer.current_epoch if self.trainer else 0)
        own = range(self.rank, len(crops), self.count)
        return DataLoader(
            crops,
            batch_size=self.batch,
            sampler=own,
            num_workers=self.course.workers,
            drop_last=True,
            collate_fn=self.material.collate,
        )

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """All validation samples, in order; nothing where there are none."""
        validation = self.material.validation
        if validation is None:
            return []
        share = Share(validation, rank=self.rank, count=self.count)
        batch = self.batch if self.material.one_size else 1
        return DataLoader(share, batch_size=batch, num_workers=self.course.workers, collate_fn=self.material.collate)
