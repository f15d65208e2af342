"""Every key of every role is replaced, and devices that saw anything before still follow."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from modelward.errors import Refused, UsageError
from modelward.formats import policy as policies
from modelward.formats.checkpoint import SignedCheckpoint
from modelward.formats.dsse import Envelope
from modelward.formats.strict import MAX_INT
from modelward_repo.publish.ledger import log_vkey
from modelward_repo.publish.staging import Staging
from modelward_repo.roles import changes
from modelward_repo.roles.ceremony import load_targets
from modelward_repo.roles.changes import (
    AddKey,
    BumpVersion,
    RemoveKey,
    Renew,
    ReplaceKey,
    RestoreTargets,
    SetDocument,
    SetExpiry,
    SetLayoutOwners,
    SetLog,
    SetThreshold,
)
from modelward_repo.roles.keys import from_sslib
from modelward_repo.roles.proposal import holder_leaves
from modelward_repo.storage.local import LocalStorage
from modelward_repo.supply_chain.layout import sign_layout
from tests.repo_tools.ceremonies import (
    Device,
    change,
    fast_forward,
    forged,
    keyid,
    make_key,
    now,
    propose,
    publish,
    sign,
    signer,
    view,
)
from tests.repo_tools.site import PlainTuf, Site
from tests.simulator.model_files import onnx_file

NewDevice = Callable[[], Device]


@pytest.fixture
def device(site: Site, tmp_path: Path) -> NewDevice:
    def make() -> Device:
        return Device(site, tmp_path / "devices" / str(len(list(tmp_path.glob("devices/*")))))

    return make


def test_a_lost_root_key_is_replaced_by_those_who_are_left(
    site: Site, device: NewDevice, plain_tuf: PlainTuf
) -> None:
    old = device()
    old.follow()
    content = plain_tuf(site.directory)
    new = make_key(site, "alice-2", "root")
    change(site, ReplaceKey("root", keyid(site, "alice", "root"), new), by="bob carol")
    for one in (old, device()):
        one.follow()
        assert one.version("root") == 2
    assert plain_tuf(site.directory) == content
    assert keyid(site, "alice", "root") not in view(site).keys("root")
    change(site, Renew("root"), by="alice-2 bob")
    old.follow()


def test_a_stolen_root_key_is_worth_nothing_afterwards(site: Site) -> None:
    new = make_key(site, "alice-2", "root")
    change(site, ReplaceKey("root", keyid(site, "alice", "root"), new), by="bob carol")
    request = propose(site, Renew("root"))
    with pytest.raises(UsageError, match="may not sign this request"):
        sign(request, site, "alice/root")


@pytest.mark.attack(5)
def test_stolen_online_keys_and_a_device_that_saw_the_thiefs_fast_forward(
    site: Site, device: NewDevice
) -> None:
    robbed, honest = device(), device()
    robbed.follow()
    honest.follow()
    thief = {role: signer(site, "repository", role) for role in ("snapshot", "timestamp")}
    robbed.follow(fast_forward(site, thief, MAX_INT))
    assert robbed.version("timestamp") == robbed.version("snapshot") == MAX_INT
    with pytest.raises(Refused, match="timestamp"):
        robbed.follow()
    for role in ("snapshot", "timestamp"):
        make_key(site, "repository-2", role)
    change(site, *_replace_online(site, "snapshot", "timestamp"), by="alice carol")
    for one in (robbed, honest, device()):
        one.follow()
        assert one.version("timestamp") == 2
    with pytest.raises(Refused, match="timestamp was signed by 0/1 keys"):
        robbed.follow(fast_forward(site, thief, MAX_INT))
    robbed.follow()


@pytest.mark.attack(5)
def test_a_fast_forward_of_targets_is_outrun_by_a_bump(site: Site, device: NewDevice) -> None:
    """The thief had two keys of targets, and got what they signed listed by the honest snapshot."""
    robbed = device()
    keys = {role: signer(site, "repository", role) for role in ("snapshot", "timestamp")}
    thief = [signer(site, holder, "targets") for holder in ("alice", "bob")]
    files = fast_forward(site, keys, 5, {"targets": forged(site, "targets", 500, *thief)})
    robbed.follow(files)
    news = [make_key(site, f"{holder}-2", "targets") for holder in ("alice", "bob")]
    olds = [keyid(site, holder, "targets") for holder in ("alice", "bob")]
    wish = [ReplaceKey("targets", old, new) for old, new in zip(olds, news, strict=True)]
    bumps = [BumpVersion(role, 10) for role in ("snapshot", "timestamp")]
    request = propose(site, *wish, BumpVersion("targets", 501), *bumps)
    request = sign(request, site, "alice/root", "bob/root", "alice-2/targets", "bob-2/targets")
    assert publish(site, request).versions == {
        "root": 2,
        "targets": 501,
        "snapshot": 10,
        "timestamp": 10,
    }
    for one in (robbed, device()):
        one.follow()
        assert one.version("targets") == 501


@pytest.mark.attack(5)
@pytest.mark.attack(13)
def test_a_stolen_release_key_used_on_the_repository_itself(
    site: Site, device: NewDevice, folder: Path
) -> None:
    """The thief was in the publishing CI: a poisoned release at the highest version there is."""
    site.release("alpha", "1.0.0", folder)
    robbed = device()
    robbed.follow()
    staging = Staging.of(LocalStorage(site.directory), now())
    thief = signer(site, "release-ci", "model-alpha")
    role = staging.targets("model-alpha")
    staging.number("model-alpha", MAX_INT)
    staging.put_targets("model-alpha", role, {"models/alpha/6.6.6/release.json": b"{}"}, [thief])
    from modelward_repo.publish.staging import Online  # noqa: PLC0415

    staging.finish(
        Online([signer(site, "repository", "snapshot")], [signer(site, "repository", "timestamp")])
    )
    staging.commit()
    robbed.follow()
    assert robbed.version("model-alpha") == MAX_INT

    new = make_key(site, "release-ci-2", "model-alpha")
    make_key(site, "repository-2", "snapshot")
    make_key(site, "repository-2", "timestamp")
    request = propose(
        site,
        ReplaceKey("model-alpha", keyid(site, "release-ci", "model-alpha"), new),
        BumpVersion("model-alpha", 50),
        *_replace_online(site, "snapshot", "timestamp"),
    )
    names = [f"{holder}/{role}" for holder in ("alice", "carol") for role in ("root", "targets")]
    done = publish(site, sign(request, site, *names), leave_out=["models/alpha/6.6.6"])
    assert done.versions["model-alpha"] == 50
    assert done.carried["model-alpha"] == (
        "models/alpha/1.0.0/evidence.jsonl",
        "models/alpha/1.0.0/release.json",
    )
    for one in (robbed, device()):
        repository = one.follow()
        assert repository.target_info("models/alpha/1.0.0/release.json")
        assert repository.target_info("models/alpha/6.6.6/release.json") is None
    site.release("alpha", "1.1.0", _other(folder))
    robbed.follow()


@pytest.mark.attack(5)
def test_a_fast_forward_in_the_repository_itself(site: Site, device: NewDevice) -> None:
    """The thief had the host: what is published there is theirs."""
    honest, robbed = device(), device()
    honest.follow()
    thief = {role: signer(site, "repository", role) for role in ("snapshot", "timestamp")}
    for path, data in fast_forward(site, thief, MAX_INT).items():
        (site.directory / path).write_bytes(data)
    robbed.follow()
    for role in ("snapshot", "timestamp"):
        make_key(site, "repository-2", role)
    rotate = _replace_online(site, "snapshot", "timestamp")
    request = sign(propose(site, *rotate), site, "alice/root", "bob/root")
    with pytest.raises(Refused, match="version of snapshot is so high") as caught:
        publish(site, request)
    assert "--also 'bump-version snapshot N'" in caught.value.advice
    change(site, *rotate, BumpVersion("snapshot", 50), BumpVersion("timestamp", 50))
    for one in (honest, robbed, device()):
        one.follow()
        assert one.version("snapshot") == one.version("timestamp") == 50
    assert site.run("refresh").code == 0
    assert site.metadata("timestamp").signed.version == 51
    robbed.follow()


def test_a_number_that_devices_would_refuse_is_refused_first(site: Site) -> None:
    with pytest.raises(UsageError, match="cannot continue from version 1"):
        propose(site, BumpVersion("targets", 1))
    request = propose(site, Renew("targets"), BumpVersion("channels", 1))
    request = sign(request, site, "alice/targets", "bob/targets")
    with pytest.raises(Refused, match="channels cannot continue from version 1"):
        publish(site, request)


def test_a_holder_leaves(site: Site, device: NewDevice) -> None:
    old = device()
    old.follow()
    news = [AddKey(role, make_key(site, "dave", role)) for role in ("root", "targets")]
    request = propose(site, *holder_leaves(view(site), "carol"), *news)
    done = publish(site, sign(request, site, "alice/root", "bob/root"))
    assert done.versions["root"] == 2
    old.follow()
    found = view(site)
    for role in ("root", "targets"):
        assert keyid(site, "carol", role) not in found.keys(role)
        assert len(found.keys(role)) == 3


def test_a_layout_owner_leaves(site: Site, device: NewDevice) -> None:
    change(site, *holder_leaves(view(site), "lead-a"), roles="targets")
    device().follow()
    for model in ("alpha", "beta"):
        policy = view(site).policy(model)
        assert policy
        assert len(policy.owners) == 2


@pytest.mark.parametrize("scheme", ["ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ml-dsa-65"])
def test_root_and_targets_migrate_to_another_algorithm(
    site: Site, device: NewDevice, plain_tuf: PlainTuf, scheme: str
) -> None:
    """One holder after the other, so that every threshold on the way is a mixed one."""
    old = device()
    old.follow()
    content = plain_tuf(site.directory)
    by = ["alice", "bob"]
    for index, holder in enumerate(("alice", "bob", "carol")):
        wish = [
            ReplaceKey(role, keyid(site, holder, role), make_key(site, f"{holder}-2", role, scheme))
            for role in ("root", "targets")
        ]
        others = [name for name in ("alice", "bob", "carol") if name != holder]
        signers = [
            f"{name}-2" if index > ["alice", "bob", "carol"].index(name) else name
            for name in others
        ]
        change(site, *wish, by=" ".join(signers), roles="root targets")
        by.append(f"{holder}-2")
        if index != 1:
            old.follow()
    assert {key.scheme.removesuffix("/1") for key in view(site).keys("root").values()} == {scheme}
    device().follow()
    assert plain_tuf(site.directory) == content


def test_all_online_keys_at_once(site: Site, device: NewDevice, plain_tuf: PlainTuf) -> None:
    old = device()
    old.follow()
    content = plain_tuf(site.directory)
    roles = ("snapshot", "timestamp", "channels", "model-alpha", "model-beta")
    for role in roles:
        make_key(site, f"{role}-2", role)
    done = change(
        site, *_replace_online(site, *roles, holder="{}-2"), by="bob carol", roles="root targets"
    )
    assert set(done.versions) == {"root", "targets", *roles}
    assert done.gapless
    for one in (old, device()):
        one.follow()
    assert plain_tuf(site.directory) == content
    for role in ("snapshot", "timestamp"):
        (site.keys / f"repository/{role}.key").unlink()
    assert site.run("refresh", "channels", "model-alpha").code == 0
    old.follow()


def test_all_online_keys_at_once_when_the_old_ones_are_gone(site: Site, device: NewDevice) -> None:
    old = device()
    old.follow()
    for role in ("snapshot", "timestamp"):
        (site.keys / f"repository/{role}.key").unlink()
        make_key(site, "repository-2", role)
    done = change(site, *_replace_online(site, "snapshot", "timestamp"), by="bob carol")
    assert not done.gapless
    for one in (old, device()):
        one.follow()


def test_channels_and_a_models_role_get_more_keys_and_a_threshold(
    site: Site, device: NewDevice, folder: Path
) -> None:
    site.release("alpha", "1.0.0", folder)
    old = device()
    old.follow()
    wish = [
        wanted
        for role in ("channels", "model-alpha")
        for wanted in (AddKey(role, make_key(site, "second", role)), SetThreshold(role, 2))
    ]
    done = change(site, *wish, roles="targets")
    assert done.versions.keys() == {"targets", "channels", "model-alpha", "snapshot", "timestamp"}
    old.follow()
    assert site.run("channel", "set", "stable", "alpha", "1.0.0").code == 0
    old.follow()


def test_layout_owners_are_replaced(site: Site, device: NewDevice) -> None:
    old = device()
    old.follow()
    path = policies.layout_path("alpha")
    news = [make_key(site, f"boss-{n}", "layout") for n in range(3)]
    owners = SetLayoutOwners("alpha", tuple(news), 2)
    unsigned = propose(site, owners)
    from modelward_repo.roles.review import review  # noqa: PLC0415

    assert "signed by 0 of its owners" in review(unsigned, now()).stops[0].text
    layout = Envelope.parse("layout", view(site).documents[path])
    for n in range(2):
        layout = sign_layout(layout, signer(site, f"boss-{n}", "layout"))
    change(site, owners, SetDocument(path, layout.to_bytes()), roles="targets")
    old.follow()
    policy = view(site).policy("alpha")
    assert policy
    assert set(policy.owners) == {new.key.keyid for new in news}


def test_the_log_key_is_replaced(site: Site, device: NewDevice) -> None:
    old = device()
    old.follow()
    storage = LocalStorage(site.directory)
    vkeys = [log_vkey("log.example", make_key(site, f"log-{n}", "log").key) for n in range(2)]
    logs = [{"vkey": str(vkey), "witnesses": {}, "quorum": "none"} for vkey in vkeys]
    change(site, SetLog(logs[0]))
    change(site, SetExpiry("timestamp", timedelta(hours=20)))
    first = storage.read("log/checkpoint")
    assert SignedCheckpoint.parse(first).checkpoint.size == 2
    change(site, SetLog(logs[1]))
    repository = old.follow()
    assert repository.cache.root().unrecognized_fields["x-log"] == logs[1]
    assert len(repository.cache.root().unrecognized_fields["x-repository"]) == 64
    # The new log begins with one leaf; the old one is kept for auditors.
    assert SignedCheckpoint.parse(storage.read("log/checkpoint")).checkpoint.size == 1
    kept = f"log/retired/{vkeys[0].key_id.hex()}"
    assert storage.read(f"{kept}/checkpoint") == first
    assert storage.exists(f"{kept}/tile/0/000.p/2")
    change(site, SetLog(None))
    assert "x-log" not in old.follow().cache.root().unrecognized_fields


def test_targets_goes_back_to_what_it_said_before_a_thief_signed_it(
    site: Site, device: NewDevice
) -> None:
    before_theft = view(site).targets.to_dict()
    change(site, changes.RemoveModel("beta"), roles="targets")
    old = device()
    old.follow()
    storage = LocalStorage(site.directory)
    restored = load_targets(storage, 1, Staging.of(storage, now()))
    change(site, RestoreTargets(*restored), by="bob carol", roles="targets")
    old.follow()
    found = view(site).targets.to_dict()
    assert found["targets"] == before_theft["targets"]
    assert found["delegations"] == before_theft["delegations"]


def test_a_model_that_is_removed_is_no_longer_offered(
    site: Site, device: NewDevice, folder: Path
) -> None:
    site.release("beta", "1.0.0", folder)
    old = device()
    old.follow()
    done = change(site, changes.RemoveModel("beta"), roles="targets")
    assert "channels" in done.versions
    repository = old.follow()
    assert repository.target_info("models/beta/1.0.0/release.json") is None
    assert b"beta" not in (repository.target("channels/stable.json") or b"beta")


def test_a_model_comes_back_with_its_releases_or_not_at_all(
    site: Site, device: NewDevice, folder: Path
) -> None:
    """Devices remember the counter of its releases: another model must not bear its name."""
    site.release("beta", "1.0.0", folder)
    old = device()
    old.follow()
    found = view(site)
    held = tuple(from_sslib(key) for key in found.keys("model-beta").values())
    documents = [found.documents[f"{kind}/beta.json"] for kind in ("policies", "layouts")]
    change(site, changes.RemoveModel("beta"), roles="targets")
    trust = changes.RoleTrust(("release-ci",), 1, timedelta(days=90))
    other = make_key(site, "release-ci-2", "model-beta").key
    with pytest.raises(UsageError, match="there was a role 'model-beta' before"):
        propose(site, changes.AddModel("beta", trust, (other,), *documents))
    change(site, changes.AddModel("beta", trust, held, *documents), roles="targets")
    assert old.follow().target_info("models/beta/1.0.0/release.json")
    site.release("beta", "2.0.0", folder)
    assert old.follow().target_info("models/beta/2.0.0/release.json")


def test_targets_is_signed_again_where_a_new_root_does_not_trust_it_any_more(site: Site) -> None:
    """Whoever signed targets last is removed: without new signatures the fleet would stop."""
    request = propose(site, *(RemoveKey("targets", keyid(site, "alice", "targets")),))
    targets = request.trusted.targets
    assert len(targets.signatures) == 3
    assert request.proposed.targets is None
    for name in ("bob", "carol"):
        targets.signatures.pop(keyid(site, name, "targets"))
    from modelward_repo.roles.proposal import apply  # noqa: PLC0415

    wish = [
        ReplaceKey("targets", keyid(site, "alice", "targets"), make_key(site, "dave", "targets"))
    ]
    assert apply(request.trusted, wish, now(), 2).targets is not None


def _replace_online(site: Site, *roles: str, holder: str = "repository-2") -> list[ReplaceKey]:
    found = view(site)
    return [
        ReplaceKey(
            role,
            next(iter(found.keys(role))),
            changes.HeldKey(_public(site, holder.format(role), role), holder.format(role)),
        )
        for role in roles
    ]


def _public(site: Site, holder: str, name: str) -> policies.Key:
    from modelward_repo.roles.keys import KeyFile  # noqa: PLC0415

    return KeyFile.of(site.keys, holder, name).public()


def _other(folder: Path) -> Path:
    (folder / "model.onnx").write_bytes(onnx_file(b"weights of the next version"))
    return folder
