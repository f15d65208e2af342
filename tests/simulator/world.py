"""A small world to tell stories in: a repository, everybody's keys, a device that runs a model.

Made once, copied for every test. The weights are a few bytes and the evidence is made in memory
(`tests.simulator.chain`), so a world takes a second; the repository, the keys, the server and the
device's command line are the real ones.

::

    place/repository/     what the server serves; plain/ in it is for tests.attacks.peers alone
    place/keys/           everybody's keys, one folder a holder
    place/last-week/      the repository as it was when it offered 0.9.0
    place/device/         a device that runs 1.0.0

The model `meter-reader` has the nine steps of the demo. The model `tokenizer` (two steps) is
published, too, but on no channel.
"""

import contextlib
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NoReturn, Self
from unittest import mock

from securesystemslib.signer import CryptoSigner

import modelward
from modelward import cli
from modelward.formats.release import Requirements
from modelward_repo.cli.preparing import Quiet
from modelward_repo.publish.bundle import read_bundle
from modelward_repo.publish.cache import Cache
from modelward_repo.publish.channel import ChannelKeys, Offer, set_version
from modelward_repo.publish.create import Plan, add_model, create_repository
from modelward_repo.publish.prepare import Options
from modelward_repo.publish.prepare.choice import Margins
from modelward_repo.publish.release import (
    Keys,
    Preparation,
    Published,
    Request,
    next_counter,
    publish,
    released,
)
from modelward_repo.publish.signing import online_signers, role_signers
from modelward_repo.publish.staging import Online, Staging
from modelward_repo.roles.keys import KeyFile
from modelward_repo.roles.policy import CHANNELS
from modelward_repo.roles.ring import KeyRing
from modelward_repo.storage.local import LocalStorage
from modelward_repo.supply_chain.layout import FUNCTIONARY, OWNER
from tests.simulator.chain import BUNDLE, OWNERS, HonestChain, People
from tests.simulator.model_files import onnx_file
from tests.simulator.server import Server

ROOT = Path(__file__).parents[2]
MODEL = "meter-reader"
TOKENIZER = "tokenizer"
POLICY = f"""
[models.{TOKENIZER}]
layout = "{ROOT}/layouts/minimal.toml"
"""
LAYOUT_NAMES = {MODEL: "meter-reader", TOKENIZER: "minimal"}
PLAIN = "plain"
SUMS = "SHA256SUMS"


def no_passphrase(path: Path) -> NoReturn:
    """Say that no key in a test is encrypted."""
    raise AssertionError(f"{path} is encrypted")


def now() -> datetime:
    """Return the time, to the second."""
    return datetime.now(UTC).replace(microsecond=0)


def bundle_of(version: str, model: str = MODEL) -> dict[str, bytes]:
    """Return honest files of a version, but for the ticket."""
    if model == TOKENIZER:
        return {"tokenizer.json": json.dumps({"words": version}).encode()}
    return {**BUNDLE, "model.onnx": onnx_file(f"weights of {version}".encode())}


class KeyFolder(People):
    """The people whose keys lie in a folder."""

    def __init__(self, keys: Path) -> None:
        super().__init__()
        self._keys = keys

    def signer(self, holder: str) -> CryptoSigner:
        """Return a holder's private key for steps or, of an owner, for layouts."""
        if holder not in self._signers:
            name = OWNER if holder in OWNERS else FUNCTIONARY
            self._signers[holder] = KeyFile.of(self._keys, holder, name).signer(no_passphrase)
        return self._signers[holder]


@dataclass(frozen=True)
class Done:
    """What a command did."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed, which must be one JSON document."""
        return json.loads(self.out)


Client = Callable[..., Done]
"""Runs a command of the device."""


