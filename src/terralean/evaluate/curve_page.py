"""What the page says of what accuracy costs: a drawing of scores by cost, and a table of all settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from terralean.evaluate.compare import points, span
from terralean.evaluate.curve import Curve
from terralean.evaluate.figures import CHART_PX, MARGINS_PX, scale, ticks
from terralean.evaluate.intervals import Interval
from terralean.evaluate.page import bounds, number
from terralean.weights.curve import Row


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveSection:
    """A part of the page; places are in the drawing's units from its top left corner."""

    score: str  # its name
    dots: tuple[Mapping[str, object], ...]  # x, y, low, high (y of the change's interval or None), half, reduced, own, told
    front: tuple[tuple[float, float], ...]  # the settings that no other beats in both
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    rows: tuple[Mapping[str, object], ...]  # own, best, setting, method, value, range, change, change_range, cost
    note: str
    size_px: tuple[int, int] = CHART_PX
    margins_px: tuple[int, int, int, int] = MARGINS_PX


def section(rows: Sequence[Row], *, curve: Curve | None) -> CurveSection | None:
    """Of the rows of a card, the run's own setting first; None where there are none. `curve` says what they rest on."""
    if not rows:
        return None
    own, best = rows[0], front(rows)
    (width, height), (left, right, top, bottom) = CHART_PX, MARGINS_PX
    ends = [end for row in rows for end in _ends(row, own)]
    x_ticks = ticks(np.array([0.0, *(row.relative_cost for row in rows)]), within=False)
    y_ticks = ticks(np.array([100 * value for value in (*ends, *(row.value for row in rows))]), within=False)
    across = scale((*x_ticks, *(row.relative_cost for row in rows)), start=left, stop=width - right)
    up = scale(y_ticks, start=height - bottom, stop=top)

    def place(row: Row) -> tuple[float, float]:
        return across(row.relative_cost), up(100 * row.value)

    def dot(row: Row) -> dict[str, object]:
        return _dot(row, own, place=place(row), ends=[up(100 * end) for end in _ends(row, own)])

    return CurveSection(
        score=own.score,
        dots=tuple(dot(row) for row in rows),
        front=tuple(place(row) for row in best),
        x_ticks=tuple((across(x), f"{x:g}") for x in x_ticks),
        y_ticks=tuple((up(y), f"{y:g}") for y in y_ticks),
        rows=tuple(_row(row, own=own, best=row in best) for row in sorted(rows, key=lambda row: -row.relative_cost)),
        note=_note(own, curve),
    )


def front(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The settings than which no other is both better and not dearer, from the cheapest on."""
    best: list[Row] = []
    for row in sorted(rows, key=lambda row: (row.relative_cost, -row.value)):
        if not best or row.value > best[-1].value:
            best.append(row)
    return tuple(best)


def setting_words(row: Row) -> str:
    """Overlap and precision."""
    return f"overlap {row.overlap_px} px, {row.precision}"


def _ends(row: Row, own: Row) -> tuple[float, ...]:
    """Between what scores the setting lies, should the run's own score be what it is."""
    if row is own or row.change.low is None or row.change.high is None:
        return ()
    return own.value + row.change.low, own.value + row.change.high


def _dot(row: Row, own: Row, *, place: tuple[float, float], ends: Sequence[float]) -> dict[str, object]:
    told = f"{row.score} {number(row.value)}, time {row.relative_cost:.2f}"
    return {
        "x": place[0],
        "y": place[1],
        "ends": tuple(ends),
        "half": row.precision != own.precision,
        "reduced": row.reduce != own.reduce,
        "own": row is own,
        "told": f"{setting_words(row)}, token reduction {row.method}: {told}",
    }


def _row(row: Row, *, own: Row, best: bool) -> dict[str, object]:
    low, high = row.change.low, row.change.high
    known = None if row is own or low is None or high is None else Interval(low=low, high=high)
    sure = None if row.low is None or row.high is None else Interval(low=row.low, high=row.high)
    return {
        "own": row is own,
        "best": best,
        "setting": setting_words(row),
        "method": "" if row.reduce is None else row.method,
        "value": number(row.value),
        "range": bounds(sure),
        "change": "" if row is own else points(row.change.value, signed=True, like=known),
        "change_range": "" if known is None else span(known),
        "cost": f"{row.relative_cost:.2f}",
    }


def _note(own: Row, curve: Curve | None) -> str:
    parts = [
        f"Times were measured on {own.device}, all settings in turn; on another device bf16 and token reduction cost otherwise."
    ]
    if curve is not None:
        parts.append(
            f"{curve.regions} of {curve.of_regions} validation regions, {curve.mpx:.3g} million px, {curve.rounds} rounds."
        )
    changes = "Changes are paired by block with the run's own setting; small print is the 95 % interval."
    return " ".join(chain([changes], parts, () if curve is None else curve.left_out))
