import random
from collections.abc import Callable

import pytest

from terralean.cost.timing import Clocks, Spread, TimingConfig, spread, time_interleaved


class Machine:
    """Clocks that only move when a call works, and a diary of what happened."""

    def __init__(self) -> None:
        self.now = 0.0
        self.worked = 0.0
        self.diary: list[str] = []

    def clocks(self) -> Clocks:
        return Clocks(wall=lambda: self.now, processor=lambda: self.worked)

    def call(self, name: str, *, seconds: float | Callable[[], float], threads: int = 1) -> Callable[[], None]:
        def work() -> None:
            taken = seconds() if callable(seconds) else seconds
            self.now += taken
            self.worked += taken * threads
            self.diary.append(name)

        return work

    def rounds(self, *, names: int) -> list[tuple[str, ...]]:
        return [tuple(self.diary[i : i + names]) for i in range(0, len(self.diary), names)]


def config(*, rounds: int, seconds: float = 0.0, warm_up: int = 0) -> TimingConfig:
    return TimingConfig(rounds=rounds, seconds=seconds, warm_up=warm_up)


def test_every_round_holds_every_call_once_and_orders_differ():
    machine = Machine()
    calls = {name: machine.call(name, seconds=1.0) for name in "abc"}
    time_interleaved(calls, config=config(rounds=8), order=random.Random(0), clocks=machine.clocks())
    rounds = machine.rounds(names=3)
    assert len(rounds) == 9  # one to find how often to repeat
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len(set(rounds)) > 2


def test_order_depends_on_the_generator_alone():
    diaries = []
    for names in ("abc", "cba"):
        machine = Machine()
        calls = {name: machine.call(name, seconds=1.0) for name in names}
        time_interleaved(calls, config=config(rounds=5), order=random.Random(7), clocks=machine.clocks())
        diaries.append(machine.diary)
    assert diaries[0] == diaries[1]


def test_seconds_are_those_of_one_call_on_both_clocks():
    machine = Machine()
    calls = {"quick": machine.call("quick", seconds=0.25, threads=4), "slow": machine.call("slow", seconds=3.0)}
    found = time_interleaved(calls, config=config(rounds=3, seconds=1.0), order=random.Random(0), clocks=machine.clocks())
    assert found.timings["quick"].wall_s == (0.25, 0.25, 0.25)
    assert found.timings["quick"].processor_s == (1.0, 1.0, 1.0)
    assert found.timings["quick"].calls == 4
    assert found.timings["slow"].wall_s == (3.0, 3.0, 3.0)
    assert found.timings["slow"].calls == 1
    assert machine.diary.count("quick") == 1 + 3 * 4


def test_warm_up_is_not_measured():
    machine = Machine()
    costs = iter([100.0, 50.0, *[2.0] * 4])
    found = time_interleaved(
        {"a": machine.call("a", seconds=lambda: next(costs))},
        config=config(rounds=3, warm_up=2),
        order=random.Random(0),
        clocks=machine.clocks(),
    )
    assert found.timings["a"].wall_s == (2.0, 2.0, 2.0)


def test_slow_spell_of_the_machine_falls_on_all_calls():
    machine = Machine()
    pace = {"a": 1.0, "b": 2.0}

    def cost(name: str) -> float:
        return pace[name] * (10.0 if 20.0 < machine.now < 80.0 else 1.0)

    calls = {name: machine.call(name, seconds=lambda name=name: cost(name)) for name in pace}
    timings = time_interleaved(calls, config=config(rounds=12), order=random.Random(0), clocks=machine.clocks()).timings
    assert max(timings["a"].wall_s) == 10.0
    assert max(timings["b"].wall_s) == 20.0
    assert spread(timings["b"].wall_s).median == 2 * spread(timings["a"].wall_s).median


def test_device_is_waited_for_before_each_reading():
    """Work that is only queued by the call and done by `synchronise`, as on a GPU, is charged to its call."""
    machine, queue = Machine(), []

    def synchronise() -> None:
        machine.now += sum(queue)
        queue.clear()

    found = time_interleaved(
        {"a": lambda: queue.append(1.0), "b": lambda: queue.append(5.0)},
        config=config(rounds=4, seconds=2.0),
        order=random.Random(0),
        clocks=machine.clocks(),
        synchronise=synchronise,
    )
    assert set(found.timings["a"].wall_s) == {1.0}
    assert set(found.timings["b"].wall_s) == {5.0}


@pytest.mark.parametrize("good_calls", [0, 3])
def test_call_that_fails_drops_out_and_the_others_go_on(good_calls):
    machine, left = Machine(), [1.0] * good_calls

    def fail_later() -> float:
        if not left:
            raise RuntimeError("out of memory")
        return left.pop()

    calls = {"good": machine.call("good", seconds=1.0), "bad": machine.call("bad", seconds=fail_later)}
    found = time_interleaved(
        calls, config=config(rounds=5), order=random.Random(0), clocks=machine.clocks(), tolerate=(RuntimeError,)
    )
    assert found.timings.keys() == {"good"}
    assert len(found.timings["good"].wall_s) == 5
    assert str(found.failures["bad"]) == "out of memory"
    assert machine.diary.count("bad") == good_calls


def test_failure_that_is_not_tolerated_is_raised():
    with pytest.raises(ZeroDivisionError):
        time_interleaved({"a": lambda: 1 // 0}, config=config(rounds=1), order=random.Random(0), tolerate=(RuntimeError,))


def test_progress_counts_measurements():
    machine, told = Machine(), []
    calls = {name: machine.call(name, seconds=1.0) for name in "ab"}
    time_interleaved(
        calls,
        config=config(rounds=2),
        order=random.Random(0),
        clocks=machine.clocks(),
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(i, 6) for i in range(1, 7)]


def test_spread_is_the_quartiles():
    assert spread((5.0, 1.0, 3.0, 2.0, 4.0)) == Spread(2.0, 3.0, 4.0)
    assert spread((1.0, 2.0)) == Spread(1.25, 1.5, 1.75)
    assert spread((7.0,)) == Spread(7.0, 7.0, 7.0)
