"""npy: a magic, a header that is a Python dictionary, and one array.

The header is matched, not evaluated. Arrays of Python objects are pickles (attack row 24).
"""

import re

from modelward.trust.model_format.reader import Reader, count_elements

MAGIC = b"\x93NUMPY"
HEADER_CAP = 1 << 12
_VERSIONS = {(1, 0): ("<H", 2), (2, 0): ("<I", 4), (3, 0): ("<I", 4)}
_HEADER = re.compile(
    rb"\{'descr': '(?P<order>[<>|=])(?P<kind>[a-zA-Z])(?P<size>\d{1,4})', "
    rb"'fortran_order': (?:True|False), 'shape': \((?P<shape>[\d, ]*)\), \} *\n"
)
_KINDS = b"biufcSV"  # U: characters of four bytes


def check(reader: Reader) -> str:
    """Walk an npy file.

    Raises:
        FormatError: It is none, its header lies, or it holds Python objects.
    """
    if reader.read(0, len(MAGIC), "magic") != MAGIC:
        raise reader.wrong("magic", "is not that of npy")
    version = tuple(reader.read(len(MAGIC), 2, "version"))
    if version not in _VERSIONS:
        raise reader.wrong("version", "must be 1.0, 2.0 or 3.0")
    kind, width = _VERSIONS[version[0], version[1]]
    start = len(MAGIC) + 2
    length = reader.number(kind, start, "header length")
    if length > HEADER_CAP:
        raise reader.wrong("header length", f"is {length}, at most {HEADER_CAP} is allowed")
    header = reader.read(start + width, length, "header")
    if b"O" in re.findall(rb"'[<>|=]?([a-zA-Z])\d*'", header):
        raise reader.wrong("header", "says that it holds Python objects, which are a pickle")
    match = _HEADER.fullmatch(header)
    if match is None:
        raise reader.wrong("header", "is not that of a plain array")
    shape = _shape(reader, match["shape"])
    expected = count_elements(reader, shape, "shape") * _item_size(reader, match)
    found = reader.size - start - width - length
    if found != expected:
        raise reader.wrong("shape", f"makes {expected} bytes, the file has {found}")
    return f"an array of {' x '.join(map(str, shape)) or 'one number'}"


def _item_size(reader: Reader, match: re.Match[bytes]) -> int:
    if match["kind"] == b"U":
        return int(match["size"]) * 4
    if match["kind"] not in _KINDS:
        raise reader.wrong("descr", f"{match['kind'].decode()!r} is not a kind of number or text")
    return int(match["size"])


def _shape(reader: Reader, text: bytes) -> list[int]:
    parts = text.decode().replace(" ", "").split(",")
    if parts[-1] == "":
        parts.pop()
    if not all(part and len(part) < 20 for part in parts):  # noqa: PLR2004 - digits of 2**63
        raise reader.wrong("shape", "is not a list of lengths")
    return [int(part) for part in parts]
