"""Whatever way a file is come by, it is the file; and what is here is not fetched."""

import errno
import hashlib
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import NotFound, Refused, Unavailable
from modelward.formats.chunks import MAX_CHUNK, ChunkIndex
from modelward.formats.release import Blob, Patch, Release, ReleaseFile
from modelward.formats.ticket import Ticket
from modelward.install.partial import Partial
from modelward.install.store import Store
from modelward.transfer.carry_out import Carrier
from modelward.transfer.pace import Patience
from modelward.transfer.patch import METHODS, TENSOR_DELTA, ZSTD, ZSTD_PATCH
from modelward.transfer.plan import REQUEST, RESERVE, How, Limits
from modelward.transfer.planner import Planner
from modelward.transfer.sources import Kind, Reader, Sources
from modelward_repo.publish import delta

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LIMITS = Limits(RESERVE + (64 << 20), 64 << 20, METHODS)
CHUNK = 50_000
OLD = os.urandom(400_000)
NEW = OLD[:100_000] + os.urandom(CHUNK) + OLD[100_000 + CHUNK :]


def blob_of(data: bytes) -> Blob:
    return Blob(hashlib.sha256(data).hexdigest(), len(data))


def index_of(data: bytes, size: int = CHUNK) -> ChunkIndex:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return ChunkIndex.of(
        blob_of(data).sha256,
        len(data),
        [(len(part), hashlib.sha256(part).digest()) for part in parts],
    )


class Slice:
    def __init__(self, source: "Memory", data: bytes, start: int) -> None:
        self._source, self._rest, self._place = source, data, start

    def readinto(self, buffer: memoryview, /) -> int:
        part, self._rest = self._rest[: len(buffer)], self._rest[len(buffer) :]
        buffer[: len(part)] = part
        self._source.sent += len(part)
        self._place += len(part)
        self._source.reached = max(self._source.reached, self._place)
        return len(part)

    def close(self) -> None:
        pass


class Memory:
    """A source of blobs in memory, which counts.

    Attributes:
        sent: Bytes that were taken.
        reached: Where the furthest of them ends in its blob.
        asked: The blobs that were asked for.
    """

    def __init__(
        self, blobs: Mapping[str, bytes], name: str = "memory", kind: Kind = Kind.ORIGIN
    ) -> None:
        self.name, self.kind = name, kind
        self.blobs = dict(blobs)
        self.busy = Counter[str]()  # how often still, by blob
        self.sent = self.reached = 0
        self.asked: set[str] = set()

    def fetch(self, path: str, limit: int) -> bytes:
        data = self._blob(path.rpartition("/")[2])
        self.sent += len(data)
        assert len(data) <= limit
        return data

    def open(self, blob: Blob, start: int, stop: int) -> Reader:
        return Slice(self, self._blob(blob.sha256)[start:stop], start)

    def close(self) -> None:
        pass

    def _blob(self, sha256: str) -> bytes:
        self.asked.add(sha256)
        if self.busy[sha256]:
            self.busy[sha256] -= 1
            error = Unavailable("the server answered 503")
            error.again = 0.0
            raise error
        if sha256 not in self.blobs:
            raise NotFound(f"there is no {sha256}")
        return self.blobs[sha256]


