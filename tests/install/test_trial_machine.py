"""The state machine of gates 1 and 11 to 13 beside a model of it: whatever happens in any order."""

import contextlib
import os
import shutil
import tempfile
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelward.install import syscalls
from modelward.install.trial import MAX_STARTS
from tests.crash.disk import CALLS
from tests.install.site import MODEL, Site, chain

RELEASES = [chain(f"{number}.0.0", number) for number in range(1, 13)]
SOAK = timedelta(hours=1)
MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


class Cut(BaseException):
    """The power went."""


class Device(RuleBasedStateMachine):
    """A device; what it should be is kept in plain variables beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.place = Path(tempfile.mkdtemp(dir=MEMORY))
        self.fsync = mock.patch.object(os, "fsync", return_value=None)
        self.fsync.start()
        self.site = Site(self.place / "state")
        self.next = 0
        self.good: tuple[str | None, str | None] = (
            None,
            None,
        )  # what runs when nothing is on trial
        self.trial: str | None = None
        self.floor = 0
        self.starts = 0
        self.seen = False
        self.failed: set[str] = set()
        self.pinned: str | None = None

    def teardown(self) -> None:
        self.fsync.stop()
        shutil.rmtree(self.place)

    def _release(self):
        self.next += 1
        return RELEASES[self.next - 1]

    def _confirmed(self, version: str) -> None:
        self.good = (version, self.good[0])
        self.floor = int(version.split(".", maxsplit=1)[0])
        self.trial = None

    can_release = precondition(lambda self: self.next < len(RELEASES))
    on_trial = precondition(lambda self: self.trial is not None)
    at_rest = precondition(lambda self: self.trial is None)

    @can_release
    @at_rest
    @rule()
    def install(self) -> None:
        item = self._release()
        self.site.install(item)
        self._confirmed(item.version)

    @can_release
    @rule()
    def try_out(self) -> None:
        item = self._release()
        self.site.try_out(item, until=self.site.now + SOAK)
        self.trial, self.starts, self.seen = item.version, 0, False

    @can_release
    @rule()
    def probe_fails(self) -> None:
        item = self._release()
        staged = {MODEL: self.site.stage(item)}
        self.site.trials.begin(staged)
        self.site.trials.fail(staged, "no good", self.site.now)
        self.failed.add(item.version)

    @on_trial
    @rule()
    def confirm(self) -> None:
        self.site.trials.commit()
        self._confirmed(self.trial)

    @on_trial
    @rule()
    def fall_ill(self) -> None:
        self.site.trials.roll_back("no good", self.site.now)
        self.failed.add(self.trial)
        self.trial = None

    @on_trial
    @rule()
    def check(self) -> None:
        self.site.trials.healthy()
        self.starts = 0 if self.seen else self.starts
        self.seen = True

    @rule()
    def reboot(self) -> None:
        self.site.boot += "+"
        self.site.trials.recover(self.site.now)
        if self.trial:
            self.starts, self.seen = self.starts + 1, False
            if self.starts > MAX_STARTS:
                self.failed.add(self.trial)
                self.trial = None

    @at_rest
    @precondition(lambda self: self.good[1] is not None)
    @rule()
    def go_back(self) -> None:
        self.site.trials.go_back(self.site.slots.installed().previous, "by hand")
        self.good = (self.good[1], self.good[0])
        self.pinned = self.good[0]

    @rule()
    def unpin(self) -> None:
        self.site.trials.unpin([MODEL])
        self.pinned = None

    @rule(again=st.booleans())
    def recover(self, again: bool) -> None:
        self.site.trials.recover(self.site.now)
        if again:
            before = self.site.tree()
            self.site.trials.recover(self.site.now)
            assert self.site.tree() == before

    @can_release
    @at_rest
    @rule(left=st.integers(0, 120))
    def power_cut(self, left: int) -> None:
        """Cut the power during an installation, at any call; then the device starts again."""
        item = self._release()
        calls = iter(range(left))

        def wrapped(real):
            def call(*arguments):
                if next(calls, None) is None:
                    raise Cut
                return real(*arguments)

            return call

        with pytest.MonkeyPatch.context() as patch:
            for name in CALLS:
                patch.setattr(syscalls, name, wrapped(getattr(syscalls, name)))
            with contextlib.suppress(Cut):
                self.site.install(item)
        self.site.boot += "+"
        self.site.trials.recover(self.site.now)
        if self.site.versions()[0] == item.version:  # new, and then it is confirmed
            self._confirmed(item.version)

    @invariant()
    def is_as_it_should_be(self) -> None:
        runs = (self.trial, self.good[0]) if self.trial else self.good
        assert self.site.versions() == runs
        assert not self.site.problems()
        assert self.site.device.floors.load().releases.get(MODEL, 0) == self.floor
        journal = self.site.trials.journal
        assert (journal.trial is not None) == (self.trial is not None)
        known = {failure.version for failure in journal.failed.values() if failure.times}
        assert known == self.failed
        pin = journal.pins.get(MODEL)
        assert (pin.slot.version if pin else None) == self.pinned


Device.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestDevice = pytest.mark.fuzz(Device.TestCase)
