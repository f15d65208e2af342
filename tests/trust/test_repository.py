"""Gate 3: what a device adds to TUF's client: floors, replays noticed, errors that help."""

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.exceptions import FormatError
from securesystemslib.formats import encode_canonical
from tuf.api.metadata import TargetFile

from modelward.errors import Gate, NotFound, Refused, TooLong, Unavailable
from modelward.formats.floors import Floors
from modelward.trust.repository import Repository, check_root, verified
from modelward.trust.tuf_cache import Cache
from tests.simulator.tuf_repository import TOP_LEVEL, TufRepository, in_days

BASE = "https://example.com"


class Device:
    """A device's memory of one repository: TUF's cache, and floors kept elsewhere."""

    def __init__(self, folder: Path, served: TufRepository) -> None:
        self.cache = folder / "tuf"
        self.served = served
        self.floors = Floors()
        self.root = served.files["metadata/1.root.json"]
        self.asked: list[str] = []
        self.fails: Callable[[str], None] = lambda _: None

    def fetch(self, url: str, limit: int) -> bytes:
        path = url.removeprefix(f"{BASE}/")
        self.asked.append(path)
        self.fails(path)
        data = self.served.files.get(path)
        if data is None:
            raise NotFound(f"no {path}")
        if len(data) > limit:
            raise TooLong(f"{path} is too long")
        return data

    def repository(self, **options) -> Repository:
        self.cache.mkdir(exist_ok=True)
        return Repository(
            cache=self.cache,
            metadata_url=f"{BASE}/metadata",
            targets_url=f"{BASE}/targets",
            fetcher=self,
            root=self.root,
            floors=self.floors,
            **options,
        )

    def refresh(self, **options) -> Repository:
        repository = self.repository(**options)
        repository.refresh()
        return repository

    def act(self) -> Repository:
        """Refresh, and raise the floors as an update that was committed does."""
        repository = self.refresh()
        self.floors = Floors.parse(repository.new_floors().to_bytes())
        return repository

    def lose_cache(self) -> None:
        """Forget what a power cut may take: all that TUF's client wrote."""
        shutil.rmtree(self.cache)

    def refused(self, reason: str) -> None:
        with pytest.raises(Refused, match=reason) as refusal:
            self.refresh()
        assert refusal.value.gate is Gate.METADATA


@pytest.fixture
def served() -> TufRepository:
    repository = TufRepository()
    repository.lists_digests = True
    repository.delegate("channels", ["channels/*"], terminating=True)
    repository.publish_all()
    return repository


@pytest.fixture
def device(tmp_path: Path, served: TufRepository) -> Device:
    return Device(tmp_path, served)


def test_honest_repository(device, served):
    served.add_target("policy.json", b"{}")
    served.add_target("channels/stable.json", b"[]", role="channels")
    served.publish_all()
    repository = device.act()
    assert repository.target("policy.json") == b"{}"
    assert repository.target("channels/stable.json") == b"[]"
    assert repository.target("channels/other.json") is None
    assert repository.target("models/../../x") is None
    assert device.floors.listed == {"targets": 3, "channels": 2}
    roles = {role.name: role for role in repository.cache.roles()}
    assert set(roles) == {*TOP_LEVEL, "channels"}
    assert all(len(role.signers) == role.threshold == 1 for role in roles.values())


# --- Floors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache_is_lost", [False, True], ids=["cached", "cache lost"])
@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets", "channels"])
def test_rollback_of_a_role(device, served, role, cache_is_lost):
    old = dict(served.files)
    served.publish_all()
    device.act()
    if role == "timestamp":
        served.files |= old
    else:
        served.metadata[role].signed.version -= 1
        served.publish_as_is(role)
        above = {"snapshot": ["timestamp"]}.get(role, ["snapshot", "timestamp"])
        served.publish(*above)
    if cache_is_lost:
        device.lose_cache()
    device.refused(r"older than version \d" if cache_is_lost else "is not valid")


