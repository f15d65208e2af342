"""Gates 9 and 10 of one device: what it has, what it can do, and where it puts what it fetches."""

import errno
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Protocol

from modelward.device import Device
from modelward.errors import Gate, NotNow, Refused, Unavailable
from modelward.formats import window
from modelward.formats.installed import Installed
from modelward.formats.release import Release
from modelward.formats.seal import Look
from modelward.transfer.carry_out import Carried, Carrier, Planner, Share
from modelward.transfer.fetch import SMALL
from modelward.transfer.patch import METHODS
from modelward.transfer.plan import Limits
from modelward.transfer.sources import Sources


class Watch(Protocol):
    """Is told what happens; see `modelward.update.Watch`."""

    @property
    def passed(self) -> Callable[[Gate, str], None]:
        """Notes that a gate was passed, or what happened at it."""
        ...

    @property
    def fetching(self) -> Callable[[int, int, str], None]:
        """Notes how many bytes of how many have arrived, and from where the last ones."""
        ...


def plan(
    device: Device,
    chosen: Sequence[Release],
    installed: Installed,
    sources: Sources,
    watch: Watch,
) -> Planner:
    """Gate 9: plan, and make room: what nobody wants any more of earlier tries goes.

    Args:
        device: The device.
        chosen: The releases to install.
        installed: What is installed.
        sources: Where chunk indexes come from, if they are not here.
        watch: Is told the plan.

    Raises:
        Unavailable: The files would not fit.
    """
    store = device.store
    wanted = {file.blob.sha256 for release in chosen for file in release.files}
    wanted |= {patch.blob.sha256 for release in chosen for patch in release.patches}
    indexes = {file.chunks for release in chosen for file in release.files}
    wanted |= {index.sha256 for index in indexes if index}
    if chosen:
        # What earlier tries brought of other releases goes, or tries that fail would fill the disk.
        device.trials.collect(wanted)
    # What an earlier try began to fetch of these needs no more room.
    begun = store.keep_partials(wanted)
    limits = Limits(store.free() + begun, device.config.transfer.memory, METHODS)
    planner = Planner(chosen, _releases(device, installed), store, sources, limits)
    if chosen:
        watch.passed(Gate.PLAN, planner.plan.describe())
    return planner


def carry_out(
    device: Device, planner: Planner, sources: Sources, watch: Watch, share: Share
) -> tuple[Carried, dict[str, Look]]:
    """Gate 10: come by all files.

    Args:
        device: The device.
        planner: The plan.
        sources: Where bytes come from.
        watch: Is told what happens.
        share: Brings a file together with neighbours, where that costs less.

    Returns:
        How they were come by; and how each looked, by digest, when it had been verified.

    Raises:
        Refused: Something else was delivered.
        Unavailable: A file could not be had, or there is no room for it any more.
    """
    began = sources.clock()

    def progress(done: int, total: int) -> None:
        watch.fetching(done, total, sources.latest)
        _check_window(device)
        _check_deadline(device, sources.clock() - began)

    if planner.plan.steps:
        _check_window(device)
        _reserve(device, planner)
    carrier = Carrier(
        sources,
        device.store,
        tell=lambda text: watch.passed(Gate.FETCH, text),
        progress=progress,
        share=share,
        connections=device.config.transfer.connections,
    )
    proven = {blob.sha256: device.store.look(blob.sha256) for blob in carrier.carry_out(planner)}
    return carrier.carried, proven


def _reserve(device: Device, planner: Planner) -> None:
    """Reserve room for all large files before the first byte of any is fetched."""
    large = [step.blob for step in planner.plan.steps if step.blob.length > SMALL]
    try:
        device.store.reserve(large)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise Unavailable(
            f"no room for {sum(blob.length for blob in large)} bytes: {error.strerror}",
            "make room in the state directory's file system",
            Gate.PLAN,
        ) from error


def _check_deadline(device: Device, seconds: float) -> None:
    """Stop what drips for hours, or nobody would look for anything newer (attack rows 4 and 8)."""
    deadline = device.config.transfer.deadline
    if seconds > deadline:
        raise Unavailable(
            f"fetching took longer than {timedelta(seconds=deadline)}",
            "try again: what arrived is kept; or raise `deadline` in [transfer] of modelward.toml",
            Gate.FETCH,
        )


def _check_window(device: Device) -> None:
    """Stop where bytes cost too much at this time of day; what arrived is kept."""
    windows = device.config.transfer.windows
    now = device.clock().astimezone()
    if windows and not window.inside(windows, now):
        raise NotNow(
            f"it is {now:%H:%M}, and large files are fetched at {', '.join(windows)} only",
            "wait, or set `windows` in [transfer] of modelward.toml",
            Gate.FETCH,
            math.ceil(window.opens_in(windows, now)),
        )


def _releases(device: Device, installed: Installed) -> Iterator[Release]:
    """Yield the releases that are installed, but for those whose documents are damaged."""
    for slots in (installed.active, installed.previous):
        for model, slot in slots.items():
            with suppress(Refused):
                yield device.slots.release(model, slot)[0]
