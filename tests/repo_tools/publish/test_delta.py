"""What patches come to, for changes of which it is known how much they say."""

import os
import random

import pytest

from modelward.transfer import patch
from modelward_repo.publish import delta
from tests.transfer.patch.applying import applied, blocks
from tests.transfer.patch.pairs import Tensor, safetensors

LENGTH = 200_000


def model(seed: int, metadata: str = "", **more: Tensor) -> bytes:
    """A file of one tensor of 2-byte floats near each other, and perhaps others before it."""
    numbers = random.Random(seed)
    elements = (numbers.randrange(0x3C00, 0x3F00) for _ in range(LENGTH // 2))
    data = b"".join(element.to_bytes(2, "little") for element in elements)
    weight = Tensor("BF16", 100, LENGTH // 200, data)
    return safetensors(more | {"weight": weight}, metadata)


@pytest.fixture
def encoded(tmp_path):
    """Make a patch and apply it; return it."""

    def encode(method: str, old: bytes | None, new: bytes) -> delta.Candidate:
        base = tmp_path / "old" if old is not None else None
        if base and old is not None:
            base.write_bytes(old)
        (tmp_path / "new").write_bytes(new)
        made = delta.encode(method, base, tmp_path / "new", tmp_path / "patch")
        data = made.path.read_bytes()
        assert len(data) == made.length
        assert made.uses_base == (base is not None)
        assert applied(method, old, blocks(data), len(new), made.memory) == new
        return made

    return encode


def test_small_steps_of_floats_cost_little(encoded):
    numbers = random.Random(1)
    old = model(1)
    new = bytearray(old)
    for position in range(200, len(new), 2):
        new[position] = min(255, new[position] + numbers.randrange(3))
    made = encoded(patch.TENSOR_DELTA, old, bytes(new))
    # Each of 100,000 elements says one of three things: 19,812 bytes.
    assert made.length < 24_000
    assert made.length < encoded(patch.ZSTD_PATCH, old, bytes(new)).length / 2


def test_what_moved_costs_nothing(encoded):
    other = Tensor("F32", 10, 100, os.urandom(4000))
    made = encoded(patch.TENSOR_DELTA, model(2), model(2, "longer metadata " * 50))
    assert made.length < 500
    made = encoded(patch.TENSOR_DELTA, model(2), model(2, inserted=other))
    assert made.length < 4_500


def test_a_renamed_tensor_costs_nothing(encoded):
    old = model(3, first=Tensor("F32", 10, 100, random.Random(3).randbytes(4000)))
    new = model(3, second=Tensor("F32", 10, 100, random.Random(3).randbytes(4000)))
    assert encoded(patch.TENSOR_DELTA, old, new).length < 500


def test_tensors_whose_numbers_changed_are_compared_in_their_order(encoded):
    """Exporters number what has no name; the numbers change with every export."""
    numbers = random.Random(10)
    tables = [[numbers.randrange(1 << 20, 1 << 29) for _ in range(5_000)] for _ in range(3)]

    def exported(first: int, most: int) -> bytes:
        tensors = {}
        for number, table in enumerate(tables, first):
            elements = (element + numbers.randrange(most) for element in table)
            data = b"".join(element.to_bytes(4, "little") for element in elements)
            tensors[f"onnx::MatMul_{number}"] = Tensor("F32", 50, 100, data)
        return safetensors(tensors)

    assert encoded(patch.TENSOR_DELTA, exported(100, 1), exported(219, 4)).length < 7_000


def test_rows_that_were_added_are_all_that_is_sent(encoded):
    rows = random.Random(4).randbytes(40_000)
    old = model(4, table=Tensor("F32", 100, 100, rows))
    new = model(4, table=Tensor("F32", 101, 100, rows + os.urandom(400)))
    assert encoded(patch.TENSOR_DELTA, old, new).length < 1_000


def test_a_base_that_does_not_help_does_no_harm(encoded):
    old, new = model(5), model(6)
    alone = encoded(patch.TENSOR_DELTA, None, new)
    assert encoded(patch.TENSOR_DELTA, old, new).length < alone.length * 1.01


def test_planes_help_without_a_base(encoded):
    new = model(7)
    assert encoded(patch.TENSOR_DELTA, None, new).length < encoded(patch.ZSTD, None, new).length


def test_numbers_in_a_file_of_unknown_format_are_told_from_text(encoded):
    numbers = random.Random(8)
    old = bytearray(b"an unknown format, 30 bytes...")
    new = bytearray(old)
    for _ in range(100_000):
        element = numbers.randrange(1 << 20, 1 << 24)
        old += element.to_bytes(4, "little")
        new += (element + numbers.randrange(200)).to_bytes(4, "little")
    made = encoded(patch.TENSOR_DELTA, bytes(old), bytes(new))
    assert made.length < 0.28 * len(new)  # one byte of four, and what the others cost


def test_progress_counts_the_new_file(tmp_path):
    new = tmp_path / "new"
    new.write_bytes(model(9))
    for method in (patch.TENSOR_DELTA, patch.ZSTD):
        told: list[int] = []
        delta.encode(method, None, new, tmp_path / "patch", progress=told.append)
        assert sum(told) == new.stat().st_size


@pytest.mark.parametrize(
    ("method", "base"), [(patch.ZSTD, True), (patch.ZSTD_PATCH, False), ("zip/1", False)]
)
def test_a_method_that_does_not_fit_is_an_error(tmp_path, method, base):
    (tmp_path / "file").write_bytes(b"content")
    old = tmp_path / "file" if base else None
    with pytest.raises(ValueError, match=method):
        delta.encode(method, old, tmp_path / "file", tmp_path / "patch")
