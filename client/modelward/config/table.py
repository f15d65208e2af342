"""One table of modelward.toml: reads its settings by type; every error names the setting."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelward.errors import UsageError

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|kB|MB|GB|KiB|MiB|GiB)")
_UNITS = {
    "B": 1,
    "kB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KiB": 1 << 10,
    "MiB": 1 << 20,
    "GiB": 1 << 30,
}
_MOST = 2**53 - 1  # bytes
_LONGEST = 10.0**10  # seconds: some centuries, which no clock of this system ends
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Table:
    """Reads one table.

    Args:
        name: The table's name, such as ``transfer``.
        raw: What TOML made of it.
        known: The settings it may have.

    Raises:
        UsageError: It is no table, or has a setting that is not known.
    """

    def __init__(self, name: str, raw: object, known: frozenset[str]) -> None:
        self.name = name
        if not isinstance(raw, Mapping):
            raise UsageError(f"[{name}] must be a table of settings")
        self._raw: Mapping[str, Any] = raw
        for key in raw:
            if key not in known:
                raise UsageError(
                    f"{key!r} is not a setting of [{name}]", f"settings: {', '.join(sorted(known))}"
                )

    def wrong(self, key: str, problem: str) -> UsageError:
        """Return, for the caller to raise, an error about a setting."""
        return UsageError(f"the setting {key!r} in [{self.name}] {problem}")

    def text(self, key: str, default: str) -> str:
        """Return a text."""
        value = self._raw.get(key, default)
        if not isinstance(value, str) or not value.isprintable():
            raise self.wrong(key, "must be a text")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts; none by default."""
        value = self._raw.get(key, [])
        if not isinstance(value, list | tuple) or not all(
            isinstance(item, str) and item.isprintable() and item for item in value
        ):
            raise self.wrong(key, "must be a list of texts")
        return tuple(value)

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self._raw.get(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "must be true or false")
        return value

    def integer(self, key: str, default: int, least: int = 0, most: int = _MOST) -> int:
        """Return an integer within bounds."""
        value = self._raw.get(key, default)
        if type(value) is not int or not least <= value <= most:
            raise self.wrong(key, f"must be an integer from {least} to {most}")
        return value

    def size(self, key: str, default: int) -> int:
        """Return bytes, written as an integer or such as ``"64 MiB"``."""
        value = self._raw.get(key, default)
        if type(value) is int and 0 <= value <= _MOST:
            return value
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        found = float(match[1]) * _UNITS[match[2]] if match else math.inf
        if found > _MOST:
            raise self.wrong(key, 'must be a size such as "64 MiB" or "500 kB"')
        return int(found)

    def seconds(self, key: str, default: float) -> float:
        """Return seconds, written as a number or such as ``"10m"``."""
        value = self._raw.get(key, default)
        if type(value) in (int, float) and 0 <= value <= _LONGEST:
            return float(value)
        match = _SPAN.fullmatch(value) if isinstance(value, str) else None
        found = float(match[1]) * _SECONDS[match[2]] if match else math.inf
        if found > _LONGEST:
            raise self.wrong(key, 'must be a span of time such as "30s", "10m" or "1h"')
        return found

    def seconds_or_never(self, key: str, default: float) -> float | None:
        """Return seconds, as `seconds` does, or None for ``"never"``."""
        return None if self._raw.get(key) == "never" else self.seconds(key, default)

    def path(self, key: str) -> Path | None:
        """Return the path of a file, or None."""
        value = self._raw.get(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value or not value.isprintable():
            raise self.wrong(key, "must be a path")
        return Path(value)
