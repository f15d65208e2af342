"""A logged repository with witnesses of its own: the real ones, over HTTP, in this process."""

import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from werkzeug.wrappers import Response

from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.note import SignatureType, VerifierKey
from modelward_repo.log.witness import CosigningKey, Witness
from modelward_repo.log.witness_store import SqliteStore
from modelward_repo.publish.ledger import log_vkey
from modelward_repo.roles.keys import KeyFile
from modelward_repo.server.witness import create_app
from tests.repo_tools.site import ROOT, Site, run, start
from tests.simulator.listener import Listener
from tests.simulator.log import key

ORIGIN = "models.example/log"
NAMES = ("w1", "w2", "w3")


def cosigning_key(
    name: str, kind: SignatureType = SignatureType.COSIGNATURE_ED25519
) -> CosigningKey:
    return CosigningKey(*key(f"{name}.example", kind))


class Hosts:
    """The witnesses' hosts: ``<url>/<place>/<name>`` has its memory in ``<memory>/<place>``.

    Attributes:
        down: Names of witnesses that do not answer.
        kind: What they sign with.
    """

    def __init__(self, memory: Path, logs: Callable[[], list[VerifierKey]]) -> None:
        self.memory = memory
        self.down: set[str] = set()
        self.kind = SignatureType.COSIGNATURE_ED25519
        self._logs = logs
        self._listener = Listener(self._answer)

    def url(self, name: str, place: str = "0") -> str:
        return f"{self._listener.url}/{place}/{name}"

    def _answer(self, environ: Any, start_response: Any) -> Any:
        match = re.match(r"/([0-9]+)/(w[0-9])", environ["PATH_INFO"])
        assert match, environ["PATH_INFO"]
        place, name = match[1], match[2]
        if name in self.down:
            return Response("not today", 503)(environ, start_response)
        environ["PATH_INFO"] = environ["PATH_INFO"][match.end() :]
        folder = self.memory / place
        folder.mkdir(parents=True, exist_ok=True)
        witness = Witness(
            [cosigning_key(name, self.kind)], self._logs(), SqliteStore(folder / name)
        )
        return create_app(witness)(environ, start_response)

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.stop()


@dataclass
class Logged:
    """A logged repository, everybody's keys, and the witnesses' hosts."""

    site: Site
    hosts: Hosts
    policy: Path
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def directory(self) -> Path:
        return self.site.directory

    @property
    def vkey(self) -> VerifierKey:
        return log_vkey(ORIGIN, KeyFile.of(self.site.keys, "repository", "log").public())

    def checkpoint(self) -> SignedCheckpoint:
        return SignedCheckpoint.parse((self.directory / "log/checkpoint").read_bytes())

    def size(self) -> int:
        return self.checkpoint().checkpoint.size

    def init(self) -> Any:
        return run(
            *("init", self.directory, "--policy", self.policy, "--keys", self.site.keys),
            *("--plaintext-keys", "--model", "alpha"),
        )

    def proof(self) -> Any:
        """The proof in the timestamp, or None."""
        return self.site.metadata("timestamp").signed.unrecognized_fields.get("x-tlog")

    def copy(self, to: Path) -> "Logged":
        """A copy, repository and keys, that talks to the same witnesses."""
        return Logged(self.site.copy(to), self.hosts, self.policy)


@contextmanager
def logging(
    place: Path, quorum: str = '{ threshold = 2, members = ["w1", "w2", "w3"] }'
) -> Iterator[Logged]:
    """Give a place for a logged repository that is not made yet, with its witnesses answering."""
    site = Site(place / "repo", place / "keys")
    assert run("key", "create", "repository/log", "--keys", site.keys, "--plaintext").code == 0
    logged = Logged(site, Hosts(place / "memory", lambda: [logged.vkey]), place / "policy.toml")
    with logged.hosts as hosts:
        text = (ROOT / "metadata/minimal.toml").read_text().replace('"../', f'"{ROOT}/')
        lines = [
            f'\n[log]\norigin = "{ORIGIN}"\nholder = "repository"\nquorum = {quorum}',
            "[log.witnesses]",
            *(
                f'{name} = {{ vkey = "{cosigning_key(name).vkey}", url = "{hosts.url(name)}" }}'
                for name in NAMES
            ),
        ]
        logged.policy.write_text(text + "\n".join(lines))
        yield logged


@contextmanager
def process(
    *args: object, env: dict[str, str] | None = None
) -> Iterator["tuple[subprocess.Popen[str], str]"]:
    """Run a server of the command line in processes of its own; gives it and its address."""
    started = start(*args, env=env or {})
    try:
        assert started.stdout
        line = started.stdout.readline()
        assert " on http" in line, (line, started.stderr and started.stderr.read())
        yield started, line.split()[-1]
    finally:
        started.terminate()
        started.communicate(timeout=20)
