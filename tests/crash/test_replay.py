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

import pytest

from tests.crash.disk import Image, Recorder, Recording, write
from tests.crash.scenarios import SCENARIOS, Scenario, check, floor_of
from tests.install.site import Site

SAMPLE = 3  # of the images, whose recovery is cut, too


@pytest.mark.parametrize("name", SCENARIOS)
def test_cut_at_every_operation(place, name):
    scenario = SCENARIOS[name]
    recording, floor = recorded(place, scenario)
    images = list(recording.cuts())
    for length, image in images:
        with mounted(place, image) as after:
            check(after, scenario, ended=length == len(recording.ops), floor=floor)
    assert len(images) > len(recording.ops) / 2
    for _, image in random.Random(name).sample(images, min(SAMPLE, len(images))):
        cut_during_recovery(place, scenario, image, floor, most=12)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", SCENARIOS)
def test_cut_at_every_operation_of_every_recovery(place, name):
    recording, floor = recorded(place, SCENARIOS[name])
    for _, image in recording.cuts():
        cut_during_recovery(place, SCENARIOS[name], image, floor)


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
