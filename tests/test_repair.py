"""`modelward verify --repair`: whatever was damaged is as it was approved, or is said not to be."""

import errno
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext, suppress
from pathlib import Path

import pytest
from werkzeug.wrappers import Response

import modelward
from modelward import follow, scan
from modelward.errors import ExitCode, Refused
from modelward.install import fsops, syscalls
from tests.simulator.model_files import onnx_file
from tests.simulator.server import Server, instead
from tests.simulator.world import MODEL, Done, World, bundle_of

BLOBS = "/blobs/"


@pytest.fixture(scope="module")
def quiet_world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World.build(tmp_path_factory.mktemp("world"))
    world.publish("1.1.0")
    with world.serve() as server:
        assert world.client_here("update", server).code == ExitCode.DONE
    return world


@pytest.fixture
def world(quiet_world: World, tmp_path: Path) -> World:
    """A device that runs 1.1.0, whose files are links into the store, and keeps 1.0.0."""
    world = quiet_world.copy(tmp_path / "world")
    shutil.rmtree(world.device)
    copy(quiet_world.device, world.device)
    return world


@pytest.fixture
def server(world: World) -> Iterator[Server]:
    with world.serve() as server:
        toml = world.device / "modelward.toml"
        toml.write_text(f'repository = "{server.url}"\ndevice_id = "test"\n')
        yield server


def copy(source: Path, destination: Path) -> None:
    """Copy a tree; what is one file under two names stays that."""
    subprocess.run(["cp", "-a", source, destination], check=True)


def slot(world: World, version: str = "1.1.0") -> Path:
    """Return the slot of a version."""
    files = (world.device / "current" / MODEL).resolve()
    if version == "1.1.0":
        return files.parent
    (other,) = (path for path in files.parent.parent.iterdir() if path != files.parent)
    return other


def overwrite(path: Path, data: bytes = b"poison") -> None:
    path.chmod(0o600)
    path.write_bytes(data)


def in_store(path: Path) -> Path:
    return next(each for each in path.parents[4].glob("store/*") if each.samefile(path))


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()


def replace_by(path: Path, make: Callable[[Path], object]) -> None:
    remove(path)
    make(path)


def move_away(path: Path, world: World) -> None:
    path.rename(world.place / "attacker")
    path.symlink_to(world.place / "attacker")


def reach_elsewhere(world: World) -> None:
    link = (world.device / "current").resolve() / MODEL
    link.unlink()
    link.symlink_to("/tmp")


