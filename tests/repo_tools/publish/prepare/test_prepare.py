"""What is published beside the files: made once, only where it pays, found again after a kill."""

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from modelward.errors import ExitCode, Refused
from modelward.formats.chunks import ChunkIndex
from modelward.formats.release import Blob, Release, ReleaseFile
from modelward_repo.publish.blobs import blob_path
from modelward_repo.publish.cache import Cache
from modelward_repo.publish.prepare import Options, Preparer
from modelward_repo.publish.prepare.jobs import Job
from modelward_repo.storage.local import LocalStorage
from tests.repo_tools.site import PlainTuf, Site
from tests.simulator.weights import (
    Tensors,
    file_of,
    fine_tuned,
    retrained_head,
    trained,
)
from tests.simulator.world import Done

FIRST = trained()
SECOND = fine_tuned(FIRST)


def folder_of(place: Path, tensors: Tensors) -> Path:
    place.mkdir(parents=True)
    (place / "model.safetensors").write_bytes(file_of(tensors))
    (place / "words.txt").write_text("zero one two\n")
    return place


def release(site: Site, version: str, folder: Path, *options: object, model: str = "alpha") -> Done:
    done = site.run("release", model, version, folder, "--json", *options)
    assert done.code == 0, done
    return done


def route(done: Done, version: str | None, model: str = "alpha") -> dict[str, object]:
    """Return what a device fetches that has a version, or nothing."""
    wanted = {"model": model, "version": version} if version else None
    return next(item for item in done.json["release"]["routes"] if item["from"] == wanted)


def how(found: dict[str, object]) -> list[tuple[str, str | None]]:
    """Return how large files are come by."""
    return [(file["how"], file["method"]) for file in found["files"] if file["length"] > 1000]  # type: ignore[index, union-attr, attr-defined]


def published(plain_tuf: PlainTuf, site: Site, version: str, model: str = "alpha") -> Release:
    return Release.parse(plain_tuf(site.directory)[f"models/{model}/{version}/release.json"])


def test_a_fine_tune_is_published_as_a_delta(site: Site, tmp_path: Path, plain_tuf: PlainTuf):
    first = release(site, "1.0", folder_of(tmp_path / "1", FIRST))
    assert how(route(first, None)) == [("compressed", "tensor-delta/1")]

    second = release(site, "2.0", folder_of(tmp_path / "2", SECOND))

    assert how(route(second, "1.0")) == [("patch", "tensor-delta/1")]
    fetched, length = route(second, "1.0")["fetched"], route(second, "1.0")["length"]
    assert fetched < 0.6 * length  # type: ignore[operator]
    found = published(plain_tuf, site, "2.0")
    weights = found.file("model.safetensors")
    before = published(plain_tuf, site, "1.0").file("model.safetensors")
    assert weights
    assert before
    assert {(patch.to, patch.base) for patch in found.patches} == {
        (weights.blob.sha256, before.blob.sha256),
        (weights.blob.sha256, None),
    }
    assert not any(patch.chunks for patch in found.patches)  # a megabyte is one piece
    for blob in [patch.blob for patch in found.patches] + [weights.chunks]:
        assert blob
        assert (site.directory / blob_path(blob)).stat().st_size == blob.length
    assert weights.chunks
    index = ChunkIndex.parse((site.directory / blob_path(weights.chunks)).read_bytes())
    assert (index.sha256, index.length) == (weights.blob.sha256, weights.blob.length)
    assert found.file("words.txt").chunks is None  # type: ignore[union-attr]
    assert not list((tmp_path / "repo-cache").rglob("*.bin"))  # what is published needs no copy


def test_few_changed_chunks_need_no_patch(site: Site, tmp_path: Path, plain_tuf: PlainTuf):
    release(site, "1.0", folder_of(tmp_path / "1", FIRST))
    folder = folder_of(tmp_path / "2", retrained_head(FIRST))
    done = release(site, "2.0", folder, "--margin", 50)
    assert how(route(done, "1.0")) == [("chunks", None)]
    assert route(done, "1.0")["fetched"] < 0.3 * route(done, "1.0")["length"]  # type: ignore[operator]
    assert [patch.base for patch in published(plain_tuf, site, "2.0").patches] == [None]


