"""What is said of a document."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Description:
    """A document in plain words.

    Attributes:
        kind: What it is.
        lines: What it says.
        unverified: What nobody may conclude from having looked at it.
        checked: What was checked nevertheless, with nothing but the document itself.
        content: The document, parsed, for programs.
    """

    kind: str
    lines: tuple[str, ...]
    unverified: tuple[str, ...]
    checked: tuple[str, ...] = ()
    content: Any = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return it as a JSON object."""
        return {
            "kind": self.kind,
            "summary": list(self.lines),
            "checked": list(self.checked),
            "not_verified": list(self.unverified),
            "content": self.content,
            **self.more,
        }


def clean(value: object, most: int = 120) -> str:
    """Return a value from a document as one short line that no terminal obeys."""
    text = str(value)
    text = text if text.isprintable() else repr(text)
    return text if len(text) <= most else f"{text[: most - 4]} ..."
