"""Gate 9: each file by the cheapest way that this device can go, and whether it all fits."""

import hashlib
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modelward.errors import Gate, Unavailable
from modelward.formats.chunks import ChunkIndex
from modelward.formats.release import Blob, Patch, Release, ReleaseFile
from modelward.formats.ticket import Ticket
from modelward.transfer.plan import (
    LOOK,
    REQUEST,
    RESERVE,
    TRIES,
    Here,
    How,
    Limits,
    Plan,
    Way,
    make,
    worth_a_look,
)

A, B, C = (Blob(digit * 64, length) for digit, length in (("a", 10), ("b", 20), ("c", 30)))
BIG, BASE, PATCH = (
    Blob(digit * 64, length) for digit, length in (("1", 9000), ("2", 9), ("3", 90))
)
ROOMY = Limits(1 << 40, 1 << 26, frozenset(("delta", "zstd")))
BY_PATCH = Patch(BIG.sha256, BASE.sha256, "delta", PATCH, 1000)


def release(*files: Blob | ReleaseFile, patches: tuple[Patch, ...] = (), model="m") -> Release:
    return Release(
        model=model,
        version="1",
        counter=1,
        released=datetime(2026, 11, 22, tzinfo=UTC),
        ticket=Ticket(model, "1", 1, ""),
        files=tuple(
            file if isinstance(file, ReleaseFile) else ReleaseFile(f"{n}.onnx", file, "onnx")
            for n, file in enumerate(files)
        ),
        patches=patches,
    )


def holding(*blobs: Blob) -> Here:
    return Here({blob.sha256: blob.length for blob in blobs})


def fetched(plan: Plan) -> tuple[Blob, ...]:
    return tuple(step.blob for step in plan.steps)


def ways_to(plan: Plan) -> list[How]:
    return [way.how for way in plan.steps[0].ways]


def test_each_blob_is_fetched_once():
    plan = make([release(A, B, A), release(B, C)], Here(), ROOMY)
    assert (fetched(plan), plan.present, plan.cost, plan.saved) == ((A, B, C), (), 60, 0)
    assert plan.describe() == "3 files to fetch (60 bytes: 3 whole), 0 are here already"


def test_what_is_here_is_not_fetched():
    plan = make([release(A, B)], holding(A), ROOMY)
    assert (fetched(plan), plan.present, plan.cost) == ((B,), (A,), 20)
    assert make([release(A)], holding(A), ROOMY).describe() == (
        "no files to fetch, 1 are here already"
    )


def test_nothing_to_install():
    plan = make([], Here(), ROOMY)
    assert (fetched(plan), plan.present, plan.cost) == ((), (), 0)


def test_space_is_reserved_first():
    assert make([release(A)], Here(), Limits(RESERVE + 10)).cost == 10
    with pytest.raises(Unavailable, match="bytes are needed, but only") as problem:
        make([release(A)], Here(), Limits(RESERVE + 9))
    assert problem.value.gate is Gate.PLAN


def test_what_is_here_takes_no_more_space():
    assert make([release(A)], holding(A), Limits(RESERVE)).cost == 0


def test_a_patch_saves():
    plan = make([release(BIG, patches=(BY_PATCH,))], holding(BASE), ROOMY)
    assert ways_to(plan) == [How.PATCH, How.WHOLE]
    assert (plan.cost, plan.saved, plan.how) == (90, 8910, {How.PATCH: 1})
    assert plan.describe() == (
        "1 files to fetch (90 bytes, 8910 saved: 1 by patch), 0 are here already"
    )


@pytest.mark.parametrize(
    ("here", "limits"),
    [
        pytest.param(holding(), ROOMY, id="its base is not here"),
        pytest.param(holding(BASE), Limits(1 << 40, 999, ROOMY.methods), id="it takes memory"),
        pytest.param(holding(BASE), Limits(1 << 40, 1 << 26), id="its method is not known"),
        pytest.param(
            holding(BASE), Limits(RESERVE + 9089, 1 << 26, ROOMY.methods), id="it takes space"
        ),
    ],
)
def test_a_patch_is_passed_over_if(here: Here, limits: Limits):
    assert ways_to(make([release(BIG, patches=(BY_PATCH,))], here, limits)) == [How.WHOLE]


def test_a_patch_that_is_here_is_not_fetched_again():
    plan = make([release(BIG, patches=(BY_PATCH,))], holding(BASE, PATCH), ROOMY)
    assert (plan.cost, plan.steps[0].ways[0].scratch) == (0, 0)


def test_compressed_needs_no_base():
    smaller = Patch(BIG.sha256, None, "zstd", Blob("4" * 64, 4000), 1000)
    plan = make([release(BIG, patches=(smaller, BY_PATCH))], Here(), ROOMY)
    assert ways_to(plan) == [How.COMPRESSED, How.WHOLE]
    plan = make([release(BIG, patches=(smaller, BY_PATCH))], holding(BASE), ROOMY)
    assert ways_to(plan) == [How.PATCH, How.COMPRESSED, How.WHOLE]


