"""Gate 3: somebody serves other, older or mixed metadata."""

from collections.abc import Callable
from datetime import timedelta

import pytest
from tuf.api.metadata import MetaFile, Root, Snapshot

from modelward.errors import Gate
from modelward_repo.publish.staging import Staging
from modelward_repo.roles import metadata as tuf
from modelward_repo.roles.policy import CHANNELS
from tests.attacks.scene import Scene
from tests.simulator.server import instead
from tests.simulator.thief import SERVER, TIMESTAMP, Thief, poison
from tests.simulator.world import PLAIN

MODEL_ROLE = "model-meter-reader"


def lists(thief: Thief, *names: str) -> Callable[[Snapshot], None]:
    """Return a change that makes a snapshot list metadata files, such as ``1.targets``."""

    def change(snapshot: Snapshot) -> None:
        for name in names:
            version, _, role = name.partition(".")
            data = thief.read(f"metadata/{name}.json")
            snapshot.meta[f"{role}.json"] = tuf.meta_file(int(version), data)

    return change


# --- 1: arbitrary software


@pytest.mark.attack(1)
def test_stranger_signs_everything(scene: Scene) -> None:
    """A mirror signs a release, and all metadata, with a key of its own."""
    chain = scene.world.chain("6.6.6")
    scene.thief().publish("6.6.6", poison(chain.content), chain.evidence)
    scene.refused_at(Gate.METADATA, "timestamp was signed by 0/1 keys")


@pytest.mark.attack(1)
def test_stranger_signs_the_release(scene: Scene) -> None:
    """The server's keys are stolen, the release's is not."""
    chain = scene.world.chain("6.6.6")
    thief = scene.thief(*SERVER)
    thief.publish("1.0.0", poison(scene.world.offered), chain.evidence, offer=False)
    scene.refused_at(Gate.METADATA, f"{MODEL_ROLE} was signed by 0/1 keys")


# --- 2, 3: rollback


@pytest.mark.attack(2)
def test_rollback_of_the_timestamp(scene: Scene) -> None:
    """Old timestamp: the whole repository of last week is served again."""
    scene.thief().replay(scene.world.last_week)
    scene.refused_at(Gate.METADATA, "New timestamp version")


@pytest.mark.attack(2)
def test_rollback_of_the_snapshot(scene: Scene) -> None:
    """Old snapshot: a new timestamp points to last week's."""
    thief = scene.thief(TIMESTAMP)
    thief.replay(scene.world.last_week, PLAIN)
    old = tuf.meta_file(5, thief.read("metadata/5.snapshot.json"))
    thief.sign_timestamp(thief.timestamp.version + 1, old)
    scene.refused_at(Gate.METADATA, "New snapshot version")


@pytest.mark.attack(2)
def test_rollback_of_targets(scene: Scene) -> None:
    """Old targets: a new snapshot lists last month's, with the policies of then."""
    thief = scene.thief(*SERVER)
    thief.sign_snapshot(8, lists(thief, "1.targets"))
    scene.refused_at(Gate.METADATA, "targets.json version")


@pytest.mark.attack(2)
def test_rollback_of_a_delegated_role(scene: Scene) -> None:
    """Old delegated roles: a new snapshot lists the channel's and the model's of last week."""
    thief = scene.thief(*SERVER)
    thief.replay(scene.world.last_week, PLAIN)
    thief.sign_snapshot(8, lists(thief, "2.channels", f"2.{MODEL_ROLE}"))
    scene.refused_at(Gate.METADATA, ".json version")


@pytest.mark.attack(3)
def test_rollback_after_a_power_cut(scene: Scene) -> None:
    """A power cut left zeros in TUF's cache; last week's repository is served."""
    scene.lose_metadata()
    scene.thief().replay(scene.world.last_week)
    scene.refused_at(Gate.METADATA, "already acted upon")


@pytest.mark.attack(3)
@pytest.mark.parametrize("lost", ["floors.a", "floors.b"])
@pytest.mark.parametrize("state", ["emptied", "torn", "rolled back"])
def test_rollback_after_damage(scene: Scene, state: str, lost: str) -> None:
    """TUF's cache is emptied, torn or rolled back, and one copy of the floors torn."""
    cache = scene.world.device / "tuf"
    for path in [*cache.glob("*.json")]:
        if state == "emptied" or path.is_symlink():
            path.unlink()
        elif state == "torn" and path.stem in {"timestamp", "snapshot", "targets"}:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    if state == "rolled back":
        old = scene.world.last_week / "metadata"
        for role, name in (("timestamp", "timestamp"), ("snapshot", "5.snapshot")):
            (cache / f"{role}.json").write_bytes((old / f"{name}.json").read_bytes())
    torn = scene.world.device / lost
    torn.write_bytes(torn.read_bytes()[:50])
    scene.tuf.forget()
    scene.thief().replay(scene.world.last_week)
    scene.refused_at(Gate.METADATA, "already acted upon")


@pytest.mark.attack(3)
def test_rollback_of_a_role_after_a_power_cut(scene: Scene) -> None:
    """A power cut left zeros in TUF's cache; a new snapshot lists last week's delegated roles."""
    thief = scene.thief(*SERVER)
    thief.replay(scene.world.last_week, PLAIN)
    thief.sign_snapshot(8, lists(thief, "2.channels", f"2.{MODEL_ROLE}"))
    scene.lose_metadata()
    scene.refused_at(Gate.METADATA, "already acted upon")


