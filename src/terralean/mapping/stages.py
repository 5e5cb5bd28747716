"""Stages of work that run at the same time, each in threads of its own, and hand results on in order."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")
END: Any = object()


class Stages:
    """Context manager within which stages work. When it ends, by an error or Ctrl-C too, they stop after what they are at.

    A stage is an iterator; one takes what it needs from the one before. An error goes to the one behind, after all that was
    made before it.
    """

    def __init__(self) -> None:
        self._pools: list[ThreadPoolExecutor] = []
        self._stop = threading.Event()

    def __enter__(self) -> Stages:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for pool in self._pools:
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in self._pools:
            pool.shutdown()

    def ahead(self, items: Iterable[T], *, depth: int) -> Iterator[T]:
        """The same items, made by a thread that is up to `depth` of them ahead."""
        pool, source = self._pool(1), iter(items)
        waiting = deque(pool.submit(next, source, END) for _ in range(depth))
        while (item := self._result(waiting.popleft())) is not END:
            waiting.append(pool.submit(next, source, END))
            yield item

    def in_order(
        self, call: Callable[[T], R], items: Iterable[T], *, workers: int, at_once: int, prepare: Callable[[], object]
    ) -> Iterator[tuple[T, R]]:
        """Each item with what `call` makes of it, in the order of the items, whichever is ready first.

        Up to `at_once` items are taken and not handed on; each worker's thread calls `prepare` first.
        """
        feeder, pool, source = self._pool(1), self._pool(workers, prepare), iter(items)

        def begin() -> tuple[T, Future[R] | None]:
            item = next(source, END)
            return item, None if item is END else pool.submit(call, item)

        waiting = deque(feeder.submit(begin) for _ in range(at_once))
        while True:
            item, future = self._result(waiting.popleft())
            if future is None:
                return
            result = self._result(future)
            waiting.append(feeder.submit(begin))
            yield item, result

    def _pool(self, workers: int, prepare: Callable[[], object] | None = None) -> ThreadPoolExecutor:
        self._pools.append(ThreadPoolExecutor(workers, initializer=prepare))
        return self._pools[-1]

    def _result(self, future: Future[R]) -> R:
        result = future.result()
        if self._stop.is_set():
            raise CancelledError
        return result
