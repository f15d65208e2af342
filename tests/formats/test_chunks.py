"""A chunk index: every chunk in its place, and nothing but the file."""

import hashlib
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import FormatError
from modelward.formats import chunks
from modelward.formats.chunks import ChunkIndex
from tests.formats import strategies

pieces = st.lists(
    st.tuples(st.integers(0, chunks.MAX_CHUNK + 1), st.binary(min_size=32, max_size=32)), max_size=5
)


@pytest.mark.fuzz
@given(strategies.chunk_indexes())
def test_chunks_follow_each_other_to_the_end(index):
    found = list(index)
    assert found == [index[place] for place in range(len(index))]
    end = 0
    for chunk in found:
        assert chunk.offset == end
        end += chunk.length
    assert end == index.length


@pytest.mark.fuzz
@given(pieces, st.integers(0, 5 << 20))
def test_only_what_makes_up_the_file_is_an_index(parts, length):
    honest = sum(size for size, _ in parts) == length and all(
        0 < size <= chunks.MAX_CHUNK for size, _ in parts
    )
    data = struct.pack(">19sQ32sI", chunks.SCHEMA, length, bytes(32), len(parts))
    data += b"".join(struct.pack(">I32s", *part) for part in parts)
    try:
        index = ChunkIndex.parse(data)
    except FormatError:
        assert not honest
    else:
        assert honest
        assert [(chunk.length, chunk.digest) for chunk in index] == parts


def test_there_is_no_chunk_beyond_the_last():
    index = ChunkIndex.of("a" * 64, 3, [(3, hashlib.sha256(b"abc").digest())])
    for place in (-1, 1):
        with pytest.raises(IndexError):
            index[place]


def test_a_long_index_is_not_even_looked_at():
    with pytest.raises(FormatError, match="at most 4194304 are allowed"):
        ChunkIndex.parse(bytes(chunks.CAP + 1))
    assert len(ChunkIndex.of("a" * 64, 1, [(1, bytes(32))]).to_bytes()) < chunks.CAP
    assert chunks.MAX_CHUNKS > 100_000
