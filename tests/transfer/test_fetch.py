"""Gate 10: a blob is what its name says, to the byte, or it is refused."""

import hashlib
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import Gate, Refused, TooLong, Unavailable
from modelward.formats.release import Blob
from modelward.transfer.fetch import fetch, fetch_small

CONTENT = b"weights" * 100
BLOB = Blob(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
URL = "https://example.com/blob"


class Source:
    """Serves blocks, and cuts at the limit as `Http` does; or fails after some of them."""

    def __init__(self, *blocks: bytes, error: Exception | None = None) -> None:
        self.blocks = blocks
        self.error = error
        self.limit = -1

    def stream(self, url: str, limit: int) -> Iterator[memoryview]:
        self.limit = limit
        sent = 0
        for block in self.blocks:
            sent += len(block)
            if sent > limit:
                raise TooLong(f"{url}: more than {limit} bytes")
            yield memoryview(block)
        if self.error:
            raise self.error


@given(st.lists(st.integers(0, len(CONTENT)), max_size=5))
def test_honest_blob_in_any_blocks(cuts):
    places = [0, *sorted(cuts), len(CONTENT)]
    blocks = [CONTENT[a:b] for a, b in pairwise(places)]
    source = Source(*blocks)
    told: list[int] = []
    assert b"".join(fetch(source, URL, BLOB, told.append)) == CONTENT
    assert sum(told) == source.limit == len(CONTENT)
    assert fetch_small(Source(*blocks), URL, BLOB) == CONTENT


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "0 bytes instead of 700"),
        (CONTENT[:-1], "699 bytes instead of 700"),
        (CONTENT + b"x", "more than 700 bytes"),
        (CONTENT[:-1] + b"x", "other content than its name says"),
        (bytes(len(CONTENT)), "other content than its name says"),
    ],
)
def test_wrong_bytes(content, what):
    with pytest.raises(Refused, match=what) as refusal:
        fetch_small(Source(content), URL, BLOB)
    assert refusal.value.gate is Gate.FETCH
    assert URL in refusal.value.reason


def test_source_that_fails():
    with pytest.raises(Unavailable, match="no route") as problem:
        fetch_small(Source(CONTENT[:5], error=Unavailable("no route")), URL, BLOB)
    assert problem.value.gate is Gate.FETCH
    assert problem.value.advice