def test_all_metadata_is_kept_by_the_way_that_was_given(device, served):
    kept = {}

    def keep(path, data):
        kept[path.relative_to(device.cache).as_posix()] = data
        path.write_bytes(data)

    device.refresh(keep=keep)
    here = {
        path.relative_to(device.cache).as_posix(): path.read_bytes()
        for path in device.cache.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    assert kept == here
    assert {"timestamp.json", "snapshot.json", "targets.json"} < kept.keys()


def test_rollback_of_root(device, served):
    served.publish("root")
    device.act()
    device.lose_cache()
    del served.files["metadata/3.root.json"]
    device.refused("root version 2 is older than version 3")


def test_role_that_the_snapshot_no_longer_lists(device, served):
    device.act()
    del served.snapshot.meta["channels.json"]
    served.publish("snapshot", "timestamp")
    device.lose_cache()
    device.refused("no longer lists the role channels")


def test_floors_do_not_refuse_what_is_new_or_the_same(device, served):
    device.act()
    device.lose_cache()
    device.act()
    served.publish_all()
    device.lose_cache()
    assert device.act().new_floors().timestamp.version == 3


def test_key_rotation_releases_the_floor_of_a_stolen_role(device, served):
    for role in ("timestamp", "snapshot"):
        served.metadata[role].signed.version = 1_000_000
        served.publish(role)
    served.publish("timestamp")
    device.act()
    for role in ("timestamp", "snapshot"):
        served.rotate(role)
        served.metadata[role].signed.version = 5
    served.publish_all()
    device.lose_cache()
    assert device.act().new_floors().timestamp.version == 6


def test_a_rotation_of_another_role_releases_nothing(device, served):
    device.act()
    for role in ("targets", "snapshot"):
        served.rotate(role)
    served.metadata["timestamp"].signed.version -= 2
    served.publish_all()
    device.lose_cache()
    device.refused("timestamp version 1 is older than version 2")


def test_version_that_floors_could_not_keep(device, served):
    served.timestamp.version = 2**53 - 1
    served.publish("timestamp")
    device.refused("version above")


def test_floors_are_not_raised_by_looking(device, served):
    before = device.floors
    device.refresh()
    assert device.floors == before


# --- Replays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache_is_lost", [False, True], ids=["cached", "cache lost"])
def test_same_timestamp_version_with_other_bytes(device, served, cache_is_lost):
    device.act()
    served.timestamp.expires = in_days(29)
    served.publish_as_is("timestamp")
    if cache_is_lost:
        device.lose_cache()
    device.refused("other content than")
    device.refresh(refuse_replay=False)


def test_same_snapshot_version_with_other_bytes(device, served):
    device.act()
    served.snapshot.expires = in_days(29)
    served.publish_as_is("snapshot")
    served.publish("timestamp")
    device.lose_cache()
    device.refused("snapshot version 2 has other content")


# --- Targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("hashes", [["md5"], ["sha1"], ["md5", "sha1"]])
def test_target_without_a_strong_digest(device, served, hashes):
    served.add_target("policy.json", b"{}", hashes=hashes)
    served.publish_all()
    repository = device.refresh()
    with pytest.raises(Refused, match="without a SHA-2 digest"):
        repository.target("policy.json")
    with pytest.raises(Refused, match="without a SHA-2 digest"):
        repository.target_info("policy.json")


@pytest.mark.parametrize("served_instead", [b"{} ", b"[]", b"{", b""])
def test_target_with_other_bytes(device, served, served_instead):
    path = served.add_target("policy.json", b"{}")
    served.publish_all()
    served.files[path] = served_instead
    with pytest.raises(Refused, match=r"policy\.json"):
        device.refresh().target("policy.json")


def test_target_above_its_cap_is_not_asked_for(device, served):
    path = served.add_target("policy.json", b"{}")
    served.publish_all()
    repository = device.refresh()
    with pytest.raises(Refused, match="at most 1 may be"):
        repository.target("policy.json", cap=1)
    assert path not in device.asked
    assert repository.target("policy.json", cap=2) == b"{}"


def test_target_that_is_listed_but_missing(device, served):
    del served.files[served.add_target("policy.json", b"{}")]
    served.publish_all()
    with pytest.raises(Unavailable, match=r"policy\.json could not be fetched"):
        device.refresh().target("policy.json")


def test_target_paths_are_quoted(device, served):
    served.add_target("a?b#c%2f/é.json", b"{}")
    served.publish_all()
    repository = device.refresh()
    info = repository.target_info("a?b#c%2f/é.json")
    assert repository.target_url(info).startswith(f"{BASE}/targets/a%3Fb%23c%252f/")


def test_target_of_any_size_is_verified_while_it_streams():
    info = TargetFile.from_data("model.onnx", b"weights", ["sha256", "sha512"])
    assert b"".join(verified(info, [memoryview(b"weig"), memoryview(b"hts")])) == b"weights"
    for wrong in (b"weightz", b"weight", b"weights!"):
        with pytest.raises(Refused):
            list(verified(info, [memoryview(wrong)]))


# --- What is served, and what is said of it -------------------------------------------------------


@pytest.mark.parametrize("role", ["root", "timestamp", "snapshot", "targets", "channels"])
def test_expired(device, served, role):
    served.add_target("channels/stable.json", b"[]", role="channels")
    served.metadata[role].signed.expires = in_days(-1)
    served.publish_all()
    with pytest.raises(Refused, match="expired") as refusal:
        device.refresh().target("channels/stable.json")
    assert "clock" in refusal.value.advice


@pytest.mark.parametrize("name", ["3.root", "timestamp", "2.snapshot", "2.targets"])
def test_oversized(device, served, name):
    served.files[f"metadata/{name}.json"] = b" " * 3_000_000 + b"{}"
    if name == "2.targets":
        served.files[f"metadata/{name}.json"] *= 2
    device.refused("the server sends more than the repository signed|is too long")


@pytest.mark.parametrize("name", ["3.root", "timestamp", "2.snapshot", "2.targets"])
def test_unreachable(device, served, name):
    def fails(path: str) -> None:
        if name in path:
            raise Unavailable("no route to host")

    device.fails = fails
    with pytest.raises(Unavailable, match="could not be fetched: no route to host") as problem:
        device.refresh()
    assert problem.value.gate is Gate.METADATA
    device.fails = lambda _: None
    device.refresh()


@pytest.mark.parametrize("name", ["timestamp", "2.snapshot", "2.targets"])
def test_missing(device, served, name):
    del served.files[f"metadata/{name}.json"]
    with pytest.raises(Unavailable):
        device.refresh()


@pytest.mark.parametrize("role", ["timestamp", "snapshot", "targets"])
def test_signed_by_an_unknown_key(device, served, role):
    served.set_keys(role, served.signers[role], [TufRepository().signers[role][0]], of=1)
    served.publish_as_is(role)
    device.refused("not valid")


def test_mix_and_match(device, served):
    other = TufRepository()
    other.publish_all()
    served.files["metadata/2.snapshot.json"] = other.served("snapshot")
    device.refused("not valid")


def change_anywhere(value, data):
    """Return a JSON value with one part of it replaced."""
    junk = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    if isinstance(value, dict) and value and data.draw(st.booleans()):
        key = data.draw(st.sampled_from(sorted(value)))
        return value | {key: change_anywhere(value[key], data)}
    if isinstance(value, list) and value and data.draw(st.booleans()):
        return [change_anywhere(value[0], data), *value[1:]]
    return data.draw(junk | st.just([]) | st.just({}))


FUZZED = TufRepository()
FUZZED.publish_all()


@pytest.mark.fuzz
@pytest.mark.parametrize("name", ["1.root", "2.root", "timestamp", "2.snapshot", "2.targets"])
@pytest.mark.parametrize("signed", [False, True], ids=["anyone", "by the key's thief"])
@given(data=st.data())
def test_garbage_is_refused_and_nothing_else(tmp_path_factory, name, signed, data):
    served = TufRepository.__new__(TufRepository)
    served.__dict__ = dict(FUZZED.__dict__) | {"files": dict(FUZZED.files)}
    path = f"metadata/{name}.json"
    document = json.loads(served.files[path])
    if signed:
        document["signed"] = change_anywhere(document["signed"], data)
        garbage = sign(served, name.split(".")[-1], document)
    else:
        garbage = data.draw(
            st.binary(max_size=50)
            | st.builds(lambda: json.dumps(change_anywhere(document, data)).encode())
        )
    served.files[path] = garbage
    device = Device(tmp_path_factory.mktemp("device"), served)
    if name == "1.root":
        device.root = garbage
    with contextlib.suppress(Refused, Unavailable):
        device.act()


def sign(served: TufRepository, role: str, document) -> bytes:
    """Sign whatever a thief of the role's key wants to say."""
    try:
        message = encode_canonical(document["signed"]).encode()
    except (FormatError, UnicodeError):  # nobody can sign that
        message = b""
    signature = served.signers[role][0].sign(message)
    document["signatures"] = [{"keyid": signature.keyid, "sig": signature.signature}]
    return json.dumps(document).encode()


# --- The cache at rest ----------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"\0" * 500, b"{}", b"[" * 5000])
@pytest.mark.parametrize("name", ["root", "timestamp", "snapshot", "targets", "channels"])
def test_damaged_cache(device, served, name, content):
    served.add_target("channels/stable.json", b"[]", role="channels")
    served.publish_all()
    device.refresh().target("channels/stable.json")
    cached = Cache(device.cache)
    cached.file(name).unlink()
    cached.file(name).write_bytes(content)
    with pytest.raises(Unavailable, match="cannot be read"):
        list(cached.roles())
    assert device.refresh().target("channels/stable.json") == b"[]"
    assert list(cached.roles())


def test_reading_the_cache_changes_nothing(device, served):
    served.rotate("timestamp")
    served.publish_all()
    device.refresh()
    before = {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in device.cache.glob("*.json")}
    (root, *_), cached = list(Cache(device.cache).roles()), device.cache.glob("*.json")
    assert root.version == 3
    assert {p: hashlib.sha256(p.read_bytes()).hexdigest() for p in cached} == before


# --- The provisioned root -------------------------------------------------------------------------


def test_check_root(served):
    assert check_root(served.files["metadata/2.root.json"]) == 2


@pytest.mark.parametrize("data", [b"", b"{}", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_check_root_of_garbage(data):
    with pytest.raises(Refused, match="root metadata is not valid"):
        check_root(data)


def test_check_root_that_is_not_signed_by_itself(served):
    served.edit_served("root", lambda document: document["signed"].update(version=9))
    with pytest.raises(Refused):
        check_root(served.served("root"))
    with pytest.raises(Refused, match="another role"):
        check_root(served.served("timestamp"))


def test_floors_survive_being_written(device):
    floors = device.act().new_floors()
    assert Floors.parse(floors.to_bytes()) == floors
