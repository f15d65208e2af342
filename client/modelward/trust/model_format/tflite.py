"""TensorFlow Lite: one FlatBuffers table with operators, graphs and buffers.

https://flatbuffers.dev/internals/ and the schema's Model table. Offsets are followed as far as the
buffers with the weights; what is within a graph is the runtime's own verifier's to check.
"""

from dataclasses import dataclass

from modelward.trust.model_format.reader import Reader

IDENTIFIER = b"TFL3"
VERSION = 3
MAX_ITEMS = 1 << 20
_VERSION, _CODES, _GRAPHS, _BUFFERS = 0, 1, 2, 4  # fields of Model
_DATA, _OFFSET, _SIZE = 0, 1, 2  # fields of Buffer


def check(reader: Reader) -> str:
    """Walk a TensorFlow Lite file.

    Raises:
        FormatError: It is none, or an offset in it leads out of it.
    """
    root = reader.number("<I", 0, "root")
    if reader.read(4, 4, "identifier") != IDENTIFIER:
        raise reader.wrong("identifier", "is not that of TensorFlow Lite")
    model = _table(reader, root, "model")
    version = model.field(_VERSION)
    if version is None or reader.number("<I", version, "version") != VERSION:
        raise reader.wrong("version", f"is not {VERSION}")
    for number, part in ((_CODES, "operator codes"), (_GRAPHS, "subgraphs")):
        if not _tables(reader, model, number, part):
            raise reader.wrong(part, "are missing")
    buffers = _tables(reader, model, _BUFFERS, "buffers")
    for buffer in buffers:
        _check_buffer(reader, buffer)
    return f"{len(_tables(reader, model, _GRAPHS, 'subgraphs'))} graphs, {len(buffers)} buffers"


@dataclass(frozen=True)
class _Table:
    """A FlatBuffers table: where it is, and where its fields are from there."""

    at: int
    offsets: tuple[int, ...]

    def field(self, number: int) -> int | None:
        """Return where a field is, or None."""
        offset = self.offsets[number] if number < len(self.offsets) else 0
        return self.at + offset if offset else None


def _table(reader: Reader, at: int, part: str) -> _Table:
    vtable = at - reader.number("<i", at, part)
    size = reader.number("<H", vtable, part)
    length = reader.number("<H", vtable + 2, part)
    if size < 4 or size % 2:  # noqa: PLR2004 - two lengths of two bytes
        raise reader.wrong(part, f"has a table of fields of {size} bytes")
    reader.inside(at, length, part)
    offsets = tuple(reader.number("<H", vtable + here, part) for here in range(4, size, 2))
    if any(offset >= length for offset in offsets):
        raise reader.wrong(part, "has a field that lies outside of it")
    return _Table(at, offsets)


def _vector(reader: Reader, at: int, width: int, part: str) -> tuple[int, int]:
    """Return where a vector's items begin and how many there are."""
    start = at + reader.number("<I", at, part)
    items = reader.number("<I", start, part)
    reader.inside(start + 4, items * width, part)
    return start + 4, items


def _tables(reader: Reader, table: _Table, number: int, part: str) -> list[_Table]:
    at = table.field(number)
    if at is None:
        return []
    start, items = _vector(reader, at, 4, part)
    if items > MAX_ITEMS:
        raise reader.wrong(part, f"are {items} in number, at most {MAX_ITEMS} are allowed")
    places = range(start, start + items * 4, 4)
    return [_table(reader, place + reader.number("<I", place, part), part) for place in places]


def _check_buffer(reader: Reader, buffer: _Table) -> None:
    data = buffer.field(_DATA)
    if data is not None:
        _vector(reader, data, 1, "buffer")
    offset, size = buffer.field(_OFFSET), buffer.field(_SIZE)
    if offset is not None and size is not None:  # weights after the end of the FlatBuffer
        reader.inside(
            reader.number("<Q", offset, "buffer"), reader.number("<Q", size, "buffer"), "buffer"
        )
