"""Of all ways to a file, those are published that save a device enough."""

import hashlib

from modelward.formats.chunks import ChunkIndex
from modelward.formats.release import Blob, Patch
from modelward_repo.publish.prepare.choice import DOCUMENT_CAP, Margins, worth

NEW, OLD, OLDER = Blob("a" * 64, 100_000), "b" * 64, "c" * 64
TENTH = Margins(patch=0.1, whole=0.02)


def patch(length: int, base: str | None = OLD, method: str = "m/1", to: str = NEW.sha256) -> Patch:
    name = hashlib.sha256(f"{length}{base}{method}{to}".encode()).hexdigest()
    return Patch(to, base, method, Blob(name, length), 1)


def test_the_smallest_of_each_pair():
    best = [patch(50), patch(40, OLDER), patch(90_000, None)]
    others = [patch(60, method="n/1"), patch(41, OLDER, "n/1"), patch(90_001, None, "n/1")]
    assert set(worth([NEW, NEW], [*others, *best], {}, TENTH)) == set(best)


def test_what_saves_too_little_is_not_published():
    assert worth([NEW], [patch(90_001)], {}, TENTH) == ()
    assert worth([NEW], [patch(90_000)], {}, TENTH) == (patch(90_000),)
    assert worth([NEW], [patch(98_001, None)], {}, TENTH) == ()
    assert worth([NEW], [patch(98_000, None)], {}, TENTH) == (patch(98_000, None),)


def test_a_patch_must_beat_the_compressed_file():
    alone = patch(50_000, None)
    assert worth([NEW], [alone, patch(45_001)], {}, TENTH) == (alone,)
    assert set(worth([NEW], [alone, patch(45_000)], {}, TENTH)) == {alone, patch(45_000)}


def test_a_patch_must_beat_the_changed_chunks():
    pieces = [(10_000, bytes([n]) * 32) for n in range(10)]
    other = [*pieces[:9], (10_000, b"x" * 32)]
    indexes = {
        NEW.sha256: ChunkIndex.of(NEW.sha256, 100_000, pieces),
        OLD: ChunkIndex.of(OLD, 100_000, other),
    }
    # One chunk of 10,000 bytes, one request, two indexes of 63 + 360 bytes.
    cost = 10_000 + 512 + 2 * 423
    assert worth([NEW], [patch(int(cost * 0.9) + 1)], indexes, TENTH) == ()
    assert worth([NEW], [patch(int(cost * 0.9))], indexes, TENTH) == (patch(int(cost * 0.9)),)


def test_a_release_stays_within_its_cap():
    files = [Blob(f"{n:064x}", 1000 + n) for n in range(4000)]
    patches = [patch(1, to=file.sha256) for file in files]
    kept = worth(files, patches, {}, TENTH)
    assert len(kept) == DOCUMENT_CAP // 512
    assert min(kept, key=lambda item: item.to).to == files[-len(kept)].sha256  # what saves most
