"""Gate 10: a blob is what its name says, to the byte, or it is refused."""

import hashlib

import pytest

from modelward.errors import Gate, Refused, Unavailable
from modelward.formats.release import Blob
from modelward.install.store import Store
from modelward.transfer.fetch import fetch_blob, fetch_small
from modelward.transfer.sources import Kind, Sources, blob_path
from tests.transfer.fakes import FakeSource

CONTENT = b"weights" * 100
BLOB = Blob(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
PATH = blob_path(BLOB.sha256)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "store")


def serving(*contents: bytes) -> Sources:
    return Sources(
        [FakeSource(f"s{number}", {PATH: data}) for number, data in enumerate(contents)],
        sleep=lambda _: None,
    )


def test_blob(store):
    told: list[int] = []
    fetch_blob(serving(CONTENT), BLOB, store, progress=told.append)
    assert store.read(BLOB) == CONTENT
    assert sum(told) == len(CONTENT)
    assert fetch_small(serving(CONTENT), BLOB) == CONTENT


def test_wrong_bytes_come_from_elsewhere(store):
    fetch_blob(serving(bytes(len(CONTENT)), CONTENT), BLOB, store)
    assert store.read(BLOB) == CONTENT


def test_wrong_bytes(store):
    with pytest.raises(Refused, match="other content than its name says") as refusal:
        fetch_blob(serving(bytes(len(CONTENT))), BLOB, store)
    assert refusal.value.gate is Gate.FETCH
    assert not store.has(BLOB)


def test_nobody_has_it(store):
    with pytest.raises(Unavailable) as problem:
        fetch_blob(Sources([FakeSource("s", {}, Kind.MIRROR)]), BLOB, store)
    assert problem.value.gate is Gate.FETCH
    assert problem.value.advice
