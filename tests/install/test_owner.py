"""Another user than the owner of a state directory, root too, changes nothing there."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

import pytest

from modelward import cli
from modelward.errors import ExitCode
from modelward.install.alarms import AlarmStore
from modelward.install.owner import name_of
from tests.install.site import MODEL, Site, chain
from tests.simulator.tuf_repository import TufRepository
from tests.swarm.devices import Device

NOBODY = 65534
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
CHANGING = (
    "update", "check", "run", "run --once", "confirm", "rollback", "pin", "unpin", "gc",
    "verify --repair", "gossip checkpoint", "report", "serve --port 0",
    "init --repository http://127.0.0.1:9 --root ROOT",
)  # fmt: skip
# Everything is loaded before: a test's own interpreter may lie where nobody may read.
AS_NOBODY = f"""
import os, sys
from modelward.cli import main
main(sys.argv[1:])
print("----", flush=True)
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def site() -> Iterator[Site]:
    """A device that others may read."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        site = Site(Path(folder) / "state")
        site.install(chain("1.0.0", 1))
        yield site


def owners(site: Site) -> set[int]:
    return {path.lstat().st_uid for path in (site.state, *site.state.rglob("*"))}


@pytest.mark.parametrize("command", CHANGING)
def test_root_changes_nothing_of_somebody_elses(site, command, capsys, tmp_path):
    (tmp_path / "root.json").write_bytes(TufRepository().files["metadata/1.root.json"])
    subprocess.run(["chown", "-R", str(NOBODY), site.state], check=True)
    if command.startswith("init"):
        (site.state / "modelward.toml").unlink()
    before = site.tree()
    name, *words = command.replace("ROOT", str(tmp_path / "root.json")).split()
    assert cli.main([name, "--state", str(site.state), *words]) == ExitCode.USAGE
    said = "".join(capsys.readouterr())
    owner = name_of(NOBODY)
    assert f"belongs to {owner}, and this runs as root" in said
    assert f"run it as {owner}: sudo -u {owner} modelward" in said
    assert site.tree() == before
    assert owners(site) == {NOBODY}


def test_root_may_look(site, capsys):
    subprocess.run(["chown", "-R", str(NOBODY), site.state], check=True)
    assert cli.main(["status", "--json", "--state", str(site.state)]) == ExitCode.DONE
    assert json.loads(capsys.readouterr().out)["floors"]["releases"] == {MODEL: 1}


def test_roots_alarm_is_roots_own(site, capsys, monkeypatch, tmp_path):
    """In the owner's folder the owner could not end it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    site.file("model.onnx").resolve().write_bytes(b"poison")
    subprocess.run(["chown", "-R", str(NOBODY), site.state], check=True)
    assert cli.main(["verify", "--state", str(site.state)]) == ExitCode.REFUSED
    assert owners(site) == {NOBODY}
    assert AlarmStore(site.state, {"HOME": str(tmp_path)}).pending()
    assert not AlarmStore(site.state, {}).pending()


def test_others_see_what_runs_and_no_floors(site):
    command = [sys.executable, "-c", AS_NOBODY, "status", "--json", "--state", site.state]
    environment = os.environ | {"HOME": str(site.state.parent)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    mine, theirs = map(json.loads, done.stdout.split("----\n"))
    assert mine["floors"]["releases"] == {MODEL: 1}
    assert theirs == mine | {"floors": None}


def test_others_explain_and_verify(world):
    """By what everybody may know; floors they cannot judge, and call nothing damaged."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        here = world.copy(Path(folder))
        with here.serve() as server:
            (here.device / "rest.json").unlink()
            assert here.client_here("check", server).code == ExitCode.DONE
        environment = os.environ | {"HOME": folder}
        for words in (["explain", "meter-reader"], ["verify"], ["evidence", "list"], ["status"]):
            done = subprocess.run(
                [sys.executable, "-c", AS_NOBODY, *words, "--state", here.device],
                capture_output=True, text=True, check=False, env=environment,
            )  # fmt: skip
            assert done.returncode == ExitCode.DONE, (words, done.stderr, done.stdout)
            mine, theirs = done.stdout.split("----\n")
            assert mine.splitlines()[:2] == theirs.splitlines()[:2]


AS_NOBODY_AT_ONCE = f"""
import os, sys, encodings.idna, zeroconf
from modelward.cli import main, serve
from modelward.serve import run
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
sys.exit(main(sys.argv[1:]))
"""


def test_others_serve_and_say_what_they_cannot(world):
    """On a device that has never served: nobody made `targets/`, and they note no neighbours."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        here = world.copy(Path(folder))
        device = Device(here.device, program=("-c", AS_NOBODY_AT_ONCE))
        device.know([], discover=True)
        before = {path: path.lstat().st_mtime_ns for path in here.device.rglob("*")}
        with device.serving("127.0.0.1"), urlopen(f"{device.url}/metadata/1.root.json") as answer:
            assert answer.read() == (here.repository / "metadata/1.root.json").read_bytes()
        assert {path: path.lstat().st_mtime_ns for path in here.device.rglob("*")} == before
        assert "no releases are handed on" in device.said
        assert (
            f"let {name_of(os.geteuid())}, who owns it, run `modelward serve` once" in device.said
        )
        assert device.said.count("whom mDNS finds cannot be noted") == 1
