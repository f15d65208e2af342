"""A world whose repository is logged, with witnesses that do as they are told, and a log's thief.

The publisher, the log it writes and the device are the real ones; see `tests.simulator.world`. The
keys of the log and its witnesses are those of `tests.simulator.log`, so that a thief can sign with
them whatever they like.
"""

import hashlib
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Self

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from tuf.api.metadata import Metadata, Timestamp
from werkzeug.wrappers import Request, Response

from modelward.formats.leaf import REPOSITORY_FIELD, Leaf, RoleDigest
from modelward.formats.log_policy import LogPolicy
from modelward.formats.note import SignatureType
from modelward.formats.tile import Tile
from modelward.formats.tlog_proof import MAX_TAIL
from modelward_repo.log.add_checkpoint import PATH, AddCheckpoint
from modelward_repo.publish.ledger import write_urls
from modelward_repo.publish.signing import online_signers
from modelward_repo.publish.staging import Staging
from modelward_repo.roles import metadata as tuf
from modelward_repo.roles import private
from modelward_repo.roles.keys import KeyFile, from_sslib
from tests.simulator.listener import Listener
from tests.simulator.log import Log, cosign, key
from tests.simulator.thief import Thief
from tests.simulator.world import World, no_passphrase, now

ORIGIN = "models.example/log"
SECOND = "models.example/second-log"
WITNESSES = ("w1.example", "w2.example", "w3.example")
LOG = "repository/log"  # the log's key


class Witnesses:
    """Cosigns whatever it is sent, over HTTP, while used as a context manager.

    Attributes:
        silent: Witnesses that answer with an error.
        at: The time they state; None for the right one.
    """

    def __init__(self) -> None:
        self._listener = Listener(self._answer)
        self.be_honest()

    def be_honest(self) -> None:
        """Let all of them answer, with the right time."""
        self.silent: frozenset[str] = frozenset()
        self.at: datetime | None = None

    @property
    def urls(self) -> dict[str, str]:
        """Where each of them is."""
        return {name: f"{self._listener.url}/{name}" for name in WITNESSES}

    def _answer(self, environ: Any, start_response: Any) -> Any:
        request = Request(environ)
        name = request.path.removesuffix(PATH).strip("/")
        asked = AddCheckpoint.parse(request.get_data())
        if name in self.silent:
            return Response("not today\n", 503)(environ, start_response)
        at = int((self.at or now()).timestamp())
        line = cosign(asked.signed.checkpoint, name, at)
        return Response(str(line), content_type="text/plain")(environ, start_response)

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.stop()


@dataclass
class LoggedWorld(World):
    """A world with a log. Made with `LoggedWorld(place, place, witnesses=...).populate()`.

    Attributes:
        witnesses: Its witnesses.
    """

    witnesses: Witnesses = field(default_factory=Witnesses)

    def found(self) -> None:
        """Make a logged repository without any release."""
        self.make_log_key(ORIGIN, "repository")
        super().found()

    def log_policy(self) -> str:
        """Return what the trust policy says of the log."""
        lines = [
            "[log]",
            f'origin = "{ORIGIN}"',
            'holder = "repository"',
            f"quorum = {{threshold = 2, members = {list(WITNESSES)}}}",
            "[log.witnesses]",
            *(
                f'"{name}" = {{vkey = "{witness_key(name)}", url = "{self.witnesses.urls[name]}"}}'
                for name in WITNESSES
            ),
        ]
        return "\n" + "\n".join(lines) + "\n"

    def make_log_key(self, origin: str, holder: str) -> None:
        """Give a holder the key of a log, if they have none."""
        file = KeyFile.of(self.keys, holder, "log")
        if not file.exists():
            made = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(origin.encode()).digest())
            file.path.parent.mkdir(parents=True, exist_ok=True)
            file.path.write_bytes(private.dump(made, None, 1))
            file.write_public(from_sslib(file.signer(no_passphrase).public_key))

    def log_anew(self, count: int = 1) -> None:
        """Publish new snapshots of the same content: a leaf each."""
        for _ in range(count):
            staging = Staging.of(self.storage, now())
            staging.finish(self.online())
            staging.commit()

    def name_new_log(self) -> None:
        """Hold the ceremony that is the only way on once the log was shown to lie."""
        self.make_log_key(SECOND, "second")
        shutil.rmtree(self.repository / "log", ignore_errors=True)
        write_urls(self.storage, self.witnesses.urls)
        signers = self.signers("root")
        staging = Staging.of(self.storage, now())
        root = staging.root
        root.signed.unrecognized_fields["x-log"] = Log(origin=SECOND).policy.to_dict()
        expires = root.signed.expires
        staging.put_root(tuf.sign(root, root.signed.version + 1, expires, signers))
        staging.finish(online_signers(staging, self.keys, no_passphrase))
        staging.commit()

    def log(self) -> Log:
        """Return the log as it was published, in the hands of whoever asks."""
        served = (self.repository / "log/checkpoint").read_bytes()
        size = int(served.split(b"\n")[1])
        tile = Tile(None, 0, size)
        data = (self.repository / "log" / tile.path).read_bytes()
        return Log(list(tile.entries(data)), ORIGIN)


