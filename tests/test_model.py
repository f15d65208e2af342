"""Using a model: what is read is what was approved."""

import errno
import itertools
import mmap
import os
import resource
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from threading import Thread

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import modelward
from modelward import follow, reload
from modelward import model as model_module
from modelward.errors import ExitCode, Gate, Refused, UsageError
from modelward.install import verified
from modelward.install.alarms import AlarmStore
from modelward.install.hashing import digests
from modelward.install.opened import Folder
from modelward.install.verified import Verifier
from tests.install.site import MODEL, Site, chain
from tests.simulator.chain import HonestChain
from tests.watching import open_files

ONE, TWO, THREE = (chain(f"{number}.0.0", number) for number in (1, 2, 3))


@pytest.fixture
def site(tmp_path, monkeypatch) -> Site:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    site = Site(tmp_path / "state")
    site.install(ONE)
    return site


def test_bytes_are_those_that_were_approved(site):
    with modelward.open_model(MODEL, site.state) as model:
        assert (model.name, model.version) == (MODEL, "1.0.0")
        assert set(model) == set(model.files) == set(ONE.content)
        for path, content in ONE.content.items():
            assert model.read(path) == content
            assert model.read(path) == content  # from its start, each time
        with pytest.raises(KeyError):
            model.read("../release.json")
    assert all(file.closed for file in model.files.values())


def test_state_comes_from_the_environment(site, monkeypatch):
    monkeypatch.setenv("MODELWARD_STATE", str(site.state))
    with modelward.open_model(MODEL) as model:
        assert model.version == "1.0.0"


def test_model_stays_readable_while_updates_replace_and_remove_it(site):
    with modelward.open_model(MODEL, site.state) as model:
        site.install(TWO)
        site.install(THREE)
        assert not list(site.state.rglob(f"*{ONE.release.file('model.onnx').blob.sha256}"))
        assert model.read("model.onnx") == ONE.content["model.onnx"]
    with modelward.open_model(MODEL, site.state) as model:
        assert model.read("model.onnx") == THREE.content["model.onnx"]


def test_model_stays_what_it_was_when_its_path_is_replaced(site):
    with modelward.open_model(MODEL, site.state) as model:
        path = site.file("model.onnx").resolve()
        path.unlink()
        path.write_bytes(b"poison")
        assert model.read("model.onnx") == ONE.content["model.onnx"]


def overwrite(path: Path) -> None:
    path.chmod(0o600)
    path.write_bytes(b"poison")


def replace_by_link(path: Path) -> None:
    elsewhere = path.with_name(".elsewhere")
    path.rename(elsewhere)
    path.symlink_to(elsewhere)  # to the very same bytes: they could be swapped later


@pytest.mark.parametrize("path", ["model.onnx", "a/b/deep.txt"])
@pytest.mark.parametrize(
    "tamper",
    [
        overwrite,
        replace_by_link,
        Path.unlink,
        lambda path: (path.unlink(), path.mkdir()),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: replace_by_link(path.parent),
    ],
    ids=["overwritten", "symlink", "deleted", "directory", "pipe", "parent is a symlink"],
)
def test_tampered_file(site, tamper, path):
    tamper(site.file(path).resolve())
    before = open_files()
    with pytest.raises(Refused, match="was changed after it was installed") as refusal:
        modelward.open_model(MODEL, site.state)
    assert refusal.value.gate is Gate.INSTALL
    assert open_files() == before


def test_tampered_release_document(site):
    slot = site.slots.installed().active[MODEL]
    overwrite(site.slots.directory(MODEL, slot) / "release.json")
    with pytest.raises(Refused, match=r"release\.json is not the document that was installed"):
        modelward.open_model(MODEL, site.state)


def test_slot_of_another_release_under_this_name(site):
    site.install(TWO)
    installed = site.slots.installed()
    one, two = (
        site.slots.directory(MODEL, kind[MODEL]) for kind in (installed.previous, installed.active)
    )
    two.rename(two.with_name("aside"))
    one.rename(two)
    with pytest.raises(Refused, match=r"1\.0\.0: .*No such file"):
        modelward.open_model(MODEL, site.state)


# --- what runs was tampered with ------------------------------------------------------------------