def test_what_is_dearer_than_the_file_is_no_way_to_it():
    dear = Patch(A.sha256, BASE.sha256, "delta", Blob("4" * 64, A.length), 0)
    assert ways_to(make([release(A, patches=(dear,))], holding(BASE), ROOMY)) == [How.WHOLE]


def test_a_stolen_key_cannot_list_a_thousand_bad_patches():
    # Attack row 27: each would be fetched and found wrong.
    bad = tuple(
        Patch(BIG.sha256, BASE.sha256, "delta", Blob(f"{n:064x}", 8000 + n), 0) for n in range(1000)
    )
    plan = make([release(BIG, patches=bad)], holding(BASE), ROOMY)
    assert ways_to(plan) == [How.PATCH] * TRIES + [How.WHOLE]
    assert plan.cost == 8000


# --- chunks: with real content, so that what a plan says can be carried out


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def cut(parts: list[bytes]) -> ChunkIndex:
    whole = b"".join(parts)
    return ChunkIndex.of(
        sha(whole), len(whole), [(len(part), hashlib.sha256(part).digest()) for part in parts]
    )


def blob_of(parts: list[bytes]) -> Blob:
    return Blob(sha(b"".join(parts)), sum(map(len, parts)))


def put_together(way: Way, whole: bytes, files: dict[str, bytes]) -> tuple[bytes, int]:
    """Return what a way by chunks yields, and the bytes fetched for it."""
    made, count = b"", 0
    for chunk, place in way.pieces():
        if place is None:
            made += whole[chunk.offset : chunk.offset + chunk.length]
            count += chunk.length
        else:
            made += files[place.sha256][place.offset : place.offset + place.length]
    return made, count


part = st.binary(min_size=1, max_size=3).map(lambda seed: seed * 1000)
parts = st.lists(part, min_size=1, max_size=6)


@st.composite
def situations(draw):
    """Files that are here, files that are wanted, patches for some, and a device's limits."""
    old = draw(st.lists(parts, max_size=3, unique_by=b"".join))
    new = draw(st.lists(parts, min_size=1, max_size=3, unique_by=b"".join))
    indexes = {blob_of(item).sha256: cut(item) for item in (*old, *new) if draw(st.booleans())}
    bases = st.sampled_from(["9" * 64, *(blob_of(item).sha256 for item in old)])
    patches = tuple(
        Patch(
            to=blob_of(item).sha256,
            base=draw(st.none() | bases),
            method=draw(st.sampled_from(["delta", "zstd", "unheard of"])),
            blob=Blob(f"{n:x}" * 64, draw(st.integers(0, 20_000))),
            memory=draw(st.integers(0, 1 << 21)),
        )
        for n, item in enumerate(draw(st.lists(st.sampled_from(new), max_size=6)))
    )
    limits = Limits(
        RESERVE + draw(st.integers(0, 60_000)), draw(st.integers(0, 1 << 22)), ROOMY.methods
    )
    return old, new, indexes, patches, limits


@pytest.mark.fuzz
@given(situations())
def test_a_plan_can_be_carried_out_and_is_never_dear(situation):
    old, new, indexes, patches, limits = situation
    files = {blob_of(item).sha256: b"".join(item) for item in (*old, *new)}
    here = holding(*map(blob_of, old))
    missing = {blob_of(item) for item in new if not here.has(blob_of(item))}
    needed = sum(blob.length for blob in missing) + RESERVE
    order = release(*map(blob_of, new), patches=patches)
    if needed > limits.free:
        with pytest.raises(Unavailable):
            make([order], here, limits, indexes)
        return

    plan = make([order], here, limits, indexes)

    assert set(fetched(plan)) == missing
    assert missing | set(plan.present) == {blob_of(item) for item in new}
    assert plan.cost <= plan.length
    assert sum(plan.how.values()) == len(missing)
    arrived = dict(here.blobs)
    for step in plan.steps:
        costs = [way.cost for way in step.ways]
        assert costs == sorted(costs)
        assert step.ways[-1] == Way(How.WHOLE, step.blob.length)
        assert len(step.ways) <= TRIES + 1
        for way in step.ways[:-1]:
            assert way.cost < step.blob.length
            assert way.memory <= limits.memory
            assert needed + way.scratch <= limits.free
            if way.patch:
                assert way.patch.to == step.blob.sha256
                assert way.patch.base is None or way.patch.base in here.blobs
                assert way.patch.method in limits.methods
            else:
                available = {name: files[name] for name in arrived}
                made, count = put_together(way, files[step.blob.sha256], available)
                assert made == files[step.blob.sha256]
                assert count <= way.cost < count + REQUEST * (len(way.index) + 1)
        arrived[step.blob.sha256] = step.blob.length


