import resource

import pytest
import torch

from terralean.cost import memory
from terralean.cost.memory import available_bytes, keep_within_memory, peak_memory, peak_since, restart_peak

CPU = torch.device("cpu")
MIB = 2**20


def held(mib: int) -> int | None:
    return peak_memory(lambda: torch.ones(mib * MIB // 4), device=CPU)


@pytest.fixture(autouse=True)
def linux():
    if held(1) is None:
        pytest.skip("this system does not tell the peak memory of a process")


@pytest.mark.parametrize("mib", [64, 256])
def test_peak_is_what_the_call_held_at_once(mib):
    assert held(mib) / MIB == pytest.approx(mib, rel=0.1, abs=4)


def test_memory_freed_before_does_not_hide_a_peak():
    held(256)
    assert held(64) / MIB == pytest.approx(64, rel=0.1, abs=4)


def test_parts_that_are_freed_within_the_call_count_once():
    def call() -> None:
        for _ in range(5):
            torch.ones(64 * MIB // 4)

    assert peak_memory(call, device=CPU) / MIB == pytest.approx(64, rel=0.1, abs=8)


def test_memory_held_before_does_not_count():
    kept = torch.ones(128 * MIB // 4)
    assert peak_memory(kept.sum, device=CPU) < 8 * MIB


def test_the_peak_of_a_stretch_of_work_forgets_what_was_held_before():
    torch.ones(512 * MIB // 4)
    assert restart_peak(CPU)
    before = peak_since(CPU)
    torch.ones(128 * MIB // 4)
    assert (peak_since(CPU) - before) / MIB == pytest.approx(128, abs=16)


def test_system_that_cannot_say_gives_none(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "RESET", tmp_path / "absent" / "clear_refs")
    assert held(1) is None
    assert not restart_peak(CPU)


@pytest.mark.gpu
def test_peak_on_cuda_is_the_allocators():
    found = peak_memory(lambda: torch.ones(64 * MIB // 4, device="cuda"), device=torch.device("cuda"))
    assert found == 64 * MIB


def test_what_the_system_does_not_have_is_refused_instead_of_granted_and_killed():
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with keep_within_memory():
        left = available_bytes()
        assert len(torch.ones(64 * MIB // 4)) == 16 * MIB
        with pytest.raises(RuntimeError, match="can't allocate memory"):
            torch.empty(left // 4 + 64 * MIB)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_a_limit_that_is_there_is_not_raised():
    _, hard = before = resource.getrlimit(resource.RLIMIT_DATA)
    low = memory._field_bytes(memory.STATUS, "VmData") + 256 * MIB
    resource.setrlimit(resource.RLIMIT_DATA, (low, hard))
    try:
        with keep_within_memory():
            assert resource.getrlimit(resource.RLIMIT_DATA) == (low, hard)
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)


def test_memory_of_a_container_counts(monkeypatch, tmp_path):
    (tmp_path / "max").write_text(f"{300 * MIB}\n")
    (tmp_path / "current").write_text(f"{100 * MIB}\n")
    monkeypatch.setattr(memory, "GROUP_LIMITS", ((tmp_path / "max", tmp_path / "current"),))
    assert available_bytes() == 200 * MIB
    (tmp_path / "max").write_text("max\n")
    assert available_bytes() > 200 * MIB


def test_system_that_cannot_say_how_much_there_is_changes_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "SYSTEM", tmp_path / "absent")
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with keep_within_memory():
        assert resource.getrlimit(resource.RLIMIT_DATA) == before
