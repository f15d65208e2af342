"""Mending what a scan found damaged: from what is here twice, else from wherever bytes come from.

Whatever is rebuilt is rebuilt aside and takes its place in one step; no version changes. A process
that has a model open keeps what it opened. A kill at any moment leaves what can be mended again.
"""

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modelward import activate, alarm, fastpath, report, restore, scan, update
from modelward.bring import Watch, in_time
from modelward.device import Device
from modelward.errors import PUT_ROOT_BACK, Gate, ModelwardError, Refused, Unavailable
from modelward.examine import examine, required
from modelward.formats import dsse
from modelward.formats import policy as policies
from modelward.formats.chunks import MAX_CHUNK, ChunkIndex
from modelward.formats.installed import Slot
from modelward.formats.policy import FleetPolicy
from modelward.formats.release import Release, ReleaseFile
from modelward.install import fsops
from modelward.install.hashing import Progress
from modelward.install.opened import Folder
from modelward.scan import Damage, Part, Scanned
from modelward.transfer import fetch, plan, sources
from modelward.transfer.sources import Sources
from modelward.trust import clock
from modelward.trust.repository import Repository

EVIDENCE = ("evidence.jsonl", "layout.json", "policy.json")


@dataclass(frozen=True)
class Repaired:
    """What a repair did.

    Attributes:
        mended: What was damaged and is not any more.
        remaining: What is damaged still, and why it could not be mended.
        scanned: How things stand now.
        fetched: Bytes of blobs that were fetched.
    """

    mended: tuple[Damage, ...]
    remaining: tuple[tuple[Damage, str], ...]
    scanned: Scanned
    fetched: int


def repair(  # noqa: PLR0913 - as `modelward.update.update`
    device: Device,
    models: Sequence[str],
    progress: Progress,
    watch: Watch,
    given: Sources | None = None,
    *,
    keep_waiting: Callable[[str], bool] = fsops.never,
) -> Repaired:
    """Scan a device and mend what is damaged.

    Args:
        device: The device.
        models: The models to examine; empty for all of them, and everything else that is kept.
        progress: Told of the bytes that are hashed.
        watch: Is told what is fetched.
        given: Where bytes come from, and no connection is opened; None for what the device is
            configured for.
        keep_waiting: Whether to wait for an update that runs; see `fsops.lock`.

    Raises:
        UsageError: A model is not installed.
        Refused: What is installed cannot be read, and not be told from what else is here.
        Unavailable: An update runs.
        RolledBack: What was on trial was started too often, or somebody was interrupted while it
            went back: what ran before runs again.
    """
    with (
        report.rollbacks(device, send=given is None),
        fsops.lock(device.config.state / "lock", keep_waiting=keep_waiting),
        update.sources_of(device, given) as used,
    ):
        lost = restore.notes(device, mend=True)
        found = scan.scan(device, models, progress)
        activate.recover(device, watch, judge=False)  # which mends some of it
        work = _Repair(device, used, watch, found)
        work.mend()
        after = scan.scan(device, models, progress) if found.damage else found
        alarm.end(device, after)
    restored = (Damage(Part.GENERATION, path, problem) for path, problem in lost.items())
    mended = (*restored, *(each for each in found.damage if each not in after.damage))
    remaining = tuple((each, work.why(each)) for each in after.damage)
    return Repaired(mended, remaining, after, work.fetched)


