"""The state machine of gates 1 and 11 to 13 beside a model of it: whatever happens in any order."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from functools import cache
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from modelward.formats.installed import Slot
from modelward.install import syscalls
from modelward.install.trial import MAX_STARTS
from tests.crash.disk import CALLS
from tests.install.site import MODEL, Site, chain

OTHER = "other"
BOTH = {MODEL, OTHER}
MODELS = st.sampled_from(sorted(BOTH))
release = cache(lambda model, number: chain(f"{number}.0.0", number, model=model))
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
        self.next = dict.fromkeys(BOTH, 0)
        # By model, what runs and what is kept when nothing is on trial; what is on trial.
        self.good: dict[str, tuple[str | None, str | None]] = dict.fromkeys(BOTH, (None, None))
        self.trial: dict[str, str] = {}
        self.floors = dict.fromkeys(BOTH, 0)
        self.starts = 0
        self.seen = False
        self.left = timedelta()  # of the soak, as of the last look
        self.since = timedelta()  # that look, in this boot
        self.failed: set[tuple[str, str]] = set()
        self.pinned: dict[str, str] = {}
        self.bare: set[str] = set()  # on trial, with nothing kept that is not revoked

    def teardown(self) -> None:
        self.fsync.stop()
        shutil.rmtree(self.place)

    def _release(self, model: str):
        self.next[model] += 1
        return release(model, self.next[model])

    def _kept(self, model: str) -> dict[str, Slot]:
        """Return what a model would go back to."""
        kept = self.site.slots.installed().previous.get(model)
        return {model: kept} if kept else {}

    def _confirmed(self, model: str, version: str) -> None:
        self.good[model] = (version, None if model in self.bare else self.good[model][0])
        self.floors[model] = int(version.split(".", maxsplit=1)[0])

    def _joins(self, model: str, version: str, soak: timedelta = SOAK) -> None:
        if not self.trial:
            self.left = timedelta()
        self.trial[model] = version
        self.starts, self.seen = 0, False
        self.left = max(self.left - self.since, soak)
        self.since = timedelta()

    def _goes_back(self, model: str, *, revoked: bool) -> None:
        if model in self.trial:
            del self.trial[model]
            self.bare.discard(model)
        else:
            left, kept = self.good[model]
            self.good[model] = (kept, None if revoked else left)

    def _fails(self) -> None:
        self.failed |= set(self.trial.items())
        for model, version in self.trial.items():
            if self.pinned.get(model) == version:
                del self.pinned[model]
        self._ends()

    def _ends(self) -> None:
        self.trial = {}
        self.bare = set()

    on_trial = precondition(lambda self: self.trial)
    at_rest = precondition(lambda self: not self.trial)

    @at_rest
    @rule(model=MODELS)
    def install(self, model: str) -> None:
        item = self._release(model)
        self.site.install(item)
        self._confirmed(model, item.version)

    @rule(model=MODELS)
    def try_out(self, model: str) -> None:
        item = self._release(model)
        self.site.try_out(item, soak=SOAK)
        self._joins(model, item.version)

    @on_trial
    @rule(model=MODELS)
    def install_without_soak(self, model: str) -> None:
        """The settings have changed since the trial began, which goes on."""
        item = self._release(model)
        self.site.trials.switch({model: self.site.stage(item)}, 0, confirmed=True)
        if self.trial.keys() - {model}:
            self._joins(model, item.version, timedelta())
        else:
            self.site.trials.commit()
            self._confirmed(model, item.version)
            self._ends()

    @rule(model=MODELS)
    def revoke(self, model: str) -> None:
        """Go back to what is kept of a model, on trial or not."""
        kept = self._kept(model)
        if not kept:
            return
        self.site.trials.switch({}, 0, confirmed=True, kept=kept)
        self._goes_back(model, revoked=True)
        if not self.trial:
            self.site.trials.commit()

    @rule(model=MODELS)
    def revoke_and_try_out(self, model: str) -> None:
        """Go back to what is kept of a model while a release of the other comes."""
        kept = self._kept(model)
        if not kept:
            return
        (other,) = BOTH - {model}
        item = self._release(other)
        slots = {other: self.site.stage(item)}
        self.site.trials.switch(slots, int(SOAK.total_seconds()), confirmed=False, kept=kept)
        self._goes_back(model, revoked=True)
        self._joins(other, item.version)

    @rule(model=MODELS, soak=st.booleans())
    def replace_what_is_revoked(self, model: str, soak: bool) -> None:
        """Let a release come for a model that is not on trial, when what it runs is revoked."""
        runs, kept = self.good[model]
        if model in self.trial or runs is None:
            return
        item = self._release(model)
        revoked = {self.site.slots.installed().active[model].sha256}
        slots = {model: self.site.stage(item)}
        seconds = int(SOAK.total_seconds()) if soak else 0
        self.site.trials.switch(slots, seconds, confirmed=not soak, revoked=revoked)
        if soak or self.trial:
            if kept:
                self.good[model] = (kept, None)
            else:
                self.bare.add(model)
            self._joins(model, item.version, SOAK if soak else timedelta())
        else:
            self.site.trials.commit()
            self.good[model] = (item.version, kept)
            self.floors[model] = item.counter

    @rule(model=MODELS)
    def drop_what_is_revoked(self, model: str) -> None:
        """Let what would be fallen back to be revoked."""
        kept = self._kept(model)
        done = self.site.trials.drop({slot.sha256 for slot in kept.values()})
        assert done == bool(kept)
        if not kept:
            return
        if model not in self.trial:
            self.good[model] = (self.good[model][0], None)
        elif self.good[model][1]:
            self.good[model] = (self.good[model][1], None)
        else:
            self.bare.add(model)
        if not self.trial:
            self.site.trials.commit()
        assert not self.site.trials.drop({slot.sha256 for slot in kept.values()})

    @rule(model=MODELS)
    def probe_fails(self, model: str) -> None:
        item = self._release(model)
        staged = {model: self.site.stage(item)}
        self.site.trials.begin(staged)
        self.site.trials.fail(staged, "no good", self.site.now)
        self.failed.add((model, item.version))

    @on_trial
    @rule()
    def confirm(self) -> None:
        self.site.trials.commit()
        for model, version in self.trial.items():
            self._confirmed(model, version)
        self._ends()

    @on_trial
    @rule()
    def fall_ill(self) -> None:
        self.site.trials.roll_back("no good", self.site.now)
        self._fails()

    @on_trial
    @rule()
    def check(self) -> None:
        self.site.trials.healthy()
        self.starts = 0 if self.seen else self.starts
        self.seen = True
        self.left, self.since = self.left - self.since, timedelta()

    @rule(minutes=st.integers(0, 90), clock=st.integers(-10_000, 10_000))
    def wait(self, minutes: int, clock: int) -> None:
        """Let time pass, and somebody set the clock."""
        self.since += timedelta(minutes=minutes)
        self.site.uptime += 60 * minutes
        self.site.now += timedelta(minutes=clock)

    @rule()
    def reboot(self) -> None:
        self._start()
        if self.trial:
            self.starts, self.seen = self.starts + 1, False
            if self.starts > MAX_STARTS:
                self._fails()

    def _start(self) -> None:
        self.site.boot += "+"
        self.site.uptime = 60
        self.since = timedelta()
        self.site.trials.recover(self.site.now)

    @rule(model=MODELS)
    def go_back(self, model: str) -> None:
        """Let the operator take back what is not on trial."""
        kept = self._kept(model)
        if model in self.trial or not kept:
            return
        self.site.trials.go_back(kept, "by hand")
        self._goes_back(model, revoked=False)
        self.pinned[model] = self.good[model][0]

    @rule(model=MODELS)
    def pin(self, model: str) -> None:
        if model not in self.site.slots.installed().active:
            return
        self.site.trials.pin([model], "by hand")
        self.pinned[model] = self.trial.get(model) or self.good[model][0]

    @rule(model=MODELS)
    def unpin(self, model: str) -> None:
        self.site.trials.unpin([model])
        self.pinned.pop(model, None)

    @rule(again=st.booleans())
    def recover(self, again: bool) -> None:
        self.site.trials.recover(self.site.now)
        if again:
            before = self.site.tree()
            self.site.trials.recover(self.site.now)
            assert self.site.tree() == before

    @at_rest
    @rule(model=MODELS, left=st.integers(0, 120))
    def power_cut(self, model: str, left: int) -> None:
        """Cut the power during an installation, at any call; then the device starts again."""
        item = self._release(model)
        self._cut(left, lambda: self.site.install(item))
        if self.site.versions(model)[0] == item.version:  # new, and then it is confirmed
            self._confirmed(model, item.version)

    @on_trial
    @rule(model=MODELS, left=st.integers(0, 60), by_hand=st.booleans())
    def power_cut_while_going_back(self, model: str, left: int, by_hand: bool) -> None:
        """Cut the power while another model than that on trial goes back: it has, or has not."""
        kept = self._kept(model)
        if model in self.trial or not kept:
            return
        if by_hand:
            self._cut(left, lambda: self.site.trials.go_back(kept, "by hand"))
        else:
            self._cut(
                left,
                lambda: self.site.trials.switch({}, 0, confirmed=True, kept=kept),
            )
        if self.site.versions(model)[0] == kept[model].version:
            self._goes_back(model, revoked=not by_hand)
            if by_hand:
                self.pinned[model] = kept[model].version
        self.starts, self.seen = self.starts + 1, False
        if self.starts > MAX_STARTS:
            self._fails()

    def _cut(self, left: int, act: Callable[[], object]) -> None:
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
                act()
        self._start()

    @invariant()
    def is_as_it_should_be(self) -> None:
        floors = self.site.device.floors.load().releases
        journal = self.site.trials.journal
        for model, good in self.good.items():
            trial = self.trial.get(model)
            kept = None if model in self.bare else good[0]
            assert self.site.versions(model) == ((trial, kept) if trial else good)
            assert floors.get(model, 0) == self.floors[model]
        assert not self.site.problems()
        assert (journal.trial is not None) == bool(self.trial)
        on_trial = self.site.trials.on_trial().items()
        assert {model: slot.version for model, slot in on_trial} == self.trial
        if self.trial:
            left = max(self.left - self.since, timedelta())
            assert self.site.trials.until(self.site.now) == self.site.now + left
        known = journal.failed.values()
        assert {(item.model, item.version) for item in known if item.times} == self.failed
        assert {model: pin.slot.version for model, pin in journal.pins.items()} == self.pinned


Device.TestCase.settings = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestDevice = pytest.mark.fuzz(Device.TestCase)
