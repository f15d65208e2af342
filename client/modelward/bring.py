"""Gates 9 and 10 of one device: what it has, what it can do, and where it puts what it fetches."""

import errno
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Protocol

from modelward import activate
from modelward.device import Device
from modelward.errors import Gate, NotNow, Refused, Unavailable
from modelward.formats import window
from modelward.formats.installed import Installed
from modelward.formats.release import Release
from modelward.formats.seal import Look
from modelward.install import space
from modelward.transfer.carry_out import Carried, Carrier, Share
from modelward.transfer.patch import METHODS
from modelward.transfer.plan import Limits
from modelward.transfer.planner import Planner
from modelward.transfer.sources import SMALL, Sources


class Watch(activate.Watch, Protocol):
    """Is told what happens, for people and for machines."""

    def fetching(self, received: int, total: int, source: str) -> None:
        """Note how many bytes of how many have arrived, and from where the last ones; often."""
        ...


def waiting(device: Device, chosen: Sequence[Release], offered: Iterator[Release]) -> set[str]:
    """Return the digests of what is here of releases that are not installed now, but may be yet.

    What an earlier try fetched of them stays: a rollout's window opens again, a network comes back.

    Args:
        device: The device.
        chosen: The releases to install now, which are not asked about.
        offered: All that may be installed; read on only while something is here that none of those
            before wants, as their documents may have to be fetched.
    """
    spare = device.trials.spare()
    unclaimed = spare.difference(*map(_digests, chosen))
    claimed = set()
    try:
        while unclaimed:
            found = unclaimed & _digests(next(offered))
            claimed |= found
            unclaimed -= found
    except StopIteration:  # nobody offers what is left
        return claimed
    except (Refused, Unavailable):  # who knows what it is of: it may be of what could not be read
        return claimed | unclaimed
    return claimed


def plan(  # noqa: PLR0913 - the last two are named
    device: Device,
    chosen: Sequence[Release],
    installed: Installed,
    sources: Sources,
    watch: Watch,
    *,
    kept: Collection[str],
    only_check: bool,
) -> Planner:
    """Gate 9: plan, and make room: what nobody wants any more of earlier tries goes.

    Args:
        device: The device.
        chosen: The releases to install.
        installed: What is installed.
        sources: Where chunk indexes come from, if they are not here.
        watch: Is told the plan.
        kept: Digests of blobs of other releases, to be kept if there is room for both.
        only_check: Whether to remove nothing.

    Raises:
        Unavailable: The files would not fit.
    """
    store = device.store
    wanted: set[str] = set().union(*map(_digests, chosen))

    def tell(text: str) -> None:
        watch.passed(Gate.PLAN, text)

    went_on = _going_on(device, sources)

    def go_on() -> None:
        if not only_check:
            went_on()

    def planner(others: int = 0) -> Planner:
        # What an earlier try began to fetch of these needs no more room.
        room = store.free() + store.begun(wanted) + others
        limits = Limits(room, device.config.transfer.memory, METHODS)
        old = _releases(device, installed)
        return Planner(chosen, old, store, sources, limits, tell, go_on)

    if not chosen:
        return planner()
    if only_check:
        found = planner(space.freed(device.trials.garbage(wanted)))
    else:
        # What earlier tries brought of other releases goes, or tries that fail would fill the disk.
        device.trials.collect(wanted.union(kept))
        try:
            found = planner()
        except Unavailable:
            if not kept:
                raise
            device.trials.collect(wanted)  # what waits makes room for what is due
            found = planner()
    watch.passed(Gate.PLAN, found.plan.describe())
    return found


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
        How they were come by; and how each looked, by digest, when it had been verified, of those
        of which every write since shows.

    Raises:
        Refused: Something else was delivered.
        Unavailable: A file could not be had, or there is no room for it any more.
    """
    go_on = _going_on(device, sources)

    def progress(done: int, total: int) -> None:
        watch.fetching(done, total, sources.latest)
        go_on()

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
    found = {blob.sha256: device.store.look(blob.sha256) for blob in carrier.carry_out(planner)}
    return carrier.carried, {digest: look for digest, look in found.items() if look is not None}


def in_time(device: Device, sources: Sources) -> Callable[[], None]:
    """Return what raises as soon as large files, from now on, took longer than they may."""
    began = sources.clock()
    return lambda: _check_deadline(device, sources.clock() - began)


def _going_on(device: Device, sources: Sources) -> Callable[[], None]:
    """Return what raises as soon as it is not the time for large files, or took too much of it."""
    check_deadline = in_time(device, sources)

    def go_on() -> None:
        _check_window(device)
        check_deadline()

    return go_on


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


def check_window(
    windows: Sequence[str], time: datetime, only: str, gate: Gate, advice: str
) -> None:
    """Stop what is for certain times of day only; what arrived is kept.

    Args:
        windows: Those, local times; empty for always.
        time: The time.
        only: What happens then only, for people.
        gate: The gate that stops it.
        advice: What to do.

    Raises:
        NotNow: It is another time of day.
    """
    now = time.astimezone()
    if windows and not window.inside(windows, now):
        raise NotNow(
            f"it is {now:%H:%M}, and {only} at {', '.join(windows)} only",
            advice,
            gate,
            math.ceil(window.opens_in(windows, now)),
        )


def _check_window(device: Device) -> None:
    """Stop where bytes cost too much at this time of day."""
    check_window(
        device.config.transfer.windows,
        device.clock(),
        "large files are fetched",
        Gate.FETCH,
        "wait, or set `windows` in [transfer] of modelward.toml",
    )


def _digests(release: Release) -> set[str]:
    """Return the digests of all blobs that installing a release may fetch."""
    return {blob.sha256 for pair in release.blobs for blob in pair if blob}


def _releases(device: Device, installed: Installed) -> Iterator[Release]:
    """Yield the releases that are installed, but for those whose documents are damaged."""
    for slots in (installed.active, installed.previous):
        for model, slot in slots.items():
            with suppress(Refused):
                yield device.slots.release(model, slot)[0]
