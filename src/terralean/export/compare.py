"""How near an exported graph comes to the network that it was made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from terralean.errors import ExportDiffers
from terralean.export.config import Limit
from terralean.export.tiles import Tiles
from terralean.predict.artefact import Agreement

Answers = Callable[[Tensor, Tensor], Tensor]  # image (B, C, H, W), valid (B, H, W) -> probabilities (B, K, H, W) or (B, K)


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


def _batches(tiles: Tiles, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    yield from zip(tiles.image.split(batch), tiles.valid.split(batch), strict=True)
