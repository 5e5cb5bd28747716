"""Stages: order, errors in their turn, and an end that waits for nobody."""

import threading
from itertools import count

import pytest

from terralean.mapping.stages import Stages


def nothing():
    pass


def in_order(stages, call, items, *, workers=3, at_once=5, prepare=nothing):
    return stages.in_order(call, items, workers=workers, at_once=at_once, prepare=prepare)


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_results_come_in_the_order_of_the_items_whichever_is_ready_first(workers):
    gates = [threading.Event() for _ in range(8)]
    finished = []

    def call(number):
        if workers > 1 and number % 2 == 0:
            gates[number].wait()  # until the one behind it is done
        finished.append(number)
        gates[number - 1].set()
        return 10 * number

    with Stages() as stages:
        found = list(in_order(stages, call, range(8), workers=workers, at_once=6))
    assert found == [(number, 10 * number) for number in range(8)]
    assert (finished == list(range(8))) == (workers == 1)


def test_an_error_comes_after_all_that_was_made_before_it():
    def items():
        yield from range(3)
        raise ValueError("the fourth")

    found = []
    with Stages() as stages, pytest.raises(ValueError, match="the fourth"):
        for item, _ in in_order(stages, abs, stages.ahead(items(), depth=2)):
            found.append(item)
    assert found == [0, 1, 2]
    found.clear()
    with Stages() as stages, pytest.raises(ZeroDivisionError):
        for item, _ in in_order(stages, lambda n: 1 // (2 - n), range(9)):
            found.append(item)
    assert found == [0, 1]


def test_no_more_items_are_taken_than_may_be_under_way():
    taken = []

    def items():
        for number in count():
            taken.append(number)
            yield number

    with Stages() as stages:
        found = in_order(stages, abs, items(), workers=2, at_once=4)
        assert [next(found)[0] for _ in range(3)] == [0, 1, 2]
    assert 4 <= len(taken) <= 3 + 4


def test_each_worker_is_prepared_in_its_own_thread():
    prepared, called = set(), set()

    def prepare():
        prepared.add(threading.get_ident())

    def call(_):
        called.add(threading.get_ident())

    with Stages() as stages:
        list(in_order(stages, call, range(20), prepare=prepare))
    assert called <= prepared and threading.get_ident() not in prepared


def test_when_the_block_ends_no_thread_goes_on():
    before = threading.active_count()
    done = []
    with pytest.raises(KeyboardInterrupt), Stages() as stages:
        results = stages.ahead(in_order(stages, done.append, stages.ahead(count(), depth=2)), depth=1)
        next(results)
        raise KeyboardInterrupt
    assert threading.active_count() == before
    assert len(done) < 50