def test_the_version_before_is_served_and_the_alarm_is_raised(site, caplog):
    site.install(TWO)
    overwrite(site.file("model.onnx").resolve())
    for _ in range(2):
        with modelward.open_model(MODEL, site.state) as model:
            assert (model.version, model.fallback) == ("1.0.0", True)
            assert model.read("model.onnx") == ONE.content["model.onnx"]
    (alarm,) = AlarmStore(site.state, {}).pending()
    assert (alarm.model, alarm.version, alarm.served) == (MODEL, "2.0.0", "1.0.0")
    assert alarm.release == site.slots.installed().active[MODEL].sha256
    assert "model.onnx" in alarm.problem
    assert [record.levelname for record in caplog.records] == ["CRITICAL"] * 2


def test_both_versions_were_tampered_with(site):
    site.install(TWO)
    installed = site.slots.installed()
    for kind in (installed.active, installed.previous):
        overwrite(site.slots.directory(MODEL, kind[MODEL]) / "files/model.onnx")
    with pytest.raises(
        Refused, match=r"2\.0\.0 was changed .* and so was meter-reader 1\.0\.0"
    ) as refusal:
        modelward.open_model(MODEL, site.state)
    assert "verify --repair" in refusal.value.advice
    assert {alarm.version for alarm in AlarmStore(site.state, {}).pending()} == {"1.0.0", "2.0.0"}


def test_no_alarm_over_what_this_process_may_not_do(site, monkeypatch):
    real = Folder.open

    def deny(folder, path):
        if path == "files/shared.json":
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(folder, path)

    monkeypatch.setattr(Folder, "open", deny)
    with pytest.raises(PermissionError):
        modelward.open_model(MODEL, site.state)
    assert not AlarmStore(site.state, {}).pending()


def test_no_alarm_over_an_update_that_came_between(site, monkeypatch):
    """What was looked up is gone by the time it is opened: two updates came between."""
    real = Verifier.open

    def late(verifier, model, slot):
        if slot.version == "1.0.0":
            site.install(TWO)
            site.install(THREE)
        return real(verifier, model, slot)

    monkeypatch.setattr(Verifier, "open", late)
    with modelward.open_model(MODEL, site.state) as model:
        assert (model.version, model.fallback) == ("3.0.0", False)
    assert not AlarmStore(site.state, {}).pending()


def test_written_to_while_open(site):
    """What `read` returns is what was approved, or nothing is."""
    with modelward.open_model(MODEL, site.state) as model:
        assert model.read("model.onnx") == ONE.content["model.onnx"]
        overwrite(site.file("model.onnx").resolve())
        with pytest.raises(Refused, match="written to while it was open"):
            model.read("model.onnx")
        assert model.read("shared.json") == ONE.content["shared.json"]
    assert AlarmStore(site.state, {}).pending()


def test_written_to_while_open_where_that_does_not_show(site, monkeypatch):
    """As on tmpfs: what may have been written to unseen is hashed as it is read."""
    monkeypatch.setattr(verified, "make_writes_show", lambda _: False)
    monkeypatch.setattr(verified, "SETTLED", 0)
    path = site.file("model.onnx").resolve()
    path.chmod(0o600)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as page:
        page[0] = page[0]
        with modelward.open_model(MODEL, site.state) as model:
            assert model.read("model.onnx") == ONE.content["model.onnx"]
            page[0] ^= 0xFF  # a page that is dirty already: no look tells
            with pytest.raises(Refused, match="written to while it was open"):
                model.read("model.onnx")
    assert not (site.state / "seals").exists()


def test_touched_but_not_changed_while_open(site):
    with modelward.open_model(MODEL, site.state) as model:
        site.file("model.onnx").touch()
        assert model.read("model.onnx") == ONE.content["model.onnx"]