@pytest.mark.fuzz
@given(parts, parts)
def test_a_chunk_that_is_here_is_never_fetched(old, new):
    assume(b"".join(old) != b"".join(new))
    indexes = {blob_of(item).sha256: cut(item) for item in (old, new)}
    plan = make([release(blob_of(new))], holding(blob_of(old)), ROOMY, indexes)
    for way in plan.steps[0].ways:
        if way.how is How.CHUNKS:
            missing = {chunk.digest for chunk, place in way.pieces() if place is None}
            assert not missing & {chunk.digest for chunk in indexes[blob_of(old).sha256]}


def test_chunks_of_a_file_that_arrives_before_are_here():
    first, second = [b"a" * 5000, b"b" * 5000], [b"c" * 5000, b"b" * 5000]
    indexes = {blob_of(item).sha256: cut(item) for item in (first, second)}
    plan = make([release(blob_of(first), blob_of(second))], Here(), ROOMY, indexes)
    assert plan.cost == 15_000 + REQUEST
    assert plan.describe() == (
        "2 files to fetch (15512 bytes, 4488 saved: 1 by changed chunks, 1 whole), "
        "0 are here already"
    )


def test_an_index_of_another_length_is_of_no_use():
    new, old = blob_of([b"abc" * 1000]), blob_of([b"abc" * 2000])
    lying = {new.sha256: cut([b"abc" * 2000]), old.sha256: cut([b"abc" * 2000])}
    assert ways_to(make([release(new)], holding(old), ROOMY, lying)) == [How.WHOLE]


def test_small_chunks_do_not_pay():
    old = [bytes([n]) * 10 for n in range(100)]
    new = [bytes([n + 128 * (n % 2)]) * 10 for n in range(100)]  # every second one differs
    indexes = {blob_of(item).sha256: cut(item) for item in (old, new)}
    plan = make([release(blob_of(new))], holding(blob_of(old)), ROOMY, indexes)
    assert ways_to(plan) == [How.WHOLE]


# --- which indexes are worth having


def indexed(blob: Blob, digit: str, length: int) -> ReleaseFile:
    return ReleaseFile("a.onnx", blob, "onnx", Blob(digit * 64, length))


NEW_INDEX = Blob("8" * 64, 100)
OLD_INDEX = Blob("9" * 64, 100)
ORDER = release(indexed(BIG, "8", 100))


def with_index(*more: Blob, relatives: bool, length: int = 100) -> Here:
    return Here(
        holding(BASE, *more).blobs,
        {BASE.sha256: Blob(OLD_INDEX.sha256, length)},
        {"m": frozenset([BASE.sha256])} if relatives else {},
    )


def test_indexes_are_looked_at_where_a_relative_is_here():
    assert worth_a_look([ORDER], with_index(relatives=True), ROOMY) == (NEW_INDEX, OLD_INDEX)


def test_indexes_of_other_models_are_looked_at_too():
    assert worth_a_look([ORDER], with_index(relatives=False), ROOMY) == (NEW_INDEX, OLD_INDEX)
    here = with_index(OLD_INDEX, relatives=False)
    assert worth_a_look([ORDER], here, ROOMY) == (NEW_INDEX, OLD_INDEX)


def test_relatives_are_looked_at_first_and_others_while_it_pays():
    cousins = [Blob(f"{n:064x}", 10) for n in range(10)]
    indexes = {blob.sha256: Blob(f"{n:x}" * 64, 60) for n, blob in enumerate(cousins)}
    here = Here(
        holding(BASE, *cousins).blobs,
        indexes | {BASE.sha256: OLD_INDEX},
        {"m": frozenset([BASE.sha256])},
    )
    looked = worth_a_look([ORDER], here, ROOMY)
    assert looked[:2] == (NEW_INDEX, OLD_INDEX)
    assert sum(blob.length for blob in looked) <= BIG.length // LOOK
    assert len(looked) == 3


def test_nothing_is_looked_at_where_nothing_is_here():
    assert worth_a_look([ORDER], Here(), ROOMY) == ()
    assert worth_a_look([ORDER], holding(BASE), ROOMY) == ()


def test_an_index_is_not_fetched_if_it_costs_much_of_what_it_can_save():
    cheap = Patch(BIG.sha256, BASE.sha256, "delta", Blob("3" * 64, 200 * LOOK - 1), 1000)
    order = release(indexed(BIG, "8", 100), patches=(cheap,))
    assert worth_a_look([order], with_index(relatives=True), ROOMY) == ()
    forgetful = Limits(1 << 40, 999, ROOMY.methods)  # it cannot apply the patch
    assert worth_a_look([order], with_index(relatives=True), forgetful) == (NEW_INDEX, OLD_INDEX)
