"""A disk that is full, broken or read-only at any call: an error for people, never half a model.

So too one that cannot be read: nothing is taken for absent, and nothing forgotten.
"""

import contextlib
import errno
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from modelward.errors import ModelwardError
from modelward.install import syscalls
from modelward.install.opened import Folder
from tests.crash.disk import CALLS
from tests.crash.scenarios import SCENARIOS, check, floor_of
from tests.install.site import Site

NEED_ROOM = ("create", "write", "make_directory", "symlink", "link", "rename", "sync")
FAULTS = {
    "disk full": (errno.ENOSPC, NEED_ROOM, True),
    "one error": (errno.EIO, CALLS, False),
    "read-only from there": (errno.EROFS, CALLS, True),
}
READS = ((Path, "read_bytes"), (Folder, "read"))  # of all small files
NOT_READ = {"one error": (errno.EIO, False), "no descriptors left": (errno.EMFILE, True)}


@contextlib.contextmanager
def failing(
    at: int, number: int, calls: tuple[tuple[object, str], ...], lasting: bool
) -> Iterator[list[str]]:
    """Let a call fail, counted from 0, and all that follow if it lasts; yield those that failed."""
    count = itertools.count()
    failed: list[str] = []

    def wrapped(name, real):
        def call(*arguments):
            turn = next(count)
            if turn == at or (lasting and turn > at):
                failed.append(name)
                raise OSError(number, os.strerror(number))
            return real(*arguments)

        return call

    with contextlib.ExitStack() as stack:
        for place, name in calls:
            real = getattr(place, name)
            stack.enter_context(mock.patch.object(place, name, wrapped(name, real)))
        yield failed


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", ["install", "trial fails", "rollback", "collect"])
def test_fault_at_every_call(place, name, fault):
    scenario = SCENARIOS[name]
    scenario.prepare(Site(place / "template"))
    floor = floor_of(place / "template")
    stride = 1 if name != "install" else 3  # its parts repeat: one file is like another
    for at in itertools.count(0, stride):
        state = place / "state"
        shutil.copytree(place / "template", state, symlinks=True)
        site = Site(state)
        number, names, lasting = FAULTS[fault]
        calls = tuple((syscalls, each) for each in names)
        with failing(at, number, calls, lasting) as failed, contextlib.suppress(OSError):
            scenario.act(site)
        check(Site(state), scenario, ended=not failed, floor=floor)
        shutil.rmtree(state)
        if not failed:
            break
    assert at > (2 if name == "collect" else 5)  # it makes three calls that need room


@pytest.mark.parametrize("fault", NOT_READ)
@pytest.mark.parametrize("name", ["install", "supersede a trial", "confirm a trial", "rollback"])
def test_fault_at_every_read(place, name, fault):
    scenario = SCENARIOS[name]
    scenario.prepare(Site(place / "template"))
    floor = floor_of(place / "template")
    number, lasting = NOT_READ[fault]
    for at in itertools.count():
        state = place / "state"
        shutil.copytree(place / "template", state, symlinks=True)
        site = Site(state)
        errors = contextlib.suppress(OSError, ModelwardError)
        with failing(at, number, READS, lasting) as failed, errors:
            scenario.act(site)
        assert not (state / "journal.damaged").exists()
        check(Site(state), scenario, ended=not failed, floor=floor)
        shutil.rmtree(state)
        if not failed:
            break
    assert at > 5
