"""OpenVINO executes an exported graph on the processor."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor

from terralean.errors import ConfigError, RunError
from terralean.predict.artefact import Artefact, GraphPrecision, Part
from terralean.predict.runtime import check_ends, wanted

ALONE_PX = 128**2  # images of so many pixels are worked through one by one
MOST = 8  # sizes that the graph is compiled for, before it is compiled for any
# Without a hint OpenVINO chooses bf16 by itself where the processor has it. What a graph holds in int8 stays in int8.
HINTS: dict[GraphPrecision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}


def open_openvino(artefact: Artefact, part: Part, *, device: torch.device | None) -> OpenVINOSession:
    """A graph of an artefact."""
    library = wanted("openvino", what=str(artefact.graph(part)))
    if device is not None and device.type != "cpu":
        raise ConfigError(f"{artefact.folder} runs on the CPU, by OpenVINO, got --device {device}; leave it out")
    return OpenVINOSession(library, artefact, part)


class Shape(NamedTuple):
    """What the graph is compiled for; -1 is any."""

    threads: int  # of each call
    images: int = -1
    height: int = -1
    width: int = -1


class OpenVINOSession:
    """The graph compiled for the sizes that come; each call has an infer request of its own."""

    def __init__(self, library: Any, artefact: Artefact, part: Part) -> None:
        self.artefact, self.part, self.device = artefact, part, torch.device("cpu")
        self.core = _core(library)
        model = self._read()
        ends = {name: end.partial_shape for end in (*model.inputs, *model.outputs) for name in end.names}
        bands, classes = (_size(ends.get(name, ())) for name in ("image", "probabilities"))
        check_ends(artefact, part, bands=bands, classes=classes)
        self.compiled: dict[Shape, tuple[Any, SimpleQueue[Any]]] = {}
        self.lock = Lock()

    def __call__(self, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """As `Session`."""
        shape = self._shape(given["image"]) if "image" in given else Shape(torch.get_num_threads())
        if shape.images != 1:
            return self._infer(shape, given)
        images = zip(*(tensor.split(1) for tensor in given.values()), strict=True)
        each = [self._infer(shape, dict(zip(given, one, strict=True))) for one in images]
        return tuple(torch.cat(parts) for parts in zip(*each, strict=True))

    def _shape(self, image: Tensor) -> Shape:
        """A graph for one size is a fifth faster than one for any size; large images gain nothing from being many."""
        height, width = image.shape[2:]
        batch = self.artefact.manifest.fixed.get("batch", 1 if height * width >= ALONE_PX else -1)
        shape = Shape(torch.get_num_threads(), batch, height, width)
        with self.lock:
            many = shape not in self.compiled and len(self.compiled) >= MOST
        return Shape(shape.threads, self.artefact.manifest.fixed.get("batch", -1)) if many else shape

    def _infer(self, shape: Shape, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        compiled, free = self._compiled(shape)
        try:
            request = free.get_nowait()
        except Empty:
            request = compiled.create_infer_request()
        try:
            found = request.infer({name: tensor.numpy() for name, tensor in given.items()})
            # The request's own memory is written again by the next call.
            return tuple(torch.from_numpy(found[name].copy()) for name in self.part.outputs)
        finally:
            free.put(request)

    def _compiled(self, shape: Shape) -> tuple[Any, SimpleQueue[Any]]:
        with self.lock:
            if shape not in self.compiled:
                self.compiled[shape] = self._compile(shape), SimpleQueue()
            return self.compiled[shape]

    def _compile(self, shape: Shape) -> Any:
        """As many calls may run at once as cores allow, each with so many threads."""
        model = self._read()
        if shape.height > 0 and "batch" not in self.artefact.manifest.fixed:
            bands = len(self.artefact.card.bands)
            model.reshape({"image": [shape.images, bands, *shape[2:]], "valid": [shape.images, *shape[2:]]})
        streams = max(1, (os.cpu_count() or 1) // shape.threads)
        hint = HINTS[self.artefact.manifest.precision]
        options = {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": streams * shape.threads, "INFERENCE_PRECISION_HINT": hint}
        return self.core.compile_model(model, "CPU", options)

    def _read(self) -> Any:
        try:
            return self.core.read_model(self.artefact.graph(self.part))
        except RuntimeError as error:
            path = self.artefact.graph(self.part)
            raise RunError(f"{path} cannot be read by OpenVINO: {error}; export the run again") from error


@cache
def _core(library: Any) -> Any:
    """One for the life of the process.

    OpenVINO gives the thread that compiles another stack to handle signals on, and frees it with its last core. Where another
    thread drops that one, the next signal with a handler, Ctrl-C or the end of a child, ends the process by a memory fault.
    """
    return library.Core()


def _size(shape: Any) -> int | None:
    """Of the second axis."""
    return shape[1].get_length() if len(shape) > 1 and shape[1].is_static else None
