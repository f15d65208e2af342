"""What a device is in the middle of when the power goes, for every layer of crash tests.

A scenario prepares a device, acts on it, and says which versions may run after a cut anywhere: the
one before or the one after, and only that after once the action has ended.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from modelward.formats.installed import Slot
from modelward.formats.release import Release
from tests.crash import sticks
from tests.install.site import MODEL, Site, chain, documents

OTHER = "other"
ONE, TWO, THREE, FOUR, FIVE = (chain(f"{number}.0.0", number) for number in range(1, 6))
ELSE, ELSE_TWO = (chain(f"{number}.0.0", number, model=OTHER) for number in (7, 8))
TODAY = {name: data + b"\n" for name, data in documents(TWO).items()}
HOUR = timedelta(hours=1)


@dataclass(frozen=True)
class Scenario:
    """See the module.

    Attributes:
        prepare: Brings the device to where the action begins.
        act: The action.
        before: The version of the meter reader that ran before it.
        after: The version that runs after it.
        mend: What mends the device if the action mends damage; doing it again must do no harm.
        good: What the next release falls back to if it comes during a trial.
        then: What must be possible once the device has recovered; is told whether the action had
            ended.
    """

    prepare: Callable[[Site], object]
    act: Callable[[Site], object]
    before: str | None
    after: str | None
    mend: Callable[[Site], object] | None = None
    then: Callable[..., object] | None = None
    good: str = "2.0.0"


def two(site: Site) -> None:
    """Let the device run 2.0.0, with 1.0.0 to fall back to."""
    site.install(ONE)
    site.install(TWO)


def trial(site: Site) -> None:
    """Let 3.0.0 be on trial there."""
    two(site)
    site.try_out(THREE, soak=HOUR)


def littered(site: Site) -> None:
    """Leave a release there that nobody needs."""
    two(site)
    site.stage(THREE)


def fail(site: Site) -> None:
    """Find a staged release unfit."""
    staged = {MODEL: site.stage(THREE)}
    site.trials.begin(staged)
    site.trials.fail(staged, "it is no good", site.now)


def went_back(site: Site) -> None:
    """Let the device run 1.0.0 by the operator's word, and keep 2.0.0."""
    two(site)
    site.trials.go_back(site.slots.installed().previous, "by hand")


def come_back(site: Site) -> None:
    """Install 2.0.0 again, whose policy and layout have changed since."""
    site.bring(TWO)
    site.commit({MODEL: site.slots.stage(TWO.release, TWO.release.to_bytes(), TODAY)})


def documents_agree(site: Site, *, ended: bool) -> None:
    """Require that what is kept of 2.0.0 is of one day: a policy proves nothing by another layout.

    Once it runs, it is of today.
    """
    installed = site.slots.installed()
    (slot,) = {slot for _, slot in installed.slots() if slot.version == TWO.version}
    folder = site.slots.directory(MODEL, slot)
    found = {name: (folder / name).read_bytes() for name in TODAY}
    runs = slot == installed.active[MODEL]
    assert found in ([TODAY] if ended or runs else [TODAY, documents(TWO)])


def pin(site: Site) -> None:
    """Pin what runs."""
    site.trials.pin([MODEL], "by hand")


def fetch(site: Site) -> None:
    """Bring blobs as the network does, in pieces, out of order."""
    for file in THREE.release.files:
        content = memoryview(THREE.content[file.path])
        half = len(content) // 2
        with site.store.partial(file.blob) as partial:
            partial.write(half, content[half:])
            partial.sync()
            if half:
                partial.write(0, content[:half])
            partial.finish()
    site.install(THREE)


def two_models(site: Site) -> None:
    """Let 3.0.0 be on trial, and another model have a release to go back to."""
    site.install(ONE, ELSE)
    site.install(TWO, ELSE_TWO)
    site.try_out(THREE, soak=HOUR)


def replace_what_is_revoked(site: Site) -> None:
    """Take 3.0.0 on trial where 2.0.0, which runs, is revoked."""
    revoked = {site.slots.installed().active[MODEL].sha256}
    slots = {MODEL: site.stage(THREE)}
    site.trials.begin(slots)
    site.trials.switch(slots, HOUR.seconds, confirmed=False, revoked=revoked)
    site.trials.collect()


def nothing_revoked_is_kept(site: Site, *, ended: bool) -> None:
    """Require that a trial does not go back to what is revoked."""
    if ended or site.trials.on_trial():
        assert site.versions() == ("3.0.0", "1.0.0")
        assert site.trials.to_go_back_to()[MODEL].version == "1.0.0"


def back(site: Site) -> None:
    """Let that other model go back, as when what it runs is revoked."""
    kept = {ELSE.model: site.slots.installed().previous[ELSE.model]}
    site.trials.switch({}, 0, confirmed=True, kept=kept)


