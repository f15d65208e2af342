"""Publishing what was signed: everything, once, in an order that devices can follow."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from modelward.errors import Refused, UsageError
from modelward.formats.policy import FleetPolicy
from modelward_repo.roles.changes import (
    AddKey,
    RemoveKey,
    Renew,
    ReplaceKey,
    SetDocument,
    SetExpiry,
    SetThreshold,
)
from modelward_repo.roles.request import Request
from modelward_repo.roles.state import Rejected
from modelward_repo.storage.local import LocalStorage
from tests.repo_tools.ceremonies import (
    Device,
    change,
    keyid,
    make_key,
    propose,
    publish,
    sign,
    view,
)
from tests.repo_tools.site import Site, files_of

ALL_TOGETHER = ("alice/root", "bob/root", "alice/targets", "bob/targets")


class Killed(BaseException):
    """The power went out."""


class Mortal(LocalStorage):
    """A repository whose publisher is killed before its n-th change to a file."""

    def __init__(self, root: Path, point: int) -> None:
        super().__init__(root)
        self.left = point

    def write_new(self, path: str, data: bytes) -> None:
        self._count()
        super().write_new(path, data)

    def replace(self, path: str, data: bytes) -> None:
        self._count()
        super().replace(path, data)

    def _count(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Killed


def killings(site: Site, request: Request, tmp_path: Path) -> Iterator[tuple[Site, int]]:
    """Yield copies of a site whose publisher was killed at the first, second ... change."""
    point = 0
    while True:
        point += 1
        (tmp_path / str(point)).mkdir()
        copy = site.copy(tmp_path / str(point))
        try:
            publish(copy, request, storage=Mortal(copy.directory, point))
        except Killed:
            yield copy, point
        else:
            assert point > 3
            return


def rotate_everything(site: Site) -> Request:
    """A request that touches every kind of file, fully signed."""
    wish: list[Any] = [
        ReplaceKey(role, next(iter(view(site).keys(role))), make_key(site, "repository-2", role))
        for role in ("snapshot", "timestamp", "channels", "model-alpha")
    ]
    wish += [
        ReplaceKey(role, keyid(site, "carol", role), make_key(site, "dave", role))
        for role in ("root", "targets")
    ]
    return sign(propose(site, *wish), site, *ALL_TOGETHER)


def test_a_publisher_killed_anywhere_leaves_a_repository_that_devices_follow(
    site: Site, tmp_path: Path
) -> None:
    request = rotate_everything(site)
    for copy, _ in killings(site, request, tmp_path):
        old = Device(copy, copy.directory.parent / "old")
        old.follow()
        assert publish(copy, request).versions
        for device in (old, Device(copy, copy.directory.parent / "new")):
            device.follow()
            assert device.version("root") == 2
        assert publish(copy, request).already


def test_without_the_old_keys_one_moment_is_left_and_publishing_again_mends_it(
    site: Site, tmp_path: Path
) -> None:
    request = rotate_everything(site)
    for role in ("snapshot", "timestamp"):
        (site.keys / f"repository/{role}.key").unlink()
    refused = 0
    for copy, _ in killings(site, request, tmp_path):
        old = Device(copy, copy.directory.parent / "old")
        try:
            old.follow()
        except Refused:
            refused += 1
        done = publish(copy, request)
        assert not done.already
        old.follow()
        Device(copy, copy.directory.parent / "new").follow()
    assert refused == 1


@pytest.mark.attack(15)
@pytest.mark.parametrize(
    ("names", "lacking"),
    [
        ((), "root has 0 of the 2 that the present root demands"),
        (("alice/root",), "root has 1 of the 2 that the present root demands"),
        (("dave/root", "bob/root"), "has 1 of the 2 that the present root demands"),
        (("alice/root", "carol/root"), "has 1 of the 2 that the new root demands"),
    ],
)
def test_thresholds_of_the_old_and_the_new_root_must_be_met(
    site: Site, names: tuple[str, ...], lacking: str
) -> None:
    before = files_of(site.directory)
    request = propose(
        site, ReplaceKey("root", keyid(site, "carol", "root"), make_key(site, "dave", "root"))
    )
    with pytest.raises(Rejected, match=lacking):
        publish(site, sign(request, site, *names))
    assert files_of(site.directory) == before


def test_a_request_for_another_repository(site: Site, template: Site, tmp_path: Path) -> None:
    from tests.repo_tools.site import MINIMAL, run  # noqa: PLC0415

    other = Site(tmp_path / "other", tmp_path / "other-keys")
    args = ("--policy", MINIMAL, "--plaintext-keys", "--keys", other.keys)
    assert run("init", other.directory, *args).code == 0
    request = sign(propose(other, Renew("root")), other, "alice/root", "bob/root")
    with pytest.raises(Rejected, match="for another repository"):
        publish(site, request)


def test_a_request_that_is_out_of_date(site: Site) -> None:
    for role, other in (("root", "timestamp"), ("targets", "channels")):
        request = sign(propose(site, Renew(role)), site, f"alice/{role}", f"bob/{role}")
        change(site, SetExpiry(other, timedelta(days=2)), by="bob carol", roles=role)
        before = files_of(site.directory)
        with pytest.raises(Rejected, match=rf"builds upon {role} 1, but {role} 2 is in force"):
            publish(site, request)
        assert files_of(site.directory) == before


def test_a_request_for_targets_survives_a_change_of_root_that_leaves_its_keys_alone(
    site: Site,
) -> None:
    request = sign(propose(site, Renew("targets")), site, "alice/targets", "bob/targets")
    change(site, Renew("root"))
    assert publish(site, request).versions["targets"] == 2


def test_a_request_for_targets_does_not_survive_a_change_of_its_keys(site: Site) -> None:
    request = sign(propose(site, Renew("targets")), site, "alice/targets", "bob/targets")
    change(site, RemoveKey("targets", keyid(site, "carol", "targets")))
    with pytest.raises(Rejected, match="out of date"):
        publish(site, request)


def test_releases_published_meanwhile_do_not_matter(site: Site, folder: Path) -> None:
    request = rotate_everything(site)
    site.release("alpha", "1.0.0", folder)
    done = publish(site, request)
    assert "models/alpha/1.0.0/release.json" in done.carried["model-alpha"]


def test_a_request_for_root_after_a_model_was_added_or_removed(site: Site, folder: Path) -> None:
    from modelward_repo.roles.changes import RemoveModel  # noqa: PLC0415

    site.release("alpha", "1.0.0", folder)
    request = sign(propose(site, Renew("root")), site, "alice/root", "bob/root")
    change(site, RemoveModel("beta"), roles="targets")
    done = publish(site, request)
    assert done.versions.keys() == {"root", "snapshot", "timestamp"}
    assert (
        Device(site, site.directory.parent / "new")
        .follow()
        .target_info("models/alpha/1.0.0/release.json")
    )


def test_publishing_twice_does_nothing(site: Site) -> None:
    request = sign(propose(site, Renew("root")), site, "alice/root", "bob/root")
    publish(site, request)
    before = files_of(site.directory)
    assert publish(site, request).already
    assert publish(site, sign(request, site, "carol/root")).already
    assert files_of(site.directory) == before


def test_a_dry_run_writes_nothing(site: Site) -> None:
    from modelward_repo.roles import enact  # noqa: PLC0415
    from modelward_repo.roles.keys import find_signers  # noqa: PLC0415
    from tests.repo_tools.ceremonies import now  # noqa: PLC0415

    request = sign(propose(site, Renew("root")), site, "alice/root", "bob/root")
    before = files_of(site.directory)

    def find(role: str, keyids: Any, threshold: int) -> Any:
        return find_signers(site.keys, role, keyids, threshold, lambda _path: b"")

    done = enact.enact(
        LocalStorage(site.directory), request, enact.Order(find, dry_run=True), now()
    )
    assert done.versions == {"root": 2, "snapshot": 2, "timestamp": 2}
    assert files_of(site.directory) == before


def test_online_keys_that_are_missing_change_nothing(site: Site) -> None:
    wish = ReplaceKey(
        "timestamp", keyid(site, "repository", "timestamp"), make_key(site, "new", "timestamp")
    )
    request = sign(propose(site, wish), site, "alice/root", "bob/root")
    (site.keys / "new/timestamp.key").unlink()
    before = files_of(site.directory)
    with pytest.raises(UsageError, match="1 of 1 keys must sign as 'timestamp', but 0"):
        publish(site, request)
    assert files_of(site.directory) == before


def test_a_change_of_root_always_signs_a_new_timestamp(site: Site) -> None:
    """Devices take the fast path as long as the timestamp does not change: see ADR 8."""
    before = site.metadata("timestamp").signed.version
    change(site, AddKey("root", make_key(site, "dave", "root")))
    assert site.metadata("timestamp").signed.version == before + 1


def test_a_new_channel_gets_its_document(site: Site) -> None:
    policy = FleetPolicy.parse(view(site).documents[FleetPolicy.TARGET])
    wish = SetDocument(
        FleetPolicy.TARGET, FleetPolicy((*policy.channels, "canary"), policy.formats).to_bytes()
    )
    assert "channels" in change(site, wish, roles="targets").versions
    assert site.run("status").code == 0
    assert "channels/canary.json" in site.metadata("channels").signed.targets


def test_a_threshold_that_the_published_signatures_do_not_meet_is_signed_for(site: Site) -> None:
    make_key(site, "second", "timestamp")
    wish = [
        AddKey("timestamp", _held(site, "second", "timestamp")),
        SetThreshold("timestamp", 2),
    ]
    done = change(site, *wish)
    assert done.gapless
    assert len(site.metadata("timestamp").signatures) == 2


def _held(site: Site, holder: str, name: str) -> Any:
    from modelward_repo.roles.changes import HeldKey  # noqa: PLC0415
    from modelward_repo.roles.keys import KeyFile  # noqa: PLC0415

    return HeldKey(KeyFile.of(site.keys, holder, name).public(), holder)
