"""ONNX Runtime executes an exported graph."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Lock
from typing import Any

import torch
from torch import Tensor

from terralean.errors import ConfigError, RunError
from terralean.predict.artefact import Artefact, Part
from terralean.predict.runtime import check_ends, wanted

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_onnx(artefact: Artefact, part: Part, *, device: torch.device | None) -> OnnxSession:
    """A graph of an artefact on a device, by default CUDA where this onnxruntime has it, else the CPU."""
    library = wanted("onnxruntime", what=str(artefact.graph(part)))
    known = library.get_available_providers()
    place = device or torch.device("cuda" if PROVIDERS["cuda"] in known and torch.cuda.is_available() else "cpu")
    provider = PROVIDERS.get(place.type)
    if provider is None or provider not in known:
        raise ConfigError(
            f"onnxruntime {library.__version__} here has no {place.type}; use --device cpu"
            + (", or pip install onnxruntime-gpu in its place" if place.type == "cuda" else "")
        )
    return OnnxSession(library, artefact, part, provider=provider, device=place)


class OnnxSession:
    """A session for each number of threads that torch is set to, opened when it is first needed."""

    def __init__(self, library: Any, artefact: Artefact, part: Part, *, provider: str, device: torch.device) -> None:
        self.library, self.artefact, self.part, self.device = library, artefact, part, device
        self.providers = [(provider, {"device_id": device.index or 0})] if device.type == "cuda" else [provider]
        self.opened: dict[int, Any] = {}
        self.lock = Lock()
        self._session()

    def __call__(self, given: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """As `Session`."""
        found = self._session().run(list(self.part.outputs), {name: tensor.numpy() for name, tensor in given.items()})
        return tuple(map(torch.from_numpy, found))

    def _session(self) -> Any:
        threads = torch.get_num_threads()
        with self.lock:
            if threads not in self.opened:
                self.opened[threads] = self._open(threads)
            return self.opened[threads]

    def _open(self, threads: int) -> Any:
        options = self.library.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3  # errors; what it warns of concerns its own optimisations
        try:
            session = self.library.InferenceSession(str(self.artefact.graph(self.part)), options, providers=self.providers)
        except Exception as error:  # its errors have no common class of their own
            raise RunError(
                f"{self.artefact.graph(self.part)} (opset {self.artefact.manifest.opset}) cannot be opened by onnxruntime "
                f"{self.library.__version__}: {_first_line(error)}; install the version that export.json names, or export the "
                "run again, with a lower --opset if it is too new"
            ) from error
        shapes = {one.name: one.shape for one in (*session.get_inputs(), *session.get_outputs())}
        bands, classes = (_size(shapes.get(name, [])) for name in ("image", "probabilities"))
        check_ends(self.artefact, self.part, bands=bands, classes=classes)
        return session


def _size(shape: list[int | str]) -> int | None:
    """Of the second axis."""
    return shape[1] if len(shape) > 1 and isinstance(shape[1], int) else None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
