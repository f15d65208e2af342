"""Strict JSON: the one door through which documents from elsewhere enter.

Python's `json` accepts duplicate keys (the last wins), NaN, and any depth. Two readers of one
signed document must never see two different things, so all of that is refused here, before any
other library looks at the same bytes.
"""

import binascii
import json
import math
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, NoReturn, TypeVar

from modelward.errors import FormatError

MAX_DEPTH = 16
MAX_NAME = 512  # characters of a field's name that errors show; a path is such a name
SHA256 = re.compile(r"[0-9a-f]{64}")
MAX_INT = 2**53 - 1  # the largest integer every JSON reader agrees upon
_TIME = re.compile(r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:\d\dZ", re.ASCII)

T = TypeVar("T")


def load(document: str, data: bytes, cap: int) -> Any:
    """Parse `data` as strict JSON.

    Args:
        document: What to call it in errors.
        data: The bytes as received.
        cap: Most bytes the document may have.

    Raises:
        FormatError: Too long, not UTF-8, not JSON, a duplicate key, a number that is not finite,
            or nesting deeper than `MAX_DEPTH`.
    """
    if len(data) > cap:
        raise FormatError(document, "", f"{len(data)} bytes long, at most {cap} are allowed")

    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key, value in items:
            if key in result:
                raise FormatError(document, _show(key), "appears twice")
            result[key] = value
        return result

    def constant(name: str) -> NoReturn:
        raise FormatError(document, "", f"{name} is not a number")

    def real(text: str) -> float:
        value = float(text)
        if not math.isfinite(value):
            raise FormatError(document, "", f"the number {_show(text)} is out of range")
        return value

    try:
        _check_depth(document, data)
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=pairs,
            parse_constant=constant,
            parse_float=real,
        )
    except UnicodeDecodeError as error:
        raise FormatError(document, "", "is not UTF-8 text") from error
    except ValueError as error:
        raise FormatError(document, "", f"is not JSON: {error}") from error
    _check_text(document, value)
    return value


def dump(value: Any) -> bytes:
    """Serialise to the one spelling modelward writes: sorted keys, no spaces, UTF-8, one LF.

    For documents without fractions this is a canonical form (RFC 8785 agrees with it there).
    """
    text = json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
    return text.encode("utf-8") + b"\n"


def _check_depth(document: str, data: bytes) -> None:
    """Refuse nesting bombs before the recursive parser sees them."""
    depth = 0
    in_string = False
    for token in re.finditer(rb'\\.|["\[\]{}]', data, re.DOTALL):
        char = token.group()
        if char == b'"':
            in_string = not in_string
        elif in_string or len(char) > 1:
            continue
        elif char in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise FormatError(document, "", f"is nested deeper than {MAX_DEPTH} levels")
        else:
            depth -= 1


def _check_text(document: str, value: Any) -> None:
    """Refuse lone surrogates: such a string cannot be written back as UTF-8."""
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise FormatError(document, "", "has a string that is not valid Unicode") from error


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."  # noqa: PLR2004 - one line of a terminal


