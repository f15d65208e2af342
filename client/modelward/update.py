"""An update, as one numbered list of gates. A refusal at any of them leaves everything as it was.

The numbers, names and order are those of docs/gates.md and of every error message.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice
from typing import Any

from modelward import activate, bring, fastpath, intact, ledger, neighbours, report, settings
from modelward.bring import Watch
from modelward.device import Device
from modelward.errors import Gate, ModelwardError, RolledBack
from modelward.examine import Examined, at_gate, look_inside
from modelward.formats import strict
from modelward.formats.floors import Floors, TimeFloor
from modelward.formats.floors_reset import FloorsReset
from modelward.formats.installed import Installed, Slot
from modelward.formats.release import Blob, Release
from modelward.formats.seal import Look
from modelward.install import fsops
from modelward.install.store import Store
from modelward.install.targets import Keeping, TargetStore
from modelward.transfer import sources as addresses
from modelward.transfer.carry_out import Carried, Share
from modelward.transfer.http import Http, Patience
from modelward.transfer.neighbour import PATIENCE as NEAR
from modelward.transfer.sources import Sources
from modelward.trust import clock, rollout
from modelward.trust.repository import Repository
from modelward.trust.rollout import Decision
from modelward.visit import Moves, Offer, Visit

NOTABLE = timedelta(minutes=1)  # the least that a clock must be behind to speak of it
PATIENCE: Patience | None = None  # tests are hasty


@dataclass(frozen=True)
class Change:
    """One model that moves, or would move.

    Attributes:
        model: The model.
        before: The version that ran, or None.
        after: The version that runs now.
    """

    model: str
    before: str | None
    after: str


@dataclass(frozen=True)
class Outcome:
    """What an update did.

    Attributes:
        changes: The models that moved.
        reasons: Per model, why it runs what it runs.
        installed: What is installed now.
        carried: What was fetched, and what that saved.
        to_fetch: Bytes to fetch, if nothing was done but decided.
    """

    changes: tuple[Change, ...]
    reasons: Mapping[str, str]
    installed: Installed
    carried: Carried
    to_fetch: int = 0

    def to_dict(self, *, only_check: bool) -> dict[str, Any]:
        """Return it as a JSON object.

        Args:
            only_check: Whether nothing was done, only decided.
        """
        would = "available" if only_check else "updated"
        return {
            "outcome": would if self.changes else "unchanged",
            "exit_code": 0,
            "changes": [
                {"model": change.model, "before": change.before, "after": change.after}
                for change in self.changes
            ],
            "reasons": dict(self.reasons),
            "fetched": self.carried.fetched,
            "saved": self.carried.saved,
            "how": {how.value: count for how, count in sorted(self.carried.how.items())},
            "to_fetch": self.to_fetch,
            "running": {model: slot.version for model, slot in self.installed.active.items()},
        }


def update(  # noqa: PLR0913 - the last five are named, and seldom given
    device: Device,
    models: Sequence[str],
    watch: Watch,
    *,
    only_check: bool = False,
    keep_waiting: Callable[[str], bool] = fsops.never,
    sources: Sources | None = None,
    retry: bool = False,
    windows: Sequence[str] = (),
) -> Outcome:
    """Bring a device up to date, or find out what that would take.

    Args:
        device: The device.
        models: The models to update; empty for those the device is configured for.
        watch: Is told what happens.
        only_check: Stop after gate 9: decide everything, fetch and install nothing.
        keep_waiting: Whether to wait for another updater; see `fsops.lock`.
        sources: Where everything comes from, and no connection is opened besides; None for what
            the device is configured for.
        retry: Try again what failed on this device, however lately.
        windows: Local times of day in which something may change; empty for always. Those of a
            rollout count besides.

    Raises:
        Refused: A gate said no. Nothing was changed.
        Unavailable: Something could not be had. Nothing was changed.
        RolledBack: A new release does not work here. What ran before runs.
    """
    with (
        _reported(device, only_check=only_check, send=sources is None) as ended,
        fsops.lock(device.config.state / "lock", keep_waiting=keep_waiting),
        sources_of(device, sources) as used,
    ):
        # 1. Recover: finish or undo whatever was interrupted; judge what is on trial.
        changed = activate.recover(device, watch, judge=not only_check)
        installed = device.slots.installed()
        floors = device.floors.load()

        # 2. Clock: this device's own; what witnesses of the log say of it is judged below.
        system = device.clock()

        # 3. Metadata: which repository state is current?
        repository = Repository(
            cache=device.cache,
            metadata_url=addresses.METADATA,
            targets_url=addresses.TARGETS,
            fetcher=Keeping(used, TargetStore(device.config.state)),
            root=device.root,
            floors=floors,
            keep=fsops.write_file,
        )
        repository.refresh()
        floors = floors.lowered_by(_reset_of(repository))
        policy = ledger.policy_of(repository.cache.root())
        passed = clock.holding(floors.time, policy)
        now = _trusted_time(repository, system, passed, watch)
        watch.passed(Gate.METADATA, _metadata_detail(repository, now))

        # 4. Log: was this device shown what everybody is shown?
        logged = ledger.check(repository.cache, policy, device, used, addresses.LOG)
        if logged is not None:
            watch.passed(Gate.LOG, logged.detail)
            before = passed
            passed = clock.raised(before, logged.verified.time, logged.verified.state.log)
            if passed != before:
                now = _trusted_time(repository, system, passed, watch)

        # 5. Channel: which version is meant for this device now?
        offer = Offer.of(repository, device.config.channel)
        decisions = {
            model: rollout.decide(
                offer.channel,
                model,
                running=installed.active[model].version if model in installed.active else None,
                device_id=device.config.device_id,
                labels=device.config.labels,
                now=now.astimezone(),  # maintenance windows are local
            )
            for model in (models or device.config.models or sorted(offer.channel.models))
        }
        visit = Visit(device, installed, device.trials.journal, offer, used, floors, now)
        decisions = {
            model: visit.held_back(model, decision, retry=retry)
            for model, decision in decisions.items()
        }
        for model, decision in decisions.items():
            watch.passed(Gate.CHANNEL, f"{model}: {decision.reason}")
        wanted = {model: item.version for model, item in decisions.items() if item.version}

        # 6. Release, 7. Supply chain, 8. Policy: for every release and the components it pins.
        moves = visit.examine_all(wanted, watch.passed)

        # 9. Plan: what is missing, what is the cheapest way to it, and does it fit?
        chosen = moves.releases
        waiting = set() if only_check else bring.waiting(device, chosen, visit.offered())
        planner = bring.plan(
            device, chosen, installed, used, watch, kept=waiting, only_check=only_check
        )
        changes = tuple(
            Change(
                model, installed.active[model].version if model in installed.active else None, new
            )
            for model, new in moves.versions.items()
        )
        reasons = {model: decision.reason for model, decision in decisions.items()}
        if only_check:
            return Outcome(changes, reasons, installed, Carried(), planner.cost)

        # 10. Fetch: hashed while they arrive or are made; a wrong byte never becomes a file.
        carried, proven = bring.carry_out(
            device, planner, used, watch, _share(device, chosen, used)
        )
        if changes:
            watch.passed(Gate.FETCH, carried.describe())
            _check_window(windows, device.clock())
            moved = [decisions[model] for model in moves.versions if model in decisions]
            for decision in moved:
                _check_window(decision.windows, clock.trusted(device.clock(), passed))
            # 11. Install: stage aside. 12. Health: try it; then one atomic switch of all models.
            installed = _install(visit, moves, proven, watch)
        else:
            installed = _forsake(visit, watch)

        # 13. Commit: raise the floors, then drop what is no longer needed.
        raised = replace(
            repository.new_floors(), time=passed, releases=floors.releases, reset=floors.reset
        )
        if activate.may_commit(device, changed):
            _commit(device, raised, changes, watch)
            _come_to_rest(visit, models, installed, decisions.values())
        else:
            device.floors.save(raised)
            fastpath.forget(device.config.state)
        device.trials.collect(waiting)
        return _noted(Outcome(changes, reasons, installed, carried), used, ended)


@contextmanager
def _reported(device: Device, *, only_check: bool, send: bool) -> Iterator[list[report.Happened]]:
    """Queue a signed report of how this ends, and send it once nothing waits for it any more.

    Of what was only a check, if something went back; however it ends, what waited before is sent.
    """
    ended: list[report.Happened] = []
    if only_check:
        try:
            yield ended
        except RolledBack as error:
            report.went_back(device, error, send=send)
            raise
        except ModelwardError:
            if send:
                report.send_waiting(device)
            raise
        if send:
            report.send_waiting(device)
        return
    try:
        yield ended
    except ModelwardError as error:
        report.tell(device, report.Happened.of_error(error), send=send)
        raise
    for happened in ended:
        report.tell(device, happened, send=send)


def _noted(outcome: Outcome, used: Sources, ended: list[report.Happened]) -> Outcome:
    """Return an outcome, after noting for the report what came of the update."""
    name = "updated" if outcome.changes else "unchanged"
    received = used.received() or {used.sources[0].name: outcome.carried.fetched}
    ended.append(report.Happened(name, decisions=outcome.reasons, received=received))
    return outcome


@contextmanager
def sources_of(device: Device, given: Sources | None) -> Iterator[Sources]:
    """Use the sources that were handed in, else those of the device's configuration."""
    if given is not None:
        yield given
        return
    config = device.config
    neighbours.gossip(device)  # before the repository shows anything: others may have seen more
    # Each server is tried once at a time: going round them again is up to `Sources`.
    patience = PATIENCE or Patience.of(config.transfer)
    with Http.of(config.transfer, patience) as http, Http(NEAR) as local:
        near = neighbours.sources(device, local)
        mirrors = config.transfer.mirrors
        yield addresses.of_addresses(config.repository, mirrors, http, patience, near)


