"""A time for a map, and which setting meets it with the least loss of accuracy by the run's own accuracy-cost curve.

Pure arithmetic: the curve comes from the run's card, the time that the run's own setting takes from a short calibration on the
scene, and what is chosen goes to whoever makes the map.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from terralean.errors import ConfigError
from terralean.mapping.plan import starts
from terralean.weights.curve import Row

UNITS = {"h": 3600.0, "min": 60.0, "m": 60.0, "s": 1.0, "ms": 0.001}
ORDER = ("h", "min", "s", "ms")  # in which they are written
PART = re.compile(r"(\d+(?:\.\d+)?|\.\d+)\s*(h|min|ms|m|s)")
FORMS = "10min, 90s, 1h30m, or by area 2s/km2"


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """How long a map may take."""

    seconds: float
    per_km2: bool = False  # of each square kilometre that is mapped, instead of in all
    text: str  # as it was given

    def of(self, *, area_km2: float | None) -> float:
        """Seconds for a scene. ConfigError for one of unknown area where the budget goes by area."""
        if not self.per_km2:
            return self.seconds
        if area_km2 is None:
            raise ConfigError(f"--budget {self.text} goes by area, and the scene has none: no CRS; give a time, e.g. 10min")
        return self.seconds * area_km2


@dataclass(frozen=True, kw_only=True, slots=True)
class BudgetConfig:
    """How a setting is chosen."""

    reserve: float = 0.1  # of the budget that is left free, since the scene's parts differ

    def __post_init__(self) -> None:
        if not 0 <= self.reserve < 1:
            raise ConfigError(f"reserve must be 0 to below 1, a share of the budget, got {self.reserve}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Calibration:
    """What a short trial of the run's own setting on the scene itself took."""

    seconds_per_mpx: float  # of a million px of the scene that are mapped
    fixed_s: float = 0.0  # what no setting changes: opening, closing, writing out
    device: str  # that it ran on, as its maker calls it

    def __post_init__(self) -> None:
        if not (0 < self.seconds_per_mpx < math.inf and 0 <= self.fixed_s < math.inf):
            raise ConfigError(
                f"a calibration takes more than no time, got {self.seconds_per_mpx} s/Mpx and {self.fixed_s} s fixed"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Extent:
    """What is to be mapped."""

    height_px: int
    width_px: int
    mapped_px: int  # that hold data
    area_km2: float | None  # of these; None without a CRS
    tile_px: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """A setting that meets a budget."""

    row: Row
    own: Row  # the run's own setting
    seconds: float  # that the map will take
    own_seconds: float  # that it would take with the run's own setting
    budget_s: float

    @property
    def given_up(self) -> str:
        """What was changed and what that costs in accuracy, in words; nothing where the run's own setting meets the budget."""
        if self.row == self.own:
            return ""
        changes = ", ".join(_changes(self.own, self.row))
        return f"{changes}: {self.row.score} {self.own.value:.3f} -> {self.row.value:.3f}{_sure(self.row)}"


def parse_budget(text: str) -> Budget:
    """A time such as 10min, 90s or 1h30m, or by area such as 2s/km2. ConfigError for anything else."""
    told, slash, area = text.strip().lower().replace("²", "2").replace("^2", "2").partition("/")
    parts = PART.findall(told)
    units = ["min" if unit == "m" else unit for _, unit in parts]
    whole = PART.sub("", told).strip() == ""
    if not parts or not whole or units != sorted(set(units), key=ORDER.index) or (slash and area.strip() != "km2"):
        raise ConfigError(f"--budget {text!r} is no time; write {FORMS}")
    seconds = sum(float(number) * UNITS[unit] for number, unit in parts)
    if not seconds:
        raise ConfigError(f"--budget {text!r} is no time at all; write {FORMS}")
    return Budget(seconds=seconds, per_km2=bool(slash), text=text.strip())


def choose(
    rows: Sequence[Row], *, own: Row, budget: Budget, calibration: Calibration, extent: Extent, config: BudgetConfig
) -> Choice:
    """The run's own setting where it meets the budget, else of those that do the one of the highest score, then the quickest.

    Rows measured on another device count only where they differ from the run's own setting in nothing but overlap, whose cost
    is the number of windows on any device. ConfigError with the least possible time where nothing meets the budget.
    """
    given = budget.of(area_km2=extent.area_km2)
    usable = [row for row in rows if row.device == calibration.device or _same_network(row, own)]
    times = {row: expected_s(row, own=own, calibration=calibration, extent=extent) for row in usable}
    limit = given * (1 - config.reserve)
    meeting = [row for row in usable if times[row] <= limit]
    if not meeting:
        raise ConfigError(_refusal(usable, times, own=own, budget=budget, given=given, limit=limit))
    best = own if own in meeting else max(meeting, key=lambda row: (row.value, -times[row]))
    return Choice(row=best, own=own, seconds=times[best], own_seconds=times[own], budget_s=given)


def expected_s(row: Row, *, own: Row, calibration: Calibration, extent: Extent) -> float:
    """Seconds that the map of a scene will take with a setting."""
    windows, own_windows = (_windows(extent, overlap_px=one.overlap_px) for one in (row, own))
    share = row.relative_window_cost / own.relative_window_cost * windows / own_windows
    return calibration.fixed_s + calibration.seconds_per_mpx * extent.mapped_px / 1e6 * share


def duration(seconds: float) -> str:
    """A time in words that a budget can be written in: 1h30min, 2min10s, 4.2s."""
    if seconds < 60:  # noqa: PLR2004 - a minute
        return f"{seconds:.1f}s" if seconds < 10 else f"{seconds:.0f}s"  # noqa: PLR2004 - of few seconds a tenth counts
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}min" if minutes else f"{hours}h"
    return f"{minutes}min{rest}s" if rest else f"{minutes}min"


