import pytest

from terralean.errors import ConfigError
from terralean.export.config import PRECISIONS, ExportConfig, Limit, Limits


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"format": "onx"}, "no format 'onx'; nearest: onnx"),
        ({"format": "onnx", "precision": "bf16"}, "can be fp32, fp16, int8, got --precision bf16: ONNX Runtime has no bf16"),
        ({"format": "torch", "precision": "int8"}, "--format torch can be fp32, bf16, fp16, got --precision int8"),
        ({"format": "onnx", "opset": 9}, "--opset must be 18 to 23, got 9; without it 20 is written"),
        ({"format": "onnx", "opset": 99}, "--opset must be 18 to 23, got 99"),
        ({"format": "torch", "opset": 20}, "--opset is of ONNX, and --format torch has none"),
        ({"format": "onnx", "calibrate": ("a.tif",)}, "--calibrate is for --precision int8, got fp32"),
        ({"format": "onnx", "tile_px": 0}, "tile_px must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_exported_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        ExportConfig(**given)


def test_the_opset_that_is_written():
    assert ExportConfig(format="onnx").chosen_opset == 20
    assert ExportConfig(format="deepness").chosen_opset == 18
    assert ExportConfig(format="openvino", opset=21).chosen_opset == 21
    assert ExportConfig(format="torch").chosen_opset is None


def test_every_precision_has_limits_and_lower_ones_have_wider_ones():
    limits = [Limits().of(precision) for precision in ("fp32", "fp16", "bf16", "int8")]
    assert [limit.difference for limit in limits] == sorted(limit.difference for limit in limits)
    assert [limit.same_class for limit in limits] == sorted((limit.same_class for limit in limits), reverse=True)
    own = Limits(int8=Limit(difference=0.2, same_class=0.99))
    assert ExportConfig(format="onnx", precision="int8", limits=own).limit == own.int8
    assert {precision for of_format in PRECISIONS.values() for precision in of_format} == {"fp32", "fp16", "bf16", "int8"}
