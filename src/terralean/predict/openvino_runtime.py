"""OpenVINO executes an exported graph on the processor."""

from __future__ import annotations

import os
from queue import Empty, SimpleQueue
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from terralean.errors import ConfigError, RunError
from terralean.predict.artefact import Artefact, GraphPrecision
from terralean.predict.runtime import check_ends, feeds, wanted

# Without a hint OpenVINO chooses bf16 by itself where the processor has it. What a graph holds in int8 stays in int8.
HINTS: dict[GraphPrecision, str] = {"fp32": "f32", "bf16": "bf16", "fp16": "f16", "int8": "f32"}


def open_openvino(artefact: Artefact, *, device: torch.device | None) -> OpenVINOSession:
    """The graph of an artefact."""
    library = wanted("openvino", what=str(artefact.graph))
    if device is not None and device.type != "cpu":
        raise ConfigError(f"{artefact.folder} runs on the CPU, by OpenVINO, got --device {device}; leave it out")
    return OpenVINOSession(library, artefact)


class OpenVINOSession:
    """The graph compiled for each number of threads that torch is set to; each call has an infer request of its own."""

    def __init__(self, library: Any, artefact: Artefact) -> None:
        self.artefact, self.device = artefact, torch.device("cpu")
        self.core = library.Core()
        try:
            self.model = self.core.read_model(artefact.graph)
        except RuntimeError as error:
            raise RunError(f"{artefact.graph} cannot be read by OpenVINO: {error}; export the run again") from error
        given, result = self.model.input("image").partial_shape, self.model.output(0).partial_shape
        check_ends(artefact, bands=_size(given), classes=_size(result))
        self.compiled: dict[int, tuple[Any, SimpleQueue[Any]]] = {}
        self.lock = Lock()

    def __call__(self, image: Tensor, valid: Tensor) -> Tensor:
        """As `Session`."""
        compiled, free = self._compiled()
        try:
            request = free.get_nowait()
        except Empty:
            request = compiled.create_infer_request()
        try:
            found = request.infer({name: tensor.numpy() for name, tensor in feeds(self.artefact, image, valid).items()})[0]
            return torch.from_numpy(found.copy())  # the request's own memory is written again by the next call
        finally:
            free.put(request)

    def _compiled(self) -> tuple[Any, SimpleQueue[Any]]:
        threads = torch.get_num_threads()
        with self.lock:
            if threads not in self.compiled:
                self.compiled[threads] = self._compile(threads), SimpleQueue()
            return self.compiled[threads]

    def _compile(self, threads: int) -> Any:
        """As many calls may run at once as cores allow, each with so many threads."""
        streams = max(1, (os.cpu_count() or 1) // threads)
        hint = HINTS[self.artefact.manifest.precision]
        options = {"NUM_STREAMS": streams, "INFERENCE_NUM_THREADS": streams * threads, "INFERENCE_PRECISION_HINT": hint}
        return self.core.compile_model(self.model, "CPU", options)


def _size(shape: Any) -> int | None:
    """Of the second axis."""
    return shape[1].get_length() if len(shape) > 1 and shape[1].is_static else None
