"""Gate 9: the cheapest way to the bytes. Pure: what is here, what is offered, what it costs."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from modelward.errors import Gate, Unavailable
from modelward.formats.release import Blob, Release

RESERVE = 16 << 20  # bytes to leave free for metadata, journals and logs


@dataclass(frozen=True)
class Plan:
    """What has to be fetched before the releases can be installed.

    Attributes:
        fetch: Blobs to fetch, each once.
        present: Blobs that are here already.
    """

    fetch: tuple[Blob, ...]
    present: tuple[Blob, ...]

    @property
    def length(self) -> int:
        """Bytes to fetch."""
        return sum(blob.length for blob in self.fetch)


def make(releases: Iterable[Release], is_present: Callable[[Blob], bool], free: int) -> Plan:
    """Plan how to come by the files of all releases.

    Args:
        releases: The releases to install.
        is_present: Tells whether a blob is already in the store.
        free: Free bytes where the store lies.

    Raises:
        Unavailable: They would not fit.
    """
    blobs = {file.blob.sha256: file.blob for release in releases for file in release.files}
    present = tuple(blob for blob in blobs.values() if is_present(blob))
    known = {blob.sha256 for blob in present}
    plan = Plan(tuple(blob for blob in blobs.values() if blob.sha256 not in known), present)
    if plan.length + RESERVE > free:
        raise Unavailable(
            f"{plan.length + RESERVE} bytes are needed, but only {free} are free",
            "make room in the state directory's file system",
            Gate.PLAN,
        )
    return plan
