"""Chunks: all of the file, none too long, and mostly the same ones in the next version."""

import hashlib
import struct
from itertools import accumulate, pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from modelward.formats.chunks import MAX_CHUNK, MAX_CHUNKS, ChunkIndex
from modelward.formats.release import Blob
from modelward_repo.publish.cache import Cache
from modelward_repo.publish.prepare import chunking, gguf
from modelward_repo.publish.prepare.jobs import Job, Kind, Source, run


def noise(length: int, seed: int = 0) -> bytes:
    return np.random.default_rng(seed).bytes(length)


def index_of(tmp_path, data: bytes, starts=()) -> ChunkIndex | None:
    path = tmp_path / "file"
    path.write_bytes(data)
    done = []
    index = chunking.index_of(path, starts, done.append)
    assert index is None or sum(done) == len(data)
    return index


def shared(old: ChunkIndex, new: ChunkIndex) -> float:
    """Return which part of a new file an old one has."""
    known = {chunk.digest for chunk in old}
    return sum(chunk.length for chunk in new if chunk.digest in known) / new.length


@pytest.mark.parametrize("starts", [(), (0, 70_000, 70_010, 500_000)])
def test_an_index_is_of_the_file(tmp_path, starts):
    data = noise(3 << 20)
    index = index_of(tmp_path, data, starts)
    assert (index.sha256, index.length) == (hashlib.sha256(data).hexdigest(), len(data))
    for chunk in index:
        part = data[chunk.offset : chunk.offset + chunk.length]
        assert hashlib.sha256(part).digest() == chunk.digest
    assert 16 <= len(index) <= 192


@pytest.mark.parametrize(
    ("length", "lengths"),
    [
        (MAX_CHUNK, None),
        (MAX_CHUNK + 1, [MAX_CHUNK, 1]),
        (3 * MAX_CHUNK, [MAX_CHUNK] * 3),
        (MAX_CHUNK * MAX_CHUNKS + 1, None),
    ],
)
def test_the_index_of_a_patch_is_of_the_longest_chunks(tmp_path, length, lengths):
    path = tmp_path / "patch"
    with path.open("wb") as file:
        file.truncate(length)
    index = chunking.even_index_of(path)
    assert (index and [chunk.length for chunk in index]) == lengths


def test_boundaries_follow_the_content(tmp_path):
    data = noise(4 << 20)
    old = index_of(tmp_path, data)
    for new in (b"x" * 100 + data, data[:2_000_000] + b"inserted" + data[2_000_000:]):
        assert shared(old, index_of(tmp_path, new)) > 0.9


def test_short_files_have_no_index(tmp_path):
    assert index_of(tmp_path, bytes(chunking.LEAST_FILE - 1)) is None
    assert index_of(tmp_path, bytes(chunking.LEAST_FILE)) is not None


def test_long_files_have_longer_chunks():
    for length in (0, 1 << 30, 100 << 30):
        target = chunking.target_for(length)
        assert chunking.TARGET <= target <= chunking.MOST_TARGET
    assert chunking.target_for(1 << 30) == chunking.TARGET
    assert (28 << 30) / chunking.target_for(28 << 30) <= MAX_CHUNKS


def test_an_index_is_one_that_neighbours_may_give():
    one, two = (len(ChunkIndex.of("0" * 64, n, [(1, bytes(32))] * n).to_bytes()) for n in (1, 2))
    for length in range(1 << 28, 7 << 30, 1 << 26):
        chunks = length / chunking.target_for(length)
        assert one + chunks * (two - one) <= MAX_CHUNK


