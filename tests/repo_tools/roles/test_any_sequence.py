"""Any sequence of proposals, signatures, merges and publishes, in any order.

Two things must hold: a device that saw any earlier version can follow to the present one, and
nothing changes that the thresholds of the old and the new root did not sign. The second is checked
with a verifier of the test's own.
"""

import hashlib
import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)
from securesystemslib.formats import encode_canonical
from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import Targets

from modelward.errors import Refused, UsageError
from modelward.formats import channel as channels
from modelward.formats import release as releases
from modelward.formats.channel import Channel
from modelward.formats.floors import Floors
from modelward.formats.policy import FleetPolicy
from modelward.trust.repository import Repository
from modelward_repo.publish import refresh as refreshing
from modelward_repo.publish.staging import FIRST_ROOT, STAGED, TIMESTAMP, Online, Staging
from modelward_repo.roles import ceremony, enact
from modelward_repo.roles import metadata as tuf
from modelward_repo.roles.changes import (
    AddKey,
    BumpVersion,
    Change,
    RemoveKey,
    Renew,
    ReplaceKey,
    SetExpiry,
    SetThreshold,
)
from modelward_repo.roles.keys import from_sslib
from modelward_repo.roles.policy import CHANNELS, TOP_LEVEL, RoleTrust, role_name
from modelward_repo.roles.request import Request
from modelward_repo.roles.state import Rejected, View, before
from modelward_repo.storage import Storage
from modelward_repo.storage.local import StorageError
from tests.repo_tools.ceremonies import held

ROLES = ("root", "targets", "snapshot", "timestamp", CHANNELS, role_name("m"))
# Each role draws from its own few keys, so that they come, go and come back.
POOL = {role: [CryptoSigner.generate_ed25519() for _ in range(4)] for role in ROLES}
SIGNERS: dict[str, Signer] = {
    one.public_key.keyid: one for signers in POOL.values() for one in signers
}
INDEX = st.integers(0, 3)
ROLE = st.sampled_from(ROLES)


class Killed(BaseException):
    """The power went out."""


