"""Alarms about what is installed: raised about what a scan found changed, ended once whole."""

import os

from modelward import scan
from modelward.device import Device
from modelward.formats.tampering import Tampering
from modelward.scan import Scanned


def raise_about(device: Device, scanned: Scanned) -> None:
    """Raise the alarm about every slot that is not as it was approved; see `AlarmStore.keep`.

    Not as a user who may not write here: to them, what they may not read looks damaged, too.
    """
    if not os.access(device.config.state, os.W_OK, effective_ids=True):
        return
    installed = device.slots.installed()
    for model, slot in scanned.slots:
        problems = [
            f"{found.path}: {found.problem}"
            for found in scanned.damage
            if (found.model, found.slot) == (model, slot)
        ]
        if problems:
            kept = (installed.active.get(model), installed.previous.get(model))
            served = next((each for each in kept if each and scanned.is_intact(model, each)), None)
            version = served.version if served else None
            now = device.clock().replace(microsecond=0)
            device.alarms.keep(
                Tampering(model, slot.version, slot.sha256, problems[0], now, version)
            )


def end(device: Device, scanned: Scanned) -> None:
    """End the alarms about what a scan found intact, and about what is not kept any more."""
    for model, slot in scanned.slots:
        if scanned.is_intact(model, slot):
            device.alarms.clear(model, slot.sha256)
    kept = scan.kept_slots(device, device.slots.installed())
    known = {(model, slot.sha256) for model, slot in kept}
    for alarm in device.alarms.pending():
        if (alarm.model, alarm.release) not in known:
            device.alarms.clear(alarm.model, alarm.release)