class Device:
    """A store, with a release in it, and a source of everything else."""

    def __init__(self, place: Path, old: bytes = OLD) -> None:
        self.store = Store(place / "store")
        (place / "store").mkdir(parents=True)
        self.place = place
        self.source = Memory({})
        self.mirrors: list[Memory] = []
        self.banned: list[str] = []
        self.told: list[str] = []
        self.progress: list[tuple[int, int]] = []
        self.limits = LIMITS
        self.old = self.publish(old)
        self.put(old)

    def put(self, data: bytes) -> None:
        """Have a blob."""
        self.store.add(blob_of(data), [memoryview(data)])

    def publish(self, data: bytes, *patches: Patch, index: bytes | None = None) -> Release:
        """Publish a file, with its index."""
        index = index_of(data).to_bytes() if index is None else index
        self.source.blobs |= {blob_of(part).sha256: part for part in (data, index)}
        return Release(
            model="m",
            version="1",
            counter=1,
            released=datetime(2026, 11, 22, tzinfo=UTC),
            ticket=Ticket("m", "1", 1, ""),
            files=(ReleaseFile("a.onnx", blob_of(data), "onnx", blob_of(index)),),
            patches=patches,
        )

    def patch(self, method: str, old: bytes | None, new: bytes, claimed: bytes) -> Patch:
        """Publish a patch that makes one file, and claim that it makes another."""
        paths = [self.place / name for name in ("base", "target", "patch")]
        for path, data in zip(paths, (old or b"", new, b""), strict=True):
            path.write_bytes(data)
        base = paths[0] if old is not None else None
        made = delta.encode(method, base, paths[1], paths[2])
        content = paths[2].read_bytes()
        return self.offer(method, old, content, claimed, made.memory)

    def offer(
        self, method: str, old: bytes | None, content: bytes, to: bytes, memory: int = 8 << 20
    ) -> Patch:
        """Publish a patch."""
        self.source.blobs[blob_of(content).sha256] = content
        base = blob_of(old).sha256 if old is not None else None
        return Patch(blob_of(to).sha256, base, method, blob_of(content), memory)

    def indexed(self, offered: Patch, index: bytes | None = None) -> Patch:
        """Publish the index of a patch."""
        content = self.source.blobs[offered.blob.sha256]
        index = index_of(content, MAX_CHUNK).to_bytes() if index is None else index
        self.source.blobs[blob_of(index).sha256] = index
        return replace(offered, chunks=blob_of(index))

    def add_liar(self, blob: Blob, place: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """Add a mirror that lies about one byte of a blob, and does so before others deliver."""
        honest = self.source.blobs[blob.sha256]
        wrong = honest[:place] + bytes([honest[place] ^ 1]) + honest[place + 1 :]
        liar = Memory({**self.source.blobs, blob.sha256: wrong}, "liar", Kind.MIRROR)
        self.mirrors = [liar]
        opened = self.source.open

        def open_later(wanted: Blob, start: int, stop: int) -> Reader:
            while wanted == blob and liar.reached <= place:
                time.sleep(0.001)
            return opened(wanted, start, stop)

        monkeypatch.setattr(self.source, "open", open_later)

    def come_by(self, *releases: Release) -> Carrier:
        """Plan and carry out; what comes of it must be the files."""
        sources = Sources([self.source, *self.mirrors], Patience(pause=0.001))
        self.source.sent = 0
        planner = Planner(releases, [self.old], self.store, sources, self.limits, self.told.append)
        before = self.store.lengths()
        carrier = Carrier(
            sources,
            self.store,
            self.told.append,
            lambda done, total: self.progress.append((done, total)),
        )
        arrived = list(carrier.carry_out(planner))
        files = {file.blob for release in releases for file in release.files}
        assert set(arrived) == {blob for blob in files if blob.sha256 not in before}
        for blob in files:
            assert self.store.is_intact(blob)
        sent = self.source.sent + sum(mirror.sent for mirror in self.mirrors)
        assert sent - MAX_CHUNK * len(self.mirrors) <= carrier.carried.fetched <= sent
        self.banned = list(sources.banned())
        assert all(0 <= done <= total for done, total in self.progress)
        indexes = {file.chunks.sha256 for release in releases for file in release.files}
        extra = set(self.store.lengths()) - set(before) - {blob.sha256 for blob in arrived}
        assert extra <= indexes | {file.chunks.sha256 for file in self.old.files}
        return carrier


@pytest.fixture
def device(tmp_path: Path) -> Device:
    return Device(tmp_path)


def how(carrier: Carrier) -> list[How]:
    return list(carrier.carried.how)


def test_the_whole_file(device: Device):
    data = os.urandom(300_000)
    carrier = device.come_by(device.publish(data))
    assert how(carrier) == [How.WHOLE]
    assert carrier.carried.describe().startswith("1 files, every digest as approved; 30")
    assert device.told == []


def test_what_is_here_is_not_fetched(device: Device):
    carrier = device.come_by(device.old)
    assert (carrier.carried.fetched, how(carrier)) == (0, [])


def test_only_changed_chunks_are_fetched(device: Device):
    carrier = device.come_by(device.publish(NEW))
    looks = len(index_of(NEW).to_bytes()) + len(index_of(OLD).to_bytes())
    assert how(carrier) == [How.CHUNKS]
    assert carrier.carried.fetched == CHUNK + looks
    assert carrier.carried.saved == len(NEW) - CHUNK - looks
    assert len(device.progress) >= len(OLD) // CHUNK  # what is copied moves, too


@pytest.mark.parametrize("method", [TENSOR_DELTA, ZSTD_PATCH])
def test_a_patch_is_fetched_and_applied(device: Device, method: str):
    offered = device.patch(method, OLD, NEW[:-1], NEW[:-1])
    carrier = device.come_by(device.publish(NEW[:-1], offered, index=b"no index"))
    assert how(carrier) == [How.PATCH]
    assert carrier.carried.fetched < 1.01 * CHUNK + 1000
    [told] = device.told
    assert "the chunk index" in told


@pytest.mark.parametrize("method", [TENSOR_DELTA, ZSTD])
def test_a_compressed_copy_is_unpacked(device: Device, method: str):
    data = b"the same over and over " * 20_000
    offered = device.patch(method, None, data, data)
    carrier = device.come_by(device.publish(data, offered))
    assert how(carrier) == [How.COMPRESSED]
    assert carrier.carried.fetched < 0.1 * len(data)


def test_a_mirror_that_lies_wastes_one_piece_of_a_whole_file(device: Device, monkeypatch):
    """Its index is fetched only to tell which source lies, where there are several."""
    data = os.urandom(8 * MAX_CHUNK)
    release = device.publish(data)
    device.add_liar(blob_of(data), 3 * MAX_CHUNK, monkeypatch)
    carrier = device.come_by(release)
    assert how(carrier) == [How.WHOLE]
    assert device.banned == ["liar"]
    assert device.source.sent + device.mirrors[0].sent < len(data) + 2 * MAX_CHUNK
    assert carrier.carried.fetched < len(data) + 2 * MAX_CHUNK
    assert device.store.has(release.files[0].chunks)  # kept, for the next time


LONG = os.urandom(6 * MAX_CHUNK)


@pytest.mark.parametrize(
    ("method", "old", "place"), [(ZSTD, None, 3 * MAX_CHUNK), (TENSOR_DELTA, OLD, 0)]
)
def test_a_mirror_that_lies_wastes_one_piece_of_a_patch(
    device: Device, monkeypatch, method: str, old: bytes | None, place: int
):
    """Of a compressed copy, too: nothing begins anew, and no other way is taken."""
    new = LONG + OLD + bytes(MAX_CHUNK)
    offered = device.indexed(device.patch(method, old, new, new))
    assert offered.blob.length > 5 * MAX_CHUNK
    release = device.publish(new, offered, index=b"no index")
    device.add_liar(offered.blob, place, monkeypatch)
    carrier = device.come_by(release)
    assert how(carrier) == [How.PATCH if old else How.COMPRESSED]
    assert device.banned == ["liar"]
    assert device.source.sent + device.mirrors[0].sent < offered.blob.length + 2 * MAX_CHUNK


def test_one_source_alone_is_asked_for_no_index_of_a_patch(device: Device):
    new = LONG + bytes(MAX_CHUNK)
    offered = device.indexed(device.patch(ZSTD, None, new, new))
    assert how(device.come_by(device.publish(new, offered))) == [How.COMPRESSED]
    assert offered.chunks.sha256 not in device.source.asked


# --- attack row 27: what goes wrong costs bytes, and no more


def lying_index(content: bytes, kind: str) -> bytes:
    """Return an index of a patch that is of no use, or worse."""
    honest = index_of(content, MAX_CHUNK)
    wrong = index_of(content[:-1] + b"!", MAX_CHUNK)
    return {
        "of another file": wrong.to_bytes(),
        "no index": b"no index",
        "a lie": ChunkIndex(honest.sha256, honest.length, wrong.table).to_bytes(),
    }[kind]


@pytest.mark.parametrize("kind", ["of another file", "no index", "a lie"])
def test_a_wrong_index_of_a_patch_costs_a_piece_of_each_source(device: Device, kind: str):
    new = LONG + bytes(MAX_CHUNK)
    offered = device.patch(ZSTD, None, new, new)
    index = lying_index(device.source.blobs[offered.blob.sha256], kind)
    offered = device.indexed(offered, index)
    release = device.publish(new, offered, index=b"no index")
    device.mirrors = [Memory(device.source.blobs, "mirror", Kind.MIRROR)]
    carrier = device.come_by(release)
    assert how(carrier) == [How.COMPRESSED]
    assert device.banned == []
    assert carrier.carried.fetched < offered.blob.length + 3 * MAX_CHUNK


def test_an_index_and_a_mirror_that_lie_together_cost_no_more_than_thrice(
    device: Device, monkeypatch
):
    new = LONG + bytes(MAX_CHUNK)
    offered = device.patch(ZSTD, None, new, new)
    content = device.source.blobs[offered.blob.sha256]
    wrong = content[:-1] + bytes([content[-1] ^ 1])
    index = replace(index_of(wrong, MAX_CHUNK), sha256=offered.blob.sha256)
    offered = device.indexed(offered, index.to_bytes())
    release = device.publish(new, offered, index=b"no index")
    device.add_liar(offered.blob, len(content) - 1, monkeypatch)
    carrier = device.come_by(release)
    assert how(carrier) == [How.COMPRESSED]
    assert device.banned == ["liar"]
    assert carrier.carried.fetched < 3 * offered.blob.length + 2 * MAX_CHUNK


@pytest.mark.parametrize("named", ["as a patch", "as its index"])
def test_a_model_named_as_a_help_is_not_cleared_away(device: Device, named: str):
    """By whoever stole the key that signs patches."""
    old = device.old.files[0].blob
    offered = device.offer(ZSTD, None, b"noise", NEW)
    offered = replace(offered, blob=old) if named == "as a patch" else replace(offered, chunks=old)
    device.come_by(device.publish(NEW, offered))
    assert "(zstd/1) did not do, another way is taken" in device.told[0]
    assert device.store.is_intact(old)


def bomb(length: int) -> bytes:
    """Return a little that unpacks to far more."""
    return bytes(zstd.compress(bytes(length)))


def test_a_patch_of_another_file_falls_back(device: Device):
    wrong = device.patch(ZSTD, None, bytes(len(NEW)), NEW)
    carrier = device.come_by(device.publish(NEW, wrong))
    assert how(carrier) == [How.CHUNKS]
    [told] = device.told
    assert "(zstd/1) did not do, another way is taken" in told
    assert carrier.carried.fetched < wrong.blob.length + CHUNK + 1000


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(bomb(256 << 20), id="a bomb"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"MWDELTA1" + bytes(100), id="zeros"),
        pytest.param(os.urandom(5000), id="noise"),
    ],
)
@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_hostile_patch_falls_back(device: Device, hostile: bytes, method: str):
    offered = device.offer(method, OLD, hostile, NEW)
    carrier = device.come_by(device.publish(NEW, offered))
    assert how(carrier) == [How.CHUNKS]
    assert len(device.told) == 1


