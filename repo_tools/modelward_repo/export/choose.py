"""What belongs on a stick: all that a device's gates will read, and the weights that it lacks.

The documents are found by reading the repository as a device does, with a device's code, and
noting what was read: so none is forgotten that a gate asks for.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import unquote

from tuf.api.metadata import Timestamp

from modelward.errors import ModelwardError, NotFound, UsageError
from modelward.examine import required
from modelward.formats import channel as channels
from modelward.formats import dsse, tlog_proof
from modelward.formats import policy as policies
from modelward.formats import release as releases
from modelward.formats.bundle import Bundle, BundleFile
from modelward.formats.channel import Channel, Entry
from modelward.formats.policy import FleetPolicy, ModelPolicy
from modelward.formats.release import Blob, Release
from modelward.formats.tile import FULL, HEIGHT, Tile
from modelward.formats.tlog_proof import TimestampProof
from modelward.ledger import policy_of
from modelward.transfer.plan import Here, How, Limits, Way, make
from modelward.transfer.sources import blob_path
from modelward.trust import policy as trust_policy
from modelward.trust.merkle import cover
from modelward.trust.repository import Repository
from modelward.trust.tiles import tiles_for
from modelward.trust.tuf_client import Fetcher
from modelward_repo.export.have import Having
from modelward_repo.log.places import CHECKPOINT, tile_path
from modelward_repo.publish.target import Source
from modelward_repo.storage import Storage

_AMPLE = 1 << 62  # bytes: no stick says how much room a device has


@dataclass(frozen=True)
class Wanted:
    """For whom a bundle is.

    Attributes:
        channel: The channel that they follow.
        models: The models that they run; empty for all of the channel.
        have: What each of them has; empty if that is not known, or nothing.
        methods: The patches that they can apply.
        memory: Most bytes of memory that they give to applying one.
    """

    channel: str
    models: tuple[str, ...] = ()
    have: tuple[Having, ...] = ()
    methods: frozenset[str] = frozenset()
    memory: int = 0


@dataclass(frozen=True)
class Chosen:
    """What belongs in a bundle.

    Attributes:
        bundle: Its index.
        whole: Bytes of weights that devices with nothing would need.
        patched: Files that go by patch, and the bytes of those patches.
        present: Files that every device has already.
    """

    bundle: Bundle
    whole: int
    patched: Mapping[str, int] = field(default_factory=dict)
    present: tuple[Blob, ...] = ()

    @property
    def weights(self) -> int:
        """Bytes of the blobs in it."""
        return sum(f.blob.length for f in self.bundle.files if f.path.startswith("blobs/"))


def choose(storage: Storage, wanted: Wanted, now: datetime) -> Chosen:
    """Choose what a bundle needs.

    Args:
        storage: The repository.
        wanted: For whom it is.
        now: The time.

    Raises:
        UsageError: The channel or a model is not there.
        Refused: Devices would refuse the repository as it is, for example because it has expired.
    """
    source = Source.stored(storage, None)
    notes = _Notes(source)
    with TemporaryDirectory(prefix="modelward-") as cache:
        repository = Repository(
            cache=Path(cache),
            metadata_url=f"{source.url}metadata/",
            targets_url=f"{source.url}targets/",
            fetcher=notes,
            root=source.root,
        )
        repository.refresh()
        channel = _channel(repository, wanted.channel)
        offered = _offered(channel, wanted.models)
        found = _releases(repository, offered)
        timestamp: Timestamp = repository.cache.read(Timestamp.type).signed
        _note_log(notes, repository, timestamp, wanted.have)
        documents = tuple(notes.files)  # what is read from here on, no device will read
        expires = min(role.expires for role in repository.cache.roles())
        blobs = _Blobs(found, _known(repository, wanted.have), wanted)
    files = {file.path: file for file in (*documents, *blobs.files())}
    bundle = Bundle(
        created=now,
        expires=expires,
        timestamp=timestamp.version,
        channel=channel.name,
        models=tuple(sorted((model, entry.version) for model, entry in offered.items())),
        files=tuple(files[path] for path in sorted(files)),
    )
    return Chosen(bundle, blobs.whole, blobs.patched, blobs.present)


class _Notes:
    """Reads as a device does, and notes what was there; see `modelward.trust.repository.Fetcher`.

    Args:
        source: The repository.
    """

    def __init__(self, source: Source) -> None:
        self._source: Source = source
        self._fetcher: Fetcher = source.fetcher
        self.files: list[BundleFile] = []

    def fetch(self, url: str, limit: int) -> bytes:
        data = self._fetcher.fetch(url, limit)
        path = unquote(url.removeprefix(self._source.url))
        self.files.append(BundleFile(path, Blob(hashlib.sha256(data).hexdigest(), len(data))))
        return data

    def fetch_file(self, path: str) -> None:
        """Read a file of the repository if it is there."""
        try:
            self.fetch(self._source.url + path, _AMPLE)
        except NotFound:
            return


@dataclass(frozen=True)
class _Found:
    """A release that devices may come to run.

    Attributes:
        release: It.
        small: Paths of the files that gate 8 reads: no patch will do for them.
    """

    release: Release
    small: frozenset[str]


def _channel(repository: Repository, name: str) -> Channel:
    fleet = FleetPolicy.parse(required(repository, FleetPolicy.TARGET, policies.CAP))
    if name not in fleet.channels:
        raise UsageError(f"there is no channel {name!r}", f"there are {', '.join(fleet.channels)}")
    return Channel.parse(required(repository, channels.target_path(name), channels.CAP))


def _offered(channel: Channel, models: Sequence[str]) -> dict[str, Entry]:
    for model in models:
        if model not in channel.models:
            raise UsageError(
                f"{channel.name} offers no model {model!r}",
                f"it offers {', '.join(sorted(channel.models)) or 'nothing yet'}",
            )
    return {model: channel.models[model] for model in models or sorted(channel.models)}


def _releases(repository: Repository, offered: Mapping[str, Entry]) -> list[_Found]:
    """Return the releases that a device may be led to, with the components that they pin."""
    queue = [(model, version) for model, entry in offered.items() for version in _versions(entry)]
    found: dict[tuple[str, str], _Found] = {}
    while queue:
        model, version = queue.pop()
        if (model, version) in found:
            continue
        release = Release.parse(
            required(repository, releases.target_path(model, version), releases.CAP)
        )
        required(repository, releases.evidence_path(model, version), dsse.EVIDENCE_CAP)
        required(repository, policies.layout_path(model), dsse.ENVELOPE_CAP)
        policy = ModelPolicy.parse(
            required(repository, policies.model_policy_path(model), policies.CAP)
        )
        small = frozenset(trust_policy.small_files(release, policy))
        found[model, version] = _Found(release, small)
        queue += release.requires.components
    return list(found.values())


def _versions(entry: Entry) -> Iterator[str]:
    yield entry.version
    # Before its stage of a rollout, a device may be led to the version before.
    if entry.rollout is not None and entry.previous and entry.previous not in entry.revoked:
        yield entry.previous


def _known(repository: Repository, have: Iterable[Having]) -> list[Mapping[str, int]]:
    """Return, per device, length by digest of the files it has: as the repository knows them."""
    cache: dict[tuple[str, str], Mapping[str, int]] = {}

    def files_of(name: tuple[str, str]) -> Mapping[str, int]:
        if name not in cache:
            try:
                data = repository.target(releases.target_path(*name), releases.CAP)
                files = Release.parse(data).files if data is not None else ()
            except ModelwardError:
                files = ()  # what is no longer published helps nobody
            cache[name] = {file.blob.sha256: file.blob.length for file in files}
        return cache[name]

    return [
        {sha256: length for name in item.releases for sha256, length in files_of(name).items()}
        for item in have
    ]


class _Blobs:
    """Which blobs devices lack, and how to bring them in the fewest bytes.

    A device that is not known is taken to have nothing. The way to each file is planned for each
    device as it will plan itself; where one of them needs the whole file, it serves all.
    """

    def __init__(
        self, found: Sequence[_Found], known: Sequence[Mapping[str, int]], wanted: Wanted
    ) -> None:
        all_files = {file.blob.sha256: file.blob for item in found for file in item.release.files}
        small = {
            file.blob.sha256
            for item in found
            for file in item.release.files
            if file.path in item.small
        }
        limits = Limits(_AMPLE, wanted.memory, wanted.methods)
        self._whole: dict[str, Blob] = {}
        by_patch: dict[str, dict[str, Blob]] = {}
        for blobs in known or [{}]:
            plan = make([item.release for item in found], Here(blobs), limits)
            for step in plan.steps:
                patch = _patch(step.ways[0])
                if patch is None or step.blob.sha256 in small:
                    self._whole[step.blob.sha256] = step.blob
                else:
                    by_patch.setdefault(step.blob.sha256, {})[patch.sha256] = patch
        for sha256, patches in by_patch.items():
            if sum(patch.length for patch in patches.values()) >= all_files[sha256].length:
                self._whole[sha256] = all_files[sha256]
        self._patches = {to: by_patch[to] for to in by_patch if to not in self._whole}
        self.present = tuple(
            blob for sha256, blob in all_files.items()
            if sha256 not in self._whole and sha256 not in self._patches
        )  # fmt: skip
        self.whole = sum(blob.length for blob in all_files.values())

    @property
    def patched(self) -> dict[str, int]:
        """Bytes of the patches to each file that goes by patch, by its digest."""
        return {
            to: sum(patch.length for patch in patches.values())
            for to, patches in self._patches.items()
        }

    def files(self) -> Iterator[BundleFile]:
        """Yield the blobs; no chunk indexes, which tell of several sources the one that lies."""
        patches = (patch for found in self._patches.values() for patch in found.values())
        for blob in (*self._whole.values(), *patches):
            yield BundleFile(blob_path(blob.sha256), blob)


def _patch(way: Way) -> Blob | None:
    by_patch = way.how in (How.PATCH, How.COMPRESSED)
    return way.patch.blob if by_patch and way.patch is not None else None


def _note_log(
    notes: _Notes, repository: Repository, timestamp: Timestamp, have: Sequence[Having]
) -> None:
    """Note what gate 4 may ask of the log: nothing of a device that the proof's tail reaches."""
    value = timestamp.unrecognized_fields.get(tlog_proof.FIELD)
    if policy_of(repository.cache.root()) is None or value is None:
        return
    proof = TimestampProof.parse(value)
    size = proof.proof.checkpoint.checkpoint.size
    notes.fetch_file(CHECKPOINT)
    sizes = [item.log_size for item in have]
    if not sizes or None in sizes:
        tiles = list(_all_tiles(size))
    else:
        behind = {seen for seen in sizes if seen is not None and size - seen > len(proof.tail)}
        nodes = (node for seen in behind for node in (*cover(0, seen), *cover(seen, size)))
        tiles = list(tiles_for(nodes, size))
    for tile in tiles:
        notes.fetch_file(tile_path(tile))


def _all_tiles(size: int) -> Iterator[Tile]:
    """Yield every tile of a tree: some device may have seen any tree before it."""
    level = 0
    while (hashes := size >> HEIGHT * level) > 0:
        for index in range(-(-hashes // FULL)):
            yield Tile.of(level, index, size)
        level += 1