class LogThief(Thief):
    """A thief who logs nothing, unless they say what: see `prove`."""

    def commit(self, staging: Staging) -> None:
        """Sign snapshot and timestamp and serve it all, without any log."""
        staging.finish(self.online())
        for path, data in staging._new.items():
            self.write(path, data)
        self.write("metadata/timestamp.json", staging._timestamp_file)

    def leaf(self) -> Leaf:
        """Return the leaf of what is served now."""
        root = self.stage().root.signed
        listed = self.timestamp.snapshot_meta.version
        return Leaf(
            root.unrecognized_fields[REPOSITORY_FIELD],
            RoleDigest(root.version, self._digest(f"metadata/{root.version}.root.json")),
            RoleDigest(listed, self._digest(f"metadata/{listed}.snapshot.json")),
        )

    def prove(
        self,
        log: Log,
        *,
        by: Iterable[str] | None = None,
        at: datetime | None = None,
        tail: int = MAX_TAIL,
    ) -> None:
        """Serve a timestamp with a proof for the last leaf of any log, and that log's tiles."""
        time = int((at or now()).timestamp())
        proof = log.timestamp_proof(len(log.entries) - 1, tail=tail, by=by, at=time)
        self.put_proof(proof.to_dict())
        shutil.rmtree(self.world.repository / "log/tile", ignore_errors=True)
        tile = Tile.of(0, 0, len(log.entries))
        self.write(f"log/{tile.path}", log.tiles([tile])[tile])

    def put_proof(self, value: Any) -> None:
        """Serve the timestamp with this beside it, or with nothing."""
        self.sign_again(lambda timestamp: timestamp.unrecognized_fields.update({"x-tlog": value}))

    def sign_again(
        self, change: Callable[[Timestamp], Any], expires: datetime | None = None
    ) -> None:
        """Serve a changed timestamp under the next version."""
        path = "metadata/timestamp.json"
        metadata: Metadata[Timestamp] = Metadata.from_bytes(self.read(path))
        change(metadata.signed)
        signed = metadata.signed
        data = tuf.sign(
            metadata, signed.version + 1, expires or signed.expires, self.signers("timestamp")
        )
        self.write(path, data)

    def _digest(self, path: str) -> str:
        return hashlib.sha256(self.read(path)).hexdigest()


def witness_key(name: str) -> str:
    """Return a witness's key."""
    return str(key(name, SignatureType.COSIGNATURE_ED25519)[0])


def policy_without(log: Log, *names: str) -> LogPolicy:
    """Return a log's policy without some of its witnesses."""
    kept = tuple(name for name in log.witnesses if name not in names)
    return Log(origin=log.origin, witnesses=kept, threshold=1).policy
