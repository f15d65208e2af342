"""x-floors-reset in root: the only way down for a floor, and only root's threshold may take it.

A stolen release key can burn counters: a device that installed the highest one accepts nothing
honest any more. The reset says down to which counter devices are to go, once.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from modelward.formats import strict
from modelward.formats.names import check_name

FIELD = "x-floors-reset"
DOCUMENT = "root.json"


@dataclass(frozen=True)
class FloorsReset:
    """Floors that are lowered, once.

    Attributes:
        id: Tells one reset from another: a device applies each once.
        releases: Per model, the counter that is accepted again.
    """

    id: str
    releases: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, fields: strict.Fields) -> "FloorsReset":
        """Read a reset.

        Raises:
            FormatError: It is ill-formed.
        """
        if not fields.text("id"):
            raise fields.wrong("id", "is empty")
        releases = fields.fields("releases")
        for model in releases.raw:
            try:
                check_name(model)
            except ValueError as error:
                raise releases.wrong(model, str(error)) from error
        return cls(fields.text("id"), {model: releases.integer(model) for model in releases.raw})

    @classmethod
    def of_root(cls, unrecognized: Mapping[str, Any]) -> "FloorsReset | None":
        """Return the reset that root signs, or None.

        Args:
            unrecognized: Root's fields that TUF does not know.

        Raises:
            FormatError: It is ill-formed.
        """
        value = unrecognized.get(FIELD)
        return None if value is None else cls.read(strict.Fields(DOCUMENT, value, FIELD))

    def to_dict(self) -> dict[str, Any]:
        """Return the reset as a JSON object."""
        return {"id": self.id, "releases": dict(self.releases)}