def _trusted_time(
    repository: Repository, system: datetime, floor: TimeFloor | None, watch: Watch
) -> datetime:
    """Gate 2: return the time to go by. If the clock is behind, judge all expiry anew by it."""
    now = clock.trusted(system, floor)
    if now - system > NOTABLE:
        watch.passed(Gate.CLOCK, f"this clock is behind: it is {strict.rfc3339(now)} or later")
    if now > system:
        repository.judge_expiry_by(now)
    return now


def _reset_of(repository: Repository) -> FloorsReset | None:
    """Return the reset of floors that root's threshold has signed, or None."""
    with at_gate(Gate.METADATA):
        return FloorsReset.of_root(repository.cache.root().unrecognized_fields)


def _share(device: Device, chosen: Sequence[Release], sources: Sources) -> Share:
    """Return what brings a file together with neighbours that want it too."""
    indexes = {file.blob: file.chunks for release in chosen for file in release.files}

    def share(blob: Blob, cost: int, progress: Callable[[int], None]) -> bool:
        index = indexes.get(blob)
        return neighbours.gather(device, sources, blob, index, cost=cost, progress=progress)

    return share


def _look_inside(examined: Mapping[str, Examined], store: Store, watch: Watch) -> None:
    for model, item in examined.items():
        held = look_inside(item.release, partial(intact.reader, store, item.release))
        watch.passed(Gate.POLICY, f"{model} {item.release.version}: {held}")


