import pytest
import torch
import torch.nn.functional as F

from terralean.layers.pooling import grid_means, means_by_products


@pytest.mark.parametrize("side", [1, 2, 3, 6])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (6, 6), (7, 13), (32, 20)])
def test_means_by_products_are_adaptive_pooling(size, side):
    x = torch.rand(2, 4, *size, generator=torch.Generator().manual_seed(side))
    torch.testing.assert_close(means_by_products(x, side=side), F.adaptive_avg_pool2d(x, side))
    assert torch.equal(grid_means(x, side=side), F.adaptive_avg_pool2d(x, side))


def test_a_program_has_the_cells_of_every_size():
    class Pool(torch.nn.Module):
        def forward(self, x):
            return grid_means(x, side=3)

    free = {2: torch.export.Dim("height", min=2), 3: torch.export.Dim("width", min=2)}
    program = torch.export.export(Pool(), (torch.rand(1, 2, 8, 9),), dynamic_shapes=({**free},)).module()
    for size in ((2, 3), (7, 20), (31, 4)):
        x = torch.rand(1, 2, *size)
        torch.testing.assert_close(program(x), F.adaptive_avg_pool2d(x, 3))
