import os
import signal
import sys
import time

import pytest

from terralean.train import launch
from terralean.train.launch import start, status


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([0, 0], 0),
        ([0, 2], 2),
        ([1, 2], 1),  # a mistake is what processes end with whose partner is gone
        ([2, -9, 1], 137),
        ([0, 130], 130),
        ([-15, 2], 143),
    ],
)
def test_the_status_is_that_which_says_most(codes, expected):
    assert status(codes) == expected


def test_a_process_sees_what_torchrun_would_tell_it(monkeypatch, tmp_path):
    """Each of three says its rank, that of its machine, and how many there are; and speaks to the others' store."""
    code = (
        "import os, pathlib, torch.distributed as dist\n"
        "e = os.environ\n"
        "store, rank, count = next(dist.rendezvous('env://'))\n"
        "store.set(str(rank), 'here')\n"
        "store.wait([str(n) for n in range(count)])\n"
        "told = [e[name] for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'LOCAL_WORLD_SIZE')]\n"
        f"pathlib.Path({str(tmp_path)!r}, str(rank)).write_text(' '.join(told))\n"
    )
    monkeypatch.setattr(launch, "COMMAND", (sys.executable, "-c", code))
    assert start(3, []) == 0
    assert [(tmp_path / rank).read_text() for rank in "012"] == ["0 0 3 3", "1 1 3 3", "2 2 3 3"]


def test_where_one_fails_all_end(monkeypatch, tmp_path):
    code = (
        "import os, pathlib, sys, time\n"
        "rank = os.environ['RANK']\n"
        f"pathlib.Path({str(tmp_path)!r}, rank).write_text(str(os.getpid()))\n"
        f"while len(os.listdir({str(tmp_path)!r})) < 2: time.sleep(0.01)\n"
        "if rank == '1': os._exit(7)\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setattr(launch, "COMMAND", (sys.executable, "-c", code))
    monkeypatch.setattr(launch, "BROKEN_OFF_S", 0.2)
    began = time.monotonic()
    assert start(2, []) == 7
    assert time.monotonic() - began < 60
    for rank in "01":
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / rank).read_text()), 0)


def test_a_signal_to_end_ends_them_first(monkeypatch, tmp_path):
    code = (
        "import os, pathlib, signal, time\n"
        f"pathlib.Path({str(tmp_path)!r}, os.environ['RANK']).write_text(str(os.getpid()))\n"
        f"if os.environ['RANK'] == '0':\n"
        f"    while len(os.listdir({str(tmp_path)!r})) < 2: time.sleep(0.01)\n"
        "    os.kill(os.getppid(), signal.SIGTERM)\n"
        "time.sleep(600)\n"
    )
    monkeypatch.setattr(launch, "COMMAND", (sys.executable, "-c", code))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        start(2, [])
    assert stop.value.code == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before
    for rank in "01":
        with pytest.raises(ProcessLookupError):
            os.kill(int((tmp_path / rank).read_text()), 0)


def test_what_nohup_ignores_stays_ignored(monkeypatch):
    code = "import os, signal\nif os.environ['RANK'] == '0': os.kill(os.getppid(), signal.SIGHUP)\n"
    monkeypatch.setattr(launch, "COMMAND", (sys.executable, "-c", code))
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert start(2, []) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
