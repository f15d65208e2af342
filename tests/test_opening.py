"""Opening several models that belong together: of one generation, whatever happens meanwhile."""

import contextlib
import os
import resource
from collections.abc import Iterable
from dataclasses import replace

import pytest

import modelward
from modelward import follow
from modelward.errors import Refused, UsageError
from modelward.formats.installed import Installed, Slot
from modelward.formats.release import Requirements
from modelward.install.alarms import AlarmStore
from modelward.install.verified import Verifier
from tests.install.site import MODEL, Site, chain, documents
from tests.watching import open_files

TOKENIZER = "tokenizer"
BOTH = (MODEL, TOKENIZER)


@pytest.fixture
def site(tmp_path, monkeypatch) -> Site:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    return Site(tmp_path / "state")


def stage(site: Site, counter: int, model: str, pins: tuple[tuple[str, str], ...] = ()) -> Slot:
    item = chain(f"{counter}.0.0", counter, model, **{"model.onnx": f"{model} {counter}".encode()})
    site.bring(item)
    release = replace(item.release, requires=Requirements(components=pins))
    return site.slots.stage(release, release.to_bytes(), documents(item))


def install(
    site: Site, counter: int, *, pinned: bool = True, models: Iterable[str] = BOTH
) -> Installed:
    """Install a version of both, of which the meter reader pins the tokenizer."""
    site.trials.recover(site.now)
    pins = ((TOKENIZER, f"{counter}.0.0"),) if pinned else ()
    return site.commit(
        {model: stage(site, counter, model, pins if model == MODEL else ()) for model in models}
    )


def overwrite(site: Site, model: str, slot: Slot) -> None:
    path = site.slots.directory(model, slot) / "files/model.onnx"
    path.chmod(0o600)
    path.write_bytes(b"poison")


def versions(models: modelward.Models) -> dict[str, str]:
    """What is open; each is what it says that it is."""
    for name, model in models.items():
        assert model.read("model.onnx") == f"{name} {model.version[0]}".encode()
    return {name: model.version for name, model in models.items()}


def alarms(site: Site) -> dict[str, str | None]:
    found = AlarmStore(site.state, {}).pending()
    return {f"{alarm.model} {alarm.version}": alarm.served for alarm in found}


def test_opened_together(site):
    install(site, 1)
    with modelward.open_models(iter(BOTH), site.state) as models:
        assert versions(models) == {MODEL: "1.0.0", TOKENIZER: "1.0.0"}
        assert len(models) == 2
        assert not models.fallback
    assert all(file.closed for model in models.values() for file in model.files.values())


@pytest.mark.parametrize("updates", [1, 2])
def test_updates_come_between(site, monkeypatch, updates):
    """After one, what was looked up is still kept; after two it is gone, and is looked up anew."""
    install(site, 1)
    real = Verifier.open
    coming = list(range(2, 2 + updates))

    def late(verifier, model, slot):
        files = real(verifier, model, slot)
        while coming:
            install(site, coming.pop(0))
        return files

    monkeypatch.setattr(Verifier, "open", late)
    with modelward.open_models(BOTH, site.state) as models:
        expected = "1.0.0" if updates == 1 else "3.0.0"
        assert versions(models) == {MODEL: expected, TOKENIZER: expected}
        assert not models.fallback
        assert models.wait_for_update(timeout=0) == (updates == 1)
    assert not alarms(site)


@pytest.mark.parametrize("changed", [BOTH[:1], BOTH[1:], BOTH])
def test_what_belongs_together_falls_back_together(site, changed):
    install(site, 1)
    installed = install(site, 2)
    for model in changed:
        overwrite(site, model, installed.active[model])
    before = open_files()
    with modelward.open_models(BOTH, site.state) as models:
        assert versions(models) == {MODEL: "1.0.0", TOKENIZER: "1.0.0"}
        assert models.fallback
        assert all(model.fallback for model in models.values())
    assert open_files() == before
    assert alarms(site) == {f"{model} 2.0.0": "1.0.0" for model in changed}


def test_what_does_not_belong_together_falls_back_alone(site):
    install(site, 1, pinned=False)
    installed = install(site, 2, pinned=False)
    overwrite(site, TOKENIZER, installed.active[TOKENIZER])
    with modelward.open_models(BOTH, site.state) as models:
        assert versions(models) == {MODEL: "2.0.0", TOKENIZER: "1.0.0"}
        assert [models[name].fallback for name in BOTH] == [False, True]


def test_nothing_that_goes_together_is_left(site):
    install(site, 1, models=[TOKENIZER])
    installed = install(site, 2)
    overwrite(site, TOKENIZER, installed.active[TOKENIZER])
    before = open_files()
    with pytest.raises(
        Refused, match=r"tokenizer 2\.0\.0 .*no meter-reader before 2\.0\.0 is kept"
    ):
        modelward.open_models(BOTH, site.state)
    assert open_files() == before
    assert alarms(site) == {"tokenizer 2.0.0": None}
    with modelward.open_model(TOKENIZER, site.state) as model:
        assert (model.version, model.fallback) == ("1.0.0", True)


def test_what_is_kept_does_not_go_together(site):
    install(site, 1)
    install(site, 2, models=[TOKENIZER], pinned=False)
    installed = install(site, 3)
    overwrite(site, MODEL, installed.active[MODEL])
    with pytest.raises(Refused, match=r"needs tokenizer 1\.0\.0, but 2\.0\.0 is kept"):
        modelward.open_models(BOTH, site.state)


def test_what_one_would_go_back_to_was_changed_too(site):
    install(site, 1)
    installed = install(site, 2)
    overwrite(site, TOKENIZER, installed.active[TOKENIZER])
    overwrite(site, MODEL, installed.previous[MODEL])
    with pytest.raises(Refused, match=r"tokenizer 2\.0\.0 was .* and so was meter-reader 1\.0\.0"):
        modelward.open_models(BOTH, site.state)
    assert alarms(site) == {"tokenizer 2.0.0": None, "meter-reader 1.0.0": None}


def test_any_of_them_is_waited_for(site, monkeypatch):
    monkeypatch.setattr(follow, "INTERVAL", 0.01)
    install(site, 1, pinned=False)
    with modelward.open_models(BOTH, site.state) as models:
        assert not models.wait_for_update(timeout=0.03)
        install(site, 2, models=[TOKENIZER])
        assert models.wait_for_update()
        assert versions(models) == {MODEL: "1.0.0", TOKENIZER: "1.0.0"}


@pytest.mark.parametrize("other", ["absent", "../etc"])
def test_one_is_not_installed(site, other):
    install(site, 1)
    before = open_files()
    with pytest.raises(UsageError):
        modelward.open_models((MODEL, other), site.state)
    assert open_files() == before


@pytest.mark.parametrize("left", range(3))
def test_no_more_files_may_be_opened(site, left):
    """Nothing is damaged: no alarm, and nobody is told to remove what runs."""
    install(site, 1)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(left):
            os.close(taken.pop())
        with pytest.raises(OSError, match="Too many open files"):
            modelward.open_models(BOTH, site.state)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        for descriptor in taken:
            os.close(descriptor)
    assert not AlarmStore(site.state, os.environ).pending()
