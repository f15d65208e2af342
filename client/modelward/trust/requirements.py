"""Gate 6, last part: does a release fit this device?"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from modelward.errors import FormatError, Gate, Refused
from modelward.formats.release import DOCUMENT, Requirements

_CLAUSE = re.compile(r"(>=|<=|==|!=|>|<)\s*(\d+(?:\.\d+)*)", re.ASCII)
_NUMBERS = re.compile(r"\d+(?:\.\d+)*", re.ASCII)


@dataclass(frozen=True)
class Facts:
    """What a device is.

    Attributes:
        hardware: The machine's name, as `platform.machine()` gives it.
        runtime: Returns the version of an installed Python distribution, or None.
    """

    hardware: str
    runtime: Callable[[str], str | None]


def check(requirements: Requirements, facts: Facts) -> None:
    """Require that the device has what the release needs.

    Raises:
        Refused: It has not (attack row 28).
        FormatError: A version specifier makes no sense.
    """
    if requirements.hardware and facts.hardware not in requirements.hardware:
        raise Refused(
            Gate.RELEASE,
            f"it is made for {', '.join(requirements.hardware)}, not for {facts.hardware}",
            "wait for a release for this hardware, or choose another channel",
        )
    for distribution, specifier in requirements.runtime:
        version = facts.runtime(distribution)
        if version is None:
            raise Refused(
                Gate.RELEASE,
                f"it needs {distribution} {specifier}, which is not installed",
                f"install {distribution} on this device first",
            )
        if not satisfies(version, specifier):
            raise Refused(
                Gate.RELEASE,
                f"it needs {distribution} {specifier}, but {version} is installed",
                f"update {distribution} on this device first",
            )


def satisfies(version: str, specifier: str) -> bool:
    """Tell whether a version meets every clause, such as ``>=1.17, <3``.

    Only the leading numbers of the version count; ``1.17`` equals ``1.17.0``.

    Raises:
        FormatError: The specifier makes no sense.
    """
    match = _NUMBERS.match(version)
    have = _numbers(match.group()) if match else ()
    for clause in specifier.split(","):
        parsed = _CLAUSE.fullmatch(clause.strip())
        if not parsed:
            raise FormatError(
                DOCUMENT, "requires.runtime", f"{specifier!r} is not like '>=1.17, <3'"
            )
        if not _compare(have, parsed.group(1), _numbers(parsed.group(2))):
            return False
    return True


def _numbers(text: str) -> tuple[int, ...]:
    numbers = [int(part) for part in text.split(".")]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _compare(have: tuple[int, ...], operator: str, wanted: tuple[int, ...]) -> bool:
    return {
        ">=": have >= wanted,
        "<=": have <= wanted,
        "==": have == wanted,
        "!=": have != wanted,
        ">": have > wanted,
        "<": have < wanted,
    }[operator]