@pytest.mark.fuzz
@given(
    st.lists(st.integers(1, 300_000), max_size=20),
    st.integers(1, 3 << 20),
    st.sampled_from([chunking.TARGET, chunking.MOST_TARGET]),
)
def test_parts_are_cut_and_joined_to_the_end(sizes, length, target):
    starts = [start for start in accumulate(sizes) if start < length]
    cuts = list(chunking.lengths(starts, length, target))
    assert sum(cuts) == length
    assert all(0 < size <= min(MAX_CHUNK, 2 * target) for size in cuts)
    ends = {0, *accumulate(cuts)}
    for start, end in pairwise([0, *starts, length]):
        if end - start >= target // chunking.SMALL:
            # A long part is the same chunks whatever comes before it, and after it.
            assert {start, end} <= ends


def test_a_tensor_that_moves_stays_the_same_chunks(tmp_path):
    tensors = {
        name: np.frombuffer(noise(300_000, seed), np.uint8) for seed, name in enumerate("acde")
    }
    old = made_index(tmp_path, save(tensors))
    new = made_index(tmp_path, save({**tensors, "b": np.frombuffer(noise(200_001, 9), np.uint8)}))
    assert shared(old, new) > 1_190_000 / 1_400_000


def made_index(tmp_path, data: bytes) -> ChunkIndex:
    """Index a file as publishing does, which finds its tensors by itself."""
    path = tmp_path / "file"
    path.write_bytes(data)
    cache = Cache(tmp_path / "cache")
    job = Job(Kind.CHUNKS, Source(path, Blob(hashlib.sha256(data).hexdigest(), len(data))))
    run(job, cache, 1, lambda _count: None)
    return ChunkIndex.parse(cache.content(job.name).read_bytes())


# --- GGUF


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def gguf_file(tensors: list[bytes], alignment: int = 64) -> tuple[bytes, list[int]]:
    """Return a GGUF file with values of every kind, and where its tensors begin."""
    values = [
        text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama"),
        text(b"general.alignment") + struct.pack("<II", 4, alignment),
        text(b"n") + struct.pack("<Iq", 11, -1),
        text(b"flags") + struct.pack("<IIQ", 9, 7, 3) + b"\1\0\1",
        text(b"words") + struct.pack("<IIQ", 9, 8, 2) + text(b"zero") + text(b"one"),
    ]
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)) + b"".join(values)
    body, offsets = b"", []
    for tensor in tensors:
        body += bytes(-len(body) % alignment)
        offsets.append(len(body))
        body += tensor
    for place, offset in enumerate(offsets):
        head += text(f"blk.{place}".encode()) + struct.pack("<IQIQ", 1, 7, 0, offset)
    head += bytes(-len(head) % alignment)
    return head + body, [len(head) + offset for offset in offsets]


def starts_in(tmp_path, data: bytes) -> list[int]:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with path.open("rb") as file:
        return gguf.starts(file)


def test_tensors_of_gguf(tmp_path):
    data, starts = gguf_file([noise(100_001), noise(100_002, 1), noise(100_003, 2)])
    assert starts_in(tmp_path, data) == starts
    assert [data[start : start + 10] for start in starts] == [noise(10, seed) for seed in range(3)]


def test_a_gguf_tensor_that_moves_stays_the_same_chunks(tmp_path):
    parts = [noise(200_000, seed) for seed in range(4)]
    old = made_index(tmp_path, gguf_file(parts)[0])
    new = made_index(tmp_path, gguf_file([parts[0], noise(333, 9), *parts[1:]])[0])
    assert shared(old, new) > 0.95


@pytest.mark.fuzz
@given(st.data())
def test_what_is_no_gguf_has_no_tensors(tmp_path_factory, data):
    honest, _ = gguf_file([b"tensor"])
    broken = bytearray(honest)
    for place in data.draw(st.lists(st.integers(0, 8 * len(honest) - 1), min_size=1, max_size=4)):
        broken[place // 8] ^= 1 << place % 8
    cut = bytes(broken[: data.draw(st.integers(0, len(broken)))])
    found = starts_in(
        tmp_path_factory.mktemp("gguf"), data.draw(st.sampled_from([cut, bytes(broken)]))
    )
    assert found == sorted(found)