def _come_to_rest(
    visit: Visit, models: Sequence[str], installed: Installed, decisions: Iterable[Decision]
) -> None:
    """Let the next check take the fast path, unless its answer depends on the time.

    It does during a rollout, and where what is offered failed here and is to be tried again. Where
    others have seen more of the log, the repository is asked each time.
    """
    device, repository = visit.device, visit.offer.repository
    config = device.config
    waiting = any(decision.for_now for decision in decisions) or any(
        entry.rollout for entry in visit.offer.channel.models.values()
    )
    if waiting or not config.fingerprint or device.log.heard() is not None:
        fastpath.forget(config.state)
        return
    rest = fastpath.Rest(
        timestamp=repository.cache.digest("timestamp"),
        settings=settings.asked(config.fingerprint, models),
        generation=installed.number,
        since=visit.now,
        expires=min(role.expires for role in repository.cache.roles()),
        repository=config.repository,
        direct=config.repository.startswith("http:") and not config.transfer.proxy,
        running={model: slot.version for model, slot in installed.active.items()},
    )
    with suppress(OSError):  # the next check is a full one, then; and what frees room comes now
        fastpath.remember(config.state, rest)


def _check_window(windows: Sequence[str], time: datetime) -> None:
    """Stop where fetching has outlasted the window that it began in."""
    advice = "wait: what has arrived is kept"
    bring.check_window(windows, time, "this device may change", Gate.INSTALL, advice)


