"""Using a model: what is read is what was approved."""

import itertools
import os
import resource
from pathlib import Path

import pytest

import modelward
from modelward.errors import ExitCode, Gate, Refused, UsageError
from tests.install.site import MODEL, Site, chain

ONE, TWO, THREE = (chain(f"{number}.0.0", number) for number in (1, 2, 3))


@pytest.fixture
def site(tmp_path) -> Site:
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
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(Refused, match="was changed after it was installed") as refusal:
        modelward.open_model(MODEL, site.state)
    assert refusal.value.gate is Gate.INSTALL
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_tampered_release_document(site):
    slot = site.slots.installed().active[MODEL]
    overwrite(site.slots.directory(MODEL, slot) / "release.json")
    with pytest.raises(Refused, match="is not the document that was installed"):
        modelward.open_model(MODEL, site.state)


def test_slot_of_another_release_under_this_name(site):
    site.install(TWO)
    installed = site.slots.installed()
    one, two = (
        site.slots.directory(MODEL, kind[MODEL]) for kind in (installed.previous, installed.active)
    )
    two.rename(two.with_name("aside"))
    one.rename(two)
    with pytest.raises(Refused):
        modelward.open_model(MODEL, site.state)


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
    assert sorted(modelward.__all__) == ["Model", "open_model"]
    assert modelward.Model.__doc__
    with pytest.raises(AttributeError, match="no attribute 'other'"):
        _ = modelward.other


def test_opening_while_updates_run(site):
    """Whatever is opened between two steps of an update is one whole release."""
    versions = itertools.cycle((TWO, THREE, ONE))
    for item in itertools.islice(versions, 6):
        slot = site.stage(item)
        modelward.open_model(MODEL, site.state).close()
        site.slots.switch({MODEL: slot})
        with modelward.open_model(MODEL, site.state) as model:
            assert model.read("model.onnx") == item.content["model.onnx"]
        site.slots.collect()
        modelward.open_model(MODEL, site.state).close()