def test_a_patch_that_lies_about_memory_falls_back(device: Device):
    honest = device.patch(TENSOR_DELTA, OLD, NEW, NEW)
    lying = Patch(honest.to, honest.base, honest.method, honest.blob, memory=1000)
    carrier = device.come_by(device.publish(NEW, lying, index=b"no index"))
    assert how(carrier) == [How.WHOLE]
    assert "memory" in device.told[-1]


def test_a_patch_that_is_gone_falls_back(device: Device):
    offered = device.patch(ZSTD_PATCH, OLD, NEW, NEW)
    del device.source.blobs[offered.blob.sha256]
    carrier = device.come_by(device.publish(NEW, offered, index=b"no index"))
    assert how(carrier) == [How.WHOLE]
    assert "there is no" in device.told[-1]


def test_a_base_that_has_rotted_falls_back(device: Device):
    offered = device.patch(TENSOR_DELTA, OLD, NEW, NEW)
    path = device.store.path(blob_of(OLD).sha256)
    path.chmod(0o644)
    path.write_bytes(OLD[:-1] + b"!")
    carrier = device.come_by(device.publish(NEW, offered, index=b"no index"))
    assert how(carrier) == [How.WHOLE]


@pytest.mark.parametrize("method", [TENSOR_DELTA, ZSTD_PATCH])
def test_a_base_that_cannot_be_read_falls_back(device: Device, monkeypatch, method: str):
    base = device.store.path(blob_of(OLD).sha256).stat().st_ino
    read = os.preadv

    def fail(descriptor: int, *rest: Any) -> int:
        if os.fstat(descriptor).st_ino == base:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(descriptor, *rest)

    offered = device.patch(method, OLD, NEW, NEW)
    release = device.publish(NEW, offered, index=b"no index")
    monkeypatch.setattr(os, "preadv", fail)
    carrier = device.come_by(release)
    assert how(carrier) == [How.WHOLE]
    assert "Input/output error" in device.told[-1]


