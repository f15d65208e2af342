"""One stage of work ahead of the next, in a thread of its own: zstd and SHA-256 free the lock."""

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Generic, TypeVar

T = TypeVar("T")

DEPTH = 1  # items: one is made while another is in use
HELD = DEPTH + 1  # items that exist at once


class _End(Generic[T]):
    """What a thread's last message is: how it ended."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


@contextmanager
def ahead(items: Generator[T, None, None]) -> Iterator[Iterator[T]]:
    """Run a generator in a thread, at most `DEPTH` items ahead of who reads them.

    An item counts as read until the next one is asked for: what it is made of may be used again
    for the item that comes `HELD` later. Leaving the context stops the thread after the item that
    it is making and waits for it. An error of the generator is raised where its item would have
    been.
    """
    ready: queue.Queue[T | _End[T]] = queue.Queue()
    room = threading.Semaphore(DEPTH)
    stopped = threading.Event()

    def work() -> None:
        error: BaseException | None = None
        try:
            with closing(items), suppress(StopIteration):
                while room.acquire() and not stopped.is_set():
                    ready.put(next(items))  # no name: an item is not held while the next is made
        except BaseException as problem:  # noqa: BLE001 - raised again in the reader's thread
            error = problem
        ready.put(_End(error))

    def received() -> Iterator[T]:
        while True:
            item = ready.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            room.release()
            yield item
            del item  # not held while waiting for the next

    thread = threading.Thread(target=work, name="modelward-patch", daemon=True)
    thread.start()
    try:
        yield received()
    finally:
        stopped.set()
        room.release()
        thread.join()
