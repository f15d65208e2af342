"""A stick that somebody tampered with on the way: as a server could, and as only a disk can."""

import os
from pathlib import Path

import pytest

from modelward.errors import ExitCode, Gate
from modelward.formats.release import MAX_LENGTH
from modelward.transfer.sources import blob_path
from modelward_repo.export.choose import Wanted, choose
from modelward_repo.export.write import write_folder
from tests.attacks.scene import Scene
from tests.simulator.world import now

WEIGHTS, TIMESTAMP = "the weights", "the timestamp"
STATING = '{"signatures":[],"signed":{"_type":"timestamp","version":%s,"expires":"%s"}}'


class Stick:
    """An honest bundle of an honest release, in the hands of an attacker."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self.folder = scene.world.place / "stick"
        published = scene.world.publish("1.1.0")
        made = choose(scene.world.storage, Wanted("stable"), now()).bundle
        write_folder(scene.world.storage, made, self.folder)
        (model,) = (file for file in published.release.files if file.path == "model.onnx")
        self.places = {
            WEIGHTS: self.folder / blob_path(model.blob.sha256),
            TIMESTAMP: self.folder / "metadata/timestamp.json",
        }

    def refused_at(self, gate: Gate, reason: str) -> None:
        """Require that the device refuses, keeps what runs, and takes the next honest update."""
        world = self._scene.world
        before = world.read_model()
        done = world.client("import", None, str(self.folder))
        assert done.code == ExitCode.REFUSED, done
        assert (done.json["gate_number"], done.json["gate"]) == gate.value, done
        assert reason in done.json["reason"], done
        assert world.read_model() == before
        assert world.client_here("verify").json["outcome"] == "intact"
        assert not self._scene.server.requests  # no network at all
        self._scene.conclude("refused", f"{gate.number} {gate.label}")


@pytest.fixture
def stick(scene: Scene) -> Stick:
    return Stick(scene)


@pytest.mark.attack(11)
@pytest.mark.parametrize("what", [WEIGHTS, TIMESTAMP])
def test_link(stick: Stick, what: str) -> None:
    """A stick has a link to a file of the device in place of"""
    path = stick.places[what]
    outside = path.rename(stick.folder.parent / "outside")  # the honest content, even
    path.symlink_to(outside)
    stick.refused_at(gate_of(what), "no plain file")


@pytest.mark.attack(11)
@pytest.mark.parametrize("what", [WEIGHTS, TIMESTAMP])
def test_pipe(stick: Stick, what: str) -> None:
    """A stick has a pipe, at which a reader would wait for ever, in place of"""
    stick.places[what].unlink()
    os.mkfifo(stick.places[what])
    stick.refused_at(gate_of(what), "no plain file")


@pytest.mark.attack(7)
@pytest.mark.parametrize("what", [WEIGHTS, TIMESTAMP])
def test_endless(stick: Stick, what: str) -> None:
    """A stick has a file of a terabyte, holes and all, in place of"""
    os.truncate(stick.places[what], 1 << 40)
    stick.refused_at(gate_of(what), "bytes")


@pytest.mark.attack(11)
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 10_000, id="is nested 10,000 levels deep"),
        pytest.param(STATING % ("1e999", "2099-01-01T00:00:00Z"), id="has an infinite version"),
        pytest.param(STATING % ("99", "2020-01-01T00:00:00"), id="expires in no time zone"),
    ],
)
def test_timestamp(stick: Stick, text: str) -> None:
    """A stick has a timestamp that"""
    stick.places[TIMESTAMP].chmod(0o644)
    stick.places[TIMESTAMP].write_text(text)
    stick.refused_at(Gate.METADATA, "metadata is not valid")


@pytest.mark.attack(11)
def test_wrong_bytes(stick: Stick) -> None:
    """A stick has swapped weights, length and all."""
    honest = stick.places[WEIGHTS].read_bytes()
    stick.places[WEIGHTS].chmod(0o644)
    stick.places[WEIGHTS].write_bytes(honest[:-1] + b"!")
    stick.refused_at(Gate.FETCH, "other content than its name says")


@pytest.mark.attack(11)
def test_folder_replaced_by_a_link(stick: Stick) -> None:
    """A stick has a link in place of the folder of all weights."""
    outside = (stick.folder / "blobs").rename(stick.folder.parent / "outside")
    (stick.folder / "blobs").symlink_to(outside)
    stick.refused_at(Gate.FETCH, "no plain file")


@pytest.mark.attack(25)
@pytest.mark.parametrize(
    ("path", "length", "problem"),
    [
        pytest.param("metadata/../../../etc/passwd", 1, "'.' or '..' part", id="leave the stick"),
        pytest.param("/etc/passwd", 1, "is absolute", id="begin at the root"),
        pytest.param("metadata/x", MAX_LENGTH + 1, "must be from", id="are longer than any file"),
    ],
)
def test_index(stick: Stick, path: str, length: int, problem: str) -> None:
    """A stick's index names files that"""
    index = Path(stick.folder / "bundle.json")
    text = index.read_text().replace('"length":', f'"length":{length},"was":', 1)
    first = text.index('"path":"') + len('"path":"')
    index.write_text(text[:first] + path + text[text.index('"', first) :])
    stick.refused_at(Gate.METADATA, problem)


def gate_of(what: str) -> Gate:
    """Return the gate that reads it."""
    return Gate.FETCH if what == WEIGHTS else Gate.METADATA
