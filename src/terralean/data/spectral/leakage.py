"""What a deal of pixels gives away: training pixels inside test windows, and how far position alone gets."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from terralean.data.spectral.parts import PixelSplit
from terralean.data.spectral.pixels import agreement, confusion
from terralean.data.spectral.places import nearest_px
from terralean.data.spectral.position_floor import position_floor


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelLeakage:
    """How test pixels lie to training pixels."""

    window_px: int
    inside: float  # share of test pixels with a training pixel inside their window
    sharing: float  # share of test pixels whose window shares a pixel with that of a training pixel
    nearest_px: float  # from a test pixel to a training pixel, the least, the larger of rows and columns
    floor: dict[str, float]  # "oa", "aa" and "kappa" of the class of the nearest training pixel, seeing no image

    @property
    def leaks(self) -> bool:
        """Whether a network sees training pixels when it is tested."""
        return self.inside > 0

    @property
    def floor_words(self) -> str:
        """The score of position alone."""
        oa, aa, kappa = (f"{100 * self.floor[key]:.2f}" for key in ("oa", "aa", "kappa"))
        return f"the nearest training pixel's class, seeing no image, scores OA {oa} %, AA {aa} %, kappa {kappa} %"

    @property
    def verdict(self) -> str:
        """In words."""
        window = f"{self.window_px} x {self.window_px} px window"
        if self.leaks:
            return (
                f"LEAKS: {100 * self.inside:.1f} % of the test pixels have a training pixel inside their {window}, and "
                f"{100 * self.sharing:.1f} % share pixels with one's window; {self.floor_words}"
            )
        apart = "" if np.isinf(self.nearest_px) else f", the nearest is {self.nearest_px:g} px away"
        shared = f"; {100 * self.sharing:.1f} % share pixels with one's window" if self.sharing else ""
        return f"no test pixel has a training pixel inside its {window}{apart}{shared}; {self.floor_words}"


def check_leakage(split: PixelSplit, *, classes: int) -> PixelLeakage:
    """Of the test pixels, or of those of validation where there are none."""
    name = "test" if len(split.test) else "validation"
    judged, train = split.of(name), split.train
    distance = nearest_px(split.places(name), split.places("train"))
    answer = position_floor(split.places("train"), train.label, split.places(name))
    return PixelLeakage(
        window_px=split.window_px,
        inside=float((distance <= split.window_px // 2).mean()),
        sharing=float((distance < split.window_px).mean()),
        nearest_px=float(distance.min()),
        floor=agreement(confusion(judged.label, answer, classes=classes)),
    )
