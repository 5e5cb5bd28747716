import pytest
import torch

from terralean.layers.tiles import join_tiles, split_tiles, tiling, valid_in_tiles


def numbered(batch: int, rows: int, columns: int, channels: int) -> torch.Tensor:
    return torch.arange(1.0, batch * rows * columns * channels + 1).view(batch, rows, columns, channels)


def test_tiles_and_their_tokens_go_by_rows():
    tiles = split_tiles(numbered(1, 4, 6, 1), tile=(2, 3))
    assert tiles.shape == (1, 4, 6, 1)
    assert tiles[0, :, :, 0].tolist() == [
        [1, 2, 3, 7, 8, 9],
        [4, 5, 6, 10, 11, 12],
        [13, 14, 15, 19, 20, 21],
        [16, 17, 18, 22, 23, 24],
    ]


def test_what_lies_past_the_map_is_zero_and_not_valid():
    x = numbered(1, 3, 3, 1)
    tiles, valid = split_tiles(x, tile=(2, 2)), valid_in_tiles((3, 3), tile=(2, 2), device=x.device)
    assert tiles[0, :, :, 0].tolist() == [[1, 2, 4, 5], [3, 0, 6, 0], [7, 8, 0, 0], [9, 0, 0, 0]]
    assert torch.equal(valid, tiles[0, :, :, 0] > 0)


def test_tiles_that_fit_are_valid_throughout():
    assert valid_in_tiles((6, 9), tile=(2, 3), device=torch.device("cpu")) is None


@pytest.mark.parametrize("size", [(6, 9), (5, 7), (1, 10), (2, 1)])
@pytest.mark.parametrize("tile", [(1, 1), (2, 3), (7, 5)])
def test_join_undoes_split(size, tile):
    x = numbered(2, *size, 3)
    tiles = split_tiles(x, tile=tile)
    rows, columns = tiling(size, tile=tile)
    assert tiles.shape == (2, rows * columns, tile[0] * tile[1], 3)
    assert torch.equal(join_tiles(tiles, tile=tile, size=size), x)
