"""Parts of a batch on several threads: nobody is left out or done twice, and small work stays where it is."""

import threading

import pytest

from kramers_grok.dynamics import threads
from kramers_grok.dynamics.threads import parts_of, side_by_side


@pytest.mark.parametrize("n_threads", [1, 2, 3, 7])
@pytest.mark.parametrize(("block", "least"), [(1024, 1), (8, 8), (16, 16)])
def test_parts_hold_every_replica_once(block: int, least: int, n_threads: int) -> None:
    for replicas in (1, 2, 15, 16, 17, 1000, 1024, 3000, 4097, 100_001):
        parts = parts_of(replicas, n_threads, block, least, work=10**9)
        assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
        assert parts[-1].stop == replicas
        assert all(part.start < part.stop for part in parts)
        assert all((part.stop - part.start) % least == 0 for part in parts[:-1])
        if replicas >= 2 * n_threads * block:
            assert len(parts) >= n_threads


def test_little_work_is_one_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "LEAST_WORK", 1000)
    assert parts_of(500, 2, 16, work=999) == [slice(0, 500)]
    assert len(parts_of(500, 2, 16, work=1000)) > 1


def test_parts_run_beside_each_other() -> None:
    # Each waits for the other: one after the other they would never end.
    meeting, names = threading.Barrier(2, timeout=20), []

    def work(part: slice) -> None:
        meeting.wait()
        names.append(threading.current_thread().name)

    side_by_side(work, [slice(0, 1), slice(1, 2)], 2)
    assert len(set(names)) == 2


def test_an_error_in_a_thread_is_raised() -> None:
    def work(part: slice) -> None:
        raise ValueError(f"part {part.start}")

    with pytest.raises(ValueError, match="part 0"):
        side_by_side(work, [slice(0, 1), slice(1, 2)], 2)
