"""A tensor in a file."""

from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Tensor:
    """Where a tensor's elements lie, and what they are.

    Attributes:
        start: Where they begin.
        end: Where they end.
        name: Its name.
        type: The type of its elements, as its format calls it.
        shape: Its dimensions.
        width: Bytes of an element: 1, 2, 4 or 8.
        is_float: Whether elements are a sign and a magnitude.
    """

    start: int
    end: int
    name: str
    type: str
    shape: tuple[int, ...]
    width: int
    is_float: bool

    @property
    def length(self) -> int:
        """Bytes of its elements."""
        return self.end - self.start
