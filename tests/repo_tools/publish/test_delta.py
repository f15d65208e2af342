"""What is tried for a pair of files, and what is worth publishing."""

import os
import random

import pytest

from modelward.transfer import patch
from modelward_repo.publish import delta
from tests.transfer.patch.applying import applied, blocks
from tests.transfer.patch.pairs import Tensor, safetensors

LENGTH = 200_000


def model(seed: int, nudge: int = 0) -> bytes:
    """A file of one tensor of 2-byte floats near each other."""
    numbers = random.Random(seed)
    elements = (
        numbers.randrange(0x3C00, 0x3F00) + numbers.randrange(nudge + 1) for _ in range(LENGTH // 2)
    )
    data = b"".join(element.to_bytes(2, "little") for element in elements)
    return safetensors({"weight": Tensor("BF16", 1, LENGTH // 2, data)})


@pytest.fixture
def files(tmp_path):
    def write(old: bytes | None, new: bytes):
        base = tmp_path / "old"
        if old is not None:
            base.write_bytes(old)
        (tmp_path / "new").write_bytes(new)
        (tmp_path / "out").mkdir()
        return base if old is not None else None, tmp_path / "new", tmp_path / "out"

    return write


def test_the_smallest_is_chosen_and_makes_the_file(files):
    numbers = random.Random(1)
    old = model(1)
    new = bytearray(old)
    for position in range(200, len(new), 2):
        new[position] = (new[position] + numbers.randrange(3)) % 256
    choice = delta.choose(*files(old, bytes(new)))
    assert choice.patch.method == patch.TENSOR_DELTA
    assert choice.patch.length == min(one.length for one in choice.tried)
    assert choice.patch.length < choice.whole.length / 2
    assert {(one.method, one.uses_base) for one in choice.tried} == {
        (patch.TENSOR_DELTA, True),
        (patch.TENSOR_DELTA, False),
        (patch.ZSTD, False),
        (patch.ZSTD_PATCH, True),
    }
    for one in choice.tried:
        data = one.path.read_bytes()
        base = old if one.uses_base else None
        assert applied(one.method, base, blocks(data), len(new), one.memory) == new


def test_a_base_that_does_not_help_gives_no_patch(files):
    choice = delta.choose(*files(os.urandom(LENGTH), os.urandom(LENGTH)))
    assert choice.patch is None
    assert choice.whole is None  # nor does compression
    assert choice.tried


def test_a_patch_must_save_more_than_ranges_would_cost(files):
    old = model(3)
    places = files(old, old[:-2] + b"xx")
    choice = delta.choose(*places)
    assert choice.patch
    assert delta.choose(*places, ranges=choice.patch.length).patch is None
    assert delta.choose(*places, ranges=choice.patch.length + 1).patch == choice.patch


def test_planes_help_without_a_base(files):
    choice = delta.choose(*files(None, model(4)))
    assert choice.patch is None
    assert choice.whole.method == patch.TENSOR_DELTA
    sizes = {one.method: one.length for one in choice.tried}
    assert sizes[patch.TENSOR_DELTA] < sizes[patch.ZSTD]


def test_what_needs_too_much_memory_is_not_tried(files):
    choice = delta.choose(*files(model(5), model(5, 3)), memory_cap=10_000_000)
    assert all(one.method != patch.ZSTD_PATCH for one in choice.tried)
    assert choice.patch is None
    assert choice.whole.method == patch.ZSTD


@pytest.mark.parametrize(
    ("method", "base"), [(patch.ZSTD, True), (patch.ZSTD_PATCH, False), ("zip/1", False)]
)
def test_a_method_that_does_not_fit_is_an_error(files, method, base):
    old, new, out = files(b"old" if base else None, b"new")
    with pytest.raises(ValueError, match=method):
        delta.encode(method, old, new, out / "patch")