def test_the_last_releases_and_declared_ones_are_bases(site: Site, tmp_path: Path):
    small = trained(1, 64)
    versions = [fine_tuned(small, seed) for seed in range(5)]
    for number, tensors in enumerate(versions):
        done = release(site, f"{number}.0", folder_of(tmp_path / str(number), tensors))
    froms = [item["from"] for item in done.json["release"]["routes"]]
    assert froms == [None, *({"model": "alpha", "version": f"{n}.0"} for n in (3, 2, 1))]

    base = ("--base", "alpha", "0.0")
    folder = folder_of(tmp_path / "beta", fine_tuned(small, 9))
    other = release(site, "1.0", folder, *base, model="beta")
    assert how(route(other, "0.0")) == [("patch", "tensor-delta/1")]
    folder = folder_of(tmp_path / "unknown", small)
    done = site.run("release", "beta", "2.0", folder, "--base", "alpha", "9.9")
    assert done.code == ExitCode.USAGE
    assert "there is no release 9.9 of alpha to start from" in done.err


def test_no_deltas(site: Site, tmp_path: Path, plain_tuf: PlainTuf):
    release(site, "1.0", folder_of(tmp_path / "1", FIRST))
    release(site, "2.0", folder_of(tmp_path / "2", SECOND), "--no-deltas")
    assert [patch.base for patch in published(plain_tuf, site, "2.0").patches] == [None]


def test_a_margin_that_nothing_reaches(site: Site, tmp_path: Path, plain_tuf: PlainTuf):
    release(site, "1.0", folder_of(tmp_path / "1", FIRST))
    release(site, "2.0", folder_of(tmp_path / "2", SECOND), "--margin", 90)
    assert [patch.base for patch in published(plain_tuf, site, "2.0").patches] == [None]
    # By another margin the patch is worth it: it is made again, as its content was not kept.
    release(site, "2.1", folder_of(tmp_path / "2.1", SECOND), "--margin", 10)
    assert None in {patch.base for patch in published(plain_tuf, site, "2.1").patches}
    assert len(published(plain_tuf, site, "2.1").patches) == 2


@pytest.mark.parametrize("options", [(), ("--no-deltas",), ("--rehash",)])
def test_the_same_release_again_is_the_same(site: Site, tmp_path: Path, options: Sequence[str]):
    release(site, "1.0", folder_of(tmp_path / "1", FIRST))
    folder = folder_of(tmp_path / "2", SECOND)
    release(site, "2.0", folder)
    before = (site.directory / "metadata/timestamp.json").read_bytes()
    shutil.rmtree(tmp_path / "repo-cache")
    again = release(site, "2.0", folder, *options)
    assert again.json["release"]["already"]
    assert (site.directory / "metadata/timestamp.json").read_bytes() == before


@pytest.mark.parametrize("options", [(), ("--rehash",)])
def test_what_is_stored_need_not_be_known(
    site: Site, tmp_path: Path, plain_tuf: PlainTuf, options: Sequence[str]
):
    """It is read again and compared: where it was made, it is no more."""
    folder = folder_of(tmp_path / "1", FIRST)
    release(site, "1.0", folder)
    if not options:
        for path in (site.directory / "blobs").glob("*/*/*"):  # as `chown -R` or a restore would
            path.chmod(0o600)
    done = release(site, "2.0", folder, "--no-deltas", *options)
    assert how(route(done, None)) == [("compressed", "tensor-delta/1")]

    (copy,) = published(plain_tuf, site, "2.0").patches
    (site.directory / blob_path(copy.blob)).write_bytes(bytes(copy.blob.length))
    rotten = site.run("release", "alpha", "3.0", folder, "--no-deltas", *options)
    assert rotten.code != 0
    assert f"already has a file {blob_path(copy.blob)} with other content" in rotten.err


