"""What a device takes of its disk, and that others cannot take it away again; root only."""

import contextlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from werkzeug.wrappers import Response

from modelward.errors import ExitCode
from tests.crash import volume
from tests.install.site import Site, chain
from tests.simulator.model_files import onnx_file
from tests.simulator.server import Server
from tests.simulator.world import World, bundle_of

MIB = 1 << 20
LARGE = 3 * MIB  # bytes of each large file
ROOM = 3 * MIB // 2  # bytes that others leave: documents need some


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """An empty ext4 of 48 MiB."""
    with disk("ext4", tmp_path) as mount:
        yield mount


@contextlib.contextmanager
def disk(name: str, folder: Path) -> Iterator[Path]:
    """Make a file system, and mount it, where that is possible."""
    reason = volume.missing(name)
    if reason:
        pytest.skip(f"{name}: {reason}")
    image = folder / "image"
    volume.make(name, image)
    if name == "ext4":
        volume.run("tune2fs", "-m", "0", image)  # nothing is kept for root
    with volume.mounted(image, folder / "mount") as mount:
        yield mount


@pytest.fixture
def world(world: World, mount: Path) -> Iterator[World]:
    """A world whose device is on that disk."""
    shutil.copytree(world.device, mount / "device", symlinks=True)
    shutil.rmtree(world.device)
    world.device.symlink_to(mount / "device")
    return world


