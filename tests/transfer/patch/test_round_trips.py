"""Whatever two files hold, each method makes the new one out of the old one, byte for byte."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.transfer import patch
from modelward_repo.publish import delta
from tests.transfer.patch.applying import applied, blocks
from tests.transfer.patch.pairs import any_pairs, safetensors_pairs

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
