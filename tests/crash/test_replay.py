"""Cut at every operation, with whatever was not synced lost, out of order or torn. No root needed.

This is a model of a disk, harsher than real ones (tests/crash/disk.py). `make crash` cuts real file
systems at every system call.
"""

import contextlib
import itertools
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from modelward.install import fsops, syscalls
from tests.crash.disk import CALLS, Image, Recorder, Recording, write
from tests.crash.scenarios import SCENARIOS, Scenario, check, floor_of
from tests.install.site import Site

EACH = 1  # image of each prefix
SAMPLE = 3  # of them, whose recovery is cut, too
KILLS = 24  # of an action that is then done again
WITHIN = 12  # cuts of each recovery
RARELY = {"import": 10, "repair": 4}  # of scenarios that take long, one prefix of so many


@pytest.mark.parametrize("name", SCENARIOS)
def test_cut_at_every_operation(place, name):
    """Every prefix, with some of what may be left of each; all of that is in `make crash`."""
    scenario, chance = SCENARIOS[name], random.Random(name)
    recording, floor = recorded(place, scenario)
    cuts = [[*group] for _, group in itertools.groupby(recording.cuts(), lambda cut: cut[0])]
    every = RARELY.get(name, 1)
    chosen = [
        cut for group in cuts[:-1:every] for cut in chance.sample(group, min(EACH, len(group)))
    ]
    for length, image in chosen + cuts[-1]:
        with mounted(place, image) as after:
            check(after, scenario, ended=length == len(recording.ops), floor=floor)
    for _, image in chance.sample(chosen, 1 if every > 1 else min(SAMPLE, len(chosen))):
        cut_during_recovery(place, scenario, image, floor, most=WITHIN // every)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", SCENARIOS)
def test_cut_at_every_operation_and_in_every_recovery(place, name):
    recording, floor = recorded(place, SCENARIOS[name])
    most = WITHIN // RARELY[name] if name in RARELY else None
    for length, image in recording.cuts():
        with mounted(place, image) as after:
            check(after, SCENARIOS[name], ended=length == len(recording.ops), floor=floor)
        cut_during_recovery(place, SCENARIOS[name], image, floor, most=most)


@pytest.mark.parametrize("name", ["first installation", "install", "fetch and install", "import"])
def test_a_kill_before_does_not_make_a_success_less_durable(place, name):
    """Killed, done again, and only then the power goes: what the first try left was not synced."""
    scenario, chance = SCENARIOS[name], random.Random(name)
    operations = range(len(recorded(place, scenario)[0].ops))
    shutil.rmtree(place / "state")
    scenario.prepare(Site(place / "template"))
    for at in chance.sample(operations, KILLS // RARELY.get(name, 1)):
        shutil.copytree(place / "template", place / "state", symlinks=True)
        site = Site(place / "state")
        recorder = Recorder(site.state)
        with recorder.attached() as recording:
            with pytest.raises(KilledError), killed(at), locked(site, name):
                scenario.act(site)
            with locked(site, name):
                site.trials.recover(site.now)
                scenario.act(site)
        shutil.rmtree(place / "state")
        for _, image in recording.cuts(first=len(recording.ops)):
            with mounted(place, image) as after:
                check(after, scenario, ended=True, floor=0)


def locked(site: Site, name: str) -> contextlib.AbstractContextManager[None]:
    """Hold a device's lock, as every command does; a real import does so by itself."""
    return contextlib.nullcontext() if name == "import" else fsops.lock(site.state / "lock")


class KilledError(BaseException):
    """The process is gone."""


@contextlib.contextmanager
def killed(at: int) -> Iterator[None]:
    """Let every call raise that would change the disk, from one on, counted from 0."""
    count = itertools.count()

    def wrapped(real):
        def call(*arguments):
            if next(count) >= at:
                raise KilledError
            return real(*arguments)

        return call

    with contextlib.ExitStack() as stack:
        for name in CALLS:
            real = getattr(syscalls, name)
            stack.enter_context(mock.patch.object(syscalls, name, wrapped(real)))
        yield


def recorded(place: Path, scenario: Scenario) -> tuple[Recording, int]:
    """Let a scenario happen; return what happened, and the floor before it."""
    site = Site(place / "state")
    scenario.prepare(site)
    floor = floor_of(site.state)
    recorder = Recorder(site.state)
    with recorder.attached() as recording:
        scenario.act(site)
    assert site.versions()[0] == scenario.after
    return recording, floor


def cut_during_recovery(
    place: Path, scenario: Scenario, image: Image, floor: int, most: int | None = None
) -> None:
    with mounted(place, image, "first") as site:
        recorder = Recorder(site.state)
        with recorder.attached() as recording:
            site.trials.recover(site.now)
    for _, inner in itertools.islice(recording.cuts(), most):
        with mounted(place, inner) as after:
            check(after, scenario, ended=False, floor=floor)


@contextlib.contextmanager
def mounted(place: Path, image: Image, name: str = "after") -> Iterator[Site]:
    """A device as an image has it."""
    path = place / name
    write(image, path)
    yield Site(path)
    shutil.rmtree(path)
