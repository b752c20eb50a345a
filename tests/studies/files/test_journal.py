"""A journal takes lines from several processes and loses none but the one that was being written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kramers_grok.studies.files.journal import Journal


def test_events_come_back_in_order(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert list(journal.read()) == []
    assert journal.append("finished", cell="a-0", n_escaped=np.int64(3), seconds=np.float64(0.5), host="λ\n")
    assert journal.append("diverged", cell="a-1", ratio=float("nan"), steps=[1, (2.0, float("inf"))], where=tmp_path)
    first, second = journal.read()
    assert first.pop("time").endswith("+00:00")
    assert first == {"event": "finished", "cell": "a-0", "n_escaped": 3, "seconds": 0.5, "host": "λ\n"}
    assert second["ratio"] is None
    assert second["steps"] == [1, [2.0, None]]
    assert second["where"] == str(tmp_path)
    assert len(journal.path.read_text().splitlines()) == 2


def test_half_a_surrogate_pair_is_text_like_any_other(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    assert journal.append("failed", why="\udcff")
    assert [event["why"] for event in journal.read()] == ["\udcff"]


@pytest.mark.parametrize("keep", range(0, 60, 7))
def test_a_line_cut_short_costs_no_other(tmp_path: Path, keep: int) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    journal.append("finished", cell="a-0")
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + whole[:keep])
    assert [event["cell"] for event in journal.read()] == ["a-0"]
    journal.append("finished", cell="a-1")
    assert [event["cell"] for event in journal.read()] == ["a-0", "a-1"]


def test_lines_of_others_are_left_out(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    lines = [b"\xff\xfe", b"[]", b"3", b'{"cell": "a"}', b'{"event": 1}', b"[" * 100_000, b"", json.dumps("x").encode()]
    journal.path.write_bytes(b"\n".join(lines) + b"\n")
    journal.append("finished")
    assert [event["event"] for event in journal.read()] == ["finished"]


def test_a_journal_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    assert not Journal(tmp_path / "absent" / "journal.jsonl").append("finished")
    assert not Journal(tmp_path).append("finished")
    assert list(Journal(tmp_path).read()) == []
    if Path("/dev/full").exists():
        assert not Journal("/dev/full").append("finished")
