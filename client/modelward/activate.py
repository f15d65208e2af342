"""Gates 1 and 11 to 13 of an update: try staged releases, switch to them, judge them, confirm them.

What is decided here is done by `modelward.install.trial`, which journals every step. The diagram
is in docs/install.md.
"""

import contextlib
import math
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Protocol

from modelward import fastpath, intact, restore
from modelward.device import Device
from modelward.errors import Gate, ModelwardError, RolledBack
from modelward.formats import strict
from modelward.formats.installed import Slot
from modelward.formats.journal import Phase
from modelward.install import health
from modelward.trust import clock

Passed = Callable[[Gate, str], None]  # is told of every gate that was passed, and what was found


class Watch(Protocol):
    """Is told what happens, for people and for machines."""

    def passed(self, gate: Gate, detail: str) -> None:
        """Note that a gate was passed."""
        ...

    def hashing(self, done: int, total: int) -> None:
        """Note how many bytes of how many are hashed; often."""
        ...


def recover(device: Device, watch: Watch, *, judge: bool = True) -> dict[str, Slot]:
    """Gate 1: finish or undo what a power cut interrupted; judge what is on trial.

    Args:
        device: The device, whose lock the caller holds.
        watch: Is told what was found, and what is hashed.
        judge: Whether to try what is on trial, and to confirm it when its soak is over.

    Returns:
        What could not be judged, by model: slots that were changed since they were installed.

    Raises:
        RolledBack: What was on trial does not work here: the generation before it runs again.
        Refused: What is installed cannot be read, and not be told from what else is here.
        Unavailable: The disk has lost what is needed for going on; see `restore.folders`.
    """
    for problem in restore.notes(device, restore.TO_GO_BACK).values():
        watch.passed(Gate.RECOVER, f"{problem}; mended")
    now = clock.trusted(device.clock(), device.floors.load().time)
    recovered = device.trials.recover(now)
    for note in recovered.notes:
        watch.passed(Gate.RECOVER, note)
    if recovered.rolled_back:
        fastpath.forget(device.config.state)
        raise RolledBack(recovered.rolled_back, _ADVICE)
    changed = _judge_trial(device, watch, now) if judge else {}
    for problem in restore.folders(device).values():  # of what that did not need
        watch.passed(Gate.RECOVER, f"{problem}; mended")
    return changed


def activate(  # noqa: PLR0913 - the last is named
    device: Device,
    staged: Mapping[str, Slot],
    kept: Mapping[str, Slot],
    now: datetime,
    passed: Passed,
    *,
    revoked: Collection[str] = (),
) -> None:
    """Gate 12: try staged releases, switch to them, let the operator's command judge them.

    Gate 13 remains to be done: `Trials.commit`, unless they are on trial for longer than this.

    Args:
        device: The device, whose lock the caller holds.
        staged: New releases by model, staged.
        kept: Releases to go back to in the same switch, which ran here before: not on trial.
        now: Trusted time.
        passed: Is told what was found.
        revoked: Digests of releases to fall back to only where nothing else is here.

    Raises:
        RolledBack: A release does not work here. What ran before runs on, or runs again.
    """
    settings = device.config.health
    trials = device.trials
    on_trial = bool(staged) and bool(settings.command or settings.soak)
    soak = math.ceil(settings.soak)
    try:
        trials.begin(staged)
        for model, slot in staged.items():
            passed(Gate.HEALTH, f"{model} {slot.version}: {_probe(device, model, slot)}")
        trials.switch(staged, soak, confirmed=not on_trial, kept=kept, revoked=revoked)
    except RolledBack as error:
        with contextlib.suppress(OSError):  # a full disk forgets why
            trials.fail(staged, error.reason, now)
        raise
    except BaseException:
        with contextlib.suppress(OSError, ModelwardError):  # which must not hide what went wrong
            trials.abandon()
        raise
    if on_trial:
        for model, slot in trials.to_go_back_to().items():
            if model in staged and slot.sha256 in revoked:
                passed(
                    Gate.HEALTH,
                    f"{model} {slot.version} is revoked, but nothing else is kept: should the "
                    "trial fail, it runs again",
                )
        _run_command(device, staged, now, passed)
        if settings.soak:
            trials.healthy()


def may_commit(device: Device, changed: Mapping[str, Slot]) -> bool:
    """Tell whether nothing is on trial whose soak was not over when it was judged last.

    One that ends during this run is judged, and then confirmed, by the next.

    Args:
        device: The device.
        changed: What `recover` could not judge: if it runs still, nothing is confirmed.
    """
    active = device.slots.installed().active
    if any(active.get(model) == slot for model, slot in changed.items()):
        return False
    trial = device.trials.journal.trial
    return trial is None or trial.phase is Phase.COMMITTING or not trial.left


def _judge_trial(device: Device, watch: Watch, now: datetime) -> dict[str, Slot]:
    passed = watch.passed
    on_trial = device.trials.on_trial()
    trial = device.trials.look()
    if not on_trial or trial is None:
        return {}
    if not trial.seen or not trial.left:
        # What was damaged since proves nothing, and must neither meet a parser nor be confirmed.
        # A newer release may still take its place: it may be what cannot be mended.
        changed = intact.changed(device, on_trial, watch.hashing)
        for problem in changed.values():
            passed(Gate.RECOVER, f"{problem}; it stays on trial until mended: {intact.ADVICE}")
        if changed:
            return {model: on_trial[model] for model in changed}
    names = ", ".join(f"{model} {slot.version}" for model, slot in on_trial.items())
    if not trial.seen:  # the device was started since, or the update was cut short
        try:
            for model, slot in on_trial.items():
                # Told of each: one may take for as long as a check may without a sign of progress.
                passed(Gate.HEALTH, f"{model} {slot.version}: {_probe(device, model, slot)}")
        except RolledBack as error:
            _go_back(device, error.reason, now)
            raise
    _run_command(device, on_trial, now, passed)
    device.trials.healthy(trial)
    if not trial.left:
        device.trials.commit()
        passed(Gate.COMMIT, f"{names}: the trial is over")
    else:
        until = strict.rfc3339(now + timedelta(seconds=trial.left))
        passed(Gate.HEALTH, f"{names}: on trial until {until}")
    return {}


def _probe(device: Device, model: str, slot: Slot) -> str:
    release, _ = device.slots.release(model, slot)
    folder = device.slots.directory(model, slot)
    policy = intact.policy_of(device, model, slot)
    return health.probe(release, folder / "files", policy, device.config.health)


def _run_command(device: Device, slots: Mapping[str, Slot], now: datetime, passed: Passed) -> None:
    try:
        for model, slot in slots.items():
            release, _ = device.slots.release(model, slot)
            folder = device.slots.directory(model, slot) / "files"
            found = health.run_command(release, folder, device.config.health, device.environment)
            if found:
                passed(Gate.HEALTH, f"{model} {slot.version}: {found}")
    except RolledBack as error:
        _go_back(device, error.reason, now)
        raise


def _go_back(device: Device, reason: str, now: datetime) -> None:
    fastpath.forget(device.config.state)
    device.trials.roll_back(reason, now)


_ADVICE = "find out why on this device; what ran before runs again"