@pytest.mark.parametrize("shows", [False, True], ids=["not sealed", "sealed"])
def test_read_by_several_at_once(site, monkeypatch, shows):
    """By threads, while another process has the same open file, and with it where that stands."""
    monkeypatch.setattr(verified, "make_writes_show", lambda _: shows)
    monkeypatch.setattr(verified, "SETTLED", 0)
    content = os.urandom(1 << 20)
    site.install(chain("4.0.0", 4, **{"model.onnx": content}))
    with modelward.open_model(MODEL, site.state) as model:
        shared = model.files["model.onnx"].fileno()
        to_its_end = f"import os\nprint(flush=True)\nwhile True: os.lseek({shared}, 0, os.SEEK_END)"
        with (
            subprocess.Popen(
                [sys.executable, "-c", to_its_end], pass_fds=[shared], stdout=subprocess.PIPE
            ) as other,
            ThreadPoolExecutor(4) as threads,
        ):
            assert other.stdout is not None
            other.stdout.readline()
            try:
                found = list(threads.map(model.read, ["model.onnx"] * 200))
            finally:
                other.kill()
        assert all(data == content for data in found)
    assert not AlarmStore(site.state, {}).pending()


def test_reading_leaves_the_file_where_it_stands(site):
    with modelward.open_model(MODEL, site.state) as model:
        file = model.files["model.onnx"]
        head = file.read(3)
        assert model.read("model.onnx") == ONE.content["model.onnx"]
        assert head + file.read() == ONE.content["model.onnx"]


def test_cut_off_while_open(site):
    with modelward.open_model(MODEL, site.state) as model:
        path = site.file("model.onnx").resolve()
        path.chmod(0o600)
        os.truncate(path, 1)
        with pytest.raises(Refused, match="written to while it was open"):
            model.read("model.onnx")


def test_nothing_is_read_once_it_is_closed(site):
    with modelward.open_model(MODEL, site.state) as model:
        pass
    with pytest.raises(ValueError, match="closed file"):
        model.read("model.onnx")
    assert not AlarmStore(site.state, {}).pending()


# --- what is not hashed again ---------------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch) -> list[int]:
    """How many files were hashed, each time; all are old enough, and where writes show."""
    counts: list[int] = []

    def count(descriptors):
        counts.append(len(descriptors))
        return digests(descriptors)

    monkeypatch.setattr(verified, "digests", count)
    monkeypatch.setattr(verified, "make_writes_show", lambda _: True)  # wherever this runs
    monkeypatch.setattr(verified, "SETTLED", 0)
    return counts


def reopen(site: Site, **options: bool) -> None:
    with modelward.open_model(MODEL, site.state, **options) as model:
        assert model.read("model.onnx") == ONE.content["model.onnx"]
        assert not model.fallback


def test_an_unchanged_file_is_hashed_once_a_boot(site, hashed, monkeypatch):
    files = len(ONE.content)
    reopen(site)
    reopen(site)
    assert hashed == [files]
    reopen(site, strict=True)
    assert hashed == [files, files]
    monkeypatch.setattr(model_module, "boot_id", lambda: "another boot")
    reopen(site)
    reopen(site)
    assert hashed == [files] * 3


def test_no_boot_is_told_from_another(site, hashed, monkeypatch):
    monkeypatch.setattr(model_module, "boot_id", lambda: "")
    reopen(site)
    reopen(site)
    assert len(hashed) == 2


@pytest.mark.parametrize(
    "touch",
    [
        Path.touch,
        lambda path: path.chmod(0o600),
        lambda path: os.link(path, path.with_name("elsewhere")),
        lambda path: Path(shutil.copy(path, path.with_name("copy"))).rename(path),
    ],
    ids=["touched", "mode", "linked", "copied"],
)
def test_whatever_changes_its_look_makes_it_hashed_again(site, hashed, touch):
    reopen(site)
    touch(site.file("model.onnx").resolve())
    reopen(site)
    assert hashed == [len(ONE.content), 1]


def test_a_file_that_was_just_written_is_hashed_again(site, hashed, monkeypatch):
    """It could be written to once more and look the same: the kernel's clock is coarse."""
    monkeypatch.setattr(verified, "SETTLED", 10**12)
    reopen(site)
    reopen(site)
    assert len(hashed) == 2


