"""Count what windows of the test area cost with token reduction: on some that are spread evenly, beside scores of all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from terralean.cost.convention import Work, count_work
from terralean.data.config import DataConfig
from terralean.data.split import Region
from terralean.evaluate.measure import See, as_it_is
from terralean.evaluate.token_cost import Left, TokenCost
from terralean.mapping.plan import starts
from terralean.predict import Predictor
from terralean.raster.grid import Window
from terralean.raster.scene import open_scene
from terralean.weights.card import Card

# A window that is counted is predicted anew, alone and watched, which takes about three times as long as within a batch. One in
# four keeps an evaluation below twice its time; of fewer than some dozen a 5th percentile means little.
ONE_IN = 4
AT_LEAST, AT_MOST = 32, 200
GOLDEN = (5**0.5 - 1) / 2


class _Place(NamedTuple):
    region: Region
    window: Window  # counted from the region's corner


class _Counted(NamedTuple):
    work: Work
    left: dict[int, float]  # by layer


def count_tokens(
    predictor: Predictor,
    dense: Predictor,
    regions: Sequence[Region],
    *,
    config: DataConfig,
    progress: Callable[[int, int], None],
    see: See = as_it_is,
) -> TokenCost:
    """What windows cost that `measure` maps, each counted alone; `dense` is the same run without token reduction.

    Windows without data are not counted: they are not predicted either. At least one window holds data.
    """
    places = _places(regions, predictor.card)
    wanted, tried = sample_size(len(places)), 0
    counted: dict[int, _Counted] = {}
    dense_work: Work | None = None
    for number in evenly(len(places)):
        tried += 1
        values, valid = _read(places[number], config=config, see=see)
        if not valid.any():
            continue
        counted[number] = _count(predictor, values, valid)
        dense_work = dense_work or count_work(dense.network, dense.seen(values, valid))
        progress(len(counted), wanted)
        if len(counted) == wanted:
            break
    assert dense_work is not None, "scores are of windows with data"
    return _joined((counted[number] for number in sorted(counted)), dense_work, complete=tried == len(places))


def sample_size(windows: int) -> int:
    """Of so many windows, how many are counted."""
    return min(windows, max(AT_LEAST, min(AT_MOST, windows // ONE_IN)))


def evenly(count: int) -> list[int]:
    """0 to count - 1 in an order in which the first few, however many they are, lie evenly among all."""
    order: list[int] = np.argsort(np.arange(count) * GOLDEN % 1, kind="stable").tolist()
    return order


def _places(regions: Sequence[Region], card: Card) -> list[_Place]:
    """All windows that a map of the regions is made of, in its order."""
    found = []
    for region in regions:
        lines = (
            starts(length, tile=card.tile_px, overlap=card.shared_px(tile_px=card.tile_px))
            for length in (region.window.height, region.window.width)
        )
        for row, col in product(*lines):
            window = Window(row=row, col=col, height=card.tile_px, width=card.tile_px)
            found.append(_Place(region, window))
    return found


def _read(place: _Place, *, config: DataConfig, see: See) -> tuple[Tensor, Tensor]:
    """Values (1, C, tile, tile) and where they are valid (1, tile, tile)."""
    with open_scene(place.region.image, bands=config.bands) as scene:
        values, valid = see(scene, place.region).read(place.window)
    return torch.from_numpy(values.astype(np.float32))[None], torch.from_numpy(valid)[None]


def _count(predictor: Predictor, values: Tensor, valid: Tensor) -> _Counted:
    work = count_work(predictor.network, predictor.seen(values, valid))
    return _Counted(work, {point.layer: float(point.share) for point in predictor.trace(values, valid)})


def _joined(counted: Iterable[_Counted], dense: Work, *, complete: bool) -> TokenCost:
    each = list(counted)
    return TokenCost(
        operations=tuple(one.work.operations for one in each),
        macs=tuple(one.work.macs.total for one in each),
        left=tuple(Left(layer=layer, shares=tuple(one.left[layer] for one in each)) for layer in sorted(each[0].left)),
        dense_operations=dense.operations,
        dense_macs=dense.macs.total,
        complete=complete,
    )