LOCAL: dict[str, Callable[[World], object]] = {
    "a file of the version before": lambda w: replace_by(
        slot(w, "1.0.0") / "files/model.onnx", lambda path: path.write_bytes(b"poison")
    ),
    "a file is gone, its blob is not": lambda w: (slot(w) / "files/model.onnx").unlink(),
    "a blob is gone, the file is not": lambda w: in_store(slot(w) / "files/model.onnx").unlink(),
    "a blob is another file": lambda w: replace_by(
        in_store(slot(w) / "files/model.onnx"), lambda path: path.write_bytes(b"poison")
    ),
    "a blob is a pipe": lambda w: replace_by(in_store(slot(w) / "files/model.onnx"), os.mkfifo),
    "a blob is a folder": lambda w: replace_by(in_store(slot(w) / "files/model.onnx"), Path.mkdir),
    "a blob that nothing needs": lambda w: (w.device / "store" / ("ab" * 32)).write_bytes(
        b"poison"
    ),
    "a file is a folder": lambda w: replace_by(slot(w) / "files/model.onnx", Path.mkdir),
    "a file is a pipe": lambda w: replace_by(slot(w) / "files/model.onnx", os.mkfifo),
    "a file too many": lambda w: (slot(w) / "files/extra.py").write_bytes(b"poison"),
    "the files are elsewhere": lambda w: move_away(slot(w) / "files", w),
    "the note of what is installed": lambda w: overwrite(
        (w.device / "current/installed.json").resolve()
    ),
    "the note is gone": lambda w: (w.device / "current/installed.json").resolve().unlink(),
    "no generation at all": lambda w: shutil.rmtree(w.device / "generations"),
    "the pointer is gone": lambda w: (w.device / "current").unlink(),
    "the pointer is a folder": lambda w: replace_by(w.device / "current", Path.mkdir),
    "a link leads elsewhere": reach_elsewhere,
    "one copy of the floors": lambda w: overwrite(w.device / "floors.a", b"\0" * 50),
    "both copies of the floors": lambda w: [
        overwrite(w.device / name, b"") for name in ("floors.a", "floors.b")
    ],
    "a copy of the floors is gone": lambda w: (w.device / "floors.b").unlink(),
    "the snapshot": lambda w: overwrite(w.device / "tuf/snapshot.json", b"\0" * 50),
    "the root that is cached": lambda w: overwrite(w.device / "tuf/root.json", b""),
}
FROM_AFAR: dict[str, Callable[[World], object]] = {
    "a file and its blob": lambda w: overwrite(slot(w) / "files/model.onnx"),
    "a file of the version before and its blob": lambda w: overwrite(
        slot(w, "1.0.0") / "files/model.onnx"
    ),
    "the slot is elsewhere": lambda w: move_away(slot(w), w),
    "the slot is gone": lambda w: remove(slot(w)),
    "all slots are gone": lambda w: remove(slot(w).parent),
    "all slots are elsewhere": lambda w: move_away(slot(w).parent, w),
    "the list of files": lambda w: overwrite(slot(w) / "release.json"),
    "the list of files is a pipe": lambda w: replace_by(slot(w) / "release.json", os.mkfifo),
    "the evidence": lambda w: (slot(w) / "evidence.jsonl").unlink(),
    "the layout, of the version before": lambda w: overwrite(slot(w, "1.0.0") / "layout.json"),
}


def repair(world: World) -> Done:
    return world.client_here("verify", None, "--repair")


def tree(world: World) -> dict[str, tuple[int, bytes]]:
    """Return everything that lasts on the device: by path, the inode and what is there."""
    return {
        str(path.relative_to(world.device)): (path.lstat().st_ino, _content(path))
        for path in sorted(world.device.rglob("*"))
        if path.name != "lock" and "seals" not in path.parts
    }


def _content(path: Path) -> bytes:
    if path.is_symlink():
        return os.fsencode(path.readlink())
    return path.read_bytes() if path.is_file() else b""


def assert_mended(world: World, done: Done) -> None:
    assert done.code == ExitCode.DONE, done
    assert done.json["outcome"] == "repaired", done
    assert done.json["mended"]
    verified = world.client_here("verify")
    assert (verified.code, verified.json["problems"]) == (ExitCode.DONE, []), verified
    assert world.read_model() == ("1.1.0", world.offered)
    assert world.client_here("status").json["models"][MODEL]["previous"] == "1.0.0"
    before = tree(world)
    assert repair(world).json["outcome"] == "intact"
    assert tree(world) == before


@pytest.mark.parametrize("case", LOCAL)
def test_mended_from_what_is_here(world, server, case):
    LOCAL[case](world)
    assert world.client_here("verify").code == ExitCode.REFUSED
    done = repair(world)
    assert_mended(world, done)
    assert done.json["fetched"] == 0
    assert not server.requests
    assert world.client_here("update").code == ExitCode.DONE


@pytest.mark.parametrize("case", FROM_AFAR)
def test_mended_from_afar(world, server, case):
    with modelward.open_model(MODEL, world.device) as model:
        files = {path: model.read(path) for path in model if path != "model.onnx"}
        FROM_AFAR[case](world)
        assert world.client_here("verify").code == ExitCode.REFUSED
        assert_mended(world, repair(world))
        assert {path: model.read(path) for path in files} == files
    assert server.requests
    assert not list(world.device.glob("slots/**/.tmp-*"))


