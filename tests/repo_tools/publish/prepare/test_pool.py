"""Jobs in processes: what fails in one is said as it is, and ends the others."""

import multiprocessing
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from modelward.errors import ModelwardError, Refused
from modelward.formats.release import Blob
from modelward_repo.publish.cache import Cache
from modelward_repo.publish.prepare import pool
from modelward_repo.publish.prepare.jobs import Job, Kind, Source

FOR_EVER = 1 << 40  # bytes to read, of which there are none: it takes an hour


class Quiet:
    def __init__(self) -> None:
        self.ended: list[str] = []

    def begins(self, jobs: Sequence[Job], found: int) -> None:
        pass

    def advances(self, job: Job, count: int) -> None:
        pass

    def ends(self, job: Job) -> None:
        self.ended.append(job.label)

    def finishes(self) -> None:
        pass


def job(path: Path, length: int, label: str) -> Job:
    if not path.exists() and label != "missing":
        with path.open("wb") as file:
            file.truncate(length)
    return Job(Kind.CHUNKS, Source(path, Blob(label[0].encode().hex() * 32, length)), label=label)


@pytest.mark.parametrize(
    ("label", "error", "message"),
    [("changed", Refused, "changed"), ("missing", FileNotFoundError, "No such file")],
)
def test_what_fails_ends_all(
    tmp_path: Path, label: str, error: type[Exception], message: str
) -> None:
    bad = job(tmp_path / label, 8 << 20, label)
    endless = [job(tmp_path / "long", FOR_EVER, name) for name in ("1st", "2nd")]
    watch = Quiet()
    with pytest.raises(error, match=message) as caught:
        pool.do([*endless, bad], Cache(tmp_path / "cache"), watch, 3)
    if isinstance(caught.value, Refused):
        assert caught.value.gate is not None
    assert not watch.ended
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("place", [0, 1])
def test_a_process_that_is_killed_is_said(tmp_path: Path, place: int) -> None:
    """As the kernel does where memory runs out; the one that was started last, too."""

    def kill() -> None:
        while len(processes := multiprocessing.active_children()) < 2:
            time.sleep(0.01)
        sorted(processes, key=lambda process: process.pid or 0)[place].kill()

    endless = [job(tmp_path / "long", FOR_EVER, name) for name in ("1st", "2nd")]
    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(ModelwardError, match="was killed") as caught:
        pool.do(endless, Cache(tmp_path / "cache"), Quiet(), 2)
    killer.join()
    assert "--jobs 1" in caught.value.advice
    assert not multiprocessing.active_children()
