"""Whatever two files hold, each method makes the new one out of the old one, byte for byte."""

import contextlib
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import Refused
from modelward.transfer import patch
from modelward.transfer.patch.tensor_delta import CRUMBS
from modelward_repo.publish import delta
from tests.transfer.patch.applying import applied, blocks
from tests.transfer.patch.pairs import Tensor, any_pairs, safetensors, safetensors_pairs

MEMORY = 64 << 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("patches")


def made(folder: Path, method: str, old: bytes | None, new: bytes) -> delta.Candidate:
    base = folder / "old"
    if old is not None:
        base.write_bytes(old)
    (folder / "new").write_bytes(new)
    old_path = base if old is not None else None
    return delta.encode(method, old_path, folder / "new", folder / "patch", threads=1)


def check(folder: Path, method: str, old: bytes | None, new: bytes, size: int = 1 << 20) -> None:
    candidate = made(folder, method, old, new)
    data = candidate.path.read_bytes()
    assert len(data) == candidate.length
    assert applied(method, old, blocks(data, size), len(new), candidate.memory) == new
    assert candidate.memory <= MEMORY


@pytest.mark.fuzz
@given(pair=safetensors_pairs() | any_pairs(), size=st.sampled_from((1, 7, 1 << 20)))
def test_a_tensor_delta_makes_the_new_file(folder, pair, size):
    check(folder, patch.TENSOR_DELTA, *pair, size)


@pytest.mark.fuzz
@given(pair=safetensors_pairs() | any_pairs())
def test_a_tensor_delta_needs_no_base(folder, pair):
    check(folder, patch.TENSOR_DELTA, None, pair[1])


@pytest.mark.fuzz
@given(pair=safetensors_pairs() | any_pairs(), size=st.sampled_from((1, 7, 1 << 20)))
def test_a_zstd_patch_makes_the_new_file(folder, pair, size):
    check(folder, patch.ZSTD_PATCH, *pair, size)


@pytest.mark.fuzz
@given(pair=safetensors_pairs() | any_pairs(), size=st.sampled_from((1, 7, 1 << 20)))
def test_a_compressed_file_makes_the_file(folder, pair, size):
    check(folder, patch.ZSTD, None, pair[1], size)


@pytest.mark.parametrize("rest", [1, 40])
def test_sparse_differences_come_in_crumbs(folder, rest):
    """Most elements as they were, some a step away, and few of these further away than that."""
    numbers = random.Random(rest)

    def step() -> int:
        return 0 if numbers.randrange(12) else 1 if numbers.randrange(50) else rest

    old = numbers.randbytes(90_001)
    new = bytes((byte + step()) % 256 for byte in old)
    pair = [safetensors({"weight": Tensor("I8", 1, len(data), data)}) for data in (old, new)]
    candidate = made(folder, patch.TENSOR_DELTA, *pair)
    data = candidate.path.read_bytes()
    lengths = [data[at : at + 4] for at in range(len(data) - 3)]
    packed = [int.from_bytes(length, "little") for length in lengths]
    assert any(number & CRUMBS and number ^ CRUMBS < len(data) for number in packed)
    assert applied(patch.TENSOR_DELTA, pair[0], blocks(data), len(pair[1])) == pair[1]
    for position in range(40, len(data), 997):
        wrong = bytearray(data)
        wrong[position] ^= 4
        with contextlib.suppress(Refused):
            assert applied(patch.TENSOR_DELTA, pair[0], blocks(wrong), len(pair[1])) == pair[1]
