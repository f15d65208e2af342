"""Gate 9: what has to be fetched, each once, and whether it fits."""

from datetime import UTC, datetime

import pytest

from modelward.errors import Gate, Unavailable
from modelward.formats.release import Blob, Release, ReleaseFile
from modelward.formats.ticket import Ticket
from modelward.transfer.plan import RESERVE, make

A, B, C = (Blob(digit * 64, length) for digit, length in (("a", 10), ("b", 20), ("c", 30)))
ROOMY = 1 << 40


def release(*blobs: Blob) -> Release:
    return Release(
        model="m",
        version="1",
        counter=1,
        released=datetime(2026, 11, 22, tzinfo=UTC),
        ticket=Ticket("m", "1", 1, ""),
        files=tuple(ReleaseFile(f"{n}.onnx", blob, "onnx") for n, blob in enumerate(blobs)),
    )


def test_each_blob_is_fetched_once():
    plan = make([release(A, B, A), release(B, C)], lambda _: False, ROOMY)
    assert (plan.fetch, plan.present, plan.length) == ((A, B, C), (), 60)


def test_what_is_here_is_not_fetched():
    plan = make([release(A, B)], {A}.__contains__, ROOMY)
    assert (plan.fetch, plan.present, plan.length) == ((B,), (A,), 20)


def test_nothing_to_install():
    plan = make([], lambda _: False, ROOMY)
    assert (plan.fetch, plan.present, plan.length) == ((), (), 0)


def test_space_is_reserved_first():
    assert make([release(A)], lambda _: False, RESERVE + 10).length == 10
    with pytest.raises(Unavailable, match="bytes are needed, but only") as problem:
        make([release(A)], lambda _: False, RESERVE + 9)
    assert problem.value.gate is Gate.PLAN


def test_what_is_here_takes_no_more_space():
    assert make([release(A)], lambda _: True, RESERVE).length == 0
