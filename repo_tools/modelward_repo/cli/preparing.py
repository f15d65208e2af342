"""What `publish` and `release` share: how to make releases cheap to fetch, and telling of it."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click

from modelward_repo.cli import options
from modelward_repo.publish.cache import Cache
from modelward_repo.publish.prepare import RELEASES, Options
from modelward_repo.publish.prepare.choice import Margins
from modelward_repo.publish.prepare.jobs import Job, Kind
from modelward_repo.publish.prepare.pool import Watch
from modelward_repo.publish.prepare.routes import Route

F = TypeVar("F", bound=Callable[..., Any])
_BAR = 24  # characters
_REDRAW = 0.1  # seconds between two drawings
_NAME = 32  # characters of a file's name
_MB = 1e6


def prepare_options(command: F) -> F:
    """Add the options, as one parameter `prepare` of type `Options`."""
    for option in (
        click.option(
            "--cache",
            "prepare",
            envvar="MODELWARD_CACHE",
            show_envvar=True,
            type=click.Path(path_type=Path, file_okay=False),
            callback=_options,
            help="Where to keep what was found out. Default: <repository>-cache beside it.",
        ),
        _noted("--rehash", is_flag=True, help="Hash files again, also those that look unchanged."),
        _noted(
            "--jobs",
            type=click.IntRange(1, 64),
            help="How many files to work on at once. Default: one a processor, at least 2.",
        ),
        _noted(
            "--margin",
            type=click.FloatRange(0, 99),
            default=100 * Margins.patch,
            show_default=True,
            metavar="PERCENT",
            help="What a patch must save of what devices would fetch without it.",
        ),
        _noted(
            "--base",
            nargs=2,
            multiple=True,
            metavar="MODEL VERSION",
            help=f"Make patches from this release too, beside the last {RELEASES}; repeatable.",
        ),
        _noted("--no-deltas", is_flag=True, help="Make no patches from earlier releases."),
    ):
        command = option(command)
    return command


def _noted(name: str, **settings: Any) -> Callable[[F], F]:
    """Return what adds an option whose value `_options` finds."""
    return click.option(
        name,
        expose_value=False,
        is_eager=True,
        callback=lambda ctx, param, value: ctx.meta.__setitem__(_key(param.name), value),
        **settings,
    )


def _key(name: str) -> str:
    return f"{__name__}.{name}"


def _options(ctx: click.Context, _param: click.Parameter, cache: Path | None) -> Options | None:
    if ctx.resilient_parsing:
        return None
    where = Path(ctx.params["repository"]).resolve()
    noted = {
        name: ctx.meta[_key(name)] for name in ("rehash", "jobs", "margin", "base", "no_deltas")
    }
    return Options(
        cache=Cache(cache or where.with_name(f"{where.name}-cache"), not noted["rehash"]),
        margins=Margins(patch=noted["margin"] / 100),
        deltas=not noted["no_deltas"],
        bases=noted["base"],
        processes=noted["jobs"],
    )


class Progress:
    """Shows which file is worked on and how, how fast, and how long it will take.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._start = self._drawn = clock()
        self._total = self._done = 0
        self._of: dict[str, int] = {}

    def begins(self, jobs: Sequence[Job], found: int) -> None:
        """Note what is to be done, and how many jobs had been done before."""
        self._start = self._clock()
        self._total = sum(job.work for job in jobs)
        if found:
            self._end(f"Preparing: {found} of {found + len(jobs)} things are in the cache")

    def advances(self, job: Job, count: int) -> None:
        """Note that so many more bytes of a job's work are done."""
        self._of[job.name] = min(job.work, self._of.get(job.name, 0) + count)
        if self._clock() - self._drawn >= _REDRAW:
            self._draw(job)

    def ends(self, job: Job) -> None:
        """Note that a job is done."""
        self._done += job.work
        self._of.pop(job.name, None)
        self._draw(job)

    def finishes(self) -> None:
        """Note that there is nothing more to do."""
        if self._total:
            seconds = self._clock() - self._start
            self._end(f"Preparing: {self._total / _MB:.1f} MB in {seconds:.1f} s")

    def _draw(self, job: Job) -> None:
        self._drawn = self._clock()
        done = self._done + sum(self._of.values())
        seconds = self._drawn - self._start
        rate = done / seconds if seconds > 0 else 0.0
        left = (self._total - done) / rate if rate else 0.0
        share = done / self._total if self._total else 1.0
        bar = "#" * int(_BAR * share)
        sys.stderr.write(
            f"\r\x1b[K[{bar:.<{_BAR}}] {share:4.0%} {rate / _MB:6.1f} MB/s "
            f"{int(left) // 60:2d}:{int(left) % 60:02d} left  {phase(job)} {job.label[-_NAME:]}"
        )
        sys.stderr.flush()

    def _end(self, text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}\n")
        sys.stderr.flush()


class Quiet:
    """Shows nothing."""

    def begins(self, jobs: Sequence[Job], found: int) -> None:
        """Show nothing."""

    def advances(self, job: Job, count: int) -> None:
        """Show nothing."""

    def ends(self, job: Job) -> None:
        """Show nothing."""

    def finishes(self) -> None:
        """Show nothing."""


def watch() -> Watch:
    """Return what shows progress: on a terminal; nothing where there is none."""
    return Quiet() if options.speaks_json() or not sys.stderr.isatty() else Progress()


def phase(job: Job) -> str:
    """Return what a job does, for people."""
    if job.kind is Kind.CHUNKS:
        return "chunks of"
    if job.base is None:
        return f"{job.kind} of"
    return f"{job.kind} to"


def tell_routes(routes: Iterable[Route]) -> None:
    """Tell people what devices will fetch."""
    for route in routes:
        here, length = len(route.plan.present), _length(route)
        share = f" ({route.cost / length:.1%})" if length else ""
        ways = [f"{count} {how}" for how, count in sorted(route.plan.how.items())]
        ways += [f"{here} there already"] * bool(here)
        options.say(
            f"  {_who(route)} fetches {route.cost} of {length} bytes{share}: {', '.join(ways)}"
        )


def _who(route: Route) -> str:
    return f"a device with {route.model} {route.version}" if route.model else "a new device"


def _length(route: Route) -> int:
    return sum(blob.length for blob in route.plan.present) + route.plan.length


def routes_as_json(routes: Iterable[Route]) -> list[dict[str, object]]:
    """Return the same as JSON objects."""
    return [
        {
            "from": {"model": route.model, "version": route.version} if route.model else None,
            "fetched": route.cost,
            "length": _length(route),
            "indexes": route.looks,
            "files": [
                {
                    "sha256": step.blob.sha256,
                    "length": step.blob.length,
                    "how": step.ways[0].how.value,
                    "method": patch.method if (patch := step.ways[0].patch) else None,
                    "fetched": step.cost,
                }
                for step in route.plan.steps
            ],
        }
        for route in routes
    ]
