"""Which of all ways to a file are worth publishing. Pure: judged as a device's own plan would."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from modelward.formats.chunks import ChunkIndex
from modelward.formats.release import Blob, Patch
from modelward.transfer import plan
from modelward.transfer.plan import Here

UNLIMITED = 1 << 62  # bytes
DOCUMENT_CAP = 512 << 10  # bytes of release.json that patches may take
_ENTRY = 512  # bytes of release.json that one patch takes


@dataclass(frozen=True)
class Margins:
    """What a way must save to be published.

    Attributes:
        patch: Part of what a device would fetch without it.
        whole: Part of the file, for a copy that needs no base.
    """

    patch: float = 0.10
    whole: float = 0.02


def worth(
    files: Iterable[Blob],
    candidates: Sequence[Patch],
    indexes: Mapping[str, ChunkIndex],
    margins: Margins,
) -> tuple[Patch, ...]:
    """Return the patches to publish, at most one for each pair of files.

    Args:
        files: The files of the release.
        candidates: All that was made.
        indexes: Chunk indexes by file, of new files and of bases.
        margins: What a patch must save.
    """
    found = []
    for file in dict.fromkeys(files):
        mine = [patch for patch in candidates if patch.to == file.sha256]
        alone = _smallest(patch for patch in mine if patch.base is None)
        if alone and alone.blob.length > file.length * (1 - margins.whole):
            alone = None
        found += [(file.length - alone.blob.length, alone)] if alone else []
        for base in dict.fromkeys(patch.base for patch in mine if patch.base):
            best = _smallest(patch for patch in mine if patch.base == base)
            without = min(
                alone.blob.length if alone else file.length, _by_chunks(file, base, indexes)
            )
            if best and best.blob.length <= without * (1 - margins.patch):
                found.append((without - best.blob.length, best))
    found.sort(key=lambda item: -item[0])
    kept = [patch for _, patch in found[: DOCUMENT_CAP // _ENTRY]]
    return tuple(sorted(kept, key=lambda patch: (patch.to, patch.base or "", patch.method)))


def _smallest(patches: Iterable[Patch]) -> Patch | None:
    return min(patches, key=lambda patch: patch.blob.length, default=None)


def _by_chunks(file: Blob, base: str, indexes: Mapping[str, ChunkIndex]) -> int:
    """Return what fetching the chunks that a base does not have would cost, indexes included."""
    if file.sha256 not in indexes or base not in indexes:
        return UNLIMITED
    known = {sha256: indexes[sha256] for sha256 in (file.sha256, base)}
    way = plan.by_chunks(file, Here({base: known[base].length}), known)
    looks = sum(len(index.to_bytes()) for index in known.values())
    return way.cost + looks if way else UNLIMITED