def test_restored_times_do_not_hide_a_change(site, hashed):
    reopen(site)
    path = site.file("model.onnx").resolve()
    before = path.stat()
    path.chmod(0o600)
    with path.open("r+b") as file:
        file.write(b"P")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    path.chmod(0o444)
    with pytest.raises(Refused, match="was changed"):
        modelward.open_model(MODEL, site.state)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b'{"schema": "modelward/seal/1"}'),
        lambda path: path.chmod(0o666),
        lambda path: path.parent.chmod(0o777),
        lambda path: os.chown(path, 12345, -1),
        lambda path: (path.unlink(), os.mkfifo(path)),
        lambda path: (path.rename(path.with_name("x")), path.symlink_to("x")),
    ],
    ids=["empty", "ill-formed", "mode", "folder's mode", "owner", "pipe", "link"],
)
def test_a_note_that_others_may_have_written_is_not_believed(site, hashed, spoil):
    reopen(site)
    (note,) = (site.state / "seals").iterdir()
    spoil(note)
    reopen(site)
    assert len(hashed) == 2


def test_notes_of_what_is_not_installed_any_more_are_dropped(site, hashed):
    for item in (ONE, TWO, THREE):
        site.install(item)
        modelward.open_model(MODEL, site.state).close()
    notes = {path.stem for path in (site.state / "seals").iterdir()}
    assert notes == {slot.sha256 for _, slot in site.slots.installed().slots()}


def test_the_kernel_vouches_for_a_file(site, hashed, monkeypatch):
    """Where there is fs-verity a file is hashed once, whatever boots and whoever touches it."""
    measured = {"digest": "sha256:" + "ab" * 32}
    monkeypatch.setattr(verified.verity, "measure", lambda _descriptor: measured["digest"])
    reopen(site)
    site.file("model.onnx").touch()
    monkeypatch.setattr(model_module, "boot_id", lambda: "another boot")
    reopen(site)
    assert len(hashed) == 1
    measured["digest"] = "sha256:" + "cd" * 32  # another file took its place
    reopen(site)
    assert len(hashed) == 2


# --- every change is found ------------------------------------------------------------------------


@pytest.mark.fuzz
@given(data=st.data())
@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_strict_finds_any_change_to_any_file(site, data):
    folder = site.file(".").resolve()
    path = data.draw(st.sampled_from(sorted(path for path in folder.rglob("*") if path.is_file())))
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content)))
    cut = data.draw(st.integers(at, len(content)))
    changed = content[:at] + data.draw(st.binary(max_size=4)) + content[cut:]
    assume(changed != content)
    path.chmod(0o600)
    path.write_bytes(changed)
    try:
        with pytest.raises(Refused, match="was changed after it was installed"):
            modelward.open_model(MODEL, site.state, strict=True)
    finally:
        path.write_bytes(content)
    modelward.open_model(MODEL, site.state, strict=True).close()


# --- noticing updates -----------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    monkeypatch.setattr(follow, "INTERVAL", 0.01)


def test_wait_for_update(site):
    with modelward.open_model(MODEL, site.state) as model:
        assert not model.wait_for_update(timeout=0)
        assert not model.wait_for_update(timeout=0.03)
        site.install(chain("7.0.0", 1, "other"))
        assert not model.wait_for_update(timeout=0)
        updater = Thread(target=site.install, args=(TWO,))
        updater.start()
        assert model.wait_for_update()
        updater.join()
        assert model.wait_for_update()
        assert model.read("model.onnx") == ONE.content["model.onnx"]
    with modelward.open_model(MODEL, site.state) as model:
        assert model.version == "2.0.0"


def test_a_folder_in_the_place_of_one_that_is_gone(site):
    """File systems give the number of an inode that is gone to the next one."""
    files = site.file(".").resolve()
    for _ in range(8):
        seen = follow.place(site.state, MODEL)
        shutil.rmtree(files)
        files.mkdir()
        assert follow.place(site.state, MODEL) != seen


def test_watch(site, caplog):
    versions: Queue[str] = Queue()

    def load(model: modelward.Model) -> None:
        with model:
            versions.put(model.version)
            if model.version == "2.0.0":
                raise ValueError("does not suit us")

    with modelward.watch(MODEL, load, site.state):
        assert versions.get_nowait() == "1.0.0"  # called before `watch` returned
        site.install(TWO)
        assert versions.get(timeout=60) == "2.0.0"
        site.install(THREE)
        assert versions.get(timeout=60) == "3.0.0"
    assert "does not suit us" in caplog.text
    site.install(ONE)
    assert versions.empty()


