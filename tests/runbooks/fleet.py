"""The world of the runbooks: machines that share nothing but a stick, a server, a device.

::

    place/stick/              the USB stick; every machine sees it as ./stick
    place/repository/         the repository's machine: my-repo, my-repo-keys, layouts, metadata
    place/alice/keys/alice/   the machine of a holder, and so on for everybody
    place/device/             a device; place/device/state is its state directory
"""

import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.repo_tools.site import make_folder
from tests.repo_tools.terminal import Session, converse
from tests.simulator.world import clean_environment

ROOT = Path(__file__).parents[2]
MODEL = "my-model"
PASSPHRASE = "correct horse battery staple"
PIN = "314159"
INIT = f"modelward-repo init my-repo --policy metadata/minimal.toml --model {MODEL}\n"
HOLDERS = ("alice", "bob", "carol", "lead-a", "lead-b", "lead-c")
NEWCOMERS = ("dave", "lead-d")
MACHINES = ("repository", "device", *HOLDERS, *NEWCOMERS)
_DAMAGED = re.compile(r"\x1b\[[0-9;]*m")
_ANSWERS = (
    (re.compile(r"(Passphrase[^\n]*|Again): $"), PASSPHRASE),
    (re.compile(r"PIN[^\n]*: $"), PIN),
    (re.compile(r"Type ([^\n]+) to go on: $"), r"\1"),
    (re.compile(r"\[y/N\]: $"), "y"),
)


def answer(shown: str) -> str | None:
    """Return what somebody types who reads a prompt and agrees."""
    for prompt, text in _ANSWERS:
        if found := prompt.search(shown):
            return found.expand(text) if "\\" in text else text
    return None


@dataclass
class Fleet:
    """See the module.

    Attributes:
        place: Its directory.
        commands: Folder with the commands, for PATH.
        env: More environment, for everybody.
        transcript: Everything that was on any screen.
    """

    place: Path
    commands: Path
    env: Mapping[str, str] = field(default_factory=dict)
    transcript: str = ""

    @property
    def repository(self) -> Path:
        return self.place / "repository/my-repo"

    @property
    def keys(self) -> Path:
        """The keys on the repository's machine."""
        return self.place / "repository/my-repo-keys"

    @property
    def state(self) -> Path:
        return self.place / "device/state"

    @classmethod
    def machines(cls, place: Path, commands: Path) -> "Fleet":
        """Make the machines, with nothing on them."""
        (place / "stick").mkdir(parents=True)
        for name in MACHINES:
            (place / name).mkdir()
            (place / name / "stick").symlink_to("../stick")
        for name in ("layouts", "metadata"):
            (place / "repository" / name).symlink_to(ROOT / name)
        make_folder(place / "repository/release-1.0.0", b"weights of 1.0.0")
        make_folder(place / "repository/release-2.0.0", b"weights of 2.0.0")
        return cls(place, commands)

    def found(self) -> None:
        """Make a repository with a release, and hand its keys to those who hold them."""
        self.do(
            "repository",
            f"{INIT}modelward-repo release {MODEL} 1.0.0 release-1.0.0 -r my-repo\n",
        )
        self.hand_out()

    def hand_out(self) -> None:
        """Move the offline keys to their holders; the public halves stay here, too."""
        for name in HOLDERS:
            theirs = self.place / name / "keys" / name
            shutil.copytree(self.keys / name, theirs)
            for private in (self.keys / name).glob("*.key"):
                private.unlink()

    def copy(self, place: Path) -> "Fleet":
        shutil.copytree(self.place, place, symlinks=True)
        return Fleet(place, self.commands, dict(self.env))

    def set_up_device(self, url: str, root: Path, state: str = "state") -> None:
        """Set a device up and have it take what is offered."""
        done = self.at(
            "device",
            f"modelward init --repository {url} --root {root} --state {state}\n"
            f"modelward update --state {state}\n",
        )
        assert done.code == 0, done.shown

    def move_device(self, url: str) -> None:
        """Have the device ask another server: a copy of the world has one of its own."""
        config = self.state / "modelward.toml"
        text = re.sub(r"http://127\.0\.0\.1:\d+", url, config.read_text())
        config.write_text(text)

    def do(self, machine: str, script: str) -> Session:
        """Type commands that must all succeed."""
        done = self.at(machine, script)
        assert done.code == 0, f"on {machine}:\n{script}\n{done.shown}"
        return done

    def at(self, machine: str, script: str) -> Session:
        """Type commands at a machine's terminal."""
        env = clean_environment() | {
            "PATH": f"{self.commands}:{os.environ['PATH']}",
            "MODELWARD_STATE": str(self.state),
            "TERM": "dumb",
            **self.env,
        }
        command = ["bash", "-euo", "pipefail", "-c", script]
        done = converse(command, answer, self.place / machine, env)
        done.shown = _DAMAGED.sub("", done.shown).replace("\r\n", "\n")
        self.transcript += done.shown
        return done

    def trusted(self) -> set[str]:
        """Return the ids of all keys that anything in force trusts."""
        found = set()
        newest = max(
            (int(p.name.split(".")[0]), p) for p in self.repository.glob("metadata/*.root.json")
        )
        root = json.loads(newest[1].read_text())["signed"]
        for role in root["roles"].values():
            found.update(role["keyids"])
        snapshot = self._signed("timestamp")["meta"]["snapshot.json"]["version"]
        meta = self._signed(f"{snapshot}.snapshot")["meta"]
        targets = self._signed(f"{meta['targets.json']['version']}.targets")
        for role in targets["delegations"]["roles"]:
            found.update(role["keyids"])
        digest = targets["targets"][f"policies/{MODEL}.json"]["hashes"]["sha256"]
        policy = json.loads(
            (self.repository / f"targets/policies/{digest}.{MODEL}.json").read_text()
        )
        return found | set(policy["layout"]["owners"])

    def _signed(self, name: str) -> dict:
        return json.loads((self.repository / f"metadata/{name}.json").read_text())["signed"]
