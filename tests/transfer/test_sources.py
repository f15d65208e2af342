"""Several sources of one repository: asked in turn, scored, and banned when caught."""

import hashlib
from contextlib import suppress

import pytest

from modelward.errors import Gate, NotFound, Refused, TooLong, Unavailable
from modelward.formats.chunks import MAX_CHUNK
from modelward.formats.release import Blob
from modelward.transfer.http import Http, Patience
from modelward.transfer.sources import Kind, Sources, blob_path, of_addresses
from tests.transfer.fakes import FakeSource

CONTENT = b"weights" * 100
BLOB = Blob(hashlib.sha256(CONTENT).hexdigest(), len(CONTENT))
PATH = blob_path(BLOB.sha256)
TIMESTAMP = "metadata/timestamp.json"


def broken(again: float | None = None):
    def fail(_path: str) -> None:
        error = Unavailable("no route")
        error.again = again
        raise error

    return fail


def sources(*given: FakeSource) -> tuple[Sources, list[float]]:
    pauses: list[float] = []
    return Sources(given, Patience(tries=3, pause=1.0), sleep=pauses.append), pauses


def test_documents_come_from_the_origin_and_blobs_from_mirrors():
    origin = FakeSource("origin", {TIMESTAMP: b"1", PATH: CONTENT})
    mirror = FakeSource("mirror", {TIMESTAMP: b"1", PATH: CONTENT}, Kind.MIRROR)
    both, _ = sources(origin, mirror)
    assert both.fetch(TIMESTAMP, 10) == b"1"
    assert both.fetch_blob(BLOB) == CONTENT
    assert (origin.asked, mirror.asked) == ([TIMESTAMP], [PATH])


def test_absent_origin_is_replaced_and_not_asked_first_again():
    origin = FakeSource("origin", fail=broken())
    mirror = FakeSource("mirror", {TIMESTAMP: b"1"}, Kind.MIRROR)
    both, pauses = sources(origin, mirror)
    assert both.fetch(TIMESTAMP, 10) == both.fetch(TIMESTAMP, 10) == b"1"
    assert len(origin.asked) == 1
    assert not pauses


def test_absence_is_believed_of_the_first_who_answers():
    origin = FakeSource("origin")
    mirror = FakeSource("mirror", {"metadata/2.root.json": b"x"}, Kind.MIRROR)
    both, _ = sources(origin, mirror)
    with pytest.raises(NotFound):
        both.fetch("metadata/2.root.json", 10)
    assert not mirror.asked


def busy(*answers: bool):
    """Be busy where an answer is true, and well afterwards."""
    left = list(answers)

    def fail(path: str) -> None:
        if left and left.pop(0):
            broken(again=0.0)(path)

    return fail


@pytest.mark.parametrize("kind", [Kind.NEIGHBOUR, Kind.MIRROR])
def test_busy_origin_is_asked_again_before_absence_is_believed_of_who_may_lag(kind):
    new, old = "metadata/5.snapshot.json", "metadata/timestamp.json"
    origin = FakeSource("origin", {new: b"5", old: b"5"}, fail=busy(True, True, False, True))
    lagging = FakeSource("lagging", {old: b"4"}, kind)
    both, pauses = sources(origin, lagging)
    assert both.fetch(new, 10) == b"5"
    assert len(pauses) == 2
    assert both.fetch(old, 10) == b"4"  # TUF judges it
    assert both.fetch(new, 10) == b"5"  # who lags is asked first now, and not believed
    assert len(pauses) == 2


def test_absence_is_believed_of_a_neighbour_once_the_origin_was_given_up():
    origin = FakeSource("origin", fail=broken(again=7.0))
    near = FakeSource("near", {TIMESTAMP: b"1"}, Kind.NEIGHBOUR)
    both, pauses = sources(origin, near)
    # TUF's search for a new root ends, and goes on with the neighbour.
    with pytest.raises(NotFound, match="no route; near: no metadata/2") as problem:
        both.fetch("metadata/2.root.json", 10)
    assert problem.value.again == 7.0
    assert both.fetch(TIMESTAMP, 10) == b"1"
    with pytest.raises(NotFound, match="near: no metadata/3"):
        both.fetch("metadata/3.root.json", 10)
    assert (len(origin.asked), len(pauses)) == (3, 2)


