"""What devices will fetch of a release, found out by the very plan that they make."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from modelward.errors import FormatError
from modelward.formats.chunks import ChunkIndex
from modelward.formats.release import Blob, Release
from modelward.transfer import patch, plan
from modelward.transfer.plan import Here, Limits, Plan
from modelward_repo.publish import delta
from modelward_repo.publish.blobs import blob_path
from modelward_repo.publish.prepare.choice import UNLIMITED
from modelward_repo.storage import Storage

_LIMITS = Limits(UNLIMITED, delta.MEMORY_CAP, patch.METHODS)


@dataclass(frozen=True)
class Route:
    """What a device fetches that has an earlier release.

    Attributes:
        model: The earlier release's model; empty for a device that has nothing.
        version: Its version.
        plan: What the device will do.
        looks: Bytes of chunk indexes that it looks at first.
    """

    model: str
    version: str
    plan: Plan
    looks: int = 0

    @property
    def cost(self) -> int:
        """Bytes to fetch."""
        return self.plan.cost + self.looks


def routes(storage: Storage, release: Release, bases: Iterable[Release]) -> Iterator[Route]:
    """Yield what a device fetches that has nothing, or one of the earlier releases.

    Args:
        storage: The repository, with everything in it.
        release: The release.
        bases: Earlier releases.
    """
    yield Route("", "", plan.make([release], Here(), _LIMITS))
    for base in bases:
        here = Here(
            {file.blob.sha256: file.blob.length for file in base.files},
            {file.blob.sha256: file.chunks for file in base.files if file.chunks},
            {release.model: frozenset(file.blob.sha256 for file in base.files)},
        )
        looks = plan.worth_a_look([release], here, _LIMITS)
        indexes = {index.sha256: index for blob in looks if (index := read_index(storage, blob))}
        planned = plan.make([release], here, _LIMITS, indexes)
        yield Route(base.model, base.version, planned, sum(blob.length for blob in looks))


def read_index(storage: Storage, blob: Blob) -> ChunkIndex | None:
    """Return a published chunk index, or None if it is none."""
    try:
        return ChunkIndex.parse(storage.read(blob_path(blob)))
    except FormatError:
        return None