# --- 6: mix and match


@pytest.mark.attack(6)
def test_new_timestamp_with_an_old_snapshot(scene: Scene) -> None:
    """The new timestamp is served with the snapshot of last week."""
    scene.world.publish("1.1.0")
    old = scene.world.repository / "metadata/5.snapshot.json"
    scene.server.lie(r"/metadata/9\.snapshot\.json", instead(old.read_bytes()))
    scene.refused_at(Gate.METADATA, "does not match")


@pytest.mark.attack(6)
def test_new_snapshot_with_an_old_role(scene: Scene) -> None:
    """The new snapshot is served with the model's role of last week."""
    scene.world.publish("1.1.0")
    old = scene.world.repository / f"metadata/2.{MODEL_ROLE}.json"
    scene.server.lie(rf"/metadata/4\.{MODEL_ROLE}\.json", instead(old.read_bytes()))
    scene.refused_at(Gate.METADATA, "does not match")


@pytest.mark.attack(6)
def test_one_role_in_place_of_another(scene: Scene) -> None:
    """The tokenizer's role is served as the meter reader's."""
    thief = scene.thief(*SERVER)
    other = thief.read("metadata/2.model-tokenizer.json")
    thief.write(f"metadata/4.{MODEL_ROLE}.json", other)
    thief.sign_snapshot(8, lists(thief, f"4.{MODEL_ROLE}"))
    scene.refused_at(Gate.METADATA, f"{MODEL_ROLE} was signed by 0/1 keys")


# --- 12: the server's own keys


@pytest.mark.attack(12)
def test_server_withholds_an_update(scene: Scene) -> None:
    """1.1.0 is out; who holds the server's keys vouches for the old snapshot, ever anew."""
    old = scene.holder().timestamp.snapshot_meta
    scene.world.publish("1.1.0")
    thief = scene.thief(*SERVER)
    thief.replay(scene.world.home / "repository", PLAIN)
    thief.sign_timestamp(thief.timestamp.version + 1, old)
    scene.withheld()


@pytest.mark.attack(12)
def test_server_cannot_withhold_for_ever(scene: Scene) -> None:
    """A month later: the channel has expired, however fresh the server's own roles are."""
    thief = scene.thief(*SERVER)
    month_ago = Staging.of(scene.world.storage, thief.stage().now - timedelta(days=31))
    month_ago.sign_again(CHANNELS, scene.world.signers(CHANNELS))
    month_ago.now = thief.stage().now
    thief.commit(month_ago)
    scene.refused_at(Gate.METADATA, "channels is expired")


# --- 15: root


def takes_over(thief: Thief) -> Callable[[Root], None]:
    """Return a change that gives every role to the thief."""

    def change(root: Root) -> None:
        for name, role in root.roles.items():
            for keyid in list(role.keyids):
                root.revoke_key(keyid, name)
            role.threshold = 1
            root.add_key(thief.own.public_key, name)

    return change


@pytest.mark.attack(15)
def test_root_below_threshold(scene: Scene) -> None:
    """One of three root keys is stolen: a new root gives every role to the thief."""
    thief = scene.thief("alice/root")
    chain = scene.world.chain("6.6.6")
    thief.publish("6.6.6", poison(chain.content), chain.evidence)
    thief.sign_root(2, [*thief.signers("root"), thief.own], takes_over(thief))
    scene.refused_at(Gate.METADATA, "root was signed by 1/2 keys")


@pytest.mark.attack(15)
def test_root_with_unknown_keys(scene: Scene) -> None:
    """A new root, signed by nobody whom the old one knows."""
    thief = scene.thief()
    chain = scene.world.chain("6.6.6")
    thief.publish("6.6.6", poison(chain.content), chain.evidence)
    thief.sign_root(2, thief.signers("root"), takes_over(thief))
    scene.refused_at(Gate.METADATA, "root was signed by 0/2 keys")


@pytest.mark.attack(15)
def test_root_version_skipped(scene: Scene) -> None:
    """Root 3 is served as root 2, which took a key away from somebody."""
    team = scene.holder("alice/root", "bob/root")
    for version in (2, 3):
        team.sign_root(version, team.signers("root"), lambda _: None)
    third = scene.world.repository / "metadata/3.root.json"
    scene.server.lie(r"/metadata/2\.root\.json", instead(third.read_bytes()))
    scene.refused_at(Gate.METADATA, "Expected root version 2 instead got version 3")


# --- 16: same version, other bytes


@pytest.mark.attack(16)
def test_another_timestamp_of_the_same_version(scene: Scene) -> None:
    """Two timestamps are signed under one version."""
    thief = scene.thief(TIMESTAMP)
    thief.sign_timestamp(thief.timestamp.version)
    scene.refused_at(Gate.METADATA, "was served with other content than before")


@pytest.mark.attack(16)
def test_another_snapshot_of_the_same_version(scene: Scene) -> None:
    """Two snapshots are signed under one version."""
    thief = scene.thief(*SERVER)
    thief.sign_snapshot(
        thief.timestamp.snapshot_meta.version,
        lambda snapshot: snapshot.meta.update({"extra.json": MetaFile(1)}),
    )
    scene.refused_at(Gate.METADATA, "is listed with other content than before")
