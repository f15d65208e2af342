"""GGUF: key-value pairs, a table of tensors, and the tensors, aligned.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little-endian.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from modelward.trust.model_format.reader import Reader, count_elements

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MAX_PAIRS = 1 << 16
MAX_TENSORS = 1 << 17
MAX_KEY = 65_535  # bytes
MAX_TENSOR_NAME = 64  # bytes, as ggml has it
MAX_DIMENSIONS = 4
MAX_STRINGS = 1 << 24  # in arrays of the whole file: a vocabulary has 300,000
MAX_DEPTH = 4  # arrays in arrays
ALIGNMENT = "general.alignment"
DEFAULT_ALIGNMENT = 32
MAX_ALIGNMENT = 1 << 16

_FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}  # bytes by type
_UINT32, _STRING, _ARRAY = 4, 8, 9
# Elements of a block and its bytes, by type of tensor (ggml_type).
_BLOCKS = {
    0: (1, 4),
    1: (1, 2),
    24: (1, 1),
    25: (1, 2),
    26: (1, 4),
    27: (1, 8),
    28: (1, 8),
    30: (1, 2),
    2: (32, 18),
    3: (32, 20),
    6: (32, 22),
    7: (32, 24),
    8: (32, 34),
    20: (32, 18),
    39: (32, 17),
    10: (256, 84),
    11: (256, 110),
    12: (256, 144),
    13: (256, 176),
    14: (256, 210),
    15: (256, 292),
    16: (256, 66),
    17: (256, 74),
    18: (256, 98),
    19: (256, 50),
    21: (256, 110),
    22: (256, 82),
    23: (256, 136),
    29: (256, 56),
    40: (64, 36),
    41: (128, 18),
    34: (256, 54),
    35: (256, 66),
}


def check(reader: Reader) -> str:
    """Walk a GGUF file.

    Raises:
        FormatError: It is none, or a count, length or offset in it leads out of it.
    """
    cursor = _Cursor(reader, 0)
    if reader.read(0, 4, "magic") != MAGIC:
        raise reader.wrong("magic", "is not that of GGUF")
    cursor.at = 4
    version = cursor.number("<I", "version")
    if version not in VERSIONS:
        raise reader.wrong("version", f"is {version}, not 2 or 3 (little-endian)")
    tensors = cursor.count("tensors", MAX_TENSORS)
    pairs = cursor.count("key-value pairs", MAX_PAIRS)
    alignment = _walk_pairs(cursor, pairs)
    spans = list(_tensors(cursor, tensors, alignment))
    start = _up(cursor.at, alignment)
    _check_spans(reader, sorted(spans), start, alignment)
    return f"{pairs} key-value pairs, {tensors} tensors"


@dataclass
class _Cursor:
    """Where in the header a reader is."""

    reader: Reader
    at: int
    strings: int = 0

    def number(self, kind: str, part: str) -> int:
        value = self.reader.number(kind, self.at, part)
        self.at += struct.calcsize(kind)
        return value

    def count(self, part: str, most: int) -> int:
        value = self.number("<Q", part)
        if value > most:
            raise self.reader.wrong(part, f"are {value} in number, at most {most} are allowed")
        return value

    def text(self, part: str, most: int) -> bytes:
        length = self.number("<Q", part)
        if length > most:
            raise self.reader.wrong(part, f"is {length} bytes long, at most {most} are allowed")
        data = self.reader.read(self.at, length, part)
        self.at += length
        return data

    def skip(self, length: int, part: str) -> None:
        self.reader.inside(self.at, length, part)
        self.at += length


def _walk_pairs(cursor: _Cursor, pairs: int) -> int:
    """Walk the key-value pairs; return the alignment that they state."""
    alignment = DEFAULT_ALIGNMENT
    seen = set()
    for _ in range(pairs):
        raw = cursor.text("key", MAX_KEY)
        key = raw.decode("ascii", "replace")
        if raw in seen:
            raise cursor.reader.wrong(key, "stands there twice")
        seen.add(raw)
        kind = cursor.number("<I", key)
        if key == ALIGNMENT:
            if kind != _UINT32:
                raise cursor.reader.wrong(key, "must be an unsigned 32-bit integer")
            alignment = cursor.number("<I", key)
            if not 0 < alignment <= MAX_ALIGNMENT or alignment & (alignment - 1):
                raise cursor.reader.wrong(key, f"is {alignment}, not a power of two")
        else:
            _skip_value(cursor, kind, key, 0)
    return alignment


def _skip_value(cursor: _Cursor, kind: int, key: str, depth: int) -> None:
    if kind in _FIXED:
        cursor.skip(_FIXED[kind], key)
    elif kind == _STRING:
        cursor.skip(cursor.number("<Q", key), key)
    elif kind == _ARRAY:
        inner = cursor.number("<I", key)
        length = cursor.number("<Q", key)
        if inner in _FIXED:
            cursor.skip(length * _FIXED[inner], key)
            return
        cursor.strings += length
        if depth >= MAX_DEPTH or cursor.strings > MAX_STRINGS:
            raise cursor.reader.wrong(key, f"is an array of {length}, which is too much")
        for _ in range(length):
            _skip_value(cursor, inner, key, depth + 1)
    else:
        raise cursor.reader.wrong(key, f"has a value of the type {kind}, which is not known")


def _tensors(cursor: _Cursor, tensors: int, alignment: int) -> Iterator[tuple[int, int, str]]:
    """Yield where each tensor begins and ends, from the start of the data, and its name."""
    seen = set()
    for _ in range(tensors):
        raw = cursor.text("tensor name", MAX_TENSOR_NAME)
        name = raw.decode("utf-8", "replace")
        if raw in seen:
            raise cursor.reader.wrong(name, "stands there twice")
        seen.add(raw)
        dimensions = cursor.number("<I", name)
        if dimensions > MAX_DIMENSIONS:
            raise cursor.reader.wrong(name, f"has {dimensions} dimensions")
        shape = [cursor.number("<Q", name) for _ in range(dimensions)]
        kind = cursor.number("<I", name)
        offset = cursor.number("<Q", name)
        if kind not in _BLOCKS:
            raise cursor.reader.wrong(name, f"has the type {kind}, which is not known")
        if offset % alignment:
            raise cursor.reader.wrong(name, f"begins at {offset}, not at a multiple of {alignment}")
        elements = count_elements(cursor.reader, shape, name)
        block, length = _BLOCKS[kind]
        if (shape[0] if shape else 1) % block:
            raise cursor.reader.wrong(name, f"has rows that are not whole blocks of {block}")
        yield offset, offset + elements // block * length, name


def _check_spans(
    reader: Reader, spans: list[tuple[int, int, str]], start: int, alignment: int
) -> None:
    """Require that tensors follow each other, padded to the alignment, to the end of the file."""
    end = 0
    for begin, stop, name in spans:
        if begin != _up(end, alignment):
            problem = "overlaps with the one before" if begin < end else "leaves a gap before it"
            raise reader.wrong(name, f"{problem}: it begins at {begin}, that one ends at {end}")
        reader.inside(start + begin, stop - begin, name)
        end = stop
    if spans and not start + end <= reader.size <= start + _up(end, alignment):
        raise reader.wrong("", f"goes on after its last tensor, which ends at {start + end}")
    if not spans and reader.size > start:
        raise reader.wrong("", "has data, but no tensors")


def _up(offset: int, alignment: int) -> int:
    return -(-offset // alignment) * alignment
