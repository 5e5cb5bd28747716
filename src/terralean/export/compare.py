"""How near an exported graph comes to the network that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from terralean.boxes.detected import Detected
from terralean.boxes.overlap import iou
from terralean.errors import ExportDiffers, RunError
from terralean.export.config import BoxesLimit, Limit
from terralean.export.tiles import Tiles
from terralean.predict.artefact import Agreement

Answers = Callable[[Tensor, Tensor], Tensor]  # image (B, C, H, W), valid (B, H, W) -> probabilities (B, K, H, W) or (B, K)
Finds = Callable[[Tensor, Tensor], list[Detected]]  # the same -> what is found in each image


def answers(ask: Answers, tiles: Tiles, *, batch: int) -> Tensor:
    """Probabilities of all tiles (n, K, H, W) or (n, K)."""
    return torch.cat([ask(image, valid) for image, valid in _batches(tiles, batch)])


def compare(found: Sequence[Tensor], expected: Sequence[Tensor], tiles: Sequence[Tiles]) -> Agreement:
    """Over all valid pixels of these sets of tiles, or over all images; NaN and what is missing differ entirely."""
    differences, same = [], []
    for ours, theirs, where in zip(found, expected, tiles, strict=True):
        if ours.shape != theirs.shape:
            raise ExportDiffers(f"the exported graph gives {tuple(ours.shape)}, the network {tuple(theirs.shape)}")
        chosen = where.valid if theirs.ndim == where.image.ndim else torch.ones(len(theirs), dtype=torch.bool)
        differences.append((ours - theirs).abs().nan_to_num(1.0).movedim(1, -1)[chosen].flatten())
        same.append((ours.argmax(dim=1) == theirs.argmax(dim=1))[chosen])
    difference = torch.cat(differences)
    return Agreement(
        tiles=sum(len(where.image) for where in tiles),
        source=tiles[0].source,
        difference=float(difference.max()),
        mean_difference=float(difference.double().mean()),
        same_class=float(torch.cat(same).double().mean()),
    )


def check(agreement: Agreement, limit: Limit, *, what: str) -> None:
    """Raise ExportDiffers where that is too far."""
    if agreement.difference <= limit.difference and agreement.same_class >= limit.same_class:
        return
    raise ExportDiffers(
        f"{what} differs too much from the network on {agreement.source}: a probability by {agreement.difference:.3g} (at most "
        f"{limit.difference:g}), {agreement.same_class:.2%} with the same class (at least {limit.same_class:.2%}); nothing was "
        "kept; choose another --precision or --format"
    )


def findings(find: Finds, tiles: Tiles, *, batch: int) -> list[Detected]:
    """What is found in each tile."""
    return [one for image, valid in _batches(tiles, batch) for one in find(image, valid)]


def compare_found(
    found: Sequence[Detected], expected: Sequence[Detected], *, source: str, score: float, limit: BoxesLimit
) -> Agreement:
    """Over the objects that either finds in the same tiles and is sure of: by more than may differ above the least `score`.

    An object is found by both if the other one has a box of its class with the rotated IoU that the limit names. Raises
    RunError where the network is sure of none.
    """
    sure = score + limit.difference
    if not any(bool((one.scores > sure).any()) for one in expected):
        raise RunError(
            f"the run is sure of no object on {source}, so that nothing can be compared; name scenes with objects by --check"
        )
    pairs = [*zip(found, expected, strict=True), *zip(expected, found, strict=True)]
    scores, overlap, others = torch.cat([_nearest(*pair) for pair in pairs]).unbind(dim=1)
    counted = scores > sure
    both = counted & (overlap >= limit.overlap)
    difference = (scores - others)[both].abs() if both.any() else torch.ones(1)
    return Agreement(
        tiles=len(expected),
        source=source,
        difference=float(difference.max()),
        mean_difference=float(difference.double().mean()),
        same_class=int(both.sum()) / int(counted.sum()),
        overlap=float(overlap[both].double().mean()) if both.any() else 0.0,
        objects=sum(int((one.scores > sure).sum()) for one in expected),
    )


def check_found(agreement: Agreement, limit: BoxesLimit, *, what: str) -> None:
    """Raise ExportDiffers where that is too far."""
    if agreement.difference <= limit.difference and agreement.same_class >= limit.same:
        return
    raise ExportDiffers(
        f"{what} differs too much from the network on {agreement.source}: {agreement.same_class:.2%} of {agreement.objects} "
        f"objects are found by both with an IoU of {limit.overlap:g} (at least {limit.same:.2%}), a score differs by "
        f"{agreement.difference:.3g} (at most {limit.difference:g}); nothing was kept; choose another --precision or --format"
    )


def _nearest(mine: Detected, theirs: Detected) -> Tensor:
    """Of each of mine (n, 3): its score, the IoU with the box of its class that overlaps it most, and that one's score."""
    table = iou(mine.boxes, theirs.boxes) * (mine.labels[:, None] == theirs.labels)
    if not table.numel():
        return torch.stack([mine.scores, *torch.zeros(2, len(mine.scores))], dim=1)
    overlap, which = table.max(dim=1)
    return torch.stack([mine.scores, overlap, theirs.scores[which]], dim=1)


def _batches(tiles: Tiles, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(tiles.image.split(batch), tiles.valid.split(batch), strict=True)