def test_target_that_a_neighbour_lacks_comes_from_the_next():
    path = "targets/ab.policy.json"
    origin = FakeSource("origin", fail=broken())
    lacks = FakeSource("lacks", {}, Kind.NEIGHBOUR)
    has = FakeSource("has", {path: b"x"}, Kind.NEIGHBOUR)
    assert sources(origin, lacks, has)[0].fetch(path, 10) == b"x"
    with pytest.raises(Unavailable, match="no route"):  # who should have it is to blame
        sources(origin, lacks)[0].fetch(path, 10)


def test_blob_that_a_mirror_lacks_comes_from_the_origin():
    origin = FakeSource("origin", {PATH: CONTENT})
    both, _ = sources(origin, FakeSource("mirror", {}, Kind.MIRROR))
    assert both.fetch_blob(BLOB) == CONTENT
    assert not both.banned()


@pytest.mark.parametrize(("length", "is_asked"), [(MAX_CHUNK, True), (MAX_CHUNK + 1, False)])
def test_neighbour_can_waste_no_more_than_a_chunk_of_what_comes_whole(length, is_asked):
    """As the chunk index of a file of a few gigabytes does, which nothing checks piece by piece."""
    content = bytes(length)
    blob = Blob(hashlib.sha256(content).hexdigest(), length)
    path = blob_path(blob.sha256)
    origin = FakeSource("origin", {path: content})
    liar = FakeSource("liar", {path: b"x" * length}, Kind.NEIGHBOUR)
    both, _ = sources(origin, liar)
    assert both.fetch_blob(blob) == content
    assert (list(both.banned()), bool(liar.asked)) == (["liar"] if is_asked else [], is_asked)
    assert both.fetch_blob(blob, lambda: None) == content
    assert len(liar.asked) == is_asked


def test_all_are_asked_again_while_that_may_help():
    first = FakeSource("first", fail=broken(again=0.0))
    second = FakeSource("second", fail=broken(again=100.0))
    gone = FakeSource("gone", fail=broken())
    all_three, pauses = sources(first, second, gone)
    with pytest.raises(Unavailable, match="no route"):
        all_three.fetch(TIMESTAMP, 10)
    assert [len(source.asked) for source in (first, second, gone)] == [3, 3, 1]
    assert 0.5 <= pauses[0] <= 1.5
    assert 1 <= pauses[1] <= 3


def test_what_a_server_asks_for_is_waited_for_but_not_for_ever():
    patience = Patience(tries=2, pause=0.001, longest=60)
    assert 7.0 < patience.before_try(1, 7.0) < 7.002
    assert 60 < patience.before_try(1, 1e9) < 60.002
    assert patience.before_try(5000) == 60


def test_whoever_is_waited_for_the_caller_is_asked_whether_to_go_on():
    found, pauses = sources(FakeSource("origin", fail=broken(3600.0)))

    def stop() -> None:
        if sum(pauses) > 5:
            raise Unavailable("it is too late")

    with pytest.raises(Unavailable, match="too late"):
        found.fetch_blob(Blob("0" * 64, 1), stop)
    assert sum(pauses) < 7


def test_endless_document_comes_from_another():
    origin = FakeSource("origin", {TIMESTAMP: b"x" * 100})
    mirror = FakeSource("mirror", {TIMESTAMP: b"1"}, Kind.MIRROR)
    both, _ = sources(origin, mirror)
    assert both.fetch(TIMESTAMP, 10) == b"1"
    alone, _ = sources(origin)
    with pytest.raises(TooLong):
        alone.fetch(TIMESTAMP, 10)


