"""Which part of a scene a figure shows, in pixels and in places."""

from __future__ import annotations

import logging

from terralean.errors import ConfigError
from terralean.explain.strips import Lattice
from terralean.raster.grid import Window
from terralean.raster.scene import Scene

log = logging.getLogger(__name__)

FIGURE_PX = 800  # longer side at most of what the figure shows of the scene


def check_part(part: tuple[int, ...] | None) -> None:
    """Raise ConfigError unless it is row, column, height, width of a rectangle, or None."""
    if part is not None and (len(part) != 4 or min(part[:2]) < 0 or min(part[2:]) < 1):  # noqa: PLR2004 - those four
        raise ConfigError(f"part must be row,column,height,width in px, e.g. 0,0,512,512; got {','.join(map(str, part))}")


def part_of(scene: Scene, part: tuple[int, int, int, int] | None) -> Window:
    """What the figure shows; None: all of the scene. Raises ConfigError where that reaches past it."""
    if part is None:
        return scene.grid.window
    row, col, height, width = part
    window = Window(row=row, col=col, height=height, width=width)
    if window.cut(scene.grid.window) != window:
        raise ConfigError(
            f"part {','.join(map(str, part))} (row, column, height, width) reaches past {scene.path}, which has "
            f"{scene.grid.height} rows and {scene.grid.width} columns"
        )
    return window


def in_places(part: Window, lattice: Lattice) -> Window:
    """The places that cover a part of the scene."""
    row, col = lattice.places(part.row), lattice.places(part.col)
    below, right = -lattice.places(-part.row - part.height), -lattice.places(-part.col - part.width)
    return Window(row=row, col=col, height=below - row, width=right - col)


def box_of(part: Window, places: Window, lattice: Lattice) -> tuple[float, float, float, float]:
    """Left, top, right and bottom of a part of the scene in the places that cover it, as shares of their extent."""
    scale = lattice.side / lattice.plan.tile_px
    left, top = part.col * scale - places.col, part.row * scale - places.row
    right, bottom = left + part.width * scale, top + part.height * scale
    return left / places.width, top / places.height, min(1.0, right / places.width), min(1.0, bottom / places.height)


def tell_size(scene: Scene, *, held_bytes: int) -> None:
    """How large the scene is, and how much of it is held at once."""
    log.info(
        "%s: %d x %d px, about %d MB of memory beside the model",
        scene.path,
        scene.grid.width,
        scene.grid.height,
        held_bytes // 2**20 + 1,
    )