@dataclass
class World:
    """The world, and everything honest that happens in it.

    Attributes:
        place: Its directory.
        home: The directory of the world that this one is a copy of, which has what never changes.
        offered: The files that the channel `stable` offers of the meter reader.
        margins: What a way to a file must save to be published.
    """

    place: Path
    home: Path
    offered: Mapping[str, bytes] = field(default_factory=dict)
    margins: Margins = field(default_factory=Margins)

    @property
    def repository(self) -> Path:
        """What the server serves."""
        return self.place / "repository"

    @property
    def keys(self) -> Path:
        """Everybody's keys."""
        return self.home / "keys"

    @property
    def last_week(self) -> Path:
        """The repository as it was."""
        return self.home / "last-week"

    @property
    def device(self) -> Path:
        """The device's state directory."""
        return self.place / "device"

    @property
    def storage(self) -> LocalStorage:
        """The repository, to write to."""
        return LocalStorage(self.repository)

    @property
    def people(self) -> People:
        """Everybody who does a step or owns a layout."""
        return KeyFolder(self.keys)

    @classmethod
    def build(cls, place: Path) -> "World":
        """Make a world in which a device runs 1.0.0."""
        return cls(place, place).populate()

    def populate(self) -> Self:
        """Let everything honest happen, until a device runs 1.0.0."""
        self.found()
        self.publish("1.0.0", TOKENIZER, offer=None)
        self.publish("0.9.0")
        shutil.copytree(self.repository, self.last_week)
        self.publish("1.0.0")
        with self.serve() as server:
            self.init(server)
            done = self.client("update", server)
        assert done.code == 0, done
        return self

    def found(self) -> None:
        """Make a repository without any release."""
        policy = self.place / "policy.toml"
        text = self.policy() + self.log_policy()
        text = text.replace('formats = ["onnx",', 'formats = ["onnx", "safetensors", "gguf",')
        policy.write_text(text.replace('"../layouts', f'"{ROOT}/layouts'), "utf-8")
        ring = KeyRing(self.keys, no_passphrase, lambda: None)
        create_repository(self.repository, Plan.load(policy), ring, now())
        policy.write_text(policy.read_text("utf-8") + POLICY, "utf-8")
        add_model(self.storage, Plan.load(policy), TOKENIZER, ring, now())

    def policy(self) -> str:
        """Return the trust policy."""
        return (ROOT / "metadata/meter-reader.toml").read_text("utf-8")

    def log_policy(self) -> str:
        """Return what the trust policy says of a log: there is none."""
        return ""

    def copy(self, place: Path) -> Self:
        """Return a world of one's own, just like this one."""
        for part in ("repository", "device", "peers"):
            if (self.place / part).exists():
                shutil.copytree(self.place / part, place / part, symlinks=True)
        return replace(self, place=place)

    def chain(
        self, version: str, model: str = MODEL, bundle: Mapping[str, bytes] | None = None
    ) -> HonestChain:
        """Return a run of a model's supply chain by the people of this world."""
        return HonestChain(
            layout_name=LAYOUT_NAMES[model],
            model=model,
            version=version,
            counter=self.next_counter(model),
            nonce=f"run for {version}",
            bundle=bundle_of(version, model) if bundle is None else bundle,
            people=self.people,
        )

    def next_counter(self, model: str = MODEL) -> int:
        """Return the place of a model's next release."""
        return next_counter(released(Staging.of(self.storage, now()), model))

    def publish(
        self,
        version: str,
        model: str = MODEL,
        *,
        bundle: Mapping[str, bytes] | None = None,
        requires: Requirements | None = None,
        offer: str | None = "stable",
        cheaply: bool = False,
    ) -> Published:
        """Take a version through all steps, publish it, and offer it on a channel.

        Args:
            version: The version.
            model: The model.
            bundle: Its files; None for those of the version.
            requires: What a device must have.
            offer: On which channel, if on any.
            cheaply: Whether to publish chunk indexes, compressed copies and patches, too.
        """
        chain = self.chain(version, model, bundle)
        keys = Keys.load(self.storage, model, self.keys, no_passphrase, now())
        with TemporaryDirectory(dir=self.place) as folder:
            write_files(Path(folder), chain.content)
            request = Request(
                model,
                version,
                read_bundle(Path(folder)),
                chain.evidence_bytes(),
                requires or Requirements(),
            )
            published = publish(
                self.storage,
                request,
                keys,
                now(),
                preparation=self.preparation() if cheaply else None,
            )
        if offer:
            self.offer(version, model, offer)
        if model == MODEL and offer == "stable":
            self.offered = dict(chain.content)
            write_plain(self.repository, chain.content)
        return published

    def preparation(self) -> Preparation:
        """Return how releases are made cheap to fetch."""
        return Preparation(Options(Cache(self.place / "cache"), self.margins), Quiet())

    def offer(self, version: str, model: str = MODEL, channel: str = "stable") -> None:
        """Offer a published version on a channel."""
        staging = Staging.of(self.storage, now())
        keys = ChannelKeys(
            self.signers(CHANNELS), online_signers(staging, self.keys, no_passphrase)
        )
        set_version(self.storage, Offer(channel, model, version), keys, now())

    def signers(self, role: str) -> list[CryptoSigner]:
        """Return as many keys of a role as it takes."""
        return role_signers(Staging.of(self.storage, now()), role, self.keys, no_passphrase)

    def online(self) -> Online:
        """Return the keys of snapshot and timestamp, and the log's if there is one."""
        return online_signers(Staging.of(self.storage, now()), self.keys, no_passphrase)

    def serve(self) -> Server:
        """Return a server of the repository, to be used as a context manager."""
        return Server(self.repository, {f"/{PLAIN}": self.repository / PLAIN})

    def init(self, server: Server, *options: str) -> Done:
        """Set the device up."""
        root = self.repository / "metadata/1.root.json"
        done = self.client("init", server, "--root", str(root), *options)
        assert done.code == 0, done
        return done

    def client(
        self, command: str, server: Server | None = None, *options: str, **environment: str
    ) -> Done:
        """Run a command of the device in a process of its own, with `--json`."""
        done = subprocess.run(
            [sys.executable, "-m", "modelward", *self._arguments(command, server), *options],
            cwd=self.place,
            env=clean_environment() | environment,
            text=True,
            capture_output=True,
            check=False,
            timeout=60,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def client_here(
        self, command: str, server: Server | None = None, *options: str, as_json: bool = True
    ) -> Done:
        """Run a command of the device in this process, which takes a tenth of the time."""
        out, err = io.StringIO(), io.StringIO()
        with (
            mock.patch.dict(os.environ, clean_environment(), clear=True),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            code = cli.main([*self._arguments(command, server, as_json=as_json), *options])
        return Done(code, out.getvalue(), err.getvalue())

    def _arguments(self, command: str, server: Server | None, *, as_json: bool = True) -> list[str]:
        arguments = [command, "--state", str(self.device)]
        arguments += ["--json"] if as_json else []
        return [*arguments, "--repository", server.url] if server else arguments

    def read_model(self, model: str = MODEL) -> tuple[str, dict[str, bytes]]:
        """Open the model that runs and read it whole: its version, its files."""
        with modelward.open_model(model, self.device) as opened:
            return opened.version, {path: opened.read(path) for path in opened}


class LenientWorld(World):
    """A world whose devices need no runtime: a client alone brings none."""

    def policy(self) -> str:
        """Return the trust policy, which does not demand that a model is run before it is used."""
        demanding = super().policy()
        lenient = demanding.replace("required = true", "required = false")
        assert lenient != demanding
        return lenient


def clean_environment() -> dict[str, str]:
    """Return this process's environment without settings of modelward."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MODELWARD")}


def write_files(folder: Path, content: Mapping[str, bytes]) -> None:
    """Write files into a folder."""
    for path, data in content.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)


def write_plain(repository: Path, content: Mapping[str, bytes]) -> None:
    """Offer files as many projects do, with a file of checksums beside them."""
    shutil.rmtree(repository / PLAIN, ignore_errors=True)
    lines = [
        f"{hashlib.sha256(data).hexdigest()}  {path}\n" for path, data in sorted(content.items())
    ]
    write_files(repository / PLAIN, {**content, SUMS: "".join(lines).encode()})