@pytest.mark.parametrize("lie", [b"", CONTENT[:-1], CONTENT + b"x", bytes(len(CONTENT))])
def test_source_that_lies_is_banned(lie):
    liar = FakeSource("liar", {PATH: lie, TIMESTAMP: b"liar's"}, Kind.MIRROR)
    origin = FakeSource("origin", {PATH: CONTENT, TIMESTAMP: b"1"})
    both, _ = sources(liar, origin)
    assert both.fetch_blob(BLOB) == CONTENT
    assert both.fetch_blob(BLOB) == CONTENT
    assert len(liar.asked) == 1
    assert list(both.banned()) == ["liar"]
    alone, _ = sources(liar)
    for _ in range(2):
        with pytest.raises(Refused, match="liar delivered") as refusal:
            alone.fetch_blob(BLOB)
        assert refusal.value.gate is Gate.FETCH
    assert alone.fetch(TIMESTAMP, 100) == b"liar's"  # judged by TUF, whoever brings it


def test_blob_that_nobody_has():
    nobody, _ = sources(FakeSource("origin"), FakeSource("mirror", kind=Kind.MIRROR))
    with pytest.raises(NotFound) as problem:
        nobody.fetch_blob(BLOB)
    assert problem.value.gate is Gate.FETCH
    assert problem.value.advice
    none, _ = sources()
    with pytest.raises(Unavailable, match="no source"):
        none.fetch_blob(BLOB)
    with pytest.raises(Unavailable, match="no source"):
        none.fetch(TIMESTAMP, 10)


def test_faster_of_two_alike_is_asked_first():
    slow, fast = FakeSource("slow", kind=Kind.MIRROR), FakeSource("fast", kind=Kind.MIRROR)
    both, _ = sources(slow, fast)
    first, second = both.for_blobs()
    assert first.source is slow
    both.delivered(first, 1000, 1.0)
    both.delivered(second, 5000, 1.0)
    assert [standing.source.name for standing in both.for_blobs()] == ["fast", "slow"]
    both.failed(second, Unavailable("gone"))
    assert [standing.source.name for standing in both.for_blobs()] == ["slow", "fast"]
    assert both.received() == {"slow": 1000, "fast": 5000}


def test_waits_in_vain_are_limited_over_all_that_is_asked_of_a_source():
    both, _ = sources(FakeSource("silent", kind=Kind.MIRROR), FakeSource("origin"))
    now = 0.0
    both.clock = lambda: now
    silent, origin = both.for_blobs()

    def waits(seconds: float) -> None:
        nonlocal now
        now += seconds
        error = Unavailable("timed out")
        error.vain = seconds
        both.failed(silent, error)
        both.failed(silent, error)  # two connections at the same time: that costs it once

    waits(both.patience.vain)
    assert len(both.for_blobs()) == 2
    both.delivered(silent, int(both.patience.rate * both.patience.vain / 2), 1.0)  # half made good
    waits(both.patience.vain / 2)
    assert len(both.for_blobs()) == 2
    waits(1.0)
    assert both.for_blobs() == [origin]
    both.ban(origin, Refused(Gate.FETCH, "origin lied", "use another"))
    problem = both.nobody_left()
    assert isinstance(problem, Unavailable)  # who is silent may be well tomorrow
    assert "silent: waited" in problem.reason
    assert "origin lied" in problem.reason


@pytest.mark.parametrize(("every", "lasts"), [(10, True), (6, True), (2, False)])
def test_documents_make_good_a_wait_now_and_then(every, lasts):
    """A poor link loses one request in ten; who is silent at every other one costs too much."""
    now, asked = 0.0, 0

    def lose(_path: str) -> None:
        nonlocal now, asked
        asked += 1
        if asked % every == 0:
            now += 10.01
            error = Unavailable("timed out")
            error.again, error.vain = 0.0, 10.01
            raise error

    origin, _ = sources(FakeSource("origin", {TIMESTAMP: b"1"}, fail=lose))
    origin.clock = lambda: now
    brought = 0
    with suppress(Unavailable):
        for _ in range(200):
            brought += origin.fetch(TIMESTAMP, 10) == b"1"
    assert (brought == 200) == lasts
    assert lasts or now < 100


def test_of_addresses():
    with Http() as http:
        made = of_addresses("https://a.example", ["https://b.example"], http, Patience())
    assert [(source.name, source.kind) for source in made.sources] == [
        ("https://a.example", Kind.ORIGIN),
        ("https://b.example", Kind.MIRROR),
    ]
