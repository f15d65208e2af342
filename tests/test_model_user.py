"""A model opened by another user than the one that updates: what it may not write, it keeps."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

import modelward
from modelward.install import verified
from modelward.install.alarms import AlarmStore
from tests.install.site import MODEL, Site, chain

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
# Everything is loaded before: a test's own interpreter may lie where nobody may read.
READER = f"""
import concurrent.futures, encodings.ascii, json, logging, os, sys
import modelward
from modelward.install import verified
from modelward.install.hashing import digests
modelward.open_model, modelward.watch
state, strict = sys.argv[1], sys.argv[2] == "strict"
os.environ["HOME"] = sys.argv[3]
hashed = []
verified.SETTLED = 0
verified.make_writes_show = lambda _: True
verified.digests = lambda files: hashed.append(len(files)) or digests(files)
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
with modelward.open_model("{MODEL}", state, strict=strict) as model:
    print(json.dumps({{
        "version": model.version, "fallback": model.fallback, "hashed": sum(hashed),
        "content": model.read("model.onnx").decode(),
    }}))
"""
ONE, TWO = chain("1.0.0", 1), chain("2.0.0", 2)


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder that everybody may enter."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.fixture
def site(place: Path) -> Site:
    site = Site(place / "state")
    site.install(ONE)
    site.install(TWO)
    home = place / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    return site


def start(place: Path, how: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", READER, place / "state", how, place / "home"],
        capture_output=True, text=True, check=False,
        env={name: value for name, value in os.environ.items() if not name.startswith("XDG_")},
    )  # fmt: skip


def read(place: Path, how: str = "") -> dict[str, object]:
    done = start(place, how)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "said": done.stderr}


def refused(place: Path) -> None:
    assert "Refused" in start(place).stderr


def test_it_hashes_once_and_writes_nothing_there(site, place):
    before = site.tree()
    first, second, strict = read(place), read(place), read(place, "strict")
    assert [first["hashed"], second["hashed"], strict["hashed"]] == [len(TWO.content), 0, 4]
    assert first["content"] == "weights of 2.0.0"
    assert site.tree() == before
    (note,) = (place / "home/.cache/modelward").glob("*/seals/*.json")
    assert note.stat().st_uid == NOBODY
    assert note.parent.stat().st_mode & 0o777 == 0o700


def test_its_alarm_is_in_its_own_folder_and_log(site, place):
    path = site.file("model.onnx").resolve()
    path.write_bytes(b"poison")
    found = read(place)
    assert (found["version"], found["fallback"]) == ("1.0.0", True)
    assert "2.0.0 was changed after it was installed" in str(found["said"])
    assert not AlarmStore(site.state, {}).pending()
    (alarm,) = AlarmStore(site.state, {"HOME": str(place / "home")}).pending()
    assert (alarm.version, alarm.served) == ("2.0.0", "1.0.0")


@pytest.mark.attack(29)
def test_its_alarm_ends_once_it_finds_the_slot_intact(site, place):
    """Whoever mends it cannot see the alarm, let alone end it."""
    mine = AlarmStore(site.state, {"HOME": str(place / "home")})
    current = site.file("model.onnx").resolve()
    kept = current.read_bytes()
    before = next(path for path in site.state.glob("slots/*/*/files/model.onnx") if path != current)
    current.write_bytes(b"poison")
    assert read(place)["version"] == "1.0.0"
    good = before.read_bytes()
    before.write_bytes(b"poison, too")
    refused(place)
    assert len(mine.pending()) == 2
    current.write_bytes(kept)
    assert read(place)["version"] == "2.0.0"
    (alarm,) = mine.pending()
    assert alarm.version == "1.0.0"
    before.write_bytes(good)
    read(place)
    assert mine.pending() == ()


def test_its_alarm_ends_once_nothing_of_that_is_kept(site, place):
    site.file("model.onnx").resolve().write_bytes(b"poison")
    read(place)
    for number in (3, 4):
        site.install(chain(f"{number}.0.0", number))
    assert read(place)["version"] == "4.0.0"
    assert AlarmStore(site.state, {"HOME": str(place / "home")}).pending() == ()


def test_what_it_hashed_is_believed_by_nobody_else(site, place):
    """A seal of a user who may not write to the model vouches for nothing, even in its place."""
    read(place)
    (note,) = (place / "home/.cache/modelward").glob("*/seals/*.json")
    (site.state / "seals").mkdir()
    os.chown(site.state / "seals", NOBODY, NOBODY)
    note.rename(site.state / "seals" / note.name)
    assert read(place)["hashed"] == len(TWO.content)


def test_what_the_owner_hashed_is_believed_by_all(site, place, monkeypatch):
    monkeypatch.setattr(verified, "SETTLED", 0)
    monkeypatch.setattr(verified, "make_writes_show", lambda _: True)
    modelward.open_model(MODEL, site.state).close()
    assert read(place)["hashed"] == 0
    assert not (place / "home/.cache").exists()
