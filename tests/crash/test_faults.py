"""A disk that is full, broken or read-only at any call: an error for people, never half a model."""

import contextlib
import errno
import itertools
import os
import shutil
from collections.abc import Iterator
from unittest import mock

import pytest

from modelward.install import syscalls
from tests.crash.disk import CALLS
from tests.crash.scenarios import SCENARIOS, check, floor_of
from tests.install.site import Site

NEED_ROOM = ("create", "write", "make_directory", "symlink", "link", "rename", "sync")
FAULTS = {
    "disk full": (errno.ENOSPC, NEED_ROOM, True),
    "one error": (errno.EIO, CALLS, False),
    "read-only from there": (errno.EROFS, CALLS, True),
}


@contextlib.contextmanager
def failing(at: int, number: int, calls: tuple[str, ...], lasting: bool) -> Iterator[list[str]]:
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
        for name in calls:
            real = getattr(syscalls, name)
            stack.enter_context(mock.patch.object(syscalls, name, wrapped(name, real)))
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
        with failing(at, *FAULTS[fault]) as failed, contextlib.suppress(OSError):
            scenario.act(site)
        check(Site(state), scenario, ended=not failed, floor=floor)
        shutil.rmtree(state)
        if not failed:
            break
    assert at > (2 if name == "collect" else 5)  # it makes three calls that need room
