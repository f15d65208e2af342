"""Attack row 27: whatever a patch says, it is refused or makes at most what was declared."""

import contextlib
import random
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelward.errors import Gate, Refused
from modelward.transfer import patch
from modelward.transfer.patch import tensor_delta
from modelward.transfer.patch.frames import zstd
from modelward.transfer.patch.operations import HEAD, MAGIC, Coding, Operation, Operations
from modelward_repo.publish import delta
from tests.transfer.patch.applying import applied, blocks
from tests.transfer.patch.pairs import Tensor, safetensors

MIB = 1 << 20


def small_pair() -> tuple[bytes, bytes]:
    """Two files between which a patch has every kind of part, and is short."""
    numbers = random.Random(27)

    def tensor(dtype: str, width: int) -> Tensor:
        return Tensor(dtype, 4, 8, numbers.randbytes(32 * width))

    old = {"a": tensor("BF16", 2), "b": tensor("F32", 4), "kept": tensor("I64", 8)}
    nudged = bytes((byte + numbers.randrange(3)) % 256 for byte in old["a"].data)
    new = {"kept": old["kept"], "a": Tensor("BF16", 4, 8, nudged), "new": tensor("F64", 8)}
    return safetensors(old), safetensors(new, "a note that the old file had not")


@pytest.fixture(scope="module")
def patches(tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("patches")
    old, new = small_pair()
    (folder / "old").write_bytes(old)
    (folder / "new").write_bytes(new)
    made = {}
    for method in sorted(patch.METHODS):
        base = None if method == patch.ZSTD else folder / "old"
        delta.encode(method, base, folder / "new", folder / "patch")
        made[method] = (folder / "patch").read_bytes()
    return made


def attempt(method: str, data: bytes, size: int = MIB) -> bytes | None:
    """Apply what may be anything; None if it is refused. `applied` checks the length on the way."""
    old, new = small_pair()
    with contextlib.suppress(Refused):
        return applied(method, old if method != patch.ZSTD else None, blocks(data, size), len(new))
    return None


@pytest.mark.parametrize("method", sorted(patch.METHODS))
def test_every_truncation_is_refused(patches, method):
    for length in range(0, len(patches[method]), 3):
        assert attempt(method, patches[method][:length]) is None


@pytest.mark.parametrize("method", sorted(patch.METHODS))
def test_nothing_may_follow(patches, method):
    assert attempt(method, patches[method] + b"\x00") is None
    assert attempt(method, patches[method] + patches[method]) is None


def test_every_wrong_byte_of_a_tensor_delta_is_noticed(patches):
    data, (_, new) = patches[patch.TENSOR_DELTA], small_pair()
    for position in range(len(data)):
        wrong = bytearray(data)
        wrong[position] ^= 1 << position % 8
        # Not every bit of zstd's frames matters: what matters is that nothing wrong is made.
        assert attempt(patch.TENSOR_DELTA, bytes(wrong)) in (None, new)


@pytest.mark.parametrize("method", [patch.ZSTD, patch.ZSTD_PATCH])
def test_a_wrong_byte_of_a_zstd_frame_makes_no_other_length(patches, method):
    _, new = small_pair()
    for position in range(len(patches[method])):
        wrong = bytearray(patches[method])
        wrong[position] ^= 1 << position % 8
        made = attempt(method, bytes(wrong))
        assert made is None or len(made) == len(new)


@pytest.mark.fuzz
@given(data=st.data(), method=st.sampled_from(sorted(patch.METHODS)))
def test_a_patch_that_was_tampered_with_is_refused_or_stays_in_bounds(patches, data, method):
    wrong = bytearray(patches[method])
    for _ in range(data.draw(st.integers(1, 8))):
        start = data.draw(st.integers(0, len(wrong)))
        end = data.draw(st.integers(start, min(len(wrong), start + 12)))
        wrong[start:end] = data.draw(st.binary(max_size=12))
    attempt(method, bytes(wrong), data.draw(st.sampled_from((1, 5, MIB))))


@pytest.mark.fuzz
@given(
    packed=st.lists(st.integers(0, 255) | st.sampled_from((0, 16, 33, 50, 66, 255)), max_size=40),
    tail=st.binary(max_size=60),
    length=st.integers(0, 200),
)
def test_operations_that_were_made_up_are_refused_or_stay_in_bounds(packed, tail, length):
    old, _ = small_pair()
    frame = zstd.compress(bytes(packed))
    head = HEAD.pack(MAGIC, len(frame), len(packed), len(old), length)
    with contextlib.suppress(Refused):
        applied(patch.TENSOR_DELTA, old, blocks(head + frame + tail), length)


@pytest.mark.fuzz
@given(data=st.binary(max_size=200), method=st.sampled_from(sorted(patch.METHODS)))
def test_anything_is_refused_or_stays_in_bounds(data, method):
    attempt(method, data)
    attempt(method, MAGIC + data)
    attempt(method, b"\x28\xb5\x2f\xfd" + data)


def forged(operations: list[Operation], rest: bytes, base: int = 0) -> bytes:
    return Operations.of(operations, base).to_bytes() + rest


def plane(content: bytes) -> bytes:
    frame = zstd.compress(content)
    return struct.pack("<I", len(frame)) + frame


def compressed_zeros(length: int) -> bytes:
    parameter = zstd.CompressionParameter
    compressor = zstd.ZstdCompressor(options={parameter.window_log: 27})
    compressor.set_pledged_input_size(length)
    return b"".join(compressor.compress(bytes(MIB)) for _ in range(length // MIB)) + (
        compressor.flush()
    )


def refusal(data: bytes, length: int, base: bytes | None = None, memory: int = 64 * MIB) -> str:
    with pytest.raises(Refused) as caught:
        applied(patch.TENSOR_DELTA, base, blocks(data), length, memory)
    assert caught.value.gate is Gate.FETCH
    return caught.value.reason


def test_a_block_that_expands_without_bound_is_cut_at_its_length():
    bomb = compressed_zeros(300 * MIB)
    assert len(bomb) < 100_000
    raw = tensor_delta.PREFIX.pack(0, 0) + tensor_delta.PLANE.pack(len(bomb)) + bomb
    reason = refusal(forged([Operation(Coding.RAW, 1, MIB)], raw), MIB)
    assert "too much memory" in reason
    narrow = plane(bytes(2 * MIB))
    raw = tensor_delta.PREFIX.pack(0, 0) + narrow
    assert "another length" in refusal(forged([Operation(Coding.RAW, 1, MIB)], raw), MIB)


def test_operations_that_expand_without_bound_are_cut_at_the_cap():
    frame = compressed_zeros(300 * MIB)
    head = HEAD.pack(MAGIC, len(frame), 100, 0, 5)
    assert "too much memory" in refusal(head + frame, 5)
    head = HEAD.pack(MAGIC, len(frame), 300 * MIB, 0, 5)
    assert "larger than any may be" in refusal(head + frame, 5)


def test_another_length_than_declared_is_refused_before_anything_is_made():
    data = forged([Operation(Coding.RAW, 1, 1 << 40)], b"")
    assert "not of 5" in refusal(data, 5)
    for method in (patch.ZSTD, patch.ZSTD_PATCH):
        with pytest.raises(Refused, match="not of 5"):
            applied(method, b"", blocks(zstd.compress(bytes(6))), 5)


def test_a_head_that_lies_about_its_operations_is_refused():
    frame = zstd.compress(b"\x10\x06")
    assert "not of" not in refusal(HEAD.pack(MAGIC, len(frame), 2, 0, 5) + frame, 5)
    assert "does not say" in refusal(HEAD.pack(MAGIC, len(frame), 2, 0, 7) + frame, 7)


def test_a_window_larger_than_allowed_is_refused_before_decoding():
    frame = compressed_zeros(200 * MIB)
    for method in (patch.ZSTD, patch.ZSTD_PATCH):
        with pytest.raises(Refused, match="bytes of memory"):
            applied(method, b"", blocks(frame), 200 * MIB)


def test_memory_is_refused_before_decoding():
    data = forged([Operation(Coding.RAW, 1, 5)], b"")
    assert "bytes of memory" in refusal(data, 5, memory=MIB)


def test_another_base_is_refused():
    data = forged([Operation(Coding.COPY, 1, 5, 0)], b"", base=5)
    assert "is for a base of 5 bytes" in refusal(data, 5, base=b"four")
    assert "is for a base of 5 bytes" in refusal(data, 5)
    good = data + tensor_delta.hashlib.sha256(b"right").digest()[:16]
    assert applied(patch.TENSOR_DELTA, b"right", blocks(good), 5) == b"right"
    assert "the base is not the one" in refusal(good, 5, base=b"wrong")


@pytest.mark.parametrize(
    "operation",
    [
        Operation(Coding.COPY, 1, 5, 1),
        Operation(Coding.XOR, 1, 5, 1),
        Operation(Coding.COPY, 1, 5, 1 << 60),
        Operation(Coding.COPY, 1, 5, -1),
    ],
)
def test_a_part_of_the_base_that_does_not_exist_is_refused(operation):
    assert "does not exist" in refusal(forged([operation], b"", base=5), 5, base=b"right")


def test_a_prefix_outside_the_base_is_refused():
    raw = tensor_delta.PREFIX.pack(1 << 40, 1) + plane(b"right")
    data = forged([Operation(Coding.RAW, 1, 5)], raw, base=5)
    assert "does not exist" in refusal(data, 5, base=b"right")
    raw = tensor_delta.PREFIX.pack(0, 1 << 31) + plane(b"right")
    data = forged([Operation(Coding.RAW, 1, 5)], raw, base=5)
    assert "does not exist" in refusal(data, 5, base=b"right")


def test_an_unknown_method_is_refused():
    with pytest.raises(Refused, match="does not know"):
        applied("bsdiff/1", None, blocks(b""), 0)
    with pytest.raises(Refused, match="needs a base"):
        applied(patch.ZSTD_PATCH, None, blocks(b""), 0)


def test_what_the_sink_raises_ends_the_work(patches):
    class DiskFullError(Exception):
        pass

    def sink(_block: memoryview) -> None:
        raise DiskFullError

    _, new = small_pair()
    for method in (patch.TENSOR_DELTA, patch.ZSTD):
        data = forged([Operation(Coding.RAW, 1, len(new))], b"") if method != patch.ZSTD else b""
        if method == patch.ZSTD:
            data = patches[method]
        else:
            block = tensor_delta.PREFIX.pack(0, 0) + plane(new)
            data += block + tensor_delta.hashlib.sha256(new).digest()[:16]
        with pytest.raises(DiskFullError):
            patch.apply(method, None, blocks(data), sink, len(new), 64 * MIB)


def test_what_the_source_raises_is_passed_on():
    def source():
        yield memoryview(MAGIC)
        raise ConnectionError("gone")

    for method in (patch.TENSOR_DELTA, patch.ZSTD):
        with pytest.raises(ConnectionError, match="gone"):
            patch.apply(method, None, source(), lambda _: None, 5, 64 * MIB)
