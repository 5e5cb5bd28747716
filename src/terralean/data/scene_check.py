"""Every image opened and decoded once before training starts, so that a broken one is named and not learnt from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from terralean.data.scene_config import SceneDataConfig
from terralean.data.scene_index import SceneDataset


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """What a file holds."""

    height: int
    width: int
    digest: str  # of the decoded pixels: the same only for the very same pixels


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A dataset whose every image can be read."""

    dataset: SceneDataset  # without the images that were left out
    left_out: tuple[str, ...]
    seen: Mapping[str, Seen] = field(repr=False)  # by path

    @property
    def side_px(self) -> int:
        """Median of the images' shorter sides."""
        raise NotImplementedError


def check_images(
    dataset: SceneDataset, config: SceneDataConfig, *, progress: Callable[[int, int], None] | None = None
) -> Checked:
    """Open and decode each image. `progress` is told how many of how many are done.

    Raises UnreadableScene or SizeError naming all that cannot be used, unless the config says to leave them out, and
    BandMismatch where images differ in bands or type.
    """
    raise NotImplementedError