def test_only_what_is_needed_is_fetched(world, server):
    path = slot(world) / "files/model.onnx"
    length = path.stat().st_size
    overwrite(path)
    assert repair(world).json["fetched"] == length
    assert len(server.requests) == len(server.asked(BLOBS)) == 1


def test_only_some_models(world, server):
    overwrite(slot(world) / "files/model.onnx")
    overwrite(world.device / "tuf/snapshot.json", b"")
    done = world.client_here("verify", None, "--repair", MODEL)
    assert done.json["outcome"] == "repaired"
    assert {each["part"] for each in done.json["mended"]} == {"slot"}
    assert world.client_here("verify", None, MODEL).code == ExitCode.DONE
    assert world.client_here("verify").code == ExitCode.REFUSED
    assert world.client_here("verify", None, "absent").code == ExitCode.USAGE


def test_the_alarm_ends_and_who_waits_is_told(world, server, monkeypatch):
    monkeypatch.setattr(follow, "INTERVAL", 0.01)
    overwrite(slot(world) / "files/model.onnx")
    with modelward.open_model(MODEL, world.device) as model:
        assert model.fallback
        assert world.client_here("status").code == ExitCode.REFUSED
        assert not model.wait_for_update(timeout=0)
        assert repair(world).code == ExitCode.DONE
        assert model.wait_for_update(timeout=0)
    assert world.client_here("status").code == ExitCode.DONE
    assert world.read_model() == ("1.1.0", world.offered)


def test_nobody_to_fetch_from(world):
    (world.device / "modelward.toml").write_text(
        'repository = "http://127.0.0.1:9"\ndevice_id = "test"\n'
    )
    overwrite(slot(world) / "files/model.onnx")
    overwrite(world.device / "floors.a", b"")
    done = repair(world)
    assert done.code == ExitCode.REFUSED
    assert done.json["outcome"] == "damaged"
    assert [each["part"] for each in done.json["mended"]] == ["floors"]  # it went on
    assert {each["part"] for each in done.json["problems"]} == {"slot", "blob"}
    assert "refused" in done.json["problems"][0]["why"].lower()
    with modelward.open_model(MODEL, world.device) as model:
        assert (model.version, model.fallback) == ("1.0.0", True)


def test_a_mirror_that_lies(world, server):
    """Attack row 11."""
    overwrite(slot(world) / "files/model.onnx")
    server.lie(BLOBS, instead(b"poison" * 3))
    done = repair(world)
    assert done.code == ExitCode.REFUSED
    assert server.asked(BLOBS)
    server.be_honest()
    assert_mended(world, repair(world))


def test_a_mirror_that_drips(world, server):
    """Attack row 8: a device that mends for days looks for nothing newer all the while."""
    weights = onnx_file(os.urandom(4 << 20))
    world.publish("1.2.0", bundle=bundle_of("1.2.0") | {"model.onnx": weights})
    assert world.client_here("update").code == ExitCode.DONE
    overwrite(world.device / "current" / MODEL / "model.onnx")
    toml = world.device / "modelward.toml"
    honest = toml.read_text()
    toml.write_text(f'{honest}\n[transfer]\ntimeout = "1s"\ndeadline = "1s"\n')
    server.requests.clear()
    server.lie(BLOBS, slowly)
    done = repair(world)
    assert done.code == ExitCode.REFUSED
    assert {each["why"] for each in done.json["problems"]} == {"fetching took longer than 0:00:01"}
    assert len(server.asked(BLOBS)) == 1  # nor was anything else begun
    toml.write_text(honest)
    server.be_honest()
    done = repair(world)
    assert done.code == ExitCode.DONE
    assert 0 < done.json["fetched"] < len(weights)  # what had arrived was kept
    assert world.read_model() == ("1.2.0", world.offered)


