"""Change detection: every pixel of a pair is unchanged (0) or changed (1). Its metrics, each by its full name.

Papers mean different things by one name, so all are told: precision, recall, F1 and IoU of the changed class over the pixels of
all images together (the first to compare by), F1 as the mean over batches (the training script of Jiang et al. 2024, whose
table 5 may hold either), and F1 as the mean over both classes (what its text says).
"""

from __future__ import annotations

from torch import Tensor

F1, PRECISION, RECALL, IOU = "f1", "precision", "recall", "iou"  # of the changed class, pooled
F1_BATCHES = "f1_mean_of_batches"
F1_CLASSES = "f1_mean_of_classes"
OA = "oa"


def change_scores(confusion: Tensor) -> dict[str, float]:
    """Scores of a confusion matrix (2, 2), references in rows; 0 where nothing says what a score is."""
    (kept, false), (missed, hit) = confusion.double().tolist()
    f1 = ratio(2 * hit, 2 * hit + false + missed)
    return {
        F1: f1,
        PRECISION: ratio(hit, hit + false),
        RECALL: ratio(hit, hit + missed),
        IOU: ratio(hit, hit + false + missed),
        F1_CLASSES: (f1 + ratio(2 * kept, 2 * kept + false + missed)) / 2,
        OA: ratio(hit + kept, hit + kept + false + missed),
    }


def ratio(part: float, whole: float) -> float:
    """0 of nothing, as the scripts have it that papers were written by."""
    return part / whole if whole else 0.0