def large(version: str) -> dict[str, bytes]:
    """Return files of a version, two of them large and like nothing else."""
    return {
        **bundle_of(version),
        "model.onnx": onnx_file(os.urandom(LARGE)),
        "float/metrics.json": json.dumps({"noise": os.urandom(LARGE // 2).hex()}).encode(),
    }


def free(mount: Path) -> int:
    """Return the bytes that anybody may still fill."""
    status = os.statvfs(mount)
    return status.f_bavail * status.f_frsize


def taken(device: Path) -> int:
    """Return the bytes that the large files of a device take, each once."""
    found = {path.lstat().st_ino: path.lstat() for path in device.rglob("*") if path.is_file()}
    return sum(each.st_blocks * 512 for each in found.values() if each.st_blocks * 512 >= MIB)


def test_room_for_everything_is_reserved_before_anything_is_fetched(
    world: World, mount: Path
) -> None:
    def fill(honest: bytes) -> Response:
        """Somebody else fills the disk at the first request for weights."""
        with (mount / "ballast").open("ab") as file:
            while free(mount) > ROOM:
                file.write(bytes(MIB // 2))
                file.flush()
        return Response(honest)

    world.publish("1.1.0", bundle=large("1.1.0"))
    with world.serve() as server:
        server.lie(r"/blobs/", fill)
        done = world.client_here("update", server)
    assert done.json["running"] == {"meter-reader": "1.1.0"}, done
    assert (mount / "ballast").stat().st_size > 10 * MIB
    assert world.read_model() == ("1.1.0", world.offered)


def test_what_does_not_fit_is_not_begun(world: World, mount: Path) -> None:
    world.publish("1.1.0", bundle=large("1.1.0"))
    with (mount / "ballast").open("wb") as file:
        file.write(bytes(free(mount) - 20 * MIB))
    with world.serve() as server:
        done = world.client_here("update", server)
        assert (done.code, done.json["gate"]) == (ExitCode.UNAVAILABLE, "plan")
        assert "bytes are needed, but only" in done.json["reason"]
        assert not [path for path in server.asked(r"/blobs/") if server.sent[path] >= LARGE]
        (mount / "ballast").unlink()
        assert world.client_here("update", server).code == ExitCode.DONE


def test_disk_use_is_what_the_documents_say(world: World) -> None:
    """docs/install.md: two releases at rest, three on trial, one more while fetching."""
    with world.serve() as server:
        for version in ("1.1.0", "1.2.0", "1.3.0"):
            assert bring(world, server, version) <= releases(3)
        assert taken(world.device) <= releases(2)
        (world.device / "modelward.toml").open("a").write('[health]\nsoak = "1h"\n')
        assert bring(world, server, "1.4.0") <= releases(3)
        for version in ("1.5.0", "1.6.0"):
            assert bring(world, server, version) <= releases(4)
            assert taken(world.device) <= releases(3)
        assert world.client_here("confirm").code == ExitCode.DONE
        assert taken(world.device) <= releases(2)


def bring(world: World, server: Server, version: str) -> int:
    """Update; return the bytes that the large files took at most."""
    seen = [0]

    def look(honest: bytes) -> Response:
        seen.append(taken(world.device))
        return Response(honest)

    world.publish(
        version, bundle={**bundle_of(version), "model.onnx": onnx_file(os.urandom(LARGE))}
    )
    server.lie(r"/blobs/", look)
    done = world.client_here("update", server)
    server.be_honest()
    assert done.json["changes"], done
    return max(*seen, taken(world.device))


def releases(count: int) -> int:
    """Return the bytes that so many releases take, and a little for documents of theirs."""
    return count * (LARGE + MIB // 2)


def no_inode(mount: Path) -> None:
    """Use up all inodes."""
    with contextlib.suppress(OSError):
        for number in itertools.count():
            (mount / "many" / str(number)).touch()


def no_block(mount: Path) -> None:
    """Use up all room."""
    with (mount / "ballast").open("wb") as file:
        size, end = 1 << 28, 0
        while size >= 512:
            try:
                os.posix_fallocate(file.fileno(), end, size)
                end += size
            except OSError:
                size //= 2


def empty(mount: Path) -> None:
    """Undo what filled the disk."""
    for path in (*mount.glob("many/*"), *mount.glob("ballast")):
        path.unlink()


@pytest.mark.parametrize(("name", "fill"), [("ext4", no_inode), ("xfs", no_block)])
def test_what_does_not_work_does_not_run_on_because_a_disk_is_full(
    tmp_path: Path, name: str, fill: Callable[[Path], None]
) -> None:
    """To go back takes neither an inode nor a block."""
    with disk(name, tmp_path) as mount:
        (mount / "many").mkdir()
        site = Site(mount / "state")
        site.install(chain("1.0.0", 1))
        two = chain("2.0.0", 2, **{"large.bin": os.urandom(LARGE)})
        for _ in range(2):  # what fills the disk by itself does so again
            site.try_out(two, soak=timedelta(hours=1))
            fill(mount)
            with pytest.raises(OSError, match="No space left"):
                (mount / "state" / "more").symlink_to("nothing")
            site.trials.roll_back("it crashed", site.now)
            assert site.versions() == ("1.0.0", None)
            assert site.trials.journal.failed  # what did not work makes room
            empty(mount)
            site.trials.recover(site.now)
            assert (site.versions(), site.trials.journal.trial) == (("1.0.0", None), None)
        site.try_out(two, soak=timedelta(hours=1))
        fill(mount)
        site.boot = "next"
        assert "No space left" in (site.trials.recover(site.now).rolled_back or "")
        assert site.versions() == ("1.0.0", None)
        site.trials.recover(site.now)
        assert site.trials.journal.trial is None
        empty(mount)
        site.install(chain("2.0.0", 2))
        assert site.versions() == ("2.0.0", "1.0.0")
        assert not site.problems()


@pytest.mark.parametrize(
    ("name", "fill"), [("ext4", no_inode), ("ext4", no_block), ("xfs", no_block)]
)
def test_what_runs_is_confirmed_on_a_full_disk(
    tmp_path: Path, name: str, fill: Callable[[Path], None]
) -> None:
    """What nothing falls back to any more makes room for the note that it is so."""
    with disk(name, tmp_path) as mount:
        (mount / "many").mkdir()
        site = Site(mount / "state")
        for number in (1, 2):
            site.install(chain(f"{number}.0.0", number, **{"large.bin": os.urandom(LARGE)}))
        three = chain("3.0.0", 3, **{"large.bin": os.urandom(LARGE)})
        slots = {three.model: site.stage(three)}
        site.trials.begin(slots)
        site.trials.switch(slots, 0, confirmed=True)
        fill(mount)
        with pytest.raises(OSError, match="No space left"):
            (mount / "state" / "more").write_bytes(bytes(512))
        site.trials.recover(site.now)
        assert site.versions() == ("3.0.0", "2.0.0")
        assert (site.device.floors.load().releases, site.trials.journal.trial) == (
            {three.model: 3},
            None,
        )
        assert not [*site.problems(), *site.leftovers()]


def test_a_trial_that_fails_on_a_full_disk_is_told_as_such(
    world: World, mount: Path, tmp_path: Path
) -> None:
    works = tmp_path / "works"
    works.touch()
    file = world.device / "modelward.toml"
    file.open("a").write(f'[health]\nsoak = "1h"\ncommand = ["test", "-e", "{works}"]')
    (mount / "many").mkdir()
    world.publish("1.1.0")
    with world.serve() as server:
        assert world.client_here("update", server).json["running"] == {"meter-reader": "1.1.0"}
        works.unlink()
        no_inode(mount)
        failed = world.client_here("update", server)
        assert (failed.code, failed.json["gate"]) == (ExitCode.ROLLED_BACK, "health")
        assert world.read_model()[0] == "1.0.0"
        shutil.rmtree(mount / "many")
        assert world.client_here("verify").code == ExitCode.DONE
