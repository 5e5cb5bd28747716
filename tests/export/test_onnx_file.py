"""What of a graph is computed in 8 bits, and what its quantiser is given."""

import numpy as np
import torch
from onnx import TensorProto, helper, numpy_helper

from terralean.export.onnx_file import Calibration, heavy_nodes
from terralean.export.tiles import Tiles


def model(nodes: list, **constants: tuple[int, ...]):
    kept = [numpy_helper.from_array(np.ones(shape, np.float32), name) for name, shape in constants.items()]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", "y")]
    return helper.make_model(helper.make_graph(nodes, "graph", ends[:1], ends[1:], kept))


def test_products_with_one_constant_matrix_and_convolutions_are_heavy():
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["a"], name="convolution"),
        helper.make_node("MatMul", ["a", "matrix"], ["b"], name="linear"),
        helper.make_node("Gemm", ["b", "matrix"], ["c"], name="gemm"),
        helper.make_node("MatMul", ["c", "stack"], ["d"], name="of each head"),
        helper.make_node("MatMul", ["matrix", "d"], ["e"], name="from the left"),
        helper.make_node("MatMul", ["e", "d"], ["f"], name="attention"),
        helper.make_node("Mul", ["f", "matrix"], ["y"], name="light"),
    ]
    found = list(heavy_nodes(model(nodes, kernel=(2, 2, 3, 3), matrix=(4, 4), stack=(2, 4, 4))))
    assert found == ["convolution", "linear", "gemm"]


def test_calibration_gives_every_tile_once_as_the_graph_takes_it():
    image = torch.arange(2 * 3 * 4.0).view(2, 3, 2, 2)
    valid = torch.ones(2, 2, 2, dtype=torch.bool)
    valid[1, 0, 0] = False
    tiles = Tiles(image, valid, "")
    masked = Calibration(tiles, masked=True)
    given = [masked.get_next(), masked.get_next()]
    assert masked.get_next() is None
    assert np.array_equal(np.concatenate([one["image"] for one in given]), image.numpy())
    assert np.array_equal(np.concatenate([one["valid"] for one in given]), valid.numpy())
    alone = Calibration(tiles, masked=False)
    first, second = alone.get_next(), alone.get_next()
    assert set(first) == {"image"}
    assert np.allclose(first["image"] * 255, image[:1])
    assert np.isnan(second["image"]).sum() == 3
