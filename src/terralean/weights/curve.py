"""What accuracy a run gives up for speed: rows of its card, one for each setting that maps can be made with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from terralean.errors import RunError
from terralean.tokens import Reduction
from terralean.tokens.settings import words
from terralean.weights.card import Card

KEY = "curve"  # in a card's metrics


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a map is made, as far as it costs time."""

    overlap_px: int
    precision: Literal["fp32", "bf16"]
    reduce: Reduction | None  # the method that takes tokens out or merges them

    @property
    def method(self) -> str:
        """The method of token reduction in words, "none" for none."""
        return words(self.reduce)


@dataclass(frozen=True, kw_only=True)
class Change:
    """A score less that of the run's default, on the same draws of the same blocks."""

    value: float
    low: float | None = None  # ends of the 95 % interval; None with too few blocks
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Row(Setting):
    """A setting, its score on the validation split, and what it costs."""

    __pydantic_config__ = ConfigDict(extra="forbid")

    score: str  # its name
    value: float
    low: float | None  # ends of the 95 % interval; None with too few blocks
    high: float | None
    change: Change
    relative_cost: float  # time on a scene much larger than a window; the default's is 1
    relative_window_cost: float  # time of one window; the default's is 1
    device: str  # that costs were measured on, as its maker calls it

    @property
    def setting(self) -> Setting:
        """Without what it gives."""
        return Setting(overlap_px=self.overlap_px, precision=self.precision, reduce=self.reduce)


def default(card: Card) -> Setting:
    """How a run maps where nothing is said."""
    return Setting(overlap_px=card.overlap_px, precision="fp32", reduce=card.reduce)


def entries(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """As a card holds them."""
    return [asdict(row) for row in rows]


def read_curve(card: Card, *, run: object) -> tuple[Row, ...]:
    """The rows of a card, none where they were not measured. `run` is named where they cannot be read (RunError)."""
    try:
        rows = TypeAdapter(tuple[Row, ...]).validate_python(card.metrics.get(KEY, ()))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunError(
            f"{run}: the accuracy-cost curve in its card cannot be read ({where}: {first['msg']}); measure it again: "
            f"terralean evaluate {run} --curve"
        ) from error
    if rows and not any(row.setting == default(card) for row in rows):
        raise RunError(
            f"{run}: the accuracy-cost curve in its card lacks the run's own setting; measure it again: "
            f"terralean evaluate {run} --curve"
        )
    return rows


def own_row(rows: Sequence[Row], card: Card) -> Row:
    """That of the run's own setting; `read_curve` has made sure that there is one."""
    return next(row for row in rows if row.setting == default(card))
