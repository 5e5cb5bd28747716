"""What is exported, and how near it has to come to the network itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Literal, get_args

from terralean.errors import ConfigError
from terralean.predict.artefact import GraphPrecision, RuntimeName

Format = Literal["onnx", "openvino", "torch", "deepness"]
RUNTIMES: Mapping[Format, RuntimeName] = {
    "onnx": "onnxruntime",
    "openvino": "openvino",
    "torch": "torch",
    "deepness": "onnxruntime",
}
# What each runtime computes on a processor: ONNX Runtime has no bf16 there, and of torch.export nothing quantises.
PRECISIONS: Mapping[Format, tuple[GraphPrecision, ...]] = {
    "onnx": ("fp32", "fp16", "int8"),
    "openvino": ("fp32", "bf16", "fp16", "int8"),
    "torch": ("fp32", "bf16", "fp16"),
    "deepness": ("fp32", "fp16", "int8"),
}
OPSETS = (18, 23)  # of ONNX: the lowest that torch writes, the highest that onnxruntime 1.23 reads
# The QGIS plugin Deepness brings onnxruntime 1.12 to 1.17, of which 1.14 and later read opset 18 and version 8 of the format.
OPSET: Mapping[Format, int] = {"onnx": 20, "openvino": 20, "deepness": 18}


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """What an export may differ by from the network in float32, over all valid pixels of the tiles or all views."""

    difference: float  # largest, of a probability
    same_class: float  # least share with the same class


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """By precision. Single pixels on the edge between two classes may turn, hence the wide bounds of the lower ones."""

    fp32: Limit = Limit(difference=5e-3, same_class=0.999)
    fp16: Limit = Limit(difference=0.1, same_class=0.995)
    bf16: Limit = Limit(difference=0.6, same_class=0.97)
    int8: Limit = Limit(difference=0.95, same_class=0.95)

    def of(self, precision: GraphPrecision) -> Limit:
        """Of one precision."""
        found: Limit = getattr(self, precision)
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxesLimit:
    """What an exported detector may differ by from the network in float32, over all objects that either is sure of."""

    overlap: float  # least rotated IoU of two boxes that are one object
    same: float  # least share of objects that both find
    difference: float  # largest, of the score of one


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxesLimits:
    """By precision. Of boxes that overlap another one stays where two scores change places, hence the shares below one."""

    fp32: BoxesLimit = BoxesLimit(overlap=0.9, same=0.98, difference=5e-3)
    fp16: BoxesLimit = BoxesLimit(overlap=0.85, same=0.96, difference=0.03)
    bf16: BoxesLimit = BoxesLimit(overlap=0.7, same=0.9, difference=0.15)

    def of(self, precision: GraphPrecision) -> BoxesLimit:
        """Of one precision; there are no others of detectors."""
        found: BoxesLimit = getattr(self, precision)
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportConfig:
    """What is written, and what it is compared on."""

    format: Format
    precision: GraphPrecision = "fp32"
    tile_px: int | None = (
        None  # side of the tiles it is compared on, and fixed where a graph cannot have it free; None: the run's
    )
    opset: int | None = None  # of ONNX; None: OPSET
    check: tuple[str, ...] = ()  # scenes to compare on; none: the run's own data where they are there, else noise
    calibrate: tuple[str, ...] = ()  # scenes to find ranges for int8 on; none: the run's training data
    checked_tiles: int = 8
    calibration_tiles: int = 32
    seed: int = 0  # of the choice of tiles
    limits: Limits = field(default_factory=Limits)
    boxes_limits: BoxesLimits = field(default_factory=BoxesLimits)

    def __post_init__(self) -> None:
        if self.format not in get_args(Format):
            known = get_args(Format)
            near = get_close_matches(str(self.format), known) or known
            raise ConfigError(f"no format {self.format!r}; nearest: {', '.join(near)}; timm's folder is a format of its own")
        if self.precision not in PRECISIONS[self.format]:
            raise ConfigError(
                f"--format {self.format} can be {', '.join(PRECISIONS[self.format])}, got --precision {self.precision}"
                + (": ONNX Runtime has no bf16 on processors; openvino and torch have" if self.precision == "bf16" else "")
            )
        if self.opset is not None:
            self._check_opset(self.opset)
        if self.calibrate and self.precision != "int8":
            raise ConfigError(f"--calibrate is for --precision int8, got {self.precision}; leave it out")
        for name in ("tile_px", "checked_tiles", "calibration_tiles"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}")

    def _check_opset(self, opset: int) -> None:
        if self.format == "torch":
            raise ConfigError(f"--opset is of ONNX, and --format torch has none; leave it out, got {opset}")
        low, high = OPSETS
        if not low <= opset <= high:
            raise ConfigError(f"--opset must be {low} to {high}, got {opset}; without it {OPSET[self.format]} is written")

    @property
    def chosen_opset(self) -> int | None:
        """The one asked for, or the usual one; None where there is none."""
        return OPSET.get(self.format) if self.opset is None else self.opset

    @property
    def limit(self) -> Limit:
        """What this precision may differ by."""
        return self.limits.of(self.precision)
