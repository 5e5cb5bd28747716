"""The file is used here as the plugin uses it: one input divided by 255, one output, JSON in its metadata."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from tiny_networks import eager, make_card

from terralean.errors import ConfigError
from terralean.export.deepness import check_task, metadata
from terralean.export.tiles import Wanted, noise


@pytest.fixture(scope="module")
def session(exported):
    return onnxruntime.InferenceSession(exported("deepness") / "model.onnx")


def test_the_plugin_finds_its_keys(session):
    told = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items() if key in KEYS}
    assert told == {
        "model_type": "Segmentor",
        "class_names": {"0": "field", "1": "forest", "2": "water <&>"},
        "tile_size": 64,
        "tiles_size": 64,
        "tiles_overlap": 25,
        "standardization_mean": [0.0] * 4,
        "standardization_std": [1.0] * 4,
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
    }


KEYS = (
    *("model_type", "class_names", "tile_size", "tiles_size", "tiles_overlap", "standardization_mean", "standardization_std"),
    *("seg_thresh", "seg_small_segment", "resolution"),
)


def test_one_input_and_one_output_square_and_of_any_batch(session):
    (given,), (result,) = session.get_inputs(), session.get_outputs()
    assert given.shape[1:] == [4, 64, 64]
    assert result.shape[1:] == [3, 64, 64]
    assert isinstance(given.shape[0], str)


def test_an_old_onnxruntime_reads_it(exported):
    model = onnx.load(exported("deepness") / "model.onnx")
    assert model.ir_version == 8
    assert [found.version for found in model.opset_import if not found.domain] == [18]


def test_16_bits_divided_by_255_give_the_map_of_the_run(session):
    tiles = noise(Wanted(make_card(), 64, 3, 2))
    nhwc = tiles.image.permute(0, 2, 3, 1).numpy().astype(np.uint16)
    given = np.float32(nhwc * 1.0 / 255.0).transpose(0, 3, 1, 2)
    (found,) = session.run(None, {session.get_inputs()[0].name: given})
    expected = eager(make_card())(tiles.image, tiles.valid)
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-3)


def test_the_size_of_a_pixel_is_told_in_centimetres_where_it_is_known():
    assert json.loads(metadata(make_card(), tile_px=64, pixel_m=0.3)["resolution"]) == 30.0
    assert "resolution" not in metadata(make_card(), tile_px=64, pixel_m=None)


def test_other_tasks_are_refused():
    check_task(make_card())
    with pytest.raises(ConfigError, match="Deepness maps pixels, painter was trained for classification"):
        check_task(replace(make_card(), task="classification"))
