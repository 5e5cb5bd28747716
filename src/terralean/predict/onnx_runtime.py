"""ONNX Runtime executes an exported graph."""

from __future__ import annotations

from threading import Lock
from typing import Any

import torch
from torch import Tensor

from terralean.errors import ConfigError, RunError
from terralean.predict.artefact import Artefact
from terralean.predict.runtime import check_ends, feeds, wanted

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def open_onnx(artefact: Artefact, *, device: torch.device | None) -> OnnxSession:
    """The graph of an artefact on a device, by default CUDA where this onnxruntime has it, else the CPU."""
    library = wanted("onnxruntime", what=str(artefact.graph))
    known = library.get_available_providers()
    place = device or torch.device("cuda" if PROVIDERS["cuda"] in known and torch.cuda.is_available() else "cpu")
    provider = PROVIDERS.get(place.type)
    if provider is None or provider not in known:
        raise ConfigError(
            f"onnxruntime {library.__version__} here has no {place.type}; use --device cpu"
            + (", or pip install onnxruntime-gpu in its place" if place.type == "cuda" else "")
        )
    return OnnxSession(library, artefact, provider=provider, device=place)


class OnnxSession:
    """A session for each number of threads that torch is set to, opened when it is first needed."""

    def __init__(self, library: Any, artefact: Artefact, *, provider: str, device: torch.device) -> None:
        self.library, self.artefact, self.device = library, artefact, device
        self.providers = [(provider, {"device_id": device.index or 0})] if device.type == "cuda" else [provider]
        self.opened: dict[int, Any] = {}
        self.lock = Lock()
        self._session()

    def __call__(self, image: Tensor, valid: Tensor) -> Tensor:
        """As `Session`."""
        given = {name: tensor.numpy() for name, tensor in feeds(self.artefact, image, valid).items()}
        (found,) = self._session().run(None, given)
        return torch.from_numpy(found)

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
            session = self.library.InferenceSession(str(self.artefact.graph), options, providers=self.providers)
        except Exception as error:  # its errors have no common class of their own
            raise RunError(
                f"{self.artefact.graph} (opset {self.artefact.manifest.opset}) cannot be opened by onnxruntime "
                f"{self.library.__version__}: {_first_line(error)}; install the version that export.json names, or export the "
                "run again, with a lower --opset if it is too new"
            ) from error
        (given, *_), (result,) = session.get_inputs(), session.get_outputs()
        check_ends(self.artefact, bands=_size(given.shape), classes=_size(result.shape))
        return session


def _size(shape: list[int | str]) -> int | None:
    """Of the second axis."""
    return shape[1] if len(shape) > 1 and isinstance(shape[1], int) else None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