class Memory(Storage):
    """A repository in memory, whose publisher may be killed before any change to a file."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.left: int | None = None

    def read(self, path: str) -> bytes:
        try:
            return self.files[path]
        except KeyError as error:
            raise StorageError(f"no file {path}") from error

    def open(self, path: str) -> BinaryIO:
        return io.BytesIO(self.read(path))

    def exists(self, path: str) -> bool:
        return path in self.files

    def size(self, path: str) -> int:
        return len(self.read(path))

    def list(self, prefix: str) -> Iterator[str]:
        return iter(sorted(path for path in self.files if path.startswith(prefix)))

    def write_new(self, path: str, data: bytes) -> None:
        self._count()
        if self.files.setdefault(path, data) != data:
            raise StorageError(f"{path} is there with other content")

    def copy_new(self, *args: Any, **options: Any) -> None:
        raise NotImplementedError

    def replace(self, path: str, data: bytes) -> None:
        self._count()
        self.files[path] = data

    @contextmanager
    def lock(self, *_patience: Any) -> Iterator[None]:
        yield

    def _count(self) -> None:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise Killed


class Device:
    """A device that follows now and then."""

    def __init__(self, storage: Memory) -> None:
        self._place = tempfile.TemporaryDirectory(prefix="modelward-")
        self._storage = storage
        self._floors = Floors()

    def follow(self) -> None:
        repository = Repository(
            cache=Path(self._place.name),
            metadata_url=f"{STAGED}metadata/",
            targets_url=f"{STAGED}targets/",
            fetcher=Staging.of(self._storage, now()),
            root=self._storage.read(FIRST_ROOT),
            floors=self._floors,
        )
        repository.refresh()
        repository.target_info(channels.target_path("any"))
        repository.target_info(releases.target_path("m", "0"))
        self._floors = repository.new_floors()

    def close(self) -> None:
        self._place.cleanup()


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


def genesis() -> Memory:
    """Return a repository with two of three keys for root and targets, one for each other role."""
    storage = Memory()
    trusts = {}
    for role in ROLES:
        count = 3 if role in ("root", "targets") else 1
        holders = tuple(f"{role}-{n}" for n in range(count))
        keys = [from_sslib(one.public_key) for one in POOL[role][:count]]
        trusts[role] = (RoleTrust(holders, min(2, count), timedelta(days=60)), keys)
    root = tuf.new_root([(role, *trusts[role]) for role in TOP_LEVEL])
    targets = tuf.new_targets()
    tuf.delegate(targets.signed, CHANNELS, *trusts[CHANNELS], [f"{CHANNELS}/*"])
    tuf.delegate(targets.signed, role_name("m"), *trusts[role_name("m")], ["models/m/*/*"])
    staging = Staging.genesis(storage, now(), root, POOL["root"][:2])
    policy = {FleetPolicy.TARGET: FleetPolicy(("stable",), ("onnx",)).to_bytes()}
    staging.put_targets(Targets.type, targets, policy, POOL["targets"][:2])
    stable = {channels.target_path("stable"): Channel("stable", {}).to_bytes()}
    staging.put_targets(CHANNELS, tuf.new_targets(), stable, POOL[CHANNELS][:1])
    staging.put_targets(role_name("m"), tuf.new_targets(), {}, POOL[role_name("m")][:1])
    staging.finish(Online(POOL["snapshot"][:1], POOL["timestamp"][:1]))
    staging.commit()
    return storage


GENESIS = genesis()


KINDS = ("add", "remove", "replace", "replace", "threshold", "expiry", "renew", "bump", "nonsense")
WISHES = st.lists(
    st.tuples(st.sampled_from(KINDS), ROLE, st.integers(0, 40)), min_size=1, max_size=3
)


def change(view: View, kind: str, role: str, number: int) -> Change:
    """Return a change that mostly makes sense at the moment."""
    there = list(view.keys(role))
    absent = [one for one in POOL[role] if one.public_key.keyid not in there] or POOL[role]
    new = held(absent[number % len(absent)], f"{role}-{number % 5}")
    old = there[number % len(there)]
    made: dict[str, Change] = {
        "add": AddKey(role, new),
        "remove": RemoveKey(role, old),
        "replace": ReplaceKey(role, old, new),
        "threshold": SetThreshold(role, 1 + number % 3),
        "expiry": SetExpiry(role, timedelta(days=30 + number)),
        "renew": Renew("root" if number % 2 else "targets"),
        "bump": BumpVersion(role, number),
        "nonsense": AddKey(ROLES[number % len(ROLES)], new),
    }
    return made[kind]


class Ceremonies(RuleBasedStateMachine):
    requests = Bundle("requests")

    @initialize()
    def start(self) -> None:
        self.storage = Memory()
        self.storage.files = dict(GENESIS.files)
        self.devices = [Device(self.storage)]
        self.devices[0].follow()
        self.before = dict(self.storage.files)

    def teardown(self) -> None:
        for device in self.devices:
            device.close()

    @rule(target=requests, wish=WISHES)
    def propose(self, wish: list[tuple[str, str, int]]) -> Any:
        view = before(ceremony.load(Staging.of(self.storage, now())))
        made = [change(view, *one) for one in wish]
        with suppress(UsageError):
            return ceremony.propose(self.storage, ceremony.Wish(made), now())
        return multiple()

    @rule(target=requests, request=consumes(requests), who=st.sets(INDEX, min_size=1))
    def sign(self, request: Request, who: set[int]) -> Any:
        for role in ("root", "targets"):
            for index in who:
                with suppress(UsageError):
                    request, _ = ceremony.sign(request, POOL[role][index])
        return request

    @rule(target=requests, request=requests)
    def carry_a_copy(self, request: Request) -> Any:
        return Request.parse(request.to_bytes())

    @rule(target=requests, one=requests, other=requests)
    def merge(self, one: Request, other: Request) -> Any:
        with suppress(Rejected):
            return ceremony.merge({"one": one, "other": other})
        assert one.digest != other.digest
        return multiple()

    @rule(
        request=requests,
        killed=st.none() | st.integers(0, 12),
        lost=st.sets(st.sampled_from(["snapshot", "timestamp"])),
    )
    def publish(self, request: Request, killed: int | None, lost: set[str]) -> None:
        signed = self._enough(request)
        order = enact.Order(self._find(lost))
        self.storage.left = killed
        try:
            enact.enact(self.storage, request, order, now())
            assert signed, "published without the signatures that it takes"
            event("published")
        except Killed:
            assert signed, "began to publish without the signatures that it takes"
            self.storage.left = None
            try:
                self.a_new_device_follows()
                event("killed, and devices follow")
            except Refused:
                # Between a new root and its timestamp: publishing again mends it.
                event("killed, and mended")
                done = enact.enact(self.storage, request, order, now())
                assert not done.gapless
        except (Refused, UsageError, StorageError):
            pass
        finally:
            self.storage.left = None

    @rule(wish=WISHES, killed=st.none() | st.integers(0, 12))
    def hold_a_whole_ceremony(self, wish: list[tuple[str, str, int]], killed: int | None) -> None:
        request = self.propose(wish)
        if isinstance(request, Request):
            self.publish(self.sign(request, {0, 1, 2, 3}), killed, set())

    @rule()
    def refresh(self) -> None:
        refreshing.refresh(self.storage, self._online(), now())

    @rule()
    def another_device(self) -> None:
        if len(self.devices) < 4:
            self.devices.append(Device(self.storage))

    @rule(index=INDEX)
    def a_device_follows(self, index: int) -> None:
        """Each has seen other versions when the next change comes."""
        if index < len(self.devices):
            self.devices[index].follow()

    @rule()
    def every_device_follows(self) -> None:
        for device in self.devices:
            device.follow()

    @invariant()
    def nothing_published_ever_changes(self) -> None:
        for path, data in self.before.items():
            assert path == TIMESTAMP or self.storage.files[path] == data
        self.before = dict(self.storage.files)

    @invariant()
    def every_root_is_signed_by_the_one_before_and_itself(self) -> None:
        roots = [
            json.loads(self.storage.files[f"metadata/{n}.root.json"])
            for n in range(1, 1 + sum(".root.json" in path for path in self.storage.files))
        ]
        for old, new in pairwise(roots):
            assert _signed(old["signed"], "root", new)
            assert _signed(new["signed"], "root", new)

    @invariant()
    def a_new_device_follows(self) -> None:
        device = Device(self.storage)
        try:
            device.follow()
        finally:
            device.close()

    def _enough(self, request: Request) -> bool:
        raw = [json.loads(file) for file in request.trusted.roots]
        root = raw[-1]["signed"]
        if request.proposed.root:
            new = request.proposed.root.to_dict()
            if not (_signed(root, "root", new) and _signed(new["signed"], "root", new)):
                return False
            root = new["signed"]
        targets = request.proposed.targets
        return targets is None or _signed(root, "targets", targets.to_dict())

    def _find(self, lost: set[str]) -> enact.Find:
        """Find online keys, but for the old ones of roles whose keys were lost."""

        def find(role: str, keyids: Any, threshold: int) -> list[Signer]:
            trusted = Staging.of(self.storage, now()).root.signed.roles.get(role)
            if role in lost and trusted and set(keyids) == set(trusted.keyids):
                raise UsageError("lost")
            found = [SIGNERS[keyid] for keyid in keyids if keyid in SIGNERS]
            if len(found) < threshold:
                raise UsageError("too few")
            return found[:threshold]

        return find

    def _online(self) -> Online:
        roles = Staging.of(self.storage, now()).root.signed.roles
        snapshot, timestamp = (
            [SIGNERS[keyid] for keyid in roles[role].keyids][: roles[role].threshold]
            for role in ("snapshot", "timestamp")
        )
        return Online(snapshot, timestamp)


def _signed(delegator: dict[str, Any], role: str, metadata: dict[str, Any]) -> bool:
    """Verify a threshold without the code under test: canonical JSON, Ed25519, distinct keys."""
    from cryptography.exceptions import InvalidSignature  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415

    trust = delegator["roles"][role]
    payload = encode_canonical(metadata["signed"]).encode()
    good = set()
    for signature in metadata["signatures"]:
        key = delegator["keys"].get(signature["keyid"])
        if key is None or signature["keyid"] not in trust["keyids"]:
            continue
        assert (
            hashlib.sha256(encode_canonical(_bare(key)).encode()).hexdigest() == signature["keyid"]
        )
        public = bytes.fromhex(key["keyval"]["public"])
        with suppress(InvalidSignature):
            ed25519.Ed25519PublicKey.from_public_bytes(public).verify(
                bytes.fromhex(signature["sig"]), payload
            )
            good.add(public)
    return len(good) >= trust["threshold"]


def _bare(key: dict[str, Any]) -> dict[str, Any]:
    return {name: key[name] for name in ("keytype", "scheme", "keyval")}


@pytest.mark.fuzz
@pytest.mark.timeout(1800)
def test_any_sequence_leaves_a_repository_that_devices_follow() -> None:
    profile = settings()
    run_state_machine_as_test(
        Ceremonies,
        settings=settings(
            max_examples=min(profile.max_examples, 2000) // 2,
            stateful_step_count=30,
            suppress_health_check=list(HealthCheck),
        ),
    )
