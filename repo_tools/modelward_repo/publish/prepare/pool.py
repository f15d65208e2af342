"""Several jobs at once, each in a process of its own, with progress."""

import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.process import parent_process
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Event
from typing import Protocol

from modelward.errors import ModelwardError
from modelward_repo.publish.cache import Cache
from modelward_repo.publish.prepare.jobs import Job, run

WORTH_PROCESSES = 32 << 20  # bytes of work in all from which on starting processes pays
LEAST_PROCESSES = 2
TICK = 0.1  # seconds between two looks at how far the processes are

Message = tuple[str, int]  # name of a job, bytes of its work just done


class Watch(Protocol):
    """Is told how work goes on."""

    def begins(self, jobs: Sequence[Job], found: int) -> None:
        """Note what is to be done, and how many jobs had been done before."""
        ...

    def advances(self, job: Job, count: int) -> None:
        """Note that so many more bytes of a job's work are done."""
        ...

    def ends(self, job: Job) -> None:
        """Note that a job is done."""
        ...

    def finishes(self) -> None:
        """Note that there is nothing more to do."""
        ...


def do(jobs: Sequence[Job], cache: Cache, watch: Watch, processes: int | None = None) -> None:
    """Do jobs, the longest first.

    Args:
        jobs: What to do.
        cache: Where results are kept.
        watch: Is told how far it is.
        processes: How many at once; by default as many as there are processors, at least two.

    Raises:
        Refused: A file is not what it was when it was hashed.
        OSError: A file could not be read or written.
        ModelwardError: A process was killed from outside.
    """
    processors = os.cpu_count() or 1
    processes = min(processes or max(LEAST_PROCESSES, processors), len(jobs))
    order = sorted(jobs, key=lambda job: -job.work)
    if processes <= 1 or sum(job.work for job in jobs) < WORTH_PROCESSES:
        for job in order:
            run(job, cache, processors, lambda count, job=job: watch.advances(job, count))  # type: ignore[misc]
            watch.ends(job)
        return
    try:
        _in_processes(order, cache, watch, processes, max(1, processors // processes))
    except BrokenProcessPool as error:
        raise ModelwardError(
            "a process that prepares files was killed, perhaps because memory ran out",
            "run the same command again, it goes on from there; `--jobs 1` takes least memory",
        ) from error


def _in_processes(
    jobs: Sequence[Job], cache: Cache, watch: Watch, processes: int, threads: int
) -> None:
    context = multiprocessing.get_context("spawn")  # a fork would share this process's threads
    messages: SimpleQueue[Message] = context.SimpleQueue()
    by_name = {job.name: job for job in jobs}

    def listen() -> None:
        while not messages.empty():
            name, count = messages.get()
            watch.advances(by_name[name], count)

    over = context.Event()
    with ProcessPoolExecutor(processes, context, _start, (messages, over)) as pool:
        running = {pool.submit(_work, job, cache, threads): job for job in jobs}
        # The pool watches those processes that it had when it was last given something to do.
        pool.submit(int).cancel()
        try:
            while running:
                done, _ = wait(running, TICK, FIRST_COMPLETED)
                listen()
                _finish(done, running, watch)
        except BaseException:
            over.set()
            for future in running:
                future.cancel()
            while wait(running, TICK).not_done:
                listen()  # or they would wait for ever to be heard
            raise


def _finish(
    done: Iterable["Future[None]"], running: dict["Future[None]", Job], watch: Watch
) -> None:
    for future in done:
        job = running.pop(future)
        future.result()
        watch.ends(job)


# --- in the processes


@dataclass
class _Reporter:
    messages: "SimpleQueue[Message]"
    over: Event
    name: str = ""
    count: int = 0
    last: float = 0.0

    def advance(self, count: int) -> None:
        if self.over.is_set():
            raise _OverError
        self.count += count
        if time.monotonic() - self.last >= TICK:
            self.flush()

    def flush(self) -> None:
        if self.count:
            self.messages.put((self.name, self.count))
        self.count, self.last = 0, time.monotonic()


class _OverError(Exception):
    """Another job failed: nobody wants the result of this one."""


_reporter: _Reporter | None = None


def _start(messages: "SimpleQueue[Message]", over: Event) -> None:
    """Set a process up."""
    global _reporter  # noqa: PLW0603 - a process of a pool has no other place to keep it
    _reporter = _Reporter(messages, over)
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    """End with the publisher: killed, it cannot tell its processes to stop."""
    parent = parent_process()
    if parent is not None:
        parent.join()
        sys.stderr.flush()
        os._exit(1)


def _work(job: Job, cache: Cache, threads: int) -> None:
    reporter = _reporter
    if reporter is None:
        raise RuntimeError("the process was not set up")
    reporter.name = job.name
    run(job, cache, threads, reporter.advance)
    reporter.flush()
