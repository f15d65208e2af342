import io
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from modelward.daemon import words
from modelward.daemon.log import Level, Log, is_journal
from modelward.errors import Gate, Refused, Unavailable

NOW = datetime(2026, 11, 26, 12, 0, tzinfo=UTC)


def line(**options: bool) -> str:
    out = io.StringIO()
    Log(out, lambda: NOW, **options)(Level.WARNING, "checked", "it rains", gate="fetch")
    assert out.getvalue().count("\n") == 1
    return out.getvalue()


def test_lines_for_people_programs_and_the_journal() -> None:
    assert line() == "2026-11-26T12:00:00Z WARNING: it rains\n"
    assert line(journal=True) == "<4>it rains\n"
    assert json.loads(line(as_json=True)) == {
        "time": "2026-11-26T12:00:00Z",
        "level": "warning",
        "event": "checked",
        "gate": "fetch",
        "message": "it rains",
    }
    assert re.fullmatch(r"<4>\{.*\}\n", line(as_json=True, journal=True))


def test_unimportant_lines_spare_the_flash() -> None:
    out = io.StringIO()
    Log(out, lambda: NOW)(Level.DEBUG, "checked", "nothing new")
    assert not out.getvalue()


def test_what_a_full_disk_held_back_is_written_once_there_is_room(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as out:
        log = Log(out, lambda: NOW)
        target = os.dup(out.fileno())
        with Path("/dev/full").open("w") as full:
            os.dup2(full.fileno(), out.fileno())
        log(Level.ERROR, "checked", "first")
        os.dup2(target, out.fileno())
        os.close(target)
        log(Level.ERROR, "checked", "second")
        log.close()
    assert (tmp_path / "log").read_text().count("\n") == 2


def test_the_journal_is_known_by_its_inode(tmp_path: Path) -> None:
    with (tmp_path / "journal").open("w") as journal, (tmp_path / "other").open("w") as other:
        status = os.fstat(journal.fileno())
        stream = {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"}
        assert is_journal(journal, stream)
        assert not is_journal(other, stream)
        assert not is_journal(journal, {})
        assert not is_journal(io.StringIO(), stream)


@pytest.mark.parametrize(
    ("result", "level", "part"),
    [
        ({"outcome": "unchanged", "exit_code": 0, "changes": []}, Level.DEBUG, "nothing to do"),
        (Unavailable("no answer", "wait").to_dict(), Level.WARNING, "no answer; what to do: wait"),
        (Refused(Gate.LOG, "split").to_dict(), Level.ERROR, "refused at gate 4 (log): split"),
        (
            {
                "outcome": "updated",
                "exit_code": 0,
                "changes": [{"model": "a", "before": None, "after": "2"}],
            },
            Level.NOTICE,
            "a is now 2 (was nothing)",
        ),
    ],
)
def test_how_a_check_ended(result: dict[str, object], level: Level, part: str) -> None:
    found = words.of_result(result, only_check=False)
    assert found[0] == level
    assert part in found[1]


def test_events_of_a_newer_child_are_passed_over() -> None:
    assert words.of_event({"event": "dance"}) is None
    assert words.of_event({"event": "gate"}) is None
    assert words.of_event({}) is None