def slowly(honest: bytes) -> Response:
    """Answer honestly, a megabyte a second."""

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(honest), 64 << 10):
            yield honest[start : start + (64 << 10)]
            time.sleep(1 / 16)

    headers = {"Content-Length": str(len(honest))}
    return Response(pieces(), headers=headers, direct_passthrough=True)


def test_what_cannot_be_mended(world, server):
    overwrite(world.device / "root.json", b"{}")
    done = repair(world)
    assert done.code == ExitCode.REFUSED
    (problem,) = done.json["problems"]
    assert (problem["part"], problem["path"]) == ("root", "root.json")
    assert "put back the root metadata" in problem["why"]


def test_a_store_that_is_gone_stops_no_update(world, server):
    world.publish("1.2.0")
    shutil.rmtree(world.device / "store")
    assert world.client_here("check").code == ExitCode.DONE
    done = world.client_here("update")
    assert done.code == ExitCode.DONE, done
    assert world.read_model() == ("1.2.0", world.offered)
    assert repair(world).code == ExitCode.DONE  # blobs of 1.1.0, by links from its slot


@pytest.mark.parametrize("spoil", [Path.unlink, lambda path: overwrite(path, b"{}")])
def test_a_root_that_is_gone_stops_an_update(world, server, spoil):
    spoil(world.device / "root.json")
    done = world.client_here("update", as_json=False)
    assert done.code == ExitCode.REFUSED
    assert "gate 3 (metadata)" in done.err
    assert "root" in done.err
    assert "put back the root metadata that the device came with" in done.err
    assert world.read_model() == ("1.1.0", world.offered)


def test_nothing_proves_what_ran(world, server):
    shutil.rmtree(world.device / "slots")
    shutil.rmtree(world.device / "generations")
    done = repair(world)
    assert done.code == ExitCode.REFUSED
    assert "the state directory is damaged" in done.json["reason"]


def test_nothing_is_left(world, server):
    """What the advice for that says is installed anew, not below the floors."""
    for name in ("slots", "generations"):
        shutil.rmtree(world.device / name)
    (world.device / "current").unlink()
    for done in (world.client_here("verify"), repair(world)):
        assert done.code == ExitCode.REFUSED
        assert "run `modelward update`" in done.json["advice"]
    assert world.client_here("update").code == ExitCode.DONE
    assert world.read_model() == ("1.1.0", world.offered)
    assert world.client_here("verify").code == ExitCode.DONE


@pytest.mark.parametrize("command", ["update", "rollback", "confirm", "repair"])
def test_the_note_of_what_a_trial_goes_back_to(world, server, command):
    """It is no dead end: whatever is done next writes it anew, and `status` works meanwhile."""
    toml = world.device / "modelward.toml"
    toml.write_text(toml.read_text() + '\n[health]\nsoak = "1h"\n')
    world.publish("1.2.0")
    note = (world.device / "current/installed.json").resolve()
    assert world.client_here("update").code == ExitCode.DONE
    overwrite(note, bytes(note.stat().st_size))
    status = world.client_here("status")
    assert (status.code, status.json["models"][MODEL]["version"]) == (ExitCode.REFUSED, "1.2.0")
    assert "What to do" not in status.json["damage"]
    assert world.client_here("verify").code == ExitCode.REFUSED
    done = repair(world) if command == "repair" else world.client_here(command)
    assert done.code == ExitCode.DONE, done
    assert world.read_model()[0] == ("1.1.0" if command == "rollback" else "1.2.0")
    status = world.client_here("status")
    assert (status.code, status.json["damage"]) == (ExitCode.DONE, None)
    assert status.json["models"][MODEL]["on_trial"] == (command in {"update", "repair"})
    assert world.client_here("verify").code == ExitCode.DONE


