"""Tampering: what is installed was changed, and what was served instead. Kept as an alarm."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from modelward.formats import strict
from modelward.formats.names import check_name, check_version

DOCUMENT = "alarm"
SCHEMA = "modelward/tampering/1"
CAP = 8192
_DIGITS = 16
_MOST = 512  # characters of the problem


@dataclass(frozen=True)
class Tampering:
    """Something or somebody wrote to what is installed.

    Attributes:
        model: The model.
        version: The version that was changed.
        release: Digest of its release.json.
        problem: What is wrong with it.
        at: When that was found.
        served: The version that was served instead, or None.
    """

    model: str
    version: str
    release: str
    problem: str
    at: datetime
    served: str | None

    @property
    def name(self) -> str:
        """By which the alarm about it is called: one a slot."""
        return f"{self.model}-{self.release[:_DIGITS]}"

    @classmethod
    def parse(cls, data: bytes) -> "Tampering":
        """Parse the file.

        Raises:
            FormatError: It is ill-formed.
        """
        fields = strict.Fields(DOCUMENT, strict.load(DOCUMENT, data, CAP))
        fields.schema(SCHEMA)
        return cls(
            model=fields.checked("model", check_name),
            version=fields.checked("version", check_version),
            release=fields.sha256("release"),
            problem=fields.text("problem", most=_MOST),
            at=fields.time("at"),
            served=fields.checked("served", check_version) if fields.has("served") else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "model": self.model,
            "version": self.version,
            "release": self.release,
            "problem": self.problem[:_MOST],
            "at": strict.rfc3339(self.at),
            "served": self.served,
        }

    def to_bytes(self) -> bytes:
        """Return the file."""
        return strict.dump({"schema": SCHEMA, **self.to_dict()})

    def to_text(self) -> str:
        """Return it for people."""
        served = f"{self.served} is served instead" if self.served else "nothing is served"
        return (
            f"{self.model} {self.version} was changed after it was installed: {self.problem}; "
            f"{served} (found {strict.rfc3339(self.at)})"
        )
