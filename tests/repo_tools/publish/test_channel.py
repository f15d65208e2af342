from pathlib import Path

import pytest

from modelward.errors import ExitCode
from modelward.formats.channel import Channel, Entry
from modelward_repo.publish.channel import read
from modelward_repo.publish.staging import Staging
from modelward_repo.storage.local import LocalStorage
from tests.repo_tools.site import PlainTuf, Site, files_of, make_folder, pack


@pytest.fixture
def released(site: Site, tmp_path: Path) -> Site:
    """A repository where alpha 1.0 and 1.1 are published, and no channel offers them."""
    for version in ("1.0", "1.1"):
        folder = make_folder(tmp_path / f"f{version}", version.encode())
        packed = pack(site, "alpha", version, folder, tmp_path / f"p{version}")
        done = site.run("publish", "alpha", version, packed.bundle, "--evidence", packed.links)
        assert done.code == 0, done
    return site


def channel(site: Site, plain_tuf: PlainTuf, name: str = "stable") -> Channel:
    return Channel.parse(plain_tuf(site.directory)[f"channels/{name}.json"])


def test_a_channel_offers_nothing_at_first(site: Site, plain_tuf: PlainTuf) -> None:
    assert channel(site, plain_tuf) == Channel("stable", {})
    assert "stable: offers nothing yet" in site.run("channel", "show").out


def test_setting_remembers_what_was_there_before(released: Site, plain_tuf: PlainTuf) -> None:
    assert released.run("channel", "set", "stable", "alpha", "1.0").code == 0
    assert channel(released, plain_tuf).models == {"alpha": Entry("1.0")}
    done = released.run("channel", "set", "stable", "alpha", "1.1")
    assert done.out == "stable offers alpha 1.1 now, before it offered 1.0.\n"
    assert channel(released, plain_tuf).models == {"alpha": Entry("1.1", "1.0")}
    assert channel(released, plain_tuf, "beta").models == {}
    assert "1.1 (before: 1.0)" in released.run("channel", "show", "stable").out


def test_setting_the_same_again_changes_nothing(released: Site) -> None:
    released.run("channel", "set", "stable", "alpha", "1.0")
    before = files_of(released.directory)
    done = released.run("channel", "set", "stable", "alpha", "1.0", "--json")
    assert (done.code, done.json["changed"]) == (0, False)
    assert files_of(released.directory) == before


def test_going_back_is_allowed_and_explained(released: Site) -> None:
    released.run("channel", "set", "stable", "alpha", "1.1")
    done = released.run("channel", "set", "stable", "alpha", "1.0")
    assert done.code == 0
    assert "Devices that run 1.1 refuse to go back" in done.out


@pytest.mark.parametrize(
    ("args", "problem"),
    [
        (("stabel", "alpha", "1.0"), "there is no channel 'stabel'\n  What to do: choose one of"),
        (("stable", "gamma", "1.0"), "no role 'model-gamma'"),
        (("stable", "alpha", "9.9"), "alpha 9.9 is not published"),
        (("stable", "beta", "1.0"), "beta 1.0 is not published"),
        (("stable", "alpha", "../../beta/1.0"), "is not published"),
    ],
)
def test_what_is_not_there_is_not_offered(
    released: Site, args: tuple[str, ...], problem: str
) -> None:
    before = files_of(released.directory)
    done = released.run("channel", "set", *args)
    assert done.code == ExitCode.USAGE
    assert problem in done.err
    assert files_of(released.directory) == before


def test_it_takes_the_operators_key(released: Site) -> None:
    (released.keys / "operator/channels.key").unlink()
    done = released.run("channel", "set", "stable", "alpha", "1.0")
    assert done.code == ExitCode.USAGE
    assert "must sign as 'channels'" in done.err


def test_revocations_are_kept_and_respected(released: Site, plain_tuf: PlainTuf) -> None:
    from datetime import UTC, datetime  # noqa: PLC0415

    from modelward_repo.publish.signing import online_signers, role_signers  # noqa: PLC0415

    storage = LocalStorage(released.directory)
    staging = Staging.of(storage, datetime.now(UTC))
    revoking = Channel("stable", {"alpha": Entry("1.1", None, ("1.0",))})
    staging.put_targets(
        "channels",
        staging.targets("channels"),
        {"channels/stable.json": revoking.to_bytes()},
        role_signers(staging, "channels", released.keys, lambda _path: b""),
    )
    staging.finish(online_signers(staging, released.keys, lambda _path: b""))
    staging.commit()
    assert read(Staging.of(storage, datetime.now(UTC)), "stable") == revoking
    done = released.run("channel", "set", "stable", "alpha", "1.0")
    assert done.code == ExitCode.USAGE
    assert "alpha 1.0 is revoked in stable" in done.err
    assert "revoked: 1.0" in released.run("channel", "show").out
    assert channel(released, plain_tuf) == revoking