class Fields:
    """Reads the fields of one JSON object, each by its type; every error names the field."""

    def __init__(self, document: str, value: Any, path: str = "") -> None:
        self.document = document
        self.path = path
        if not isinstance(value, dict):
            raise FormatError(document, path, f"must be an object, not {_show(value)}")
        self.raw: dict[str, Any] = value

    def at(self, name: str) -> str:
        """Return the full path of a field, for errors: safe to print whatever the document says."""
        shown = name if name.isprintable() and len(name) <= MAX_NAME else _show(name)
        return f"{self.path}.{shown}" if self.path and shown else self.path or shown

    def wrong(self, name: str, problem: str) -> FormatError:
        """Return, for the caller to raise, an error about a field."""
        return FormatError(self.document, self.at(name), problem)

    def has(self, name: str) -> bool:
        """Tell whether the field is present and not null."""
        return self.raw.get(name) is not None

    def any(self, name: str) -> Any:
        """Return a required field of any type."""
        if name not in self.raw:
            raise self.wrong(name, "is missing")
        return self.raw[name]

    def schema(self, expected: str) -> None:
        """Require `schema` to be exactly this."""
        found = self.any("schema")
        if found != expected:
            raise self.wrong("schema", f"must be {expected!r}, not {_show(found)}")

    def critical(self, understood: frozenset[str] = frozenset()) -> None:
        """Refuse a document whose `critical` list names a field this version does not know.

        Unknown fields are otherwise ignored, so that newer publishers can add to a format.
        """
        for index, name in enumerate(self.texts("critical") if self.has("critical") else ()):
            if name not in understood:
                raise self.wrong(
                    f"critical[{index}]", f"{_show(name)} is not understood by this version"
                )

    def text(self, name: str, most: int = 1024) -> str:
        """Return a string of at most `most` characters, without control characters."""
        value = self.any(name)
        if not isinstance(value, str):
            raise self.wrong(name, f"must be a string, not {_show(value)}")
        if len(value) > most:
            raise self.wrong(name, f"is longer than {most} characters")
        if not value.isprintable():
            raise self.wrong(name, "has a control or unprintable character")
        return value

    def integer(self, name: str, least: int = 0, most: int = MAX_INT) -> int:
        """Return an integer within bounds (`true` and `1.0` are not integers)."""
        value = self.any(name)
        if type(value) is not int:
            raise self.wrong(name, f"must be an integer, not {_show(value)}")
        if not least <= value <= most:
            raise self.wrong(name, f"must be from {least} to {most}, not {_show(value)}")
        return value

    def number(self, name: str) -> float:
        """Return a finite number (`true` is not a number)."""
        value = self.any(name)
        if type(value) not in (int, float):
            raise self.wrong(name, f"must be a number, not {_show(value)}")
        try:
            number = float(value)
        except OverflowError as error:
            raise self.wrong(name, "is out of range") from error
        if not math.isfinite(number):  # TOML has nan and inf; JSON was refused with them
            raise self.wrong(name, f"must be a number, not {_show(value)}")
        return number

    def boolean(self, name: str) -> bool:
        """Return `true` or `false`."""
        value = self.any(name)
        if not isinstance(value, bool):
            raise self.wrong(name, f"must be true or false, not {_show(value)}")
        return value

    def sha256(self, name: str) -> str:
        """Return a digest: exactly 64 lower-case hexadecimal digits."""
        value = self.any(name)
        if not isinstance(value, str) or not SHA256.fullmatch(value):
            raise self.wrong(name, f"must be 64 lower-case hex digits, not {_show(value)}")
        return value

    def time(self, name: str) -> datetime:
        """Return a UTC time written as RFC 3339 with whole seconds and `Z`."""
        value = self.any(name)
        if isinstance(value, str) and _TIME.fullmatch(value):
            try:
                return datetime.fromisoformat(value)
            except ValueError:
                pass
        raise self.wrong(name, f"must be a time such as 2026-11-22T10:00:00Z, not {_show(value)}")

    def fields(self, name: str) -> "Fields":
        """Return an object."""
        return Fields(self.document, self.any(name), self.at(name))

    def items(self, name: str, most: int = 100_000) -> list[Any]:
        """Return a list of at most `most` items."""
        value = self.any(name)
        if not isinstance(value, list):
            raise self.wrong(name, f"must be a list, not {_show(value)}")
        if len(value) > most:
            raise self.wrong(name, f"has {len(value)} items, at most {most} are allowed")
        return value

    def each(self, name: str, most: int = 100_000) -> "Iterator[Fields]":
        """Yield the objects of a list."""
        for index, item in enumerate(self.items(name, most)):
            yield Fields(self.document, item, f"{self.at(name)}[{index}]")

    def texts(self, name: str, most: int = 10_000) -> tuple[str, ...]:
        """Return a list of strings without repeats."""
        found: dict[str, None] = {}
        for index, item in enumerate(self.items(name, most)):
            field = f"{name}[{index}]"
            if not isinstance(item, str) or not item.isprintable() or len(item) > 1024:  # noqa: PLR2004
                raise self.wrong(field, f"must be a short string, not {_show(item)}")
            if item in found:
                raise self.wrong(field, f"{_show(item)} appears twice")
            found[item] = None
        return tuple(found)

    def base64(self, name: str) -> bytes:
        """Return a field of standard base64, decoded."""
        value = self.any(name)
        try:
            if isinstance(value, str):
                return binascii.a2b_base64(value, strict_mode=True)
        except ValueError:
            pass
        raise self.wrong(name, f"must be base64, not {_show(value)}")

    def checked(self, name: str, check: Callable[[str], T]) -> T:
        """Return `check(text)`, turning its `ValueError` into an error that names the field."""
        try:
            return check(self.text(name))
        except ValueError as error:
            raise self.wrong(name, str(error)) from error


def rfc3339(time: datetime) -> str:
    """Write a time as RFC 3339 UTC with whole seconds."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"
