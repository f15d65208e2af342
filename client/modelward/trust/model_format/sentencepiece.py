"""sentencepiece: one Protocol Buffers message, a vocabulary of pieces and how to use it."""

from modelward.trust.model_format.protobuf import Found, Message, Wire, walk
from modelward.trust.model_format.reader import Reader

_PIECES = 1


def check(reader: Reader) -> str:
    """Walk a sentencepiece model.

    Raises:
        FormatError: It is none.
    """
    totals = _Totals()
    walk(reader, _MODEL, totals)
    if not totals.pieces:
        raise reader.wrong("pieces", "are missing: this is no sentencepiece model")
    return f"{totals.pieces} pieces"


class _Totals:
    """What was counted."""

    pieces = 0


def _count(_reader: Reader, found: Found) -> None:
    found.context.pieces += 1


_PIECE = Message(
    "SentencePiece",
    wires={1: (Wire.BYTES,), 2: (Wire.FIXED32,), 3: (Wire.VARINT,)},
    judge=_count,
)
_MODEL = Message(
    "ModelProto",
    wires={2: (Wire.BYTES,), 3: (Wire.BYTES,), 4: (Wire.BYTES,), 5: (Wire.BYTES,)},
    children={_PIECES: _PIECE},
)
