"""The conformance client, as suites drive it: the real executable, real HTTP, a repository to hand.

Each case of `refresh_case` is a generator: what is published before its `yield` is what the client
trusts already, what is published after it is put before the client next.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Event
from time import sleep
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import Metadata

from tests.simulator.tuf_repository import (
    TOP_LEVEL,
    Server,
    TufRepository,
    break_off,
    hang_up,
    in_days,
    refuse,
    running,
    stall,
)

EXECUTABLE = Path(__file__).parent / "tuf-client"
# The interpreter of these tests first, so that the client need not look for one each time.
PATH = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
FAKETIME = shutil.which("faketime")

needs_faketime = pytest.mark.skipif(FAKETIME is None, reason="faketime is not installed")


Run = Callable[[Sequence[str]], tuple[int, str]]  # arguments -> exit status, standard error


def execute(
    arguments: Sequence[str], path: str = PATH, at: datetime | None = None
) -> tuple[int, str]:
    """Run the executable, as a suite does."""
    clock = [str(FAKETIME), at.strftime("%Y-%m-%d %H:%M:%S")] if at else []
    done = subprocess.run(
        [*clock, str(EXECUTABLE), *arguments],
        env={"PATH": path, "TZ": "UTC"},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    return done.returncode, done.stderr


class Client:
    """One client: its two directories and the command line."""

    def __init__(
        self, folder: Path, server: Server, repository: TufRepository, run: Run = execute
    ) -> None:
        self.metadata = folder / "metadata"
        self.targets = folder / "targets"
        self.repository = repository
        self.url = server.mount(repository)
        self.execute = run
        self.errors = ""
        self.root = folder / "provisioned.json"
        self.metadata.mkdir(parents=True)
        self.targets.mkdir()
        self.root.write_bytes(repository.files["metadata/1.root.json"])

    def run(self, *arguments: str | Path, **how: Any) -> int:
        status, self.errors = self.execute([str(argument) for argument in arguments], **how)
        assert "Traceback" not in self.errors, self.errors
        return status

    def init(self, **how: Any) -> int:
        return self.run("--metadata-dir", self.metadata, "init", self.root, **how)

    def refresh(self, **how: Any) -> int:
        return self.run(
            *("--metadata-url", f"{self.url}/metadata/"),
            *("--metadata-dir", self.metadata),
            "refresh",
            **how,
        )

    def download(self, *names: str, **how: Any) -> int:
        return self.run(*self.download_arguments(*names), **how)

    def download_arguments(self, *names: str) -> list[str]:
        return [
            *("--metadata-url", f"{self.url}/metadata/"),
            *("--metadata-dir", str(self.metadata)),
            *(part for name in names for part in ("--target-name", name)),
            *("--target-dir", str(self.targets)),
            *("--target-base-url", f"{self.url}/targets/"),
            "download",
        ]

    def trusted(self) -> str:
        """Return the versions of root, timestamp, snapshot and targets; `-` for none."""
        files = [self.metadata / f"{role}.json" for role in TOP_LEVEL]
        return " ".join(
            str(Metadata.from_file(str(file)).signed.version) if file.exists() else "-"
            for file in files
        )

    def documents(self) -> list[str]:
        """Return the names of the metadata files."""
        return sorted(file.name for file in self.metadata.glob("*.json"))

    def downloads(self) -> list[bytes]:
        """Return the content of everything in the directory of targets, oldest first."""
        files = [path for path in self.targets.rglob("*") if path.is_file()]
        return [file.read_bytes() for file in sorted(files, key=lambda file: file.stat().st_mtime)]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@pytest.fixture
def repository() -> TufRepository:
    return TufRepository()


@pytest.fixture(scope="module")
def warm() -> Iterator[Run]:
    """Run the executable's code in forks of one process that has imported everything already.

    A tenth of the cost of `execute`; what is decisive is run by that in every table of cases.
    """
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("warm.py"), EXECUTABLE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PATH": PATH},
        text=True,
        bufsize=1,
    ) as process:

        def run(arguments: Sequence[str]) -> tuple[int, str]:
            process.stdin.write(json.dumps(arguments) + "\n")
            status, errors = json.loads(process.stdout.readline())
            return status, errors

        yield run
        process.stdin.close()


@pytest.fixture
def client(tmp_path: Path, server: Server, repository: TufRepository) -> Client:
    """A client that was given the first root and has asked for nothing yet."""
    client = Client(tmp_path, server, repository)
    assert client.init() == 0, client.errors
    return client


@pytest.fixture
def warm_client(tmp_path: Path, server: Server, repository: TufRepository, warm: Run) -> Client:
    """The same, but quick to run."""
    client = Client(tmp_path, server, repository, warm)
    assert client.init() == 0, client.errors
    return client


# --- The provisioned root -------------------------------------------------------------------------


def test_init_asks_for_nothing_and_keeps_the_root_as_it_is(client, repository):
    assert client.documents() == ["root.json"]
    root = (client.metadata / "root.json").read_bytes()
    assert root == repository.files["metadata/1.root.json"]
    assert repository.requests == []


def _without_version(root: dict) -> None:
    del root["signed"]["version"]


def _without_signature(root: dict) -> None:
    root["signatures"] = []


def _with_wrong_signature(root: dict) -> None:
    root["signatures"][0]["sig"] = "00" * 64


def _with_higher_threshold(root: dict) -> None:
    root["signed"]["roles"]["root"]["threshold"] = 2


def _of_another_role(root: dict) -> None:
    root["signed"]["_type"] = "targets"


@pytest.mark.parametrize(
    "spoil",
    [
        _without_version,
        _without_signature,
        _with_wrong_signature,
        _with_higher_threshold,
        _of_another_role,
    ],
)
def test_an_invalid_root_is_never_used(tmp_path, server, repository, spoil):
    client = Client(tmp_path, server, repository)
    root = json.loads(repository.files["metadata/1.root.json"])
    spoil(root)
    client.root.write_text(json.dumps(root))
    client.init()
    assert client.refresh() == 1
    assert repository.requests == []


def test_a_spoilt_provisioned_root_is_never_used(client, repository):
    (client.metadata / "provisioned-root").write_bytes(b"{}")
    assert client.refresh() == 1
    assert repository.requests == []


def test_refresh_before_init_fails_without_a_request(tmp_path, server, repository):
    assert Client(tmp_path, server, repository).refresh() == 1
    assert repository.requests == []


def test_init_again_keeps_what_is_trusted(client, repository):
    repository.publish("root", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    assert client.init() == 0
    assert client.trusted() == "2 2 2 2"


@pytest.mark.parametrize("lost", ["root.json", "root_history"])
def test_a_root_lost_to_a_power_cut_is_found_again(client, repository, lost):
    repository.publish("root")
    assert client.refresh() == 0
    path = client.metadata / lost
    path.unlink() if lost == "root.json" else shutil.rmtree(path)
    assert client.refresh() == 0
    assert client.trusted() == "2 1 1 1"


# --- The command line -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "refresh",
        "--metadata-dir {0} ",
        "--metadata-dir {0} refresh",
        "--metadata-dir {0} upgrade",
        "--metadata-dir {0} init",
        "--metadata-dir {0} init {0}/no-such-file",
        "--metadata-dir {0} --metadata-u http://127.0.0.1:9/ refresh",
        "--metadata-dir {0} --metadata-url not-an-address refresh",
        "--metadata-dir {0} --metadata-url http://127.0.0.1:9/ refresh",
        "--metadata-dir {0} --metadata-url http://127.0.0.1:9/ download",
        "--metadata-dir {0}/none --metadata-url http://127.0.0.1:9/ refresh",
        "refresh --metadata-dir {0} --metadata-url http://127.0.0.1:9/",
    ],
)
def test_whatever_goes_wrong_the_exit_status_is_1(tmp_path, server, repository, arguments):
    client = Client(tmp_path, server, repository)
    assert client.run(*arguments.format(client.metadata).split()) == 1
    assert client.errors


def test_it_finds_the_project_when_no_environment_is_active(tmp_path, server, repository):
    client = Client(tmp_path, server, repository)
    assert client.init(path="/usr/bin:/bin") == 0, client.errors


def test_nothing_is_imported_that_verifies_supply_chains():
    listed = subprocess.run(
        [sys.executable, "-X", "importtime", EXECUTABLE, "--help"],
        env={"PATH": PATH},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "tuf.ngclient" in listed.stderr
    assert "in_toto" not in listed.stderr


# --- Refresh --------------------------------------------------------------------------------------

Publish = Callable[[TufRepository], Iterator[None]]


@dataclass(frozen=True)
class Case:
    publish: Publish
    done: bool
    trusted: str
    asked: str | None
    consistent: bool


CASES: list[Case] = []


def refresh_case(
    *, done: bool, trusted: str, asked: str | None = None, consistent: bool = True
) -> Callable[[Publish], Publish]:
    """Register a case of `test_refresh`.

    Args:
        done: Whether the second refresh succeeds.
        trusted: Versions of root, timestamp, snapshot and targets that are trusted then.
        asked: The metadata that the second refresh asks for, exactly; None if it does not matter.
        consistent: Whether the repository makes consistent snapshots.
    """

    def register(publish: Publish) -> Publish:
        CASES.append(Case(publish, done, trusted, asked, consistent))
        return publish

    return register


accepted = {"done": True}
refused = {"done": False}


@refresh_case(**accepted, trusted="1 1 1 1", asked="2.root timestamp")
def nothing_new(repository):
    yield


@refresh_case(**accepted, trusted="1 2 2 2", asked="2.root timestamp 2.snapshot 2.targets")
def all_new(repository):
    yield
    repository.publish("targets", "snapshot", "timestamp")


@refresh_case(**accepted, trusted="1 2 2 1", asked="2.root timestamp 2.snapshot")
def targets_stay(repository):
    yield
    repository.publish("snapshot", "timestamp")


@refresh_case(**accepted, trusted="1 2 1 1", asked="2.root timestamp")
def only_the_timestamp_is_new(repository):
    yield
    repository.publish("timestamp")


@refresh_case(**accepted, trusted="1 1 1 1", asked="2.root timestamp")
def a_snapshot_that_no_timestamp_lists(repository):
    yield
    repository.publish("targets", "snapshot")


@refresh_case(**accepted, trusted="1 2 2 2", asked="2.root timestamp snapshot targets",
              consistent=False)  # fmt: skip
def all_new_without_consistent_snapshots(repository):
    yield
    repository.publish("targets", "snapshot", "timestamp")


@refresh_case(**accepted, trusted="2 2 2 2", asked="2.root 3.root timestamp 2.snapshot 2.targets",
              consistent=False)  # fmt: skip
def consistent_snapshots_begin(repository):
    yield
    repository.root.consistent_snapshot = True
    repository.publish("root", "targets", "snapshot", "timestamp")


# Root


@refresh_case(**accepted, trusted="4 1 1 1", asked="2.root 3.root 4.root 5.root timestamp")
def three_new_roots(repository):
    yield
    repository.publish("root", "root", "root")


@refresh_case(**accepted, trusted="3 1 1 1", asked="3.root 4.root timestamp")
def roots_that_are_known_are_not_asked_for_again(repository):
    repository.publish("root")
    yield
    repository.publish("root")


@refresh_case(**refused, trusted="1 1 1 1", asked="2.root")
def a_root_that_skips_a_version(repository):
    yield
    repository.publish("root", "root")
    repository.files["metadata/2.root.json"] = repository.served("root")


@refresh_case(**refused, trusted="1 1 1 1", asked="2.root")
def a_root_that_repeats_its_version(repository):
    yield
    repository.files["metadata/2.root.json"] = repository.files["metadata/1.root.json"]


@refresh_case(**refused, trusted="2 1 1 1", asked="2.root 3.root")
def a_good_root_then_a_bad_one(repository):
    yield
    repository.publish("root")
    repository.signers["root"] = [CryptoSigner.generate_ed25519()]
    repository.publish("root")


@refresh_case(**accepted, trusted="3 1 1 1", asked="2.root 3.root 4.root timestamp")
def an_expired_root_on_the_way(repository):
    yield
    expires = repository.root.expires
    repository.root.expires = in_days(-1)
    repository.publish("root")
    repository.root.expires = expires
    repository.publish("root")


@refresh_case(**accepted, trusted="2 1 1 1")
def fields_that_nobody_knows(repository):
    yield
    repository.root.unrecognized_fields["motto"] = "hold fast"
    repository.root.roles["root"].unrecognized_fields["motto"] = {"a": [1, None]}
    signer = CryptoSigner.generate_ed25519()
    signer.public_key.unrecognized_fields["keyid_hash_algorithms"] = ["md5"]
    repository.add_key("timestamp", signer)
    repository.publish("root")


@refresh_case(**accepted, trusted="1 1 1 1", asked="2.root timestamp")
def a_server_that_forbids_what_it_does_not_have(repository):
    yield
    repository.answers["metadata/2.root.json"] = refuse(403)


@refresh_case(**refused, trusted="1 1 1 1", asked="2.root")
def a_server_that_fails_is_asked_once(repository):
    yield
    repository.answers["metadata/2.root.json"] = refuse(503)


@refresh_case(**refused, trusted="1 1 1 1", asked="2.root timestamp")
def a_server_that_hangs_up_is_asked_once(repository):
    yield
    repository.answers["metadata/timestamp.json"] = hang_up


@refresh_case(**refused, trusted="1 1 1 1", asked="2.root timestamp")
def a_server_that_points_elsewhere_is_not_followed(repository):
    yield
    repository.answers["metadata/timestamp.json"] = refuse(302, Location="1.root.json")


# Signatures


@refresh_case(**refused, trusted="1 1 1 1", asked="2.root")
def root_signed_by_nobody(repository):
    yield
    repository.signers["root"].clear()
    repository.publish("targets", "snapshot", "timestamp", "root")


@refresh_case(**refused, trusted="1 1 1 1", asked="2.root timestamp")
def timestamp_signed_by_nobody(repository):
    yield
    repository.signers["timestamp"].clear()
    repository.publish("targets", "snapshot", "timestamp")


@refresh_case(**refused, trusted="1 2 1 1", asked="2.root timestamp 2.snapshot")
def snapshot_signed_by_nobody(repository):
    yield
    repository.signers["snapshot"].clear()
    repository.publish("targets", "snapshot", "timestamp")


@refresh_case(**refused, trusted="1 2 2 1", asked="2.root timestamp 2.snapshot 2.targets")
def targets_signed_by_nobody(repository):
    yield
    repository.signers["targets"].clear()
    repository.publish("targets", "snapshot", "timestamp")


@refresh_case(**refused, trusted="1 2 1 1")
def a_signature_twice(repository):
    yield
    repository.publish("snapshot", "timestamp")
    repository.edit_served("snapshot", lambda it: it["signatures"].append(it["signatures"][0]))


@refresh_case(**refused, trusted="1 1 1 1", asked="2.root")
def a_key_id_twice_in_a_role(repository):
    yield
    repository.root.roles["snapshot"].keyids *= 2
    repository.root.roles["snapshot"].threshold = 2
    repository.publish("root", "snapshot", "timestamp")


@refresh_case(**refused, trusted="2 2 1 1")
def more_signatures_needed_than_there_are_keys(repository):
    yield
    repository.add_key("snapshot")
    repository.root.roles["snapshot"].threshold = 3
    repository.publish("root", "snapshot", "timestamp")


@refresh_case(**accepted, trusted="2 2 1 1")
def a_wrong_signature_beside_enough_right_ones(repository):
    yield
    repository.add_key("timestamp")
    repository.publish("root", "timestamp")
    repository.edit_served("timestamp", lambda it: it["signatures"][0].update(sig="ab" * 64))


@refresh_case(**accepted, trusted="2 2 1 1")
def an_empty_signature_beside_enough_right_ones(repository):
    yield
    repository.add_key("timestamp")
    repository.publish("root", "timestamp")
    repository.edit_served("timestamp", lambda it: it["signatures"][0].update(sig=""))


@refresh_case(**refused, trusted="1 1 1 1", asked="2.root timestamp")
def content_changed_after_signing(repository):
    yield
    repository.publish("snapshot", "timestamp")
    repository.edit_served("timestamp", lambda it: it["signed"].update(version=7))


@refresh_case(**refused, trusted="2 1 1 1", asked="2.root 3.root timestamp")
def a_snapshot_in_the_place_of_a_timestamp(repository):
    yield
    repository.add_key("snapshot", repository.signers["timestamp"][0])
    repository.snapshot.meta = {"snapshot.json": repository.timestamp.snapshot_meta}
    repository.publish("root", "snapshot")
    repository.files["metadata/timestamp.json"] = repository.served("snapshot")


# Keys


@refresh_case(**accepted, trusted="2 2 2 2")
def every_key_is_replaced(repository):
    yield
    old = repository.signers["root"][0]
    for role in TOP_LEVEL:
        repository.rotate(role)
    repository.signers["root"].append(old)
    repository.publish("root", "targets", "snapshot", "timestamp")


@refresh_case(**refused, trusted="2 1 1 1", asked="2.root 3.root timestamp")
def timestamp_still_signed_by_the_old_key(repository):
    yield
    old = repository.signers["timestamp"]
    repository.rotate("timestamp")
    repository.signers["timestamp"] = old
    repository.publish("root", "timestamp")


@refresh_case(**refused, trusted="2 2 1 1", asked="2.root 3.root timestamp 2.snapshot")
def snapshot_still_signed_by_the_old_key(repository):
    yield
    old = repository.signers["snapshot"]
    repository.rotate("snapshot")
    repository.signers["snapshot"] = old
    repository.publish("root", "snapshot", "timestamp")


@refresh_case(**refused, trusted="2 1 1 1", asked="2.root 3.root timestamp 1.snapshot 1.targets")
def targets_key_withdrawn_and_nothing_signed_anew(repository):
    yield
    repository.rotate("targets")
    repository.rotate("snapshot")
    repository.publish("root")
    repository.publish_as_is("snapshot")


# Rollback and mix-and-match


@refresh_case(**refused, trusted="1 2 1 1", asked="2.root timestamp")
def an_old_timestamp(repository):
    old = repository.served("timestamp")
    repository.publish("timestamp")
    yield
    repository.files["metadata/timestamp.json"] = old


def _old_snapshot(repository):
    repository.publish("snapshot", "timestamp")
    yield
    repository.snapshot.version = 1
    repository.publish_as_is("snapshot")
    repository.publish("timestamp")


@refresh_case(**refused, trusted="1 2 2 1", asked="2.root timestamp")
def an_old_snapshot_listed_by_a_new_timestamp(repository):
    yield from _old_snapshot(repository)


@refresh_case(**refused, trusted="1 2 2 1", asked="2.root timestamp")
def an_old_snapshot_with_digests(repository):
    repository.lists_digests = True
    yield from _old_snapshot(repository)


@refresh_case(**accepted, trusted="1 2 2 1", asked="2.root timestamp")
def an_old_snapshot_served_under_the_new_name(repository):
    old = repository.served("snapshot")
    repository.publish("snapshot", "timestamp")
    yield
    repository.files["metadata/2.snapshot.json"] = old


def _old_targets(repository):
    repository.publish("targets", "snapshot", "timestamp")
    yield
    repository.targets().version = 1
    repository.publish_as_is("targets")
    repository.publish("snapshot", "timestamp")


@refresh_case(**refused, trusted="1 3 2 2", asked="2.root timestamp 3.snapshot")
def old_targets_listed_by_a_new_snapshot(repository):
    yield from _old_targets(repository)


@refresh_case(**refused, trusted="1 3 2 2", asked="2.root timestamp 3.snapshot")
def old_targets_with_digests(repository):
    repository.lists_digests = True
    yield from _old_targets(repository)


@refresh_case(**refused, trusted="1 2 1 1", asked="2.root timestamp 2.snapshot")
def targets_no_longer_listed(repository):
    yield
    del repository.snapshot.meta["targets.json"]
    repository.publish("snapshot", "timestamp")


@refresh_case(**refused, trusted="1 3 2 2", asked="2.root timestamp 3.snapshot")
def a_delegated_role_no_longer_listed(repository):
    repository.delegate("models")
    repository.publish("models", "targets", "snapshot", "timestamp")
    yield
    del repository.snapshot.meta["models.json"]
    repository.publish("snapshot", "timestamp")


@refresh_case(**refused, trusted="1 2 2 1", asked="2.root timestamp 2.snapshot 2.targets")
def old_targets_in_a_new_snapshot(repository):
    yield
    old = repository.served("targets")
    repository.publish("targets", "snapshot", "timestamp")
    repository.files["metadata/2.targets.json"] = old


@refresh_case(**refused, trusted="1 2 1 1", asked="2.root timestamp 2.snapshot")
def a_snapshot_newer_than_listed(repository):
    yield
    repository.publish("snapshot", "timestamp")
    repository.lists = False
    repository.publish("snapshot")
    repository.files["metadata/2.snapshot.json"] = repository.served("snapshot")


@refresh_case(**accepted, trusted="1 1 1 1", asked="2.root timestamp")
def another_timestamp_of_the_same_version(repository):
    yield
    repository.timestamp.snapshot_meta.version = 100
    repository.publish_as_is("timestamp")


# Recovery from a fast-forward attack: whoever had the keys published the highest versions.


@refresh_case(**accepted, trusted="2 1 1 1")
def timestamp_comes_back_under_a_new_key(repository):
    repository.timestamp.version = 99999
    repository.publish_as_is("timestamp")
    yield
    repository.rotate("timestamp")
    repository.timestamp.version = 1
    repository.publish_as_is("timestamp")
    repository.publish("root")


@refresh_case(**accepted, trusted="2 1 1 1")
def snapshot_comes_back_under_new_keys(repository):
    repository.snapshot.version = 99999
    repository.publish_as_is("snapshot")
    repository.publish_as_is("timestamp")
    yield
    repository.rotate("snapshot")
    repository.rotate("timestamp")
    repository.snapshot.version = 1
    repository.publish_as_is("snapshot")
    repository.publish_as_is("timestamp")
    repository.publish("root")


@refresh_case(**accepted, trusted="2 2 2 1")
def targets_come_back_under_a_new_snapshot_key(repository):
    repository.targets().version = 99999
    for role in ("targets", "snapshot", "timestamp"):
        repository.publish_as_is(role)
    yield
    repository.rotate("snapshot")
    repository.targets().version = 1
    repository.publish_as_is("targets")
    repository.publish("root", "snapshot", "timestamp")


# Expiry


@refresh_case(**refused, trusted="2 1 1 1", asked="2.root 3.root")
def root_expired(repository):
    yield
    repository.root.expires = in_days(-1)
    repository.publish("targets", "snapshot", "timestamp", "root")


@refresh_case(**refused, trusted="1 1 1 1", asked="2.root timestamp")
def timestamp_expired(repository):
    yield
    repository.timestamp.expires = in_days(-1)
    repository.publish("targets", "snapshot", "timestamp")


@refresh_case(**refused, trusted="1 2 1 1", asked="2.root timestamp 2.snapshot")
def snapshot_expired(repository):
    yield
    repository.snapshot.expires = in_days(-1)
    repository.publish("targets", "snapshot", "timestamp")


@refresh_case(**refused, trusted="1 2 2 1", asked="2.root timestamp 2.snapshot 2.targets")
def targets_expired(repository):
    yield
    repository.targets().expires = in_days(-1)
    repository.publish("targets", "snapshot", "timestamp")


# Lengths, digests, and files that are not there


@refresh_case(**accepted, trusted="1 2 2 2")
def digests_are_listed(repository):
    yield
    repository.lists_digests = True
    repository.publish("targets", "snapshot", "timestamp")


@refresh_case(**refused, trusted="1 2 1 1", asked="2.root timestamp 2.snapshot")
def another_digest_of_the_snapshot_is_listed(repository):
    yield
    repository.lists_digests = True
    repository.publish("targets", "snapshot")
    repository.timestamp.snapshot_meta.hashes["sha256"] = "0" * 64
    repository.publish("timestamp")


@refresh_case(**refused, trusted="1 2 2 1", asked="2.root timestamp 2.snapshot 2.targets")
def another_digest_of_targets_is_listed(repository):
    yield
    repository.lists_digests = True
    repository.publish("targets")
    repository.snapshot.meta["targets.json"].hashes["sha256"] = "0" * 64
    repository.publish("snapshot", "timestamp")


@refresh_case(**refused, trusted="1 2 2 1", asked="2.root timestamp 2.snapshot 2.targets")
def targets_longer_than_listed(repository):
    yield
    repository.publish("targets")
    repository.snapshot.meta["targets.json"].length = 10
    repository.publish("snapshot", "timestamp")


@refresh_case(**refused, trusted="1 1 1 1", asked="2.root")
def a_root_without_end(repository):
    yield
    repository.publish("root")
    repository.files["metadata/2.root.json"] += b" " * 600_000


@refresh_case(**refused, trusted="1 1 1 1", asked="2.root timestamp")
def a_timestamp_without_end(repository):
    yield
    repository.publish("timestamp")
    repository.files["metadata/timestamp.json"] += b" " * 20_000


@refresh_case(**refused, trusted="1 1 1 1", asked="2.root timestamp")
def a_timestamp_cut_short(repository):
    yield
    repository.publish("timestamp")
    repository.answers["metadata/timestamp.json"] = break_off(repository.served("timestamp"), 100)


@refresh_case(**refused, trusted="1 1 1 1", asked="2.root timestamp")
def a_timestamp_that_is_no_json(repository):
    yield
    repository.files["metadata/timestamp.json"] = b"<html>log in to this network</html>"


@refresh_case(**refused, trusted="1 1 1 1", asked="2.root timestamp")
def a_timestamp_of_nothing_but_brackets(repository):
    yield
    repository.files["metadata/timestamp.json"] = b"[" * 16_000


@refresh_case(**refused, trusted="1 1 1 1", asked="2.root timestamp")
def no_timestamp(repository):
    yield
    del repository.files["metadata/timestamp.json"]


@refresh_case(**refused, trusted="1 2 1 1", asked="2.root timestamp 2.snapshot")
def no_snapshot(repository):
    yield
    repository.publish("snapshot", "timestamp")
    del repository.files["metadata/2.snapshot.json"]


@refresh_case(**refused, trusted="1 2 2 1", asked="2.root timestamp 2.snapshot 2.targets")
def no_targets(repository):
    yield
    repository.publish("targets", "snapshot", "timestamp")
    del repository.files["metadata/2.targets.json"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.publish.__name__)
def test_refresh(tmp_path, server, warm, case):
    repository = TufRepository(consistent=case.consistent)
    client = Client(tmp_path, server, repository, warm)
    assert client.init() == 0, client.errors
    steps = case.publish(repository)
    next(steps)
    assert client.refresh() == 0, client.errors
    repository.asked()
    first = set(repository.files.values())
    assert next(steps, "end") == "end"
    client.execute = execute

    assert client.refresh() == (0 if case.done else 1), client.errors
    if case.asked is not None:
        assert repository.asked() == case.asked.split()
    assert client.trusted() == case.trusted
    assert set(client.documents()) <= {f"{role}.json" for role in TOP_LEVEL}
    # Byte for byte: what is trusted was served exactly so, whether or not it is the newest.
    for name in client.documents():
        assert (client.metadata / name).read_bytes() in first | set(repository.files.values())


def test_bytes_are_kept_as_they_came(client, repository):
    for role in ("timestamp", "snapshot", "targets"):
        repository.edit_served(role, lambda it: it.update(unsigned="left in place"))
    assert client.refresh() == 0
    for role in TOP_LEVEL:
        assert (client.metadata / f"{role}.json").read_bytes() == repository.served(role)
    assert client.documents() == ["root.json", "snapshot.json", "targets.json", "timestamp.json"]


# Keys and thresholds: the keys of each root, how many must sign, and who signed


@dataclass(frozen=True)
class Signed:
    keys: str
    threshold: int
    by: str


ROOTS = {
    "the only key is replaced": (
        [Signed("a", 1, "a"), Signed("b", 1, "ab"), Signed("b", 1, "b")],
        3,
    ),
    "strangers sign too": (
        [Signed("a", 1, "xay"), Signed("b", 1, "xbay"), Signed("b", 1, "xby")],
        3,
    ),
    "others of five sign each time": (
        [Signed("abcde", 3, "ace"), Signed("abcde", 3, "bcd"), Signed("abcde", 3, "abe")],
        3,
    ),
    "one of five is replaced": ([Signed("abcde", 3, "ace"), Signed("abdef", 3, "aeb")], 2),
    "one of five is replaced by enough of each": (
        [Signed("abcde", 3, "ace"), Signed("abdef", 3, "acef"), Signed("abdef", 3, "aef")],
        3,
    ),
    "all of five are replaced": (
        [Signed("abcde", 3, "ace"), Signed("fghij", 3, "acefgh"), Signed("fghij", 3, "hij")],
        3,
    ),
    "more must sign": ([Signed("abc", 1, "a"), Signed("abc", 2, "ab")], 2),
    "fewer must sign": ([Signed("abc", 2, "ab"), Signed("abc", 1, "ab"), Signed("abc", 1, "c")], 3),
    "not signed by the old key": ([Signed("a", 1, "a"), Signed("b", 1, "bcd")], 1),
    "not signed by the new key": ([Signed("a", 1, "a"), Signed("b", 1, "acd")], 1),
    "too few of the new keys": ([Signed("abcde", 3, "ace"), Signed("abdef", 3, "ace")], 1),
    "too few of the old keys": ([Signed("abcde", 3, "ace"), Signed("abdef", 3, "aef")], 1),
    "the new threshold is missed": ([Signed("abc", 1, "a"), Signed("abc", 2, "b")], 1),
    "the old threshold is missed": ([Signed("abc", 2, "ab"), Signed("abc", 1, "a")], 1),
    "the second step goes wrong": (
        [Signed("a", 1, "a"), Signed("b", 1, "ab"), Signed("c", 1, "ac")],
        2,
    ),
}


@pytest.fixture(scope="module")
def signers() -> dict[str, CryptoSigner]:
    return {name: CryptoSigner.generate_ed25519() for name in "abcdefghijxy"}


@pytest.mark.parametrize("name", ROOTS)
def test_root_rotation(tmp_path, server, warm, signers, name):
    versions, reached = ROOTS[name]
    repository = TufRepository()
    repository.root.version = 0
    for version in versions:
        keys, by = ([signers[key] for key in keys] for keys in (version.keys, version.by))
        repository.set_keys("root", keys, by, version.threshold)
        repository.publish("root")
    client = Client(tmp_path, server, repository, warm)
    assert client.init() == 0, client.errors
    assert client.refresh() == (0 if reached == len(versions) else 1), client.errors
    root = (client.metadata / "root.json").read_bytes()
    assert root == repository.files[f"metadata/{reached}.root.json"]


@pytest.mark.parametrize(
    ("signed", "done"),
    [
        (Signed("b", 1, "b"), True),
        (Signed("a", 1, "xay"), True),
        (Signed("abcde", 3, "bde"), True),
        (Signed("b", 1, "axy"), False),
        (Signed("abdef", 3, "ace"), False),
        (Signed("abdef", 3, "ae"), False),
    ],
    ids=lambda it: f"{it.threshold} of {it.keys} by {it.by}" if isinstance(it, Signed) else "",
)
def test_thresholds_of_other_roles(warm_client, repository, signers, signed, done):
    keys, by = ([signers[key] for key in keys] for keys in (signed.keys, signed.by))
    for role in ("timestamp", "snapshot", "targets"):
        held = repository.signers[role]
        repository.set_keys(role, keys, by, signed.threshold)
        repository.publish("root", "targets", "snapshot", "timestamp")
        assert warm_client.refresh() == (0 if done else 1), warm_client.errors
        document = warm_client.metadata / f"{role}.json"
        trusted = document.read_bytes() if document.exists() else None
        assert trusted == (repository.served(role) if done else None)
        if not done:
            repository.set_keys(role, held, held, 1)


@pytest.mark.parametrize(
    "generate",
    [
        CryptoSigner.generate_ed25519,
        CryptoSigner.generate_ecdsa,
        CryptoSigner.generate_rsa,
        lambda: CryptoSigner.generate_rsa(scheme="rsa-pkcs1v15-sha256"),
    ],
    ids=["ed25519", "ecdsa", "rsa-pss", "rsa-pkcs1v15"],
)
def test_kinds_of_keys(warm_client, repository, generate):
    signer = repository.add_key("root", generate())
    repository.root.roles["root"].threshold = 2
    repository.publish("root")
    assert warm_client.refresh() == 0, warm_client.errors
    right = next(
        entry["sig"]
        for entry in json.loads(repository.served("root"))["signatures"]
        if entry["keyid"] == signer.public_key.keyid
    )

    repository.publish("root")

    def forge(root: dict) -> None:
        for entry in root["signatures"]:
            if entry["keyid"] == signer.public_key.keyid:
                entry["sig"] = right

    repository.edit_served("root", forge)
    assert warm_client.refresh() == 1
    assert warm_client.trusted() == "2 1 1 1"


# --- The clock ------------------------------------------------------------------------------------


@needs_faketime
def test_a_clock_set_forward_sees_metadata_expire(client):
    assert client.refresh() == 0
    assert client.refresh(at=in_days(29)) == 0, client.errors
    assert client.refresh(at=in_days(31)) == 1
    assert client.refresh(at=in_days(3650)) == 1


@needs_faketime
@pytest.mark.parametrize("year", [1990, 2015, 2060])
def test_a_clock_set_to_another_year_works(tmp_path, server, year):
    repository = TufRepository(expires=datetime(2099, 1, 1, tzinfo=UTC))
    repository.add_target("model.bin", b"weights")
    repository.publish("targets", "snapshot", "timestamp")
    client = Client(tmp_path, server, repository)
    assert client.init() == 0
    assert client.refresh(at=datetime(year, 1, 1, tzinfo=UTC)) == 0, client.errors
    assert client.download("model.bin", at=datetime(year, 1, 2, tzinfo=UTC)) == 0, client.errors
    assert client.downloads() == [b"weights"]


@needs_faketime
def test_expired_metadata_leads_to_what_replaces_it(client, repository):
    repository.timestamp.expires = repository.snapshot.expires = in_days(7)
    repository.publish("snapshot", "timestamp")
    assert client.refresh() == 0
    repository.timestamp.expires = repository.snapshot.expires = in_days(21)
    repository.publish("targets", "snapshot", "timestamp")
    assert client.refresh(at=in_days(18)) == 0, client.errors
    assert client.trusted() == "1 3 3 2"


@needs_faketime
def test_a_delegated_role_that_has_expired_is_used_no_more(client, repository):
    repository.delegate("models", expires=in_days(7))
    repository.add_target("first", b"1", "models")
    repository.add_target("second", b"2", "models")
    repository.publish("models", "targets", "snapshot", "timestamp")
    assert client.download("first") == 0
    assert client.download("second", at=in_days(18)) == 1
    repository.targets("models").expires = in_days(21)
    repository.publish("models", "snapshot", "timestamp")
    assert client.download("second", at=in_days(18)) == 0, client.errors
    assert client.downloads() == [b"1", b"2"]


def test_a_delegated_role_that_came_expired_is_never_trusted(client, repository):
    repository.delegate("models", expires=in_days(-1))
    repository.add_target("first", b"1", "models")
    repository.publish("models", "targets", "snapshot", "timestamp")
    assert client.refresh() == 0
    assert client.download("first") == 1
    assert client.downloads() == []
    assert client.documents() == ["root.json", "snapshot.json", "targets.json", "timestamp.json"]


# --- Delegations ----------------------------------------------------------------------------------

# Each graph: who delegates to whom; `!` where the search ends, `(...)` for paths other than all.
GRAPHS = {
    "one role": ("targets>A", "A"),
    "two roles in order": ("targets>A targets>B", "A B"),
    "in order of delegation, not of name": ("targets>B targets>A", "B A"),
    "a role below the second": ("targets>A targets>B B>C", "A B C"),
    "depth first": ("targets>A targets>B A>C A>D", "A C D B"),
    "depth first, three levels": ("targets>A targets>B A>C C>D", "A C D B"),
    "ends at the first": ("targets>A! targets>B", "A"),
    "ends below, siblings are left out": ("targets>A targets>B A>C! A>D", "A C"),
    "ends below, its own are asked": ("targets>A targets>B A>C! C>D", "A C D"),
    "other paths are left out": ("targets>A(*.py) targets>B A>C", "B"),
    "other paths are left out below": ("targets>A targets>B A>C(*.py) C>D", "A B"),
    "an ending that is not for this path": ("targets>A(*.py)! targets>B", "B"),
    "round in a circle": ("targets>A targets>B B>C C>D D>B", "A B C D"),
    "two ways to one role": ("targets>A targets>B B>C A>C", "A C B"),
    "two ways, one of them for others": ("targets>A targets>B B>C A>C(*.py)", "A B C"),
}


@pytest.mark.parametrize("name", GRAPHS)
def test_order_of_the_search(warm_client, repository, name):
    graph, order = GRAPHS[name]
    for edge in graph.split():
        terminating = edge.endswith("!")
        by, _, to = edge.rstrip("!").partition(">")
        role, _, pattern = to.rstrip(")").partition("(")
        repository.delegate(role, [pattern or "*"], by=by, terminating=terminating)
    repository.publish_all()
    assert warm_client.download("not-there") == 1
    top = ["2.root", "3.root", "timestamp", "2.snapshot", "2.targets"]
    assert repository.asked() == [*top, *(f"1.{role}" for role in order.split())]
    assert warm_client.downloads() == []


TREE = {
    "data.bin": ("targets", ""),
    "notes.md": ("A", "A"),
    "models/x/one": ("C", "B C"),
    "models/y/two.zip": ("D", "B D"),
    "models/z/three.zip": ("D", None),  # B does not delegate it to D
    "models/x/deep/four": ("C", None),  # the star stops at a slash
}


@pytest.mark.parametrize("path", TREE)
def test_search_for_a_target(warm_client, repository, path):
    repository.delegate("A", ["*.doc", "*.md"])
    repository.delegate("B", ["models/*/*"])
    repository.delegate("C", ["models/x/*"], by="B")
    repository.delegate("D", ["models/y/*.zip"], by="B")
    for target, (role, _) in TREE.items():
        repository.add_target(target, target.encode(), role)
    repository.publish_all()
    way = TREE[path][1]
    assert warm_client.download(path) == (1 if way is None else 0), warm_client.errors
    assert warm_client.downloads() == ([] if way is None else [path.encode()])
    if way is not None:
        assert repository.asked()[5:] == [f"1.{role}" for role in way.split()]


@pytest.mark.parametrize("role", ["?", "#", "%", "a b", ".", "..", "/role", "../role", "rolle-ä"])
def test_unusual_names_of_roles(warm_client, repository, role):
    repository.delegate(role)
    repository.add_target("model.bin", b"weights", role)
    repository.publish(role, "targets", "snapshot", "timestamp")
    before = {path for path in warm_client.metadata.parent.rglob("*") if not path.is_dir()}
    assert warm_client.download("model.bin") == 0, warm_client.errors
    encoded = {"?": "%3F", "#": "%23", "%": "%25", "a b": "a%20b", "/role": "%2Frole",
               "../role": "..%2Frole", "rolle-ä": "rolle-%C3%A4"}.get(role, role)  # fmt: skip
    assert repository.asked()[-1] == f"1.{encoded}"
    after = {path for path in warm_client.metadata.parent.rglob("*") if not path.is_dir()}
    assert after - before <= set(warm_client.metadata.rglob("*")) | set(
        warm_client.targets.glob("*")
    )
    assert len(list(warm_client.metadata.glob("*.json"))) + (role in (".", "..")) >= 5


@pytest.mark.parametrize("spoil", ["unlisted", "unsigned", "absent", "old", "longer"])
def test_a_delegated_role_that_is_not_valid(warm_client, repository, spoil):
    repository.lists_digests = spoil == "longer"
    repository.delegate("models")
    repository.add_target("model.bin", b"weights", "models")
    if spoil == "unsigned":
        repository.signers["models"] = [CryptoSigner.generate_ed25519()]
    old = repository.metadata["models"].signed.version
    repository.publish("models", "models")
    if spoil == "old":
        repository.files["metadata/2.models.json"] = repository.files[f"metadata/{old}.models.json"]
    if spoil == "longer":
        repository.files["metadata/2.models.json"] += b" "
    if spoil == "unlisted":
        del repository.snapshot.meta["models.json"]
    repository.publish("targets", "snapshot", "timestamp")
    if spoil == "absent":
        del repository.files["metadata/2.models.json"]
    assert warm_client.refresh() == 0
    assert warm_client.download("model.bin") == 1
    assert warm_client.downloads() == []
    assert not (warm_client.metadata / "models.json").exists()


# --- Targets --------------------------------------------------------------------------------------


def publish_targets(repository: TufRepository, **targets: bytes) -> None:
    for path, data in targets.items():
        repository.add_target(path, data)
    repository.publish("targets", "snapshot", "timestamp")


def test_download_refreshes_first(client, repository):
    assert client.download("no such target") == 1
    assert repository.asked() == ["2.root", "timestamp", "1.snapshot", "1.targets"]
    assert client.trusted() == "1 1 1 1"
    assert client.downloads() == []


def test_several_targets_refresh_once(client, repository):
    publish_targets(repository, one=b"1", two=b"2", three=b"3")
    assert client.download("one", "two", "three", "one") == 0, client.errors
    assert sum("targets/" in path for path in repository.requests) == 3
    assert repository.asked() == ["2.root", "timestamp", "2.snapshot", "2.targets"]
    assert client.downloads() == [b"1", b"2", b"3"]


def test_one_of_several_fails(client, repository):
    publish_targets(repository, one=b"1", two=b"2", three=b"3")
    repository.files[repository.target_files("two")[0]] = b"!"
    assert client.download("one", "two", "none", "three") == 1
    assert client.downloads() == [b"1", b"3"]


@pytest.mark.parametrize("consistent", [True, False])
def test_where_targets_are_asked_for(tmp_path, server, consistent):
    repository = TufRepository(consistent=consistent)
    repository.add_target("a/b/model.bin", b"weights")
    repository.publish("targets", "snapshot", "timestamp")
    client = Client(tmp_path, server, repository)
    assert client.init() == 0
    assert client.download("a/b/model.bin") == 0, client.errors
    prefix = f"{hashlib.sha256(b'weights').hexdigest()}." if consistent else ""
    assert repository.requests[-1] == f"targets/a/b/{prefix}model.bin"
    assert client.downloads() == [b"weights"]


def test_what_has_not_changed_is_not_fetched_again(client, repository):
    publish_targets(repository, model=b"weights")
    assert client.download("model") == 0
    names = list(client.targets.iterdir())
    repository.asked()
    repository.publish("targets", "snapshot", "timestamp")
    assert client.download("model") == 0
    assert not [path for path in repository.requests if path.startswith("targets/")]

    for data in (b"changed", b"longer than before", b""):
        publish_targets(repository, model=data)
        assert client.download("model") == 0, client.errors
        assert client.downloads() == [data]
    assert list(client.targets.iterdir()) == names


def test_a_damaged_download_is_fetched_again(client, repository):
    publish_targets(repository, model=b"weights")
    assert client.download("model") == 0
    (path,) = client.targets.iterdir()
    path.write_bytes(b"WEIGHTS")
    assert client.download("model") == 0
    assert client.downloads() == [b"weights"]


@pytest.mark.parametrize(
    "served", [b"WEIGHTS", b"weight", b"weights and more", b"", None], ids=repr
)
def test_a_target_that_is_not_what_was_signed(warm_client, repository, served):
    publish_targets(repository, model=b"weights", other=b"other")
    assert warm_client.download("other") == 0
    (path,) = repository.target_files("model")
    repository.files.update({path: served}) if served is not None else repository.files.pop(path)
    assert warm_client.download("model") == 1
    assert warm_client.downloads() == [b"other"]

    # Nor does it replace an earlier version.
    publish_targets(repository, other=b"newer")
    repository.files[repository.target_files("other")[0]] = b"!"
    assert warm_client.download("other") == 1
    assert warm_client.downloads() == [b"other"]


def test_a_large_target_is_never_seen_in_part(client, repository):
    data = os.urandom(5 << 20)
    served = repository.add_target("large", data)
    publish_targets(repository)
    repository.answers[served] = break_off(data, len(data) - 1)
    assert client.download("large") == 1
    assert list(client.targets.iterdir()) == []
    assert not list(client.metadata.glob(".tmp-*"))
    del repository.answers[served]
    assert client.download("large") == 0, client.errors
    assert client.downloads() == [data]


def test_a_client_that_is_killed_leaves_nothing_in_part(client, repository):
    data = os.urandom(3 << 20)
    served = repository.add_target("large", data)
    publish_targets(repository)
    go_on = Event()
    repository.answers[served] = stall(data, 2 << 20, go_on)
    arguments = client.download_arguments("large")
    with subprocess.Popen([EXECUTABLE, *arguments], env={"PATH": PATH}) as process:
        while not list(client.metadata.glob(".tmp-*")):
            assert process.poll() is None
            sleep(0.01)
        assert client.downloads() == []
        assert client.refresh() == 1  # one at a time
        process.kill()
    go_on.set()
    assert list(client.targets.iterdir()) == []
    del repository.answers[served]
    assert client.download("large") == 0, client.errors
    assert client.downloads() == [data]
    assert not list(client.metadata.glob(".tmp-*"))


@pytest.mark.parametrize(
    ("hashes", "accepted"),
    [
        (("sha512",), True),
        (("sha256", "sha512"), True),
        (("sha512", "sha256", "md5"), True),
        (("sha256", "blake2b-256"), True),
        (("md5",), False),
        (("sha1",), False),
    ],
    ids=str,
)
def test_digests_of_targets(warm_client, repository, hashes, accepted):
    repository.add_target("model", b"weights", hashes=hashes)
    publish_targets(repository)
    assert warm_client.download("model") == (0 if accepted else 1), warm_client.errors
    assert warm_client.downloads() == ([b"weights"] if accepted else [])


def test_every_digest_must_be_right(client, repository):
    repository.add_target("model", b"weights", hashes=["sha256", "sha512"])
    repository.targets().targets["model"].hashes["sha512"] = "0" * 128
    publish_targets(repository)
    assert client.download("model") == 1
    assert client.downloads() == []


NAMES = (
    *(
        "a b",
        "ä/ö",
        "日本語",
        "50%",
        "a%20b",
        "what?",
        "#1",
        "a&b=c;d,e",
        "model@1.0+x",
        "~(x)!*'$",
    ),
    *(".hidden", ".", "..", "../up", "../../etc/passwd", "/absolute", "a//b", "a/", "-x", "a\\b"),
    *("n" * 255, "ü" * 200, "deep/" * 60 + "x", "a:b"),
)


@pytest.mark.parametrize("consistent", [True, False])
def test_unusual_names_of_targets(tmp_path, server, consistent):
    repository = TufRepository(consistent=consistent)
    for name in NAMES:
        repository.add_target(name, name.encode())
    repository.publish("targets", "snapshot", "timestamp")
    client = Client(tmp_path / "inner", server, repository)
    assert client.init() == 0
    outside = sorted(tmp_path.rglob("*"))
    for _ in range(2):
        repository.requests.clear()
        names = [name for name in NAMES if name != "-x"]  # no command line can name it so
        assert client.download(*names) == 0, client.errors
        assert sorted(client.downloads()) == sorted(name.encode() for name in names)
        assert len(list(client.targets.iterdir())) == len(names)
    assert not [path for path in repository.requests if path.startswith("targets/")]
    new = set(tmp_path.rglob("*")) - set(outside)
    assert {path for path in new if client.targets not in path.parents} <= set(
        client.metadata.rglob("*")
    )