def test_a_disk_that_is_full_is_no_fault_of_a_patch(device: Device, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    offered = device.patch(TENSOR_DELTA, OLD, NEW, NEW)
    release = device.publish(NEW, offered)
    monkeypatch.setattr(Partial, "write", fail)
    with pytest.raises(OSError, match="No space"):
        device.come_by(release)
    assert device.told == []


def test_chunks_that_have_rotted_are_fetched(device: Device):
    path = device.store.path(blob_of(OLD).sha256)
    path.chmod(0o644)
    path.write_bytes(OLD[:-1] + b"!")
    carrier = device.come_by(device.publish(NEW))
    assert how(carrier) == [How.CHUNKS]
    assert 2 * CHUNK < carrier.carried.fetched < 2 * CHUNK + 2000


@pytest.mark.parametrize("kind", ["of another file", "no index", "a lie"])
def test_a_wrong_index_costs_no_more_than_the_file(device: Device, kind: str):
    honest = index_of(NEW)
    lie = ChunkIndex(honest.sha256, honest.length, index_of(OLD).table)
    data = {
        "of another file": index_of(OLD).to_bytes(),
        "no index": b"no index",
        "a lie": lie.to_bytes(),
    }[kind]
    carrier = device.come_by(device.publish(NEW, index=data))
    assert carrier.carried.fetched < len(NEW) + 2000


def test_an_index_that_cannot_be_had_is_no_reason_to_stop(device: Device):
    release = device.publish(NEW)
    del device.source.blobs[blob_of(index_of(NEW).to_bytes()).sha256]
    assert how(device.come_by(release)) == [How.WHOLE]
    [told] = device.told
    assert "chunk index" in told
    assert "there is no" in told


def test_a_busy_server_costs_time_before_it_costs_the_cheap_way(device: Device):
    offered = device.patch(TENSOR_DELTA, OLD, NEW, NEW)
    release = device.publish(NEW, offered)
    device.source.busy[offered.blob.sha256] = 2 * Patience().tries
    assert how(device.come_by(release)) == [How.PATCH]
    assert device.told == []


def test_a_busy_server_costs_time_before_it_costs_the_chunks(device: Device):
    release = device.publish(NEW)
    device.source.busy[blob_of(index_of(NEW).to_bytes()).sha256] = 2 * Patience().tries
    assert how(device.come_by(release)) == [How.CHUNKS]
    assert device.told == []


@pytest.mark.parametrize("what", ["the patch", "the index"])
def test_a_busy_server_is_not_waited_for_when_it_is_too_late(device: Device, what: str):
    offered = device.patch(TENSOR_DELTA, OLD, NEW, NEW)
    release = device.publish(NEW, *[offered] * (what == "the patch"))
    wanted = offered.blob if what == "the patch" else release.files[0].chunks
    device.source.busy[wanted.sha256] = 99
    pauses: list[float] = []

    def look(*_: int) -> None:
        if sum(pauses) > 5:
            raise Unavailable("it is too late")

    def come_by() -> None:
        sources = Sources([device.source], Patience(pause=30.0), sleep=pauses.append)
        tell = device.told.append
        planner = Planner([release], [device.old], device.store, sources, LIMITS, tell, look)
        list(Carrier(sources, device.store, tell, look).carry_out(planner))

    with pytest.raises(Unavailable, match="too late"):
        come_by()
    assert sum(pauses) < 7
    assert device.told == []


def test_a_patch_that_is_never_to_be_had_does_not_stop_the_update(device: Device):
    offered = device.patch(TENSOR_DELTA, OLD, NEW, NEW)
    device.source.busy[offered.blob.sha256] = 1000
    assert how(device.come_by(device.publish(NEW, offered))) == [How.CHUNKS]
    [told] = device.told
    assert "503" in told


def test_if_no_way_does_the_last_one_says_why(device: Device):
    offered = device.offer(ZSTD, None, b"noise", NEW)
    release = device.publish(NEW, offered, index=b"no index")
    del device.source.blobs[blob_of(NEW).sha256]
    with pytest.raises(Unavailable, match="there is no"):
        device.come_by(release)
    device.source.blobs[blob_of(NEW).sha256] = NEW[:-1] + b"!"
    with pytest.raises(Refused, match="other content than its name says"):
        device.come_by(release)
    assert not device.store.has(blob_of(NEW))


def test_an_interrupted_patch_is_not_fetched_again(device: Device):
    offered = device.patch(TENSOR_DELTA, OLD, NEW, NEW)
    device.put(device.source.blobs[offered.blob.sha256])
    carrier = device.come_by(device.publish(NEW, offered))
    assert (how(carrier), carrier.carried.fetched) == ([How.PATCH], 0)
    assert not device.store.has(offered.blob)  # it has served


def test_stopped_in_the_middle_it_goes_on_another_time(device: Device):
    class StoppedError(Unavailable):
        pass

    offered = device.patch(TENSOR_DELTA, OLD, NEW, NEW)

    def stop(done: int, _total: int) -> None:
        if done > offered.blob.length:  # it is here, and is being applied
            raise StoppedError("it is too late") from None

    release = device.publish(NEW, offered)
    sources = Sources([device.source])
    planner = Planner([release], [device.old], device.store, sources, LIMITS, device.told.append)
    carrier = Carrier(sources, device.store, device.told.append, stop)
    with pytest.raises(StoppedError):
        list(carrier.carry_out(planner))
    assert device.told == []  # no way is to blame, and none is tried in its place
    assert not device.store.has(blob_of(NEW))
    assert how(device.come_by(release)) == [How.PATCH]


# --- and whatever comes together


@st.composite
def stories(draw) -> tuple[bytes, list[bytes], list[tuple[str, int, bool, bool]]]:
    """What is here, what is published, and patches: method, target, with a base, honest."""
    seeds = st.lists(st.integers(0, 5), min_size=2, max_size=5)
    contents = {
        b"".join(hashlib.sha256(bytes([seed])).digest() * (CHUNK // 32) for seed in draw(seeds))
        for _ in range(draw(st.integers(2, 3)))
    }
    old, *new = sorted(contents)
    patches = st.tuples(
        st.sampled_from(sorted(METHODS)), st.integers(0, len(new)), st.booleans(), st.booleans()
    )
    return old, new, draw(st.lists(patches, max_size=4))


@pytest.mark.fuzz
@given(stories())
def test_it_is_always_the_file(tmp_path_factory, story):
    old, new, patches = story
    device = Device(tmp_path_factory.mktemp("device"), old)
    offered: dict[int, list[Patch]] = {}
    for method, place, with_base, honest in patches:
        target = new[place % len(new)] if new else old
        base = old if (with_base or method == ZSTD_PATCH) and method != ZSTD else None
        made = target if honest else target[:-1] + b"!"
        patch = device.patch(method, base, made, target)
        offered.setdefault(place % max(1, len(new)), []).append(patch)
    releases = [device.publish(data, *offered.get(at, [])) for at, data in enumerate(new)]
    carrier = device.come_by(*releases)
    wasted = sum(patch.blob.length for each in offered.values() for patch in each)
    looks = (1 + len(new)) * 2000
    assert carrier.carried.fetched <= sum(map(len, new)) + wasted + looks + REQUEST