def the_trial_fails(site: Site, *, ended: bool) -> None:
    """Require that the other model runs what it ran, or what it went back to, then and now.

    What it went back from is not kept: it may be revoked.
    """
    runs = site.versions(ELSE.model)
    assert runs in ({("7.0.0", None)} | (set() if ended else {("8.0.0", "7.0.0")}))
    assert site.trials.on_trial().keys() == {MODEL}
    site.trials.roll_back("no good", site.now)
    assert site.versions() == ("2.0.0", "1.0.0")
    assert site.versions(ELSE.model) == runs
    site.try_out(THREE, soak=HOUR)


SCENARIOS = {
    "first installation": Scenario(lambda _: None, lambda site: site.install(ONE), None, "1.0.0"),
    "install": Scenario(two, lambda site: site.install(THREE, ELSE), "2.0.0", "3.0.0"),
    "install on trial": Scenario(
        two, lambda site: site.try_out(THREE, soak=HOUR), "2.0.0", "3.0.0"
    ),
    "supersede a trial": Scenario(
        trial, lambda site: site.try_out(FOUR, soak=HOUR), "3.0.0", "4.0.0"
    ),
    "confirm a trial": Scenario(trial, lambda site: site.trials.commit(), "3.0.0", "3.0.0"),
    "trial fails": Scenario(
        trial, lambda site: site.trials.roll_back("no good", site.now), "3.0.0", "2.0.0"
    ),
    "probe fails": Scenario(two, fail, "2.0.0", "2.0.0"),
    "rollback": Scenario(
        two,
        lambda site: site.trials.go_back(site.slots.installed().previous, "by hand"),
        "2.0.0",
        "1.0.0",
    ),
    "come back": Scenario(went_back, come_back, "1.0.0", "2.0.0", then=documents_agree),
    "pin": Scenario(two, pin, "2.0.0", "2.0.0"),
    "another goes back during a trial": Scenario(
        two_models, back, "3.0.0", "3.0.0", then=the_trial_fails
    ),
    "replace what is revoked": Scenario(
        two,
        replace_what_is_revoked,
        "2.0.0",
        "3.0.0",
        then=nothing_revoked_is_kept,
        good="1.0.0",
    ),
    "collect": Scenario(littered, lambda site: site.trials.collect(), "2.0.0", "2.0.0"),
    "fetch and install": Scenario(two, fetch, "2.0.0", "3.0.0"),
    "import": Scenario(
        sticks.before_import, sticks.bring, sticks.OLD, sticks.NEW, then=sticks.after_import
    ),
    "repair": Scenario(sticks.damaged, sticks.mend, sticks.NEW, sticks.NEW, sticks.mend),
}


def check(site: Site, scenario: Scenario, *, ended: bool, floor: int) -> None:
    """Require, of a device whose power went, everything that must hold.

    Args:
        site: The device, with its power back.
        scenario: What it was in the middle of.
        ended: Whether the action had ended when the power went.
        floor: The floor of the meter reader's counter before the action.
    """
    runs = site.versions()[0]
    assert runs in ({scenario.after} if ended else {scenario.before, scenario.after})
    if ended or scenario.mend is None:
        assert not site.problems()
        assert not half_slots(site)
    assert site.device.floors.load().releases.get(MODEL, 0) >= floor

    site.trials.recover(site.now)
    once = site.tree()
    site.trials.recover(site.now)
    assert site.tree() == once  # twice is once
    if scenario.mend:
        scenario.mend(site)
    if scenario.then:
        scenario.then(site, ended=ended)
    assert site.versions()[0] in {scenario.before, scenario.after}
    assert not site.problems()
    assert not [*site.state.rglob(".tmp-*")]
    on_trial = site.trials.on_trial()
    for model, slot in site.slots.installed().active.items():
        floor_now = site.device.floors.load().releases.get(model, 0)
        # What runs is either on trial, its counter not burned yet, or confirmed, floor and all.
        assert (floor_now < slot.counter) == (model in on_trial), (model, slot, floor_now)

    before = site.versions()[0]
    good = before if not site.trials.on_trial() else scenario.good
    floor = site.device.floors.load().releases.get(MODEL, 0)
    site.install(FIVE)
    assert site.versions() == ("5.0.0", good)
    assert site.device.floors.load().releases[MODEL] == 5 > floor
    assert not site.problems()
    assert not site.leftovers()
    needed = {
        file.blob.sha256
        for model, slot in site.slots.installed().slots()
        for file in site.slots.release(model, slot)[0].files
    }
    assert set(site.store.digests()) == needed  # no orphan grows


def half_slots(site: Site) -> list[Path]:
    """Return slots, whether in use or not, that are not whole: no update must ever take one up."""
    found = []
    for place in site.state.glob("slots/*/[!.]*"):
        data = (place / "release.json").read_bytes()
        release = Release.parse(data)
        slot = Slot(release.version, release.counter, hashlib.sha256(data).hexdigest())
        if slot.name != place.name or [*site.slots.problems(release.model, slot)]:
            found.append(place)
    return found


def floor_of(state: Path) -> int:
    """Return the floor of the meter reader's counter."""
    return Site(state).device.floors.load().releases.get(MODEL, 0)