def _install(visit: Visit, moves: Moves, proven: Mapping[str, Look], watch: Watch) -> Installed:
    device = visit.device
    _look_inside(moves.examined, device.store, watch)  # the rest of gate 8, before any parser does
    # Till now nobody had a reason to touch them at all; staging gives them another name.
    untouched = {
        digest: seen for digest, seen in proven.items() if device.store.look(digest) == seen
    }
    staged = {
        model: device.slots.stage(item.release, item.document, item.evidence)
        for model, item in moves.examined.items()
    }
    intact.check_staged(device, staged, moves.kept, untouched, watch.hashing)
    names = (f"{model} {version} is staged" for model, version in moves.versions.items())
    watch.passed(Gate.INSTALL, "; ".join(names))
    revoked = visit.revoked(device.trials.kept())
    activate.activate(device, staged, moves.kept, visit.now, watch.passed, revoked=revoked)
    return device.slots.installed()


def _forsake(visit: Visit, watch: Watch) -> Installed:
    """Keep nothing to fall back to that the channel has revoked since."""
    trials = visit.device.trials
    if trials.drop(visit.revoked(trials.kept())):
        watch.passed(Gate.INSTALL, "what was revoked is not kept to fall back to any more")
    return visit.device.slots.installed()


def _commit(device: Device, raised: Floors, changes: Sequence[Change], watch: Watch) -> None:
    before = device.floors.load()
    installed = device.slots.installed()
    active = installed.active
    lost = {model: slot.counter for model, slot in active.items() if model not in raised.releases}
    device.trials.commit(raised.with_releases(lost))
    after = device.floors.load()
    if after.reset and after.reset != before.reset:
        watch.passed(Gate.COMMIT, f"floors were lowered by root: reset {after.reset.id!r}")
    if after != before:
        watch.passed(Gate.COMMIT, _commit_detail(changes, installed.previous))


def _metadata_detail(repository: Repository, now: datetime) -> str:
    roles = list(islice(repository.cache.roles(), 4))  # the top level; others are not fresh yet
    first = min(roles, key=lambda role: role.expires)
    versions = ", ".join(f"{role.name} {role.version}" for role in roles)
    left = first.expires - now
    return f"{versions}; signatures as root demands; {first.name} expires in {_span(left)}"


def _span(left: object) -> str:
    return str(left).split(".", maxsplit=1)[0]


def _commit_detail(changes: Sequence[Change], kept: Mapping[str, Slot]) -> str:
    moved = []
    for change in changes:
        before = kept.get(change.model)
        text = f"{change.model} {change.after} runs now"
        if before is not None:
            text += f", {before.version} is kept to fall back to"
        elif change.before:
            text += f", nothing is kept to fall back to: {change.before} is revoked"
        moved.append(text)
    return "; ".join([*moved, "floors raised: nothing older is accepted from now on"])
