"""Memory does not depend on the size of a tensor or file: measured in processes of their own."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from modelward.transfer import patch
from modelward.transfer.patch import tensor_delta
from modelward.transfer.patch.frames import zstd
from modelward.transfer.patch.operations import Coding, Operation, Operations
from modelward_repo.publish import delta
from tests.transfer.patch.pairs import Tensor, safetensors

MIB = 1 << 20
LARGE = 160 * MIB
DEVICE = 64 * MIB  # what the whole process of an update may take
PUBLISHER = 80 * MIB

# The whole client is loaded, as it is where updates are applied.
PEAK = """
def peak():  # not getrusage's: that counts what the process that started this one had
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmHWM")) * 1024
"""
DECODE = """
import json, os, sys
import modelward.update
from modelward.transfer import patch
def blocks(file):
    while block := file.read(1 << 18): yield memoryview(block)
method, base, path, length, memory = sys.argv[1:]
made = []
before = peak()
with open(path, "rb", buffering=0) as file:
    base = os.open(base, os.O_RDONLY) if base else None
    patch.apply(method, base, blocks(file), lambda b: made.append(len(b)), int(length), int(memory))
print(json.dumps([before, peak(), sum(made)]))
"""
WITH = "import numpy\n"  # a library's own memory is no patch's; the process's limit counts it
WITHOUT = "import sys; sys.modules['numpy'] = None  # importing it fails\n"
ENCODE = """
import json, sys
from pathlib import Path
from modelward_repo.publish import delta
method, base, target, out = sys.argv[1:]
delta.encode(method, Path(base), Path(target), Path(out), threads=2)
print(json.dumps(peak()))
"""


def measure(program: str, *arguments: object):
    command = [sys.executable, "-c", PEAK + program, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def block(width: int, seed: int, prefix: int = 0) -> bytes:
    """A stream's block of 1 MiB that does not compress well, as in a patch."""
    planes = []
    for number in range(width):
        content = random.Random(seed + number).randbytes(MIB // width)
        planes.append(zstd.compress(content))
    start = tensor_delta.PREFIX.pack(0, prefix) if prefix else b""
    return start + b"".join(tensor_delta.PLANE.pack(len(plane)) + plane for plane in planes)


@pytest.fixture
def zeros(tmp_path) -> Path:
    """A large base that takes no room."""
    path = tmp_path / "zeros"
    with path.open("wb") as file:
        file.write(header())
        file.truncate(len(header()) + LARGE)
    return path


def header() -> bytes:
    """The start of a safetensors file of one large tensor."""
    return safetensors({"weight": Tensor("BF16", LARGE // 2 // 1024, 1024, b"")})


def test_a_large_tensor_is_coded_and_applied_in_little_memory(tmp_path, zeros):
    """With numpy, and without."""
    target, data = tmp_path / "target", tmp_path / "patch"
    few = bytes(range(16)) * 16  # values of which a plane can be made smaller
    with target.open("wb") as file:
        file.write(header())
        for number in range(LARGE // MIB):
            file.write(random.Random(number % 5).randbytes(MIB).translate(few))
    assert measure(ENCODE, patch.TENSOR_DELTA, zeros, target, data) < PUBLISHER
    length = target.stat().st_size
    assert data.stat().st_size < 0.8 * length
    memory = tensor_delta.memory_needed(2)
    for program in (WITH + DECODE, WITHOUT + DECODE):
        before, peak, made = measure(program, patch.TENSOR_DELTA, zeros, data, length, memory)
        assert made == length
        assert peak - before <= memory
        assert peak < DEVICE


def test_a_patch_with_every_kind_of_stream_takes_no_more_than_it_declares(tmp_path, zeros):
    """Attack row 27: all streams at once, each with a block that is hardly used."""
    kinds = [
        (coding, width) for coding in Coding if coding is not Coding.COPY for width in (1, 2, 4, 8)
    ]
    first = [Operation(coding, width, 8) for coding, width in kinds]
    rest = [Operation(coding, width, MIB - 8) for coding, width in kinds]
    head = Operations.of(first + rest, zeros.stat().st_size).to_bytes()
    data = tmp_path / "patch"
    blocks = [
        block(width, index, MIB if (coding, width) == (Coding.RAW, 1) else 0)
        for index, (coding, width) in enumerate(kinds)
    ]
    data.write_bytes(head + b"".join(blocks) + bytes(tensor_delta.DIGEST))
    memory = tensor_delta.memory_needed(len(kinds))
    program = DECODE.replace(
        "    patch.apply(", "    import contextlib, modelward.errors\n    patch.apply("
    ).replace(
        "    patch.apply(", "    with contextlib.suppress(modelward.errors.Refused): patch.apply("
    )
    before, peak, _ = measure(program, patch.TENSOR_DELTA, zeros, data, len(kinds) * MIB, memory)
    assert peak - before <= memory


def test_a_device_decompresses_a_large_file_in_little_memory(tmp_path):
    parameter = zstd.CompressionParameter
    compressor = zstd.ZstdCompressor(options={parameter.window_log: 23})
    compressor.set_pledged_input_size(LARGE)
    part = random.Random(2).randbytes(MIB // 2) + bytes(MIB // 2)
    data = tmp_path / "patch"
    with data.open("wb") as file:
        for _ in range(LARGE // MIB):
            file.write(compressor.compress(part))
        file.write(compressor.flush())
    memory = patch.whole.memory_needed(8 * MIB, 0)
    before, peak, length = measure(DECODE, patch.ZSTD, "", data, LARGE, memory)
    assert length == LARGE
    assert peak - before <= memory
    assert peak < DEVICE


def test_a_zstd_patch_takes_no_more_memory_than_it_declares(tmp_path):
    numbers = random.Random(3)
    old, new = tmp_path / "old", tmp_path / "new"
    old.write_bytes(numbers.randbytes(6 * MIB))
    new.write_bytes(b"inserted" + old.read_bytes())
    made = delta.encode(patch.ZSTD_PATCH, old, new, tmp_path / "patch")
    assert made.length < 10_000
    length = new.stat().st_size
    before, peak, _ = measure(DECODE, patch.ZSTD_PATCH, old, made.path, length, made.memory)
    assert peak - before <= made.memory
