"""How pairs of dates and their masks are read and varied. Every default of it is written here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from terralean.errors import ConfigError
from terralean.spec import Classes

CHANGED = Classes(names=("unchanged", "changed"), colours=((225, 225, 225), (213, 94, 0)))

MaskRule = Literal["exact", "threshold", "truncation"]


@dataclass(frozen=True, kw_only=True, slots=True)
class PairConfig:
    """What a pair is, beside what `DataConfig` says of images; data.bands are positions in each date."""

    # exact: masks hold two values, and only JPEG is thresholded; threshold: whatever they hold; truncation: 255 alone is
    # change, as published code has it, which loses what compression has made 254 of
    mask: MaskRule = "exact"
    mask_threshold: int = 128  # stored values from here on are change
    swap: bool = True  # training pairs have their dates exchanged every other time; change stays change
    resample: bool = False  # later dates on another grid are interpolated onto that of the earlier; else they are refused
    normalise: Literal["shared", "each", "raw"] = "shared"  # one mean and spread for both dates, their own, or values as stored

    def __post_init__(self) -> None:
        if not 1 <= self.mask_threshold <= 255:  # noqa: PLR2004 - a byte
            raise ConfigError(f"pairs.mask_threshold is 1 to 255, got {self.mask_threshold}")
        if self.swap and self.normalise == "each":
            raise ConfigError(
                "pairs.swap exchanges dates, which pairs.normalise=each tells apart; set pairs.swap=false or "
                "pairs.normalise=shared"
            )
