"""ONNX files: written from a program, checked, with words about them inside; and their form in 8 bits."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from terralean.errors import ConfigError
from terralean.export.tiles import Tiles
from terralean.predict.artefact import WHOLE, Part
from terralean.predict.runtime import as_bytes, wanted

MATRIX = 2  # axes
HEAVY = ("Conv", "Gemm", "MatMul")  # what is computed in 8 bits, where its weights are constants


def write_onnx(
    program: ExportedProgram,
    path: Path,
    *,
    opset: int,
    told: Mapping[str, str],
    part: Part = WHOLE,
    format_version: int | None = None,
) -> None:
    """Write a program as ONNX; `told` becomes its metadata.

    `format_version` is that of the file itself, None for the writer's own. Raises ConfigError where an operation has no form
    in this opset.
    """
    onnx = wanted("onnx", what=f"{path.name}")
    wanted("onnxscript", what=f"{path.name}")
    names = list(part.inputs[: len(program.graph_signature.user_inputs)])
    try:
        with _quiet("onnxscript", "onnx_ir", "torch.onnx"):
            written = torch.onnx.export(
                program,
                input_names=names,
                output_names=list(part.outputs),
                opset_version=opset,
                verbose=False,
                external_data=False,
                custom_translation_table={torch.ops.aten.sort.stable: _stable_sort},
            )
    except (torch.onnx.errors.OnnxExporterError, RuntimeError) as error:
        raise ConfigError(f"the network cannot be written as ONNX with opset {opset}: {_told(error)}") from error
    assert written is not None
    model = written.model_proto
    if format_version is not None:
        model.ir_version = format_version
    _tell(model, told)
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ConfigError(
            f"what torch wrote is no valid ONNX: {_told(error)}; another --tile, --opset or --format may do"
        ) from error
    onnx.save(model, path)


def quantise(path: Path, out: Path, tiles: Tiles, *, told: Mapping[str, str]) -> None:
    """Write an ONNX file's form in 8 bits: weights by channel, activations by the ranges that these tiles give them."""
    onnx = wanted("onnx", what=f"{out.name}")
    quantization = wanted("onnxruntime.quantization", what=f"{out.name} in int8")
    prepared = out.with_name(f"{out.name}.prepared")
    quantization.quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
    try:
        quantization.quantize_static(
            str(prepared),
            str(out),
            Calibration(tiles, masked=len(onnx.load(prepared).graph.input) == len(WHOLE.inputs)),
            quant_format=quantization.QuantFormat.QDQ,
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_quantize=list(heavy_nodes(onnx.load(prepared))),
            op_types_to_quantize=list(HEAVY),
        )
    finally:
        prepared.unlink(missing_ok=True)
    model = onnx.load(out)
    _tell(model, told)
    onnx.checker.check_model(model)
    onnx.save(model, out)


class Calibration:
    """Tiles one by one, as ONNX Runtime's quantiser asks for them; of a graph without a mask divided by 255."""

    def __init__(self, tiles: Tiles, *, masked: bool) -> None:
        self.left, self.masked = iter(zip(tiles.image.split(1), tiles.valid.split(1), strict=True)), masked

    def get_next(self) -> dict[str, Any] | None:
        """The next one; None after the last."""
        found = next(self.left, None)
        if found is None:
            return None
        given = dict(zip(WHOLE.inputs, found, strict=True)) if self.masked else {"image": as_bytes(*found)}
        return {name: tensor.numpy() for name, tensor in given.items()}


def heavy_nodes(model: Any) -> Iterator[str]:
    """Names of the products whose weights are constants; those of two activations, in attention, stay as they are.

    So do products with stacks of matrices, of which ONNX Runtime knows no scale for each column.
    """
    axes = {tensor.name: len(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type in HEAVY and node.input[1] in axes and (node.op_type == "Conv" or axes[node.input[1]] == MATRIX):
            yield node.name


def _tell(model: Any, told: Mapping[str, str]) -> None:
    del model.metadata_props[:]
    for key, value in told.items():
        model.metadata_props.add(key=key, value=value)


def _stable_sort(values: Any, stable: bool | None = None, dim: int = -1, descending: bool = False) -> Any:
    """What torch.sort gives, of which torch's writer knows only the form that may exchange equal values.

    Of equal values ONNX's TopK has the one with the lower index first.
    """
    op = wanted("onnxscript", what="a stable sort").opset18
    size = op.Gather(op.Shape(values), op.Constant(value_ints=[dim]))
    return op.TopK(values, size, axis=dim, largest=int(descending))


@contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    """Without warnings of libraries that concern their own way of writing."""
    before = {name: logging.getLogger(name).level for name in loggers}
    try:
        for name in loggers:
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _told(error: BaseException) -> str:
    """The first cause, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
