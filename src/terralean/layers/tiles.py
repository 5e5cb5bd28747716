"""Maps cut into rectangular tiles, so that attention can be computed in each of them.

Tiles are numbered by rows from the top-left corner, and so are the tokens of a tile. Tiles that reach past the end of a map
are filled with zeros, which `valid_in_tiles` tells apart from tokens of the map. Sizes are (rows, columns).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def split_tiles(x: Tensor, *, tile: tuple[int, int]) -> Tensor:
    """(B, H, W, C) -> (B, tiles, tokens of a tile, C)."""
    down, along = (-length % side for length, side in zip(x.shape[1:3], tile, strict=True))
    if down or along:
        x = F.pad(x, (0, 0, 0, along, 0, down))
    cut = x.unflatten(2, (-1, tile[1])).unflatten(1, (-1, tile[0]))
    return cut.transpose(2, 3).reshape(x.shape[0], -1, tile[0] * tile[1], x.shape[3])


def join_tiles(tiles: Tensor, *, tile: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """The inverse of `split_tiles`, less what lies past the map: (B, tiles, tokens of a tile, C) -> (B, *size, C)."""
    rows, columns = tiling(size, tile=tile)
    x = tiles.unflatten(2, tile).unflatten(1, (rows, columns)).transpose(2, 3)
    whole = x.reshape(x.shape[0], rows * tile[0], columns * tile[1], x.shape[5])
    return whole[:, : size[0], : size[1]]


def valid_in_tiles(size: tuple[int, int], *, tile: tuple[int, int], device: torch.device) -> Tensor | None:
    """Which tokens lie on a map of this size: bool (tiles, tokens of a tile), or None where all of them do."""
    if not any(length % side for length, side in zip(size, tile, strict=True)):
        return None
    there = torch.ones(1, *size, 1, dtype=torch.bool, device=device)
    return split_tiles(there, tile=tile)[0, ..., 0]


def tiling(size: tuple[int, int], *, tile: tuple[int, int]) -> tuple[int, int]:
    """How many rows and columns of tiles cover a map."""
    return -(-size[0] // tile[0]), -(-size[1] // tile[1])