class _Repair:
    """One repair of one device."""

    def __init__(self, device: Device, used: Sources, watch: Watch, found: Scanned) -> None:
        self._device = device
        self._sources = used
        # Asked for chunk indexes: who has none that is right may have the file.
        self._aside = Sources(used.sources, used.patience, used.clock, used.sleep)
        self._watch = watch
        self._found = found
        self._whole = {digest for digest, path in found.intact.items() if _is_in(device, path)}
        self._reasons: dict[object, str] = {}
        self._go_on = in_time(device, used)
        self._wanted = 0  # bytes, with those of the blob that is being fetched
        self.fetched = 0

    def mend(self) -> None:
        """Mend what can be mended; go on where something cannot."""
        damage = self._found.damage
        parts = {found.part for found in damage}
        for part, mend in (
            (Part.FLOORS, self._mend_floors),
            (Part.LOG, self._mend_log),
            (Part.METADATA, self._mend_metadata),
        ):
            if part in parts:
                self._attempt(part, mend)
        needed = {file.blob.sha256: file for file in self._files()}
        for found in damage:
            if found.part is Part.BLOB:
                digest = Path(found.path).name
                self._attempt(found.path, self._mend_blob, digest, needed.get(digest))
        kept = scan.kept_slots(self._device, self._device.slots.installed())
        for model, slot in self._found.slots:
            if (model, slot) in kept and not self._found.is_intact(model, slot):
                self._attempt((model, slot), self._mend_slot, model, slot)
        if Part.GENERATION in parts:
            self._attempt(Part.GENERATION, self._mend_generation)

    def why(self, damage: Damage) -> str:
        """Return why something is still damaged."""
        if damage.part is Part.ROOT:
            return PUT_ROOT_BACK
        for key in ((damage.model, damage.slot), damage.path, damage.part):
            if key in self._reasons:
                return self._reasons[key]
        return "it could not be mended"

    def _attempt(self, key: object, mend: Callable[..., None], *arguments: object) -> None:
        try:
            mend(*arguments)
        except ModelwardError as error:
            self._reasons[key] = error.reason
        except OSError as error:
            self._reasons[key] = str(error)

    def _mend_floors(self) -> None:
        """Write both copies; if both were lost, what is installed says what is too old."""
        on_trial = self._device.trials.on_trial()
        confirmed = {
            model: slot.counter
            for model, slot in self._device.slots.installed().active.items()
            if model not in on_trial
        }
        self._device.floors.save(self._device.floors.load().holding(confirmed))

    def _mend_log(self) -> None:
        state = self._device.log.load()
        if state is None:
            raise Refused(
                Gate.LOG,
                "both copies are lost: the next update believes the log without comparing it",
                "run `modelward update`, and compare with a neighbour by `modelward gossip`",
            )
        self._device.log.save(state)

    def _mend_metadata(self) -> None:
        """Drop what is damaged: the next update fetches it, and the floors remember."""
        fastpath.forget(self._device.config.state)
        for found in self._found.damage:
            if found.part is Part.METADATA:
                fsops.remove(self._device.config.state / found.path)

    def _files(self) -> Iterator[ReleaseFile]:
        """Yield the files of every slot whose list of files is intact."""
        for model, slot in self._found.slots:
            with contextlib.suppress(Refused):
                yield from self._device.slots.release(model, slot)[0].files

    def _mend_blob(self, digest: str, file: ReleaseFile | None) -> None:
        if file is None:  # nothing needs it
            self._device.store.remove(digest)
        else:
            self._bring(file)

    def _bring(self, file: ReleaseFile) -> None:
        """Bring a file into the store: from a slot that has it, or from wherever it can be had."""
        store, blob = self._device.store, file.blob
        copy = self._found.intact.get(blob.sha256)
        if copy is not None and copy.exists():
            store.link(blob, copy)
        else:
            if not store.path(blob.sha256).is_file():
                store.remove(blob.sha256)  # whatever stands in the way
            self._go_on()  # once the time is up, nothing more is begun
            index = self._index_of(file)
            self._wanted = self.fetched + blob.length
            fetch.fetch_blob(self._sources, blob, store, index, self._received, go_on=self._go_on)
        self._whole.add(blob.sha256)

    def _index_of(self, file: ReleaseFile) -> ChunkIndex | None:
        """Return what a large file consists of, if it can be had: else no neighbour is asked."""
        blob, offer = file.blob, file.chunks
        if blob.length <= MAX_CHUNK or len(self._sources.for_blobs()) == 1:
            return None
        if offer is None or offer.length > blob.length // plan.LOOK:
            return None
        try:
            data = self._device.store.read(offer)
            if data is None:
                data = self._aside.fetch_blob(offer, self._go_on)
                self.fetched += offer.length
            return ChunkIndex.parse(data)
        except (Refused, Unavailable):
            self._go_on()  # the index is not to blame for that it is not to be gone on
        return None

    def _received(self, count: int) -> None:
        self.fetched += count
        total = max(self.fetched, self._wanted)
        self._watch.fetching(self.fetched, total, self._sources.latest)
        self._go_on()

    def _mend_slot(self, model: str, slot: Slot) -> None:
        """Build the slot aside, and let it take the place of the damaged one."""
        proven = all(found.path != "proof" for found in self._of(model, slot))
        document, evidence = self._kept(model, slot) if proven else self._documents(model, slot)
        release = Release.parse(document)
        for file in release.files:
            if file.blob.sha256 not in self._whole and not self._device.store.is_intact(file.blob):
                self._bring(file)
        self._device.slots.rebuild(release, document, evidence)

    def _of(self, model: str, slot: Slot) -> Iterable[Damage]:
        return (each for each in self._found.damage if (each.model, each.slot) == (model, slot))

    def _kept(self, model: str, slot: Slot) -> tuple[bytes, dict[str, bytes]]:
        _, document = self._device.slots.release(model, slot)
        with Folder(self._device.slots.directory(model, slot)) as folder:
            return document, {name: folder.read(name, dsse.EVIDENCE_CAP) for name in EVIDENCE}

    def _documents(self, model: str, slot: Slot) -> tuple[bytes, Mapping[str, bytes]]:
        """Fetch the documents of a release anew, and take them through gates 6 to 8 again."""
        device = self._device
        repository = Repository(
            cache=device.cache,
            metadata_url=sources.METADATA,
            targets_url=sources.TARGETS,
            fetcher=self._sources,
            root=device.root,
            floors=device.floors.load(),
            keep=fsops.write_file,
        )
        repository.refresh()
        found = examine(
            repository,
            FleetPolicy.parse(required(repository, FleetPolicy.TARGET, policies.CAP)),
            model,
            slot.version,
            fetch_blob=lambda blob: fetch.fetch_small(self._sources, blob, self._go_on),
            facts=None,
            floor=slot.counter,
            now=clock.trusted(device.clock(), device.floors.load().time),
        )
        if hashlib.sha256(found.document).hexdigest() != slot.sha256:
            raise Refused(Gate.RELEASE, f"{model} {slot.version} is not the release it was")
        return found.document, found.evidence

    def _mend_generation(self) -> None:
        """Make the same generation anew and switch to that: links in use are never changed.

        What a trial goes back to is not in use, and the journal knows it by its number.
        """
        slots = self._device.slots
        installed, trial = slots.installed(), self._device.trials.journal.trial
        damage = [each for each in self._found.damage if each.part is Part.GENERATION]
        damaged = {Path(found.path).parent.name for found in damage}
        if trial is not None and str(trial.good) in damaged:
            slots.renew(slots.generation(trial.good))
        if str(installed.number) in damaged:
            following = replace(installed, number=installed.number + 1)
            slots.prepare(following)
            slots.switch(following.number)


def _is_in(device: Device, path: Path) -> bool:
    """Tell whether a path is one of the store."""
    return path.is_relative_to(device.config.state / "store")