def test_the_links_of_what_a_trial_goes_back_to(world, server):
    toml = world.device / "modelward.toml"
    toml.write_text(toml.read_text() + '\n[health]\nsoak = "1h"\n')
    good = (world.device / "current").resolve()
    world.publish("2.0.0")
    assert world.client_here("update", server).code == ExitCode.DONE
    (good / MODEL).unlink()
    (good / MODEL).symlink_to("/etc")
    found = world.client_here("verify")
    assert found.code == ExitCode.REFUSED
    assert [each["path"] for each in found.json["problems"]] == [f"generations/{good.name}/{MODEL}"]
    assert world.client_here("verify", None, "--repair").code == ExitCode.DONE
    assert world.read_model()[0] == "2.0.0"
    assert world.client_here("rollback").code == ExitCode.DONE
    assert (world.device / "current").resolve() == good
    assert (good / MODEL).resolve() == slot(world) / "files"


def test_a_forged_slot_is_not_taken_for_what_ran(world, server):
    """Attack row 29: who forges the note of what is installed still has to prove a release."""
    forged = slot(world).with_name("0123456789abcdef")
    shutil.copytree(slot(world), forged)
    overwrite(forged / "release.json", (forged / "release.json").read_bytes() + b" ")
    (world.device / "current/installed.json").resolve().unlink()
    assert repair(world).code == ExitCode.DONE
    assert world.read_model() == ("1.1.0", world.offered)


def test_an_update_that_comes_between_is_no_damage(world, server, monkeypatch):
    """A scan holds no lock: what it looks for may be gone when it gets there."""
    world.publish("1.2.0")
    real = scan.kept_slots
    updated = []

    def late(*arguments):
        found = real(*arguments)
        if not updated:
            updated.append(world.client_here("update"))
        return found

    monkeypatch.setattr(scan, "kept_slots", late)
    verified = world.client_here("verify")
    assert updated[0].code == ExitCode.DONE, updated
    assert verified.code == ExitCode.DONE, verified
    assert {each["version"] for each in verified.json["checked"]} == {"1.2.0", "1.1.0"}


def test_one_at_a_time(world, server):
    with fsops.lock(world.device / "lock"):
        assert repair(world).code == ExitCode.UNAVAILABLE
        assert world.client_here("verify").code == ExitCode.DONE


def test_a_file_system_that_cannot_exchange(world, server, monkeypatch):
    def cannot(_one, _other):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(syscalls, "exchange", cannot)
    overwrite(slot(world) / "files/model.onnx")
    assert_mended(world, repair(world))


class CutError(Exception):
    """The power is gone."""


@pytest.mark.parametrize("every", [5, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", ["a file and its blob", "the note is gone", "a file is a folder"])
def test_cut_at_many_steps(world, server, monkeypatch, case, every):
    """Whatever step it ends before, what ran or the version before is served, and it can go on."""
    damaged = world.place / "damaged"
    (LOCAL | FROM_AFAR)[case](world)
    world.device.rename(damaged)
    calls = [name for name, call in vars(syscalls).items() if callable(call) and name[0] != "_"
             and call.__module__ == syscalls.__name__]  # fmt: skip
    for step in range(1, 200, every):
        copy(damaged, world.device)
        left = step

        def cut_before(real, *arguments):
            nonlocal left
            left -= 1
            if left <= 0:
                raise CutError
            return real(*arguments)

        with monkeypatch.context() as patched:
            for name in calls:
                real = getattr(syscalls, name)
                patched.setattr(
                    syscalls, name, lambda *arguments, real=real: cut_before(real, *arguments)
                )
            try:
                done = repair(world)
            except CutError:
                done = None
        if done is not None:
            break
        with suppress(Refused) if case == "the note is gone" else nullcontext():
            assert world.read_model()[0] in {"1.1.0", "1.0.0"}
        assert repair(world).code == ExitCode.DONE
        assert world.read_model() == ("1.1.0", world.offered)
        shutil.rmtree(world.device)
    assert step > 10
    assert done.code == ExitCode.DONE
