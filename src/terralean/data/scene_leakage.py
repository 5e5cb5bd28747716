"""Whether images that judge a model were, in effect, seen in training. One sentence, with numbers."""

from __future__ import annotations

from collections.abc import Mapping

from terralean.data.scene_check import Seen
from terralean.data.scene_split import SceneSplit


def scene_leakage(split: SceneSplit, *, seen: Mapping[str, Seen]) -> str:
    """Compare test, and validation, with training: groups, and pixels. A sentence, of which the first word is LEAKS if so.

    `seen` is what `check_images` saw.
    """
    raise NotImplementedError
