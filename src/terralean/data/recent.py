"""What was decoded last, as much of it as fits."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable

from numpy.typing import NDArray


class Recent:
    """Arrays by name, the latest used ones, up to so many bytes together. Another process begins with nothing."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._arrays: OrderedDict[Hashable, tuple[NDArray, ...]] = OrderedDict()
        self.used_bytes = 0

    def get(self, name: Hashable) -> tuple[NDArray, ...] | None:
        """The arrays, now the latest used; None where they are not kept."""
        if name in self._arrays:
            self._arrays.move_to_end(name)
        return self._arrays.get(name)

    def put(self, name: Hashable, arrays: tuple[NDArray, ...]) -> tuple[NDArray, ...]:
        """Keep the arrays, which are returned, and let go of those that were not used for longest."""
        self._arrays[name] = arrays
        self.used_bytes += sum(array.nbytes for array in arrays)
        while self.used_bytes > self.limit_bytes:
            self.used_bytes -= sum(array.nbytes for array in self._arrays.popitem(last=False)[1])
        return arrays

    def __reduce__(self) -> tuple[type[Recent], tuple[int]]:
        return Recent, (self.limit_bytes,)
