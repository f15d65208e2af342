"""Every document modelward reads or writes: one module a format, both directions.

Parsing is strict (docs/formats.md): a parser either returns a frozen dataclass that holds only
well-formed values, or raises `FormatError` with the document and the field. Well-formed is not
yet trustworthy: what a role key vouches for but the supply chain has not confirmed travels as
`Unverified`, and only the gate that verifies it can take it out.
"""

from typing import Generic, NamedTuple, TypeVar

T = TypeVar("T")


class Unverified(NamedTuple, Generic[T]):
    """A well-formed document that nobody may act upon yet.

    Attributes:
        claims: What the document says. Reading it is a decision to be justified where it is done.
    """

    claims: T
