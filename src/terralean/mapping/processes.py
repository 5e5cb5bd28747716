"""Scenes mapped side by side on one machine: processes that are started anew and have a model each."""

from __future__ import annotations

import logging
import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from logging.handlers import QueueHandler
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from terralean.errors import OutputFailed, TerraleanError
from terralean.mapping.hand import Order, Outcome, Outcomes, Tell, outcome
from terralean.mapping.progress import Progress
from terralean.mapping.scenes import SceneSource

PACKAGE = "terralean"  # its log is passed on
PATIENCE_S = 10.0  # that a process gets to put away what it is at
KILLED = -9  # the exit code of what the system kills where memory runs out
NEW = multiprocessing.get_context("spawn")  # a fork would share GDAL's state and torch's threads


@dataclass(frozen=True, kw_only=True, slots=True)
class Unable:
    """A process could not open the model."""

    error: TerraleanError


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """What came of a scene."""

    outcome: Outcome


@dataclass(kw_only=True, slots=True)
class Hand:
    """A process, and the scene it is at."""

    order: Order
    process: BaseProcess
    line: Connection
    index: int | None = None


def outcomes(orders: Sequence[Order], sources: Sequence[SceneSource], *, tell: Tell) -> Outcomes:
    """Numbers of scenes with what came of them, as they are finished, by a process for each order.

    A process that dies fails the scene it was at, and another takes its place. However this ends, by an error or Ctrl-C too,
    all processes end; what they were at goes on from where it was when it is mapped again.
    """
    waiting, busy = deque(range(len(sources))), dict[Any, Hand]()
    with _hands() as hands:
        for order in orders[: len(sources)]:
            hand = _start(order, hands)
            busy[hand.line] = hand
            _give(hand, waiting, sources)
        while busy:
            for line in wait(list(busy)):
                hand = busy[line]
                found = _hear(hand, sources, tell)
                if found is None:
                    continue
                assert hand.index is not None
                yield hand.index, found
                if not hand.process.is_alive():
                    del busy[line]
                    if not waiting:
                        continue
                    hand = _start(hand.order, hands)
                    busy[hand.line] = hand
                if not _give(hand, waiting, sources):
                    del busy[hand.line]


@contextmanager
def _hands() -> Iterator[list[Hand]]:
    """Those that were started; in the end they are asked to stop, and made to if they do not."""
    hands: list[Hand] = []
    try:
        yield hands
    finally:
        for hand in hands:
            if hand.index is not None:
                hand.process.terminate()
                continue
            with suppress(BrokenPipeError):
                hand.line.send(None)
        for hand in hands:
            _hear_out(hand)
            hand.process.kill()
            hand.process.join()
            hand.line.close()


def _hear_out(hand: Hand) -> None:
    """What a process that ends still says: how much of a map is kept."""
    with suppress(EOFError, ConnectionResetError):
        while hand.line.poll(PATIENCE_S):
            said = hand.line.recv()
            if isinstance(said, logging.LogRecord):
                logging.getLogger(said.name).handle(said)


def _start(order: Order, hands: list[Hand]) -> Hand:
    """A process more."""
    ours, theirs = NEW.Pipe()
    level = logging.getLogger(PACKAGE).getEffectiveLevel()
    process = NEW.Process(target=serve, args=(theirs, order, level), name="terralean map")
    process.start()
    theirs.close()  # so that its end is heard
    hands.append(Hand(order=order, process=process, line=ours))
    return hands[-1]


def _give(hand: Hand, waiting: deque[int], sources: Sequence[SceneSource]) -> bool:
    """Hand out the next scene; whether there was one."""
    hand.index = waiting.popleft() if waiting else None
    if hand.index is not None:
        with suppress(BrokenPipeError):  # it has died: that is heard next
            hand.line.send(sources[hand.index])
    return hand.index is not None


def _hear(hand: Hand, sources: Sequence[SceneSource], tell: Tell) -> Outcome | None:
    """What a process says; an outcome when it has finished a scene or died of it."""
    assert hand.index is not None
    try:
        said = hand.line.recv()
    except (EOFError, ConnectionResetError):
        hand.process.join()
        return OutputFailed(_died(hand, sources[hand.index]))
    if isinstance(said, Unable):
        raise said.error
    if isinstance(said, logging.LogRecord):
        logging.getLogger(said.name).handle(said)
    if isinstance(said, Progress):
        tell(hand.index, said)
    return said.outcome if isinstance(said, Finished) else None


def _died(hand: Hand, source: SceneSource) -> str:
    code = hand.process.exitcode or 0
    how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
    why = "; memory may have run out, fewer --jobs need less" if code == KILLED else ""
    return f"{source.name}: the process that mapped it {how}{why}; the same command goes on with what it has done"


def serve(line: Connection, order: Order, level: int) -> None:
    """Map the scenes that come down the line, one after the other, until there are no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one tells the others
    signal.signal(signal.SIGTERM, _stop)
    mouth = _Mouth(line)
    with _log_to(mouth, level), suppress(EOFError, BrokenPipeError, KeyboardInterrupt):  # told to stop, or alone
        try:
            predictor = order.load(device=order.device)
        except TerraleanError as error:
            mouth.put_nowait(Unable(error=error))
            return
        while (source := line.recv()) is not None:
            found = outcome(predictor, source, out=order.out, config=order.config, progress=mouth.put_nowait)
            mouth.put_nowait(Finished(outcome=found))


class _Mouth:
    """A line that several threads may speak into."""

    def __init__(self, line: Connection) -> None:
        self._line, self._lock = line, threading.Lock()

    def put_nowait(self, said: Any) -> None:
        """By the name that a log handler calls."""
        with self._lock:
            self._line.send(said)


class _ToMouth(QueueHandler):
    """Says what is logged."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - as logging calls it
        """Nobody is there to hear it."""


@contextmanager
def _log_to(mouth: _Mouth, level: int) -> Iterator[None]:
    log, handler = logging.getLogger(PACKAGE), _ToMouth(mouth)  # type: ignore[arg-type]  # it calls nothing but put_nowait
    log.addHandler(handler)
    log.setLevel(level)
    yield
    log.removeHandler(handler)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt
