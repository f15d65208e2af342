"""Gates 1 and 11 to 13 on disk: stage, try, switch, then commit or go back. docs/install.md.

Every step is journalled before it is done, so that `recover` finishes or undoes whatever a power
cut interrupted. What runs is always exactly one whole generation: the old one or the new one.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from modelward.formats.floors import Floors
from modelward.formats.installed import Installed, Slot
from modelward.formats.journal import Journal, Phase, Pin, Trial
from modelward.install.floors import FloorStore
from modelward.install.journal import JournalStore
from modelward.install.slots import Slots

MAX_STARTS = 3  # of the device during a trial that nobody saw alive at two checks


@dataclass(frozen=True)
class Recovered:
    """What recovery found.

    Attributes:
        notes: What it finished or undid, for people.
        rolled_back: Why it went back to the generation before, if it did.
    """

    notes: tuple[str, ...] = ()
    rolled_back: str | None = None


class Trials:
    """Takes new releases on trial on one device. The caller holds the device's lock.

    Args:
        root: The state directory.
        slots: The installed releases.
        floors: What may only rise.
        boot: Returns what tells one boot of the device from another.
    """

    def __init__(
        self, root: Path, slots: Slots, floors: FloorStore, boot: Callable[[], str]
    ) -> None:
        self._journals = JournalStore(root)
        self._slots = slots
        self._floors = floors
        self._boot = boot

    @property
    def journal(self) -> Journal:
        """What the device is in the midst of, what failed on it, what it was told."""
        return self._journals.load()

    def on_trial(self) -> dict[str, Slot]:
        """Return the releases that run and that nobody has confirmed yet, by model."""
        trial = self.journal.trial
        if trial is None or trial.phase is not Phase.TRIAL:
            return {}
        return self._slots.installed().changed_since(self._slots.generation(trial.good))

    def recover(self, now: datetime) -> Recovered:
        """Finish or undo whatever was interrupted. Doing it twice is doing it once.

        Raises:
            Refused: What is installed cannot be read.
        """
        notes = []
        if self._journals.set_damage_aside():
            notes.append("the journal was damaged and was set aside: what runs goes on running")
        before = self._journals.load()
        installed = self._slots.installed()
        journal = _without_void_pins(before, installed)
        if journal.probing:
            names = ", ".join(f"{model} {slot.version}" for model, slot in journal.probing.items())
            notes.append(f"the device stopped while it tried {names}")
            journal = journal.with_interruption(now)
        journal = self._after_a_cut(journal, installed)
        if journal != before:
            self._journals.save(journal)
        recovered = self._carry_on(journal, now)
        with contextlib.suppress(OSError):  # one copy is enough to go on with
            self._floors.mend()
        self._slots.sweep()
        return replace(recovered, notes=(*notes, *recovered.notes))

    def _after_a_cut(self, journal: Journal, installed: Installed) -> Journal:
        """Return the journal with what the interrupted step meant to do brought to what it did."""
        trial = journal.trial
        if trial is None or trial.phase is Phase.RETURNING:
            return journal
        if installed.number == trial.good:
            return replace(journal, trial=None)  # cut before the switch
        if installed.number != trial.generation:
            # Cut before a switch that was to supersede what is on trial: that goes on.
            trial = replace(trial, phase=Phase.TRIAL, generation=installed.number)
        boot = self._boot()
        if trial.phase is Phase.TRIAL and trial.boot != boot:
            trial = replace(trial, boot=boot, starts=trial.starts + 1, seen=False)
        return replace(journal, trial=trial)

    def _carry_on(self, journal: Journal, now: datetime) -> Recovered:
        """Do what the journal says is to be done."""
        trial = journal.trial
        if trial is None:
            return Recovered()
        if trial.phase is Phase.COMMITTING:
            self._finish_commit(journal, self._floors.load())
            return Recovered(("finished an update that was interrupted",))
        if trial.phase is Phase.RETURNING:
            self._finish_return(journal)
            return Recovered(("finished going back, which was interrupted",))
        if trial.starts > MAX_STARTS:
            reason = f"the device was started {trial.starts} times while it was on trial"
            self.roll_back(reason, now)
            return Recovered(rolled_back=reason)
        return Recovered()

    def begin(self, slots: Mapping[str, Slot]) -> None:
        """Note that staged releases are about to be tried, which a device may not survive."""
        self._journals.save(replace(self.journal, probing=dict(slots)))

    def abandon(self) -> None:
        """Note that they are no longer being tried, and that this says nothing about them."""
        self._journals.save(replace(self.journal, probing={}))

    def fail(self, slots: Mapping[str, Slot], reason: str, now: datetime) -> None:
        """Note that staged releases do not work here, and drop them. What runs was not touched."""
        journal = replace(self.journal, probing={})
        self._journals.save(journal.with_failure(slots, reason, now))
        self._slots.retire(self.kept())

    def switch(self, slots: Mapping[str, Slot], until: datetime, *, confirmed: bool) -> Installed:
        """Make releases the running ones, all at once, on trial.

        What is on trial already and is not replaced stays so, and goes back with these.

        Args:
            slots: The releases.
            until: When the soak is over.
            confirmed: Whether nothing remains to be judged: then only `commit` remains to be done.
        """
        journal = replace(self.journal, probing={})
        installed = self._slots.installed()
        open_trial = journal.trial
        good = self._slots.generation(open_trial.good) if open_trial else installed
        following = replace(
            good.with_releases({**installed.changed_since(good), **slots}),
            number=installed.number + 1,
        )
        trial = Trial(
            phase=Phase.COMMITTING if confirmed else Phase.TRIAL,
            good=good.number,
            generation=following.number,
            until=until.replace(microsecond=0),
            boot=self._boot(),
        )
        self._slots.prepare(following)
        self._journals.save(replace(journal, trial=trial))
        self._slots.switch(following.number)
        return following

    def healthy(self) -> None:
        """Note that what is on trial was found healthy.

        A device that lives to a second check in the same boot has started well.
        """
        journal = self.journal
        trial = journal.trial
        if trial is None or (trial.seen and not trial.starts):
            return
        seen = replace(trial, seen=True, starts=0 if trial.seen else trial.starts)
        self._journals.save(replace(journal, trial=seen))

    def commit(self, floors: Floors | None = None) -> None:
        """Confirm what is on trial: raise the floors, forget what it replaces.

        Args:
            floors: Floors to raise further; default those that are kept.
        """
        journal = self.journal
        if journal.trial and journal.trial.phase is not Phase.COMMITTING:
            journal = replace(journal, trial=replace(journal.trial, phase=Phase.COMMITTING))
            self._journals.save(journal)
        self._finish_commit(journal, floors or self._floors.load())

    def roll_back(self, reason: str, now: datetime, *, pin: bool = False) -> Installed:
        """Go back to the generation before the trial, all models at once.

        What was on trial is remembered not to work here.

        Args:
            reason: Why, for people.
            now: The time.
            pin: Whether what runs then is to stay, as the operator said so.
        """
        journal = self.journal
        trial = journal.trial
        if trial is None:
            return self._slots.installed()
        good = self._slots.generation(trial.good)
        bad = self._slots.installed().changed_since(good)
        pins = {
            model: Pin(good.active[model], good.number, reason)
            for model in bad
            if pin and model in good.active
        }
        journal = replace(
            journal.with_failure(bad, reason, now),
            trial=replace(trial, phase=Phase.RETURNING),
            pins={**journal.pins, **pins},
        )
        try:
            self._journals.save(journal)
        except OSError:
            # A full disk forgets why; that must not keep a bad model running.
            with contextlib.suppress(OSError):
                self._slots.switch(trial.good)
            raise
        return self._finish_return(journal)

    def go_back(self, slots: Mapping[str, Slot], reason: str) -> Installed:
        """Switch to kept releases by the operator's word, and pin them.

        One atomic replacement of the journal and one switch: a cut between them makes the pins
        void, as they hold only from the generation that was never switched to.
        """
        installed = self._slots.installed()
        following = installed.with_releases(slots)
        pins = {model: Pin(slot, following.number, reason) for model, slot in slots.items()}
        self._slots.prepare(following)
        self.pin(pins)
        self._slots.switch(following.number)
        self._slots.retire(self.kept())
        return following

    def pin(self, pins: Mapping[str, Pin]) -> None:
        """Let models stay as they are."""
        journal = self.journal
        self._journals.save(replace(journal, pins={**journal.pins, **pins}))

    def unpin(self, models: Collection[str]) -> None:
        """Let models be updated again."""
        journal = self.journal
        pins = {model: pin for model, pin in journal.pins.items() if model not in models}
        self._journals.save(replace(journal, pins=pins))

    def collect(self, blobs: Iterable[str] = ()) -> None:
        """Remove slots, generations and blobs that neither run nor are to fall back to.

        Args:
            blobs: Digests of blobs to keep, whole or not: of what is about to be installed.
        """
        self._slots.collect(self.kept(), blobs)

    def garbage(self, blobs: Iterable[str] = ()) -> list[Path]:
        """Return what `collect` would remove."""
        return self._slots.garbage(self.kept(), blobs)

    def spare(self) -> set[str]:
        """Return the digests of the blobs, whole or not, that no kept release needs."""
        return {digest for digest, _ in self._slots.spare(self.kept())}

    def kept(self) -> tuple[Installed, ...]:
        """Return the generations whose slots are needed."""
        installed, trial = self._slots.installed(), self.journal.trial
        if trial is None or trial.good in (0, installed.number):
            return (installed,)
        return (installed, self._slots.generation(trial.good))

    def _finish_commit(self, journal: Journal, floors: Floors) -> None:
        installed = self._slots.installed()
        new = (
            installed.changed_since(self._slots.generation(journal.trial.good))
            if journal.trial
            else {}
        )
        raised = floors.with_releases({model: slot.counter for model, slot in new.items()})
        self._floors.save(raised)
        settled = replace(journal.without_failures(new), trial=None)
        if settled != journal:
            self._journals.save(settled)
        self._slots.retire([installed])

    def _finish_return(self, journal: Journal) -> Installed:
        trial = journal.trial
        if trial and self._slots.installed().number != trial.good:
            self._slots.switch(trial.good)
        self._journals.save(replace(journal, trial=None))
        self._slots.retire(self.kept())
        return self._slots.installed()


def _without_void_pins(journal: Journal, installed: Installed) -> Journal:
    pins = {model: pin for model, pin in journal.pins.items() if pin.since <= installed.number}
    return replace(journal, pins=pins)