def _windows(extent: Extent, *, overlap_px: int) -> int:
    down, across = (
        len(starts(length, tile=extent.tile_px, overlap=overlap_px)) for length in (extent.height_px, extent.width_px)
    )
    return down * across


def _same_network(row: Row, own: Row) -> bool:
    return (row.precision, row.reduce) == (own.precision, own.reduce)


def _changes(own: Row, row: Row) -> list[str]:
    told = [
        ("overlap", f"{own.overlap_px}", f"{row.overlap_px} px"),
        ("precision", own.precision, row.precision),
        ("token reduction", own.method, row.method),
    ]
    return [f"{name} {before} -> {after}" for name, before, after in told if before != after.removesuffix(" px")]


def _sure(row: Row) -> str:
    low, high = row.change.low, row.change.high
    if low is None or high is None:
        return ""
    return f" (change {100 * row.change.value:+.1f} points, 95 % interval {100 * low:+.1f} to {100 * high:+.1f})"


def _refusal(usable: Sequence[Row], times: dict[Row, float], *, own: Row, budget: Budget, given: float, limit: float) -> str:
    least = min(usable, key=lambda row: times[row])
    asked = budget.text if not budget.per_km2 else f"{budget.text}, {duration(given)} for this scene"
    how = Choice(row=least, own=own, seconds=times[least], own_seconds=times[own], budget_s=given).given_up
    needed = times[least] * budget.seconds / limit  # of each square kilometre where the budget is
    enough = duration(math.ceil(10 * needed) / 10 if needed < 60 else math.ceil(needed))  # noqa: PLR2004 - a minute
    enough += "/km2" if budget.per_km2 else ""
    return (
        f"--budget {asked} cannot be met: the quickest setting of the run's accuracy-cost curve takes about "
        f"{duration(times[least])} on this device ({how or 'its own setting'}); give {enough} or more, a smaller scene or part "
        "of it, or a quicker device"
    )
