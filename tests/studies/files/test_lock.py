"""One run at a time; who is at work is said; death frees the lock, whoever was forked."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from kramers_grok.core.exceptions import StudyConflictError, StudyLockedError, StudyWriteError
from kramers_grok.studies.files.lock import HOLDER, holder, locked

HOLD = """
    import sys, time
    from pathlib import Path
    from kramers_grok.studies.files.lock import locked

    with locked(Path(sys.argv[1])):
        print("held", flush=True)
        time.sleep(60)
"""


def hold(directory: Path, code: str = HOLD) -> subprocess.Popen[str]:
    """Start a process that holds the lock of a directory."""
    arguments = [sys.executable, "-c", textwrap.dedent(code), str(directory)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline().startswith("held")
    return process


def end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate(timeout=60)


def test_the_second_is_refused_and_told_who_is_first(tmp_path: Path) -> None:
    process = hold(tmp_path)
    try:
        with pytest.raises(StudyLockedError) as caught, locked(tmp_path):
            raise AssertionError("two at once")
        assert f"process {process.pid} on {socket.gethostname()}, since 20" in str(caught.value)
        assert "nothing was written" in str(caught.value)
        assert f"kill -INT {process.pid}" in str(caught.value)
        assert isinstance(caught.value, StudyConflictError)
        known = holder(tmp_path)
        assert known is not None
        assert known.pid == process.pid
    finally:
        end(process)
    assert holder(tmp_path) is None  # killed: it says so still, but holds nothing
    assert (tmp_path / HOLDER).exists()
    with locked(tmp_path):
        known = holder(tmp_path)
        assert known is not None
        assert known.pid == os.getpid()


def test_in_one_process_too(tmp_path: Path) -> None:
    with locked(tmp_path):
        with pytest.raises(StudyLockedError), locked(tmp_path):
            raise AssertionError("two at once")
    with locked(tmp_path):
        pass
    assert holder(tmp_path) is None
    assert not (tmp_path / HOLDER).exists()


def test_an_error_inside_frees_it(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), locked(tmp_path):
        raise ZeroDivisionError
    with locked(tmp_path):
        pass


FORKS = """
    import os, sys, time
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context
    from pathlib import Path
    from kramers_grok.studies.files.lock import locked

    with locked(Path(sys.argv[1])):
        pool = ProcessPoolExecutor(1, mp_context=get_context("fork"))
        pool.submit(os.getpid).result()
        child = os.fork()
        if child == 0:
            os.close(1)
            time.sleep(60)
            os._exit(0)
        print("held", child, pool.submit(os.getpid).result(), flush=True)
        time.sleep(60)
"""


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_children_do_not_keep_the_lock_of_a_killed_run(tmp_path: Path) -> None:
    arguments = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(FORKS), str(tmp_path)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    children = [int(word) for word in process.stdout.readline().split()[1:]]
    try:
        with pytest.raises(StudyLockedError), locked(tmp_path):
            raise AssertionError("two at once")
        process.kill()
        process.wait(timeout=60)
        for child in children:
            os.kill(child, 0)  # they are alive
        with locked(tmp_path):
            pass
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
        process.stdout.close()


def test_a_forked_child_that_leaves_the_block_leaves_the_lock_alone(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork") if hasattr(os, "fork") else None
    if context is None:
        pytest.skip("no fork here")
    block = locked(tmp_path)
    with block:
        child = context.Process(target=_leave, args=(block,))
        child.start()
        child.join(timeout=60)
        assert child.exitcode == 0
        known = holder(tmp_path)
        assert known is not None
        assert known.pid == os.getpid()


def _leave(block: object) -> None:
    block.__exit__(None, None, None)  # type: ignore[attr-defined]


def test_where_no_lock_can_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyWriteError, match="cannot be locked"), locked(tmp_path / "file"):
        raise AssertionError("locked nothing")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"pid": "x"}', "\udcff"])
def test_a_lock_of_unknown_origin(tmp_path: Path, text: str) -> None:
    process = hold(tmp_path)
    try:
        (tmp_path / HOLDER).write_bytes(os.fsencode(text))
        with pytest.raises(StudyLockedError, match="worked on by another run"), locked(tmp_path):
            raise AssertionError("two at once")
        assert holder(tmp_path) is None
    finally:
        end(process)
