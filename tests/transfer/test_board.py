"""What the board promises to connections that race for a piece, step by step."""

from types import SimpleNamespace
from typing import cast

import pytest

from modelward.transfer import pieces
from modelward.transfer.board import STALL, Board, Connection, room
from modelward.transfer.pieces import HALF, PIECE
from modelward.transfer.sources import Standing


class Clock:
    now = 1.0

    def __call__(self) -> float:
        return self.now


def source(order: int) -> Standing:
    return cast("Standing", SimpleNamespace(order=order, failures=0))


def board_of(clock: Clock, *connections: Connection) -> Board:
    """Two pieces, and who brings them."""
    buffers = [memoryview(bytearray(PIECE)) for _ in range(room(len(connections)))]
    board = Board(pieces.plain(PIECE, [], HALF), [], PIECE, buffers, clock)
    for connection in connections:
        board.join(connection)
    return board


def test_nobody_goes_on_where_another_has_gone_on():
    """A piece's owner and its rival break off; who asked for what the owner left gets no place.

    Its bytes would lie where they do not belong, and an honest server be taken for a liar.
    """
    clock, standing = Clock(), source(0)
    owner, rival, third = (Connection(number, standing) for number in range(3))
    board = board_of(clock, owner, rival, third)
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


@pytest.fixture
def broken_off() -> tuple[Clock, Board, Connection, Connection]:
    """One has to bring a piece alone, and broke off in it; the other has never failed."""
    clock, giver, other = Clock(), Connection(0, source(0)), Connection(1, source(1))
    board = board_of(clock, giver, other)
    start, _ = board.claim(giver)
    piece, attempt = board.take(giver, start)
    piece.alone = True
    board.heard(giver, attempt, 3000)
    board.give_up(giver, piece, attempt, keep=True)
    board.release(giver, rest=True)
    giver.standing.failures = 1
    other.rate = 1e9
    return clock, board, giver, other


def test_who_began_alone_goes_on_though_others_do_better(broken_off):
    """Where all break off, each is the best in turn: they would begin anew for ever."""
    _, board, giver, other = broken_off
    assert board.claim(other) == (HALF, PIECE)
    assert board.claim(giver) == (3000, HALF)
    taken = board.take(giver, 3000)
    assert taken is not None
    assert taken[1].filled == 3000


def test_who_began_alone_and_is_silent_is_not_waited_for(broken_off):
    clock, board, _, other = broken_off
    clock.now += 2 * STALL
    assert board.claim(other)[0] == 0


def test_who_is_overtaken_before_it_goes_on_loses_nothing(broken_off):
    """It asked for the rest of its piece, and its answer has not come."""
    _, board, giver, other = broken_off
    start, _ = board.claim(other)
    piece, attempt = board.take(other, start)
    board.heard(other, attempt, piece.length)
    board.arrived(other, piece, attempt, 1e-6)
    board.wrote(piece)
    board.release(other)
    assert board.claim(giver) == (3000, HALF)
    giver.rate = 1.0
    assert board.claim(other) == (0, HALF)
    piece, attempt = board.take(other, 0)
    board.heard(other, attempt, 1000)
    board.give_up(other, piece, attempt, keep=True)
    taken = board.take(giver, 3000)
    assert taken is not None
    assert taken[1].filled == 3000