@pytest.fixture
def failing(monkeypatch) -> list[Exception]:
    """What the next openings by `watch` fail of, from the last to the first."""
    errors: list[Exception] = []
    real = reload.open_model

    def open_model(*arguments, **options):
        if errors:
            raise errors.pop()
        return real(*arguments, **options)

    monkeypatch.setattr(reload, "open_model", open_model)
    return errors


def test_watch_tries_again_what_could_not_be_opened(site, failing, monkeypatch, caplog):
    """An update that comes while the device is short of something is not lost."""
    monkeypatch.setattr(reload, "PAUSE", 0.01)
    monkeypatch.setattr(reload, "LONGEST", 0.04)
    versions: Queue[str] = Queue()

    def load(model: modelward.Model) -> None:
        with model:
            versions.put(model.version)
        if model.version == "2.0.0":
            raise OSError(errno.EIO, "is the callback's own: no reason to call it again")

    with modelward.watch(MODEL, load, site.state):
        assert versions.get_nowait() == "1.0.0"
        failing += [
            RuntimeError("can't start new thread"),
            Refused(Gate.INSTALL, "cannot be read"),
            MemoryError(),
            OSError(errno.EMFILE, "Too many open files"),
        ]
        site.install(TWO)
        assert versions.get(timeout=10) == "2.0.0"
        site.install(THREE)
        assert versions.get(timeout=10) == "3.0.0"
    assert versions.empty()
    tries = [message for message in caplog.messages if "not loaded again" in message]
    assert [message.split()[-2] for message in tries] == ["0.01", "0.02", "0.04", "0.04"]


def test_watch_does_not_try_on_and_on(site, failing, monkeypatch, caplog):
    """It pauses, but neither when another version comes nor when it is stopped."""
    monkeypatch.setattr(reload, "PAUSE", 600.0)
    versions: Queue[str] = Queue()

    def fail_to_open(item: HonestChain) -> None:
        failing.append(MemoryError())
        site.install(item)
        while failing:
            time.sleep(0.01)

    with modelward.watch(MODEL, lambda model: versions.put(model.version), site.state):
        assert versions.get_nowait() == "1.0.0"
        fail_to_open(TWO)
        site.install(THREE)
        assert versions.get(timeout=10) == "3.0.0"
        fail_to_open(ONE)
        started = time.monotonic()
    assert time.monotonic() - started < 10
    assert versions.empty()
    assert caplog.text.count("not loaded again") == 2


def test_watch_raises_what_the_first_call_raises(site):
    with pytest.raises(UsageError):
        modelward.watch("absent", print, site.state)


@pytest.mark.parametrize("name", ["absent", "../etc", "", "Meter-Reader", "meter-reader/.."])
def test_no_such_model(site, name):
    with pytest.raises(UsageError) as problem:
        modelward.open_model(name, site.state)
    assert problem.value.exit_code == ExitCode.USAGE


def test_no_such_state(tmp_path):
    with pytest.raises(UsageError, match="is installed in"):
        modelward.open_model(MODEL, tmp_path / "absent")


def test_too_many_files_is_no_alarm(site):
    site.install(chain("4.0.0", 4, **{f"{n}.txt": str(n).encode() for n in range(64)}))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            modelward.open_model(MODEL, site.state)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    modelward.open_model(MODEL, site.state).close()


def test_the_interface_is_one_page():
    assert sorted(modelward.__all__) == [
        "Model", "Models", "Tensor", "Watch", "open_model", "open_models", "watch"
    ]  # fmt: skip
    assert all(getattr(modelward, name).__doc__ for name in modelward.__all__)
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = modelward.other


def test_opening_while_updates_run(site):
    """Whatever is opened between two steps of an update is one whole release."""
    versions = itertools.cycle((TWO, THREE, ONE))
    for item in itertools.islice(versions, 6):
        slot = site.stage(item)
        modelward.open_model(MODEL, site.state).close()
        site.trials.begin({MODEL: slot})
        site.trials.switch({MODEL: slot}, 0, confirmed=True)
        with modelward.open_model(MODEL, site.state) as model:
            assert model.read("model.onnx") == item.content["model.onnx"]
        site.trials.commit()
        modelward.open_model(MODEL, site.state).close()
