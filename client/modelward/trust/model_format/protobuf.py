"""Walks the wire format of Protocol Buffers: only numbers, types and lengths; nothing is built.

https://protobuf.dev/programming-guides/encoding/
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from modelward.trust.model_format.reader import Reader

MAX_DEPTH = 64  # messages within messages; protobuf's own readers stop at 100
MAX_FIELDS = 1 << 24  # of a whole file; a model of 100,000 nodes has some 3 million
MAX_WATCHED = 1 << 12  # times that a watched field may stand in one message


class Wire(IntEnum):
    """How a field is written."""

    VARINT = 0
    FIXED64 = 1
    BYTES = 2
    FIXED32 = 5


_FIXED = {Wire.FIXED64: 8, Wire.FIXED32: 4}


@dataclass(frozen=True)
class Message:
    """What may stand in a message. Fields that are not named are skipped by their length.

    Attributes:
        name: What it is, for errors.
        wires: How known fields may be written, by number.
        children: Messages within it, by number.
        watch: Fields to hand to `judge`, by number; a few per message.
        tally: Fields of which `judge` needs no more than how many there are, and how long.
        once: Fields that may stand there once: two readers could each believe another one.
        judge: Called at the end of such a message, with what was watched.
    """

    name: str
    wires: Mapping[int, tuple[Wire, ...]] = field(default_factory=dict)
    children: Mapping[int, "Message"] = field(default_factory=dict)
    watch: frozenset[int] = frozenset()
    tally: frozenset[int] = frozenset()
    once: frozenset[int] = frozenset()
    judge: Callable[[Reader, "Found"], None] | None = None


@dataclass
class Tally:
    """How often a field stands in a message.

    Attributes:
        single: Times as a number.
        packed: Times as bytes.
        length: How many bytes that is in all.
    """

    single: int = 0
    packed: int = 0
    length: int = 0


class Found:
    """What was watched of one message.

    Attributes:
        at: Where the message begins in the file.
        fields: Per number, in order: an integer, or the offset and length of bytes.
        tallies: Per number, how often it stands there.
        context: The same for the whole file, as the walk's caller made it.
    """

    def __init__(self, at: int, context: Any) -> None:
        self.at = at
        self.fields: dict[int, list[Any]] = {}
        self.tallies: dict[int, Tally] = {}
        self.context = context

    def integer(self, number: int, default: int = 0) -> int:
        """Return the last integer, which is the one that protobuf's readers take."""
        values = self.fields.get(number)
        return int(values[-1]) if values else default

    def spans(self, number: int) -> list[tuple[int, int]]:
        """Return offset and length of every occurrence."""
        return self.fields.get(number, [])


@dataclass
class _Open:
    """A message that is being walked."""

    kind: Message
    end: int
    found: Found


def walk(reader: Reader, root: Message, context: Any = None) -> None:
    """Walk a file that is one message.

    Raises:
        FormatError: A length leads out of the message it is in, a field is written in a way it is
            not meant to be, or there is too much of anything.
    """
    at = 0
    stack = [_Open(root, reader.size, Found(0, context))]
    for _ in range(MAX_FIELDS):
        while at == stack[-1].end:
            done = stack.pop()
            if done.kind.judge:
                done.kind.judge(reader, done.found)
            if not stack:
                return
        top = stack[-1]
        number, wire, at = _tag(reader, at, top)
        _check_wire(reader, top, number, wire, at)
        value: int | tuple[int, int]
        if wire == Wire.VARINT:
            value, at = varint(reader, at, top.end)
        else:
            value = _span(reader, at, top, number, wire)
            at = value[0]
        _watch(reader, top, number, wire, value)
        child = top.kind.children.get(number)
        if child and isinstance(value, tuple):
            if len(stack) >= MAX_DEPTH:
                raise reader.wrong(child.name, f"is nested deeper than {MAX_DEPTH} levels")
            stack.append(_Open(child, at + value[1], Found(at, context)))
        elif isinstance(value, tuple):
            at += value[1]
    raise reader.wrong("", f"has more than {MAX_FIELDS} fields")


def varint(reader: Reader, at: int, end: int) -> tuple[int, int]:
    """Return an integer of at most 64 bits and where it ends."""
    block, start = reader.window(at)
    value = shift = 0
    position = at - start
    limit = min(end - start, len(block))
    while position < limit and shift <= 63:  # noqa: PLR2004 - ten bytes of seven bits
        byte = block[position]
        value |= (byte & 0x7F) << shift
        position += 1
        if byte < 0x80:  # noqa: PLR2004 - the last byte has no high bit
            return value & (2**64 - 1), start + position
        shift += 7
    raise reader.wrong("", f"has an integer at byte {at} that does not end")


def _tag(reader: Reader, at: int, top: _Open) -> tuple[int, Wire, int]:
    tag, after = varint(reader, at, top.end)
    number, kind = tag >> 3, tag & 7
    if kind not in Wire._value2member_map_ or not 0 < number < 1 << 29:
        raise reader.wrong(top.kind.name, f"has no field at byte {at}: this is not protobuf")
    return number, Wire(kind), after


def _span(reader: Reader, at: int, top: _Open, number: int, wire: Wire) -> tuple[int, int]:
    """Return where a field's bytes begin and how many there are."""
    length = _FIXED.get(wire)
    if length is None:
        length, at = varint(reader, at, top.end)
    if length > top.end - at:
        raise reader.wrong(
            _name(top, number), f"claims {length} bytes of {top.end - at} that are left"
        )
    return at, length


def _check_wire(reader: Reader, top: _Open, number: int, wire: Wire, at: int) -> None:
    allowed = top.kind.wires.get(number)
    if allowed is None and number in top.kind.children:
        allowed = (Wire.BYTES,)
    if allowed is not None and wire not in allowed:
        raise reader.wrong(_name(top, number), f"is written as {wire.name.lower()} at byte {at}")


def _watch(
    reader: Reader, top: _Open, number: int, wire: Wire, value: int | tuple[int, int]
) -> None:
    if number in top.kind.once and number in top.found.fields:
        raise reader.wrong(_name(top, number), "stands there twice")
    if number in top.kind.tally:
        tally = top.found.tallies.setdefault(number, Tally())
        if wire == Wire.BYTES and isinstance(value, tuple):
            tally.packed += 1
            tally.length += value[1]
        else:
            tally.single += 1
    if number in top.kind.watch or number in top.kind.once:
        values = top.found.fields.setdefault(number, [])
        if len(values) >= MAX_WATCHED:
            raise reader.wrong(_name(top, number), f"stands there more than {MAX_WATCHED} times")
        values.append(value)


def _name(top: _Open, number: int) -> str:
    return f"{top.kind.name} field {number}"
