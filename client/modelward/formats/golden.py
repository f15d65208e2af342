"""golden.json: inputs of a model, and the outputs that it must give for them on every device."""

import base64
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from modelward.formats import strict
from modelward.formats.names import check_path

FILE = "golden.json"
DOCUMENT = "golden.json"
SCHEMA = "modelward/golden/1"
CAP = 4 << 20
MAX_CASES = 64
MAX_TENSORS = 64  # inputs, or outputs, of a case
MAX_TOLERANCE = 1e6

# How `struct` writes an element; all little-endian.
KINDS: Mapping[str, str] = {
    "bool": "?",
    "int8": "b",
    "int16": "h",
    "int32": "i",
    "int64": "q",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "float16": "e",
    "float32": "f",
    "float64": "d",
}


@dataclass(frozen=True)
class Tensor:
    """A tensor.

    Attributes:
        kind: What its elements are; one of `KINDS`.
        shape: Its dimensions.
        data: Its elements, row after row, little-endian.
    """

    kind: str
    shape: tuple[int, ...]
    data: bytes

    @classmethod
    def from_fields(cls, fields: strict.Fields) -> "Tensor":
        """Read a tensor: its elements as base64 in `data`, or as numbers in `values`.

        Raises:
            FormatError: Ill-formed, or not as many elements as its shape says.
        """
        kind = fields.text("dtype", most=16)
        if kind not in KINDS:
            raise fields.wrong("dtype", f"{kind!r} is not one of {', '.join(KINDS)}")
        shape = fields.items("shape", most=16)
        if not all(type(length) is int and 0 <= length <= CAP for length in shape):
            raise fields.wrong("shape", "must be a list of lengths")
        name = "values" if fields.has("values") else "data"
        data = _packed(fields, kind) if fields.has("values") else fields.base64("data")
        expected = prod(shape) * struct.calcsize("<" + KINDS[kind])
        if len(data) != expected:
            raise fields.wrong(name, f"is {len(data)} bytes, dtype and shape make it {expected}")
        if kind == "bool" and data.strip(b"\0\1"):
            raise fields.wrong(name, "has a byte that is neither true nor false")
        return cls(kind, tuple(shape), data)

    def to_dict(self) -> dict[str, Any]:
        """Return the tensor as a JSON object."""
        return {
            "dtype": self.kind,
            "shape": list(self.shape),
            "data": base64.b64encode(self.data).decode(),
        }


@dataclass(frozen=True)
class Case:
    """What a model must answer to one input.

    Attributes:
        file: The release's file that is run.
        inputs: By the name that the model gives them.
        outputs: By the name that the model gives them; those that are not named may be anything.
    """

    file: str
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]


@dataclass(frozen=True)
class Golden:
    """Inputs and outputs.

    Attributes:
        cases: What must be answered to what.
        absolute: How far an output may be off.
        relative: How far it may be off besides, as a part of its own size.
    """

    cases: tuple[Case, ...]
    absolute: float = 0.0
    relative: float = 0.0

    @classmethod
    def parse(cls, data: bytes) -> "Golden":
        """Parse golden.json.

        Raises:
            FormatError: The document breaks the format.
        """
        fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        fields.schema(SCHEMA)
        fields.critical()
        golden = cls(
            cases=tuple(_case(case) for case in fields.each("cases", MAX_CASES)),
            absolute=_tolerance(fields, "absolute"),
            relative=_tolerance(fields, "relative"),
        )
        if not golden.cases:
            raise fields.wrong("cases", "is empty")
        return golden

    def to_bytes(self) -> bytes:
        """Return the document."""
        return strict.dump(
            {
                "schema": SCHEMA,
                "cases": [
                    {
                        "file": case.file,
                        "inputs": {name: item.to_dict() for name, item in case.inputs.items()},
                        "outputs": {name: item.to_dict() for name, item in case.outputs.items()},
                    }
                    for case in self.cases
                ],
                "absolute": self.absolute,
                "relative": self.relative,
                "critical": [],
            }
        )


def _case(fields: strict.Fields) -> Case:
    case = Case(
        file=fields.checked("file", check_path),
        inputs=_tensors(fields.fields("inputs")),
        outputs=_tensors(fields.fields("outputs")),
    )
    if not case.outputs:
        raise fields.wrong("outputs", "is empty: the case would prove nothing")
    return case


def _tensors(fields: strict.Fields) -> dict[str, Tensor]:
    if len(fields.raw) > MAX_TENSORS:
        raise fields.wrong("", f"has more than {MAX_TENSORS} tensors")
    return {name: Tensor.from_fields(fields.fields(name)) for name in fields.raw}


def _tolerance(fields: strict.Fields, name: str) -> float:
    value = fields.number(name) if fields.has(name) else 0.0
    if not 0 <= value <= MAX_TOLERANCE:
        raise fields.wrong(name, f"must be from 0 to {MAX_TOLERANCE:g}")
    return value


def _packed(fields: strict.Fields, kind: str) -> bytes:
    values = fields.items("values", most=CAP)
    allowed = (bool,) if kind == "bool" else (int, float)
    if not all(type(value) in allowed for value in values):
        raise fields.wrong("values", f"has an element that is no {kind}")
    try:
        return struct.pack(f"<{len(values)}{KINDS[kind]}", *values)
    except (OverflowError, struct.error) as error:
        raise fields.wrong("values", f"has an element that is no {kind}: {error}") from error
