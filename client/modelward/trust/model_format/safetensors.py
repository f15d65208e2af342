"""safetensors: a length, a JSON header of that length, and the tensors without a gap.

The header is the only thing that a reader trusts, so it must add up: every tensor is as long as
its type and shape say, they follow each other from the first byte to the last, and no name stands
there twice.
"""

from modelward.formats import strict
from modelward.trust.model_format.reader import Reader, count_elements

PREFIX = 8  # bytes of the header's length
HEADER_CAP = 1 << 23  # bytes; 50,000 tensors take less
METADATA = "__metadata__"
BITS = {
    "BOOL": 8,
    "U8": 8,
    "I8": 8,
    "F8_E5M2": 8,
    "F8_E4M3": 8,
    "F8_E8M0": 8,
    "I16": 16,
    "U16": 16,
    "F16": 16,
    "BF16": 16,
    "I32": 32,
    "U32": 32,
    "F32": 32,
    "I64": 64,
    "U64": 64,
    "F64": 64,
    "C64": 64,
    "F4": 4,
    "F6_E2M3": 6,
    "F6_E3M2": 6,
}


def check(reader: Reader) -> str:
    """Walk a safetensors file.

    Raises:
        FormatError: It is none, or its header lies.
    """
    length = reader.number("<Q", 0, "header length")
    if length > HEADER_CAP:
        raise reader.wrong("header length", f"is {length}, at most {HEADER_CAP} is allowed")
    start = PREFIX + length
    header = reader.read(PREFIX, length, "header")
    if not header.startswith(b"{"):
        raise reader.wrong("header", "does not begin with {")
    fields = strict.Fields(reader.name, strict.load(reader.name, header, HEADER_CAP))
    spans = []
    for name in fields.raw:
        entry = fields.fields(name)
        if name == METADATA:
            if not all(isinstance(value, str) for value in entry.raw.values()):
                raise fields.wrong(name, "must be texts by name")
            continue
        spans.append((*_span(reader, entry), name))
    end = 0
    for begin, stop, name in sorted(spans):
        if begin != end:
            problem = "overlaps with the one before" if begin < end else "leaves a gap before it"
            raise fields.wrong(name, f"{problem}: it begins at {begin}, that one ends at {end}")
        end = stop
    if start + end != reader.size:
        raise reader.wrong(
            "header", f"accounts for {start + end} bytes of a file of {reader.size} bytes"
        )
    return f"{len(spans)} tensors"


def _span(reader: Reader, entry: strict.Fields) -> tuple[int, int]:
    """Return where a tensor begins and ends, counted from the end of the header."""
    kind = entry.text("dtype", most=16)
    if kind not in BITS:
        raise entry.wrong("dtype", f"{kind!r} is not known")
    shape = _integers(entry, "shape")
    offsets = _integers(entry, "data_offsets")
    if len(offsets) != 2 or offsets[0] > offsets[1]:  # noqa: PLR2004 - a pair
        raise entry.wrong("data_offsets", "must be where it begins and where it ends")
    bits = count_elements(reader, shape, entry.at("shape")) * BITS[kind]
    if bits != (offsets[1] - offsets[0]) * 8:
        raise entry.wrong(
            "data_offsets",
            f"claim {offsets[1] - offsets[0]} bytes, dtype and shape make it {bits / 8:g}",
        )
    return offsets[0], offsets[1]


def _integers(entry: strict.Fields, name: str) -> list[int]:
    items = entry.items(name, most=64)
    for item in items:
        if type(item) is not int or not 0 <= item <= strict.MAX_INT:
            raise entry.wrong(name, "must be a list of integers from 0")
    return items
