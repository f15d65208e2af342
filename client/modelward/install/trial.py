"""Gates 1 and 11 to 13 on disk: stage, try, switch, then commit or go back. docs/install.md.

Every step is journalled before it is done, so that `recover` finishes or undoes whatever a power
cut interrupted. What runs is always exactly one whole generation: the old one or the new one.
"""

import contextlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

from modelward.errors import Refused, Unavailable
from modelward.formats.floors import Floors
from modelward.formats.installed import Installed, Slot
from modelward.formats.journal import Journal, Phase, Pin, Trial
from modelward.install import fsops
from modelward.install import revoked as revocation
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
        uptime: Returns seconds since that boot.
    """

    def __init__(
        self,
        root: Path,
        slots: Slots,
        floors: FloorStore,
        boot: Callable[[], str],
        uptime: Callable[[], int],
    ) -> None:
        self._journals = JournalStore(root)
        self._slots = slots
        self._floors = floors
        self._boot = boot
        self._uptime = uptime

    @property
    def journal(self) -> Journal:
        """What the device is in the midst of, what failed on it, what it was told."""
        return self._journals.load()

    def installed(self) -> Installed:
        """Return what is installed.

        Raises:
            Refused: It cannot be read, or nothing says any more what it is.
        """
        installed = self._slots.installed()
        if not installed.number:
            self._slots.check_none_confirmed(self._floors.load().releases)
        return installed

    def on_trial(self) -> dict[str, Slot]:
        """Return the releases that run and that nobody has confirmed yet, by model."""
        trial = self.journal.trial
        if trial is None or trial.phase is not Phase.TRIAL:
            return {}
        return self._slots.installed().changed_since(self._slots.generation(trial.good))

    def to_go_back_to(self) -> Mapping[str, Slot]:
        """Return what runs by model if a trial fails."""
        return self._installed_and_good(self.journal)[1].active

    def revoked_to_go_back_to(self) -> frozenset[str]:
        """Return the models that would run what is revoked if a trial fails."""
        installed, good = self._installed_and_good(self.journal)
        forsaken = revocation.forsaken(installed, good)
        return frozenset(model for model, slot in good.active.items() if slot.sha256 in forsaken)

    def until(self, now: datetime) -> datetime | None:
        """Return when the soak of what is on trial is over, if the device runs on; None if none is.

        Args:
            now: The time, to which what is left is added.
        """
        trial = self.look()
        return None if trial is None else now + timedelta(seconds=trial.left)

    def look(self) -> Trial | None:
        """Return what is on trial, with how long it has been so by now, or None."""
        trial = self.journal.trial
        return None if trial is None else self._looked_at(trial)

    def _looked_at(self, trial: Trial) -> Trial:
        return trial.looked_at(self._boot(), self._uptime())

    def recover(self, now: datetime) -> Recovered:
        """Finish or undo whatever was interrupted. Doing it twice is doing it once.

        Raises:
            Refused: What is installed cannot be read.
            Unavailable: What this device remembers cannot be read.
        """
        notes = []
        self._journals.go_by(None)
        known = self._journals.intact()
        before = known or Journal()
        installed = self._installed_after(before)
        if known is None:
            self._confirm(installed)
            if self._journals.set_aside():
                notes.append("the journal was damaged and was set aside: what runs is confirmed")
        journal = _without_void_pins(before, installed)
        if journal.probing:
            names = ", ".join(f"{model} {slot.version}" for model, slot in journal.probing.items())
            notes.append(f"the device stopped while it tried {names}")
            journal = journal.with_interruption(now)
        journal = self._after_a_cut(journal, installed)
        if not installed.number:
            self._slots.sweep()  # once the journal is forgotten, these seem to have run
        try:
            if journal != before:
                self._journals.save(journal)
        except OSError as error:
            recovered = self._without_a_note(before, journal, error, now)
        else:
            recovered = self._carry_on(journal, now)
        # One copy is enough to go on with; and to go back needs none.
        with contextlib.suppress(OSError, Unavailable):
            self._floors.mend()
        self._slots.sweep()
        return replace(recovered, notes=(*notes, *recovered.notes))

    def _installed_after(self, journal: Journal) -> Installed:
        """Return what is installed, once a switch that also changed `good` is done.

        Such a switch is finished, not undone: the journal knows one `good`, and it is the new one.
        """
        installed = self.installed()
        trial = journal.trial
        if trial is None or trial.good <= installed.number:
            return installed
        following = self._slots.generation(trial.generation)
        self._slots.switch(following.number)
        return following

    def _confirm(self, installed: Installed) -> None:
        """Raise the floors to what runs: nobody knows any more whether that was on trial."""
        floors = self._floors.load()
        raised = floors.holding({model: slot.counter for model, slot in installed.active.items()})
        if raised != floors:
            self._floors.save(raised)

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
        if trial.phase is Phase.TRIAL and self._is_lost(trial, installed):
            return replace(journal, trial=None)
        if trial.phase is Phase.TRIAL and trial.boot != self._boot():
            trial = replace(self._looked_at(trial), starts=trial.starts + 1, seen=False)
        return replace(journal, trial=trial)

    def _is_lost(self, trial: Trial, installed: Installed) -> bool:
        """Tell whether nothing is on trial any more: what ran was told without it (`restore`)."""
        with contextlib.suppress(Refused):
            return not installed.changed_since(self._slots.generation(trial.good))
        return False

    def _carry_on(self, journal: Journal, now: datetime) -> Recovered:
        """Do what the journal says is to be done."""
        trial = journal.trial
        if trial is None:
            return Recovered()
        if trial.phase is Phase.COMMITTING:
            self._finish_commit(journal, self._floors.load())
            return Recovered(("finished an update that was interrupted",))
        if trial.phase is Phase.RETURNING:
            back, why = self._slots.installed().number == trial.good, self._why(journal, trial)
            closed = self._finish_return(journal)
            # Who went back may not have lived to tell: better twice. On a full disk once is enough.
            reason = None if back and not closed else why
            return Recovered(("finished going back, which was interrupted",), reason)
        if trial.starts > MAX_STARTS:
            reason = f"the device was started {trial.starts} times while it was on trial"
            self.roll_back(reason, now)
            return Recovered(rolled_back=reason)
        return Recovered()

    def _why(self, journal: Journal, trial: Trial) -> str:
        """Return why a trial was ended."""
        bad: Mapping[str, Slot] = {}
        with contextlib.suppress(Refused):
            good = self._slots.generation(trial.good)
            bad = self._slots.generation(trial.generation).changed_since(good)
        return journal.why(bad)

    def _without_a_note(
        self, before: Journal, journal: Journal, error: OSError, now: datetime
    ) -> Recovered:
        """Do what can be done where the journal cannot be written, as on a full disk.

        A start during a trial that cannot be counted ends it: what fills the disk may be what is
        on trial. What nothing needs any more, after a trial that is over, makes room.

        Anything else is found again by the next recovery: it keeps nothing from being judged, or
        taken back.

        Raises:
            OSError: A start cannot be counted and there is nothing to go back to, or it cannot be
                done.
        """
        self._journals.go_by(journal)
        trial, known = journal.trial, before.trial
        if trial is None and known and (known.seen or known.starts):  # else it may never have run
            with contextlib.suppress(OSError):
                self._save(journal)
        if trial is None or known is None or trial.starts == known.starts:
            return self._carry_on(journal, now)
        if not trial.good:
            raise error
        reason = f"its start cannot be noted: {error.strerror}"
        self.roll_back(reason, now)
        return Recovered(rolled_back=reason)

    def _save(self, journal: Journal) -> None:
        """Replace the journal; on a full disk, what nothing needs any more makes room for it."""
        try:
            self._journals.save(journal)
        except OSError:
            self._slots.retire(self.kept())
            self._journals.save(journal)

    def begin(self, slots: Mapping[str, Slot]) -> None:
        """Note that staged releases are about to be tried, which a device may not survive."""
        self._journals.save(replace(self.journal, probing=dict(slots)))

    def abandon(self) -> None:
        """Note that they are no longer being tried, and that this says nothing about them.

        Once a switch to them is journalled, that is what `recover` goes by, and nothing is done.
        """
        journal = self.journal
        if not journal.probing:
            return
        with contextlib.suppress(OSError, Refused):
            self._slots.drop_prepared()  # on a full disk, that may take what the note needs
        self._journals.save(replace(journal, probing={}))

    def fail(self, slots: Mapping[str, Slot], reason: str, now: datetime) -> None:
        """Note that staged releases do not work here, and drop them. What runs was not touched."""
        journal = replace(self.journal, probing={})
        self._save(journal.with_failure(slots, reason, now))
        self._slots.retire(self.kept())

    def switch(
        self,
        slots: Mapping[str, Slot],
        soak: int,
        *,
        confirmed: bool,
        kept: Mapping[str, Slot] | None = None,
        revoked: Collection[str] = (),
    ) -> Installed:
        """Make releases the running ones, all at once.

        What is on trial already and is not replaced stays so, and goes back with the new ones.

        Args:
            slots: New releases, to go on trial.
            soak: Seconds that they remain so.
            confirmed: Whether nothing remains to be judged of them: then only `commit` remains to
                be done, unless others are on trial.
            kept: Releases that ran here before, to go back to, whatever becomes of a trial, from
                such as were revoked, which are not kept.
            revoked: Digests of releases that are revoked. None is kept; a trial goes back to one
                only if nothing else is here.
        """
        journal = replace(self.journal, probing={})
        kept = kept or {}
        installed, good = self._installed_and_good(journal)
        revoked = revocation.forsaken(installed, good).union(revoked)
        back = good.going_back(kept)
        others = _without(installed.changed_since(good), {**kept, **slots})
        on_trial = {**others, **slots}
        if confirmed and not others:
            following = back.with_releases(slots, revoked)
            following = replace(following, number=installed.number + 1)
            trial = self._trial(Phase.COMMITTING, good, following, 0)
            if journal.trial and journal.trial.phase is Phase.TRIAL:
                # Cut before the switch, what was on trial remains so for as long as it was to.
                trial = replace(
                    self._looked_at(journal.trial), phase=trial.phase, generation=trial.generation
                )
        else:
            back = revocation.to_go_back_to(self._slots, back, on_trial, revoked)
            good = self._prepared_good(good, back, installed)
            following = _on_trial(good, installed, on_trial, revoked)
            trial = self._trial(Phase.TRIAL, good, following, soak)
            if others and journal.trial:
                trial = _joined(self._looked_at(journal.trial), trial, alone=not slots)
        self._slots.prepare(following)
        self._journals.save(replace(journal, trial=trial))
        self._slots.switch(following.number)
        return following

    def drop(self, revoked: Collection[str]) -> bool:
        """Keep nothing that is revoked, nor let a trial go back to it, where that can be.

        What runs stays. As after `switch`, `commit` remains to be done unless something is on
        trial.

        Returns:
            Whether there was anything to do.
        """
        installed, good = self._installed_and_good(self.journal)
        on_trial = installed.changed_since(good)
        back = revocation.to_go_back_to(self._slots, good, on_trial, revoked)
        found = revocation.forsaken(installed, good).union(revoked)
        if back.is_as(good) and back.with_releases(on_trial, found).is_as(installed):
            return False
        self.switch({}, 0, confirmed=True, revoked=revoked)
        return True

    def _trial(self, phase: Phase, good: Installed, following: Installed, soak: int) -> Trial:
        numbers = (good.number, following.number)
        return Trial(phase, *numbers, soak, boot=self._boot(), uptime=self._uptime())

    def _installed_and_good(self, journal: Journal) -> tuple[Installed, Installed]:
        """Return what runs, and what is gone back to if a trial fails."""
        installed, trial = self._slots.installed(), journal.trial
        return installed, self._slots.generation(trial.good) if trial else installed

    def _prepared_good(
        self, good: Installed, changed: Installed, installed: Installed
    ) -> Installed:
        """Return the generation to go back to, changed by what is not on trial.

        It is made beside the one that was good: a trial that fails must not undo them.
        """
        changed = replace(changed, number=installed.number + 1)
        if changed.is_as(good):
            self._slots.ready(good.number)
            return good
        self._slots.prepare(changed)
        return changed

    def healthy(self, looked: Trial | None = None) -> None:
        """Note that what is on trial was found healthy, and for how long it has been on trial.

        A device that lives to a second check in the same boot has started well.

        Args:
            looked: What `look` found when it began to be judged; default now.
        """
        journal = self.journal
        trial = journal.trial
        if trial is None:
            return
        starts = 0 if trial.seen else trial.starts
        seen = replace(looked or self._looked_at(trial), seen=True, starts=starts)
        if seen != trial:
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

        Raises:
            OSError: It runs on; or, with `pin`, does not, but will be tried again: nothing could be
                written.
        """
        journal = self.journal
        trial = journal.trial
        if trial is None:
            return self._slots.installed()
        good = self._slots.generation(trial.good)
        bad = self._slots.installed().changed_since(good)
        pins = {model: held for model, held in journal.pins.items() if bad.get(model) != held.slot}
        if pin:
            # What is revoked is not held: no pin would be heeded (`Visit`).
            revoked = revocation.forsaken(self._slots.installed(), good)
            at = {
                model: good.active[model]
                for model in bad
                if model in good.active and good.active[model].sha256 not in revoked
            }
            pins |= {model: Pin(slot, good.number, reason) for model, slot in at.items()}
        journal = replace(
            journal.with_failure(bad, reason, now),
            trial=replace(trial, phase=Phase.RETURNING),
            pins=pins,
        )
        try:
            self._journals.save(journal)
        except OSError:
            # A full disk may forget why; that must not keep a bad model running.
            with contextlib.suppress(OSError):
                self._slots.switch(trial.good)
            if self._slots.installed().number != trial.good:
                raise
            try:
                self._slots.retire([good])  # what did not work makes room, if nobody has it open
                self._journals.save(journal)
            except OSError:
                if pin:
                    raise
                return good
        self._finish_return(journal)
        return good

    def go_back(self, slots: Mapping[str, Slot], reason: str) -> Installed:
        """Switch to kept releases by the operator's word, and pin them.

        One atomic replacement of the journal and one switch: a cut between them makes the pins
        void, as they hold only from the generation that was never switched to. During a trial of
        other models it is finished instead; that trial goes on.
        """
        journal = self.journal
        installed, good = self._installed_and_good(journal)
        trial, since = journal.trial, installed.number + 1
        if trial is None:
            following = installed.with_releases(slots)
        else:
            revoked = revocation.forsaken(installed, good)
            good = self._prepared_good(good, good.with_releases(slots), installed)
            on_trial = _without(installed.changed_since(good), slots)
            following = _on_trial(good, installed, on_trial, revoked)
            trial = replace(trial, good=good.number, generation=following.number)
        pins = {model: Pin(slot, since, reason) for model, slot in slots.items()}
        self._slots.prepare(following)
        self._journals.save(replace(journal, trial=trial, pins={**journal.pins, **pins}))
        self._slots.switch(following.number)
        self._slots.retire(self.kept())
        return following

    def pin(self, models: Collection[str], reason: str) -> dict[str, Slot]:
        """Let models stay as they are; return what they run.

        It outlasts a trial of other models that fails.
        """
        journal = self.journal
        installed, good = self._installed_and_good(journal)
        slots = {model: installed.active[model] for model in models}
        pins = {model: Pin(slot, good.number, reason) for model, slot in slots.items()}
        self._journals.save(replace(journal, pins={**journal.pins, **pins}))
        return slots

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
        settled = replace(journal.without_failures(new), trial=None)

        def note() -> None:
            self._floors.save(raised)
            if settled != journal:
                self._journals.save(settled)

        try:
            note()
        except OSError as error:
            if error.errno not in fsops.FULL:
                raise
            # What nothing falls back to any more makes room. By the note of what ran before it is
            # told what the floors are raised to: that stays.
            noted = [Installed(journal.trial.good)] if journal.trial else []
            self._slots.retire([installed, *noted])
            note()
        self._slots.retire([installed])

    def _finish_return(self, journal: Journal) -> bool:
        """Go back; tell whether that it is done could be noted, too."""
        trial = journal.trial
        if trial and self._slots.installed().number != trial.good:
            self._slots.switch(trial.good)
        if trial and not trial.good:
            self._slots.sweep()  # once the journal is forgotten, these seem to have run
        closed = replace(journal, trial=None)
        try:
            self._save(closed)
        except OSError:
            self._journals.go_by(closed)
            return False
        self._slots.retire(self.kept())
        return True


def _without_void_pins(journal: Journal, installed: Installed) -> Journal:
    pins = {model: pin for model, pin in journal.pins.items() if pin.since <= installed.number}
    return replace(journal, pins=pins)


def _without(slots: Mapping[str, Slot], others: Collection[str]) -> dict[str, Slot]:
    return {model: slot for model, slot in slots.items() if model not in others}


def _on_trial(
    good: Installed, installed: Installed, slots: Mapping[str, Slot], revoked: Collection[str]
) -> Installed:
    """Return the next generation: the good one, but for releases on trial."""
    number = max(good.number, installed.number) + 1
    return replace(good.with_releases(slots, revoked), number=number)


def _joined(before: Trial, trial: Trial, *, alone: bool) -> Trial:
    """Return the trial of what is on trial already and of what joins it, if anything does."""
    if alone:
        return replace(before, good=trial.good, generation=trial.generation)
    return replace(trial, soak=max(before.left, trial.soak))