def test_what_changed_just_slightly_is_not_the_same(site: Site, tmp_path: Path):
    folder = folder_of(tmp_path / "1", FIRST)
    release(site, "1.0", folder)
    (folder / "model.safetensors").write_bytes(file_of(SECOND))
    done = site.run("release", "alpha", "1.0", folder)
    assert done.code == ExitCode.USAGE
    assert "is published already, with other content" in done.err


# --- what is done once


class Noting:
    """Notes what had to be done."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.found = self.begun = 0

    def begins(self, jobs: Sequence[Job], found: int) -> None:
        self.found, self.begun = found, len(jobs)

    def advances(self, job: Job, count: int) -> None:
        assert 0 < count <= 2 * job.work

    def ends(self, job: Job) -> None:
        self.done.append(job.name)

    def finishes(self) -> None:
        pass


def files_in(folder: Path) -> tuple[ReleaseFile, ...]:
    return tuple(
        ReleaseFile(
            path.name,
            Blob(hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size),
            path.suffix[1:],
        )
        for path in sorted(folder.iterdir())
    )


def test_nothing_is_done_twice(site: Site, tmp_path: Path):
    folder, storage = folder_of(tmp_path / "1", FIRST), LocalStorage(site.directory)
    first, second = Noting(), Noting()
    options = Options(Cache(tmp_path / "cache"))
    files = files_in(folder)
    one = Preparer(storage, options, first).prepare(folder, files, ())
    two = Preparer(storage, options, second).prepare(folder, files, ())
    assert one == two
    assert len(first.done) == 3  # an index, two kinds of compressing
    assert (second.done, second.found) == ([], 3)


def test_what_was_published_is_not_made_again_even_without_a_cache(
    site: Site, tmp_path: Path, plain_tuf: PlainTuf
):
    folder = folder_of(tmp_path / "1", FIRST)
    release(site, "1.0", folder)
    base = published(plain_tuf, site, "1.0")
    noting = Noting()
    preparer = Preparer(LocalStorage(site.directory), Options(Cache(tmp_path / "new")), noting)
    prepared = preparer.prepare(folder, files_in(folder), [base])
    assert (noting.done, prepared.contents) == ([], {})
    weights = base.file("model.safetensors")
    assert weights in prepared.files
    assert prepared.patches == base.patches


def test_a_damaged_cache_is_made_good(site: Site, tmp_path: Path):
    folder, storage = folder_of(tmp_path / "1", FIRST), LocalStorage(site.directory)
    options = Options(Cache(tmp_path / "cache"))
    honest = Preparer(storage, options, Noting()).prepare(folder, files_in(folder), ())
    for path in (tmp_path / "cache/made").glob("*.bin"):
        path.write_bytes(bytes(path.stat().st_size))  # as after a power cut
    noting = Noting()
    again = Preparer(storage, options, noting).prepare(folder, files_in(folder), ())
    assert again == honest
    assert len(noting.done) == 2
    for blob, name in again.contents.items():
        assert files_in(tmp_path / "cache/made")
        assert blob in {file.blob for file in files_in(tmp_path / "cache/made")}, name


def test_a_long_patch_has_an_index_of_its_own(site: Site, tmp_path: Path):
    """Made with it, found again with it, and made good with it."""
    folder, storage = folder_of(tmp_path / "1", trained(2, 1024)), LocalStorage(site.directory)
    cache = Cache(tmp_path / "cache")
    prepared = Preparer(storage, Options(cache), Noting()).prepare(folder, files_in(folder), ())
    [copy] = prepared.patches
    assert copy.chunks
    index_path = cache.content(prepared.contents[copy.chunks])
    content = cache.content(prepared.contents[copy.blob]).read_bytes()
    index = ChunkIndex.parse(index_path.read_bytes())
    assert (index.sha256, index.length) == (copy.blob.sha256, copy.blob.length)
    parts = [content[chunk.offset : chunk.offset + chunk.length] for chunk in index]
    assert [hashlib.sha256(part).digest() for part in parts] == [chunk.digest for chunk in index]
    index_path.unlink()
    noting = Noting()
    again = Preparer(storage, Options(cache), noting).prepare(folder, files_in(folder), ())
    assert again == prepared
    assert noting.done == [prepared.contents[copy.blob]]
    assert index_path.exists()


def test_a_file_that_changes_meanwhile_is_refused(site: Site, tmp_path: Path):
    folder = folder_of(tmp_path / "1", FIRST)
    files = files_in(folder)
    (folder / "model.safetensors").write_bytes(file_of(SECOND))
    preparer = Preparer(LocalStorage(site.directory), Options(Cache(tmp_path / "cache")), Noting())
    with pytest.raises(Refused, match="was changed while it was being published"):
        preparer.prepare(folder, files, ())


def test_a_base_that_has_rotted_is_no_base(site: Site, tmp_path: Path, plain_tuf: PlainTuf):
    release(site, "1.0", folder_of(tmp_path / "1", FIRST))
    before = published(plain_tuf, site, "1.0").file("model.safetensors")
    assert before
    place = site.directory / blob_path(before.blob)
    place.write_bytes(file_of(retrained_head(FIRST)))
    release(site, "2.0", folder_of(tmp_path / "2", SECOND))
    assert [patch.base for patch in published(plain_tuf, site, "2.0").patches] == [None]


def test_killed_it_goes_on_where_it_was(site: Site, tmp_path: Path):
    """Its processes end with it, and what they had done is not done again."""
    folder = folder_of(tmp_path / "1", trained(layers=24, side=512))
    made = tmp_path / "repo-cache/made"
    process = site.start("release", "alpha", "1.0", folder, "--jobs", 2)
    deadline = time.monotonic() + 60
    while not list(made.glob("*.json")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = _children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (site.directory / "blobs").exists()
    while any(Path(f"/proc/{pid}").exists() and _state(pid) != "Z" for pid in workers):
        assert time.monotonic() < deadline, "a process outlived its publisher"
        time.sleep(0.01)
    before = {path.name: path.stat().st_mtime_ns for path in made.glob("*.json")}
    assert before

    done = release(site, "1.0", folder)

    after = {path.name: path.stat().st_mtime_ns for path in made.glob("*.json")}
    assert before.items() <= after.items()
    assert len(after) == 3
    assert how(route(done, None)) == [("compressed", "tensor-delta/1")]


def _children(pid: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return found


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def test_an_unchanged_file_is_not_read_again(site: Site, tmp_path: Path):
    """Republishing costs a stat and a look: seen in what the process read."""
    tensors = trained(layers=6, side=1024)
    folder = folder_of(tmp_path / "1", tensors)
    size = (folder / "model.safetensors").stat().st_size
    release(site, "1.0", folder)
    _settle(folder)
    release(site, "2.0", folder)  # remembers, now that the file is old enough
    assert _read_by(site, "release", "alpha", "3.0", folder) < size
    assert _read_by(site, "release", "alpha", "3.0", folder) < size
    assert _read_by(site, "release", "alpha", "4.0", folder, "--rehash") > size


def _settle(folder: Path) -> None:
    changed = max(path.stat().st_ctime for path in folder.iterdir())
    time.sleep(max(0.0, changed + 2.1 - time.time()))


def _read_by(site: Site, *command: object) -> int:
    """Return how many bytes a command read, its libraries aside."""
    idle = _bytes_read(site, "status")
    return _bytes_read(site, *command) - idle


def _bytes_read(site: Site, *command: object) -> int:
    code = (
        "import sys\nfrom modelward_repo import cli\ncode = cli.run(sys.argv[1:])\n"
        "print('READ', [line.split()[1] for line in open('/proc/self/io') if 'rchar' in line][0])\n"
        "sys.exit(code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, command)],
        env={**os.environ, **site.env},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(done.stdout.rsplit("READ ", 1)[1])
