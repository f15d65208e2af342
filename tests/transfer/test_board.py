"""What the board promises to connections that race for a piece, step by step."""

from types import SimpleNamespace
from typing import cast

from modelward.transfer import pieces
from modelward.transfer.board import STALL, Board, Connection, room
from modelward.transfer.pieces import HALF, PIECE
from modelward.transfer.sources import Standing


class Clock:
    now = 1.0

    def __call__(self) -> float:
        return self.now


def test_nobody_goes_on_where_another_has_gone_on():
    """A piece's owner and its rival break off; who asked for what the owner left gets no place.

    Its bytes would lie where they do not belong, and an honest server be taken for a liar.
    """
    clock = Clock()
    buffers = [memoryview(bytearray(PIECE)) for _ in range(room(3))]
    board = Board(pieces.plain(PIECE, [], HALF), [], PIECE, buffers, clock)
    standing = cast("Standing", SimpleNamespace(order=0, failures=0))
    owner, rival, third = (Connection(number, standing) for number in range(3))
    for connection in (owner, rival, third):
        board.join(connection)
    start, _ = board.claim(owner)
    piece, begun = board.take(owner, start)
    board.heard(owner, begun, 1000)
    other, attempt = board.take(rival, board.claim(rival)[0])
    board.heard(rival, attempt, other.length)
    clock.now += 0.01
    board.arrived(rival, other, attempt, 0.01)
    board.wrote(other)
    board.release(rival)

    clock.now += 2 * STALL  # the owner stalls
    assert board.claim(rival) == (0, HALF)
    _, further = board.take(rival, 0)
    board.heard(rival, further, 5000)
    board.give_up(owner, piece, begun, keep=True)
    board.release(owner, rest=True)
    start, _ = board.claim(third)
    assert start == 1000
    board.give_up(rival, piece, further, keep=True)
    board.release(rival, rest=True)
    assert board.take(third, start) is None

    board.release(third)
    start, _ = board.claim(third)
    assert start == 5000
    taken = board.take(third, start)
    assert taken is not None
    assert taken[1].filled == 5000
